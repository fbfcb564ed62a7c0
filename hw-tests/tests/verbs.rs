//! Every scenario over RDMA, each a test of its own. They need an RDMA device and are left out
//! unless they are asked for: `HW_RDMA=device scripts/test` on a machine with a NIC or with
//! soft-RoCE (`scripts/rxe`). The emulated rack (`scripts/rack`) runs them on every machine.

use landfall::Transport;
use landfall_hw_tests::Rig;
use landfall_hw_tests::scenarios::find;
use landfall_layout::verbs::GrantMode;

macro_rules! tests {
    ([$brokers:literal $grant:ident $one_sided:literal]
     $($module:ident { $($name:ident)* })*) => {
        $(mod $module {
            use super::*;

            $(#[test]
            #[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
            fn $name() {
                let (grant, one_sided) = (GrantMode::$grant, $one_sided);
                let rig = Rig { grant, one_sided, ..Rig::new(Transport::Verbs, $brokers) };
                rig.run(find(stringify!($name)));
            })*
        })*
    };
}

mod window_1_broker {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [1 Window false]);
}

mod window_4_brokers {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [4 Window false]);
}

mod open_1_broker {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [1 Open false]);
}

mod pull_1_broker {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [1 Pull false]);
}

mod one_sided_1_broker {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [1 Window true]);
}

mod flush_1_broker {
    use super::*;

    macro_rules! tests {
        ([$brokers:literal] $($module:ident { $($name:ident)* })*) => {
            $(mod $module {
                use super::*;

                $(#[test]
                #[ignore = "needs an RDMA device: HW_RDMA=device scripts/test, or scripts/rack"]
                fn $name() {
                    let rig = Rig { flush: true, ..Rig::new(Transport::Verbs, $brokers) };
                    rig.run(find(stringify!($name)));
                })*
            })*
        };
    }
    landfall_hw_tests::for_each_scenario!(tests, [1]);
}

mod refused {
    use super::*;
    landfall_hw_tests::for_each_rdma_scenario!(tests, [1 Window false]);
}
