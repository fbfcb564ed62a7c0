//! Every scenario on every rig, each a test of its own.

use landfall::Transport;
use landfall_hw_tests::Rig;
use landfall_hw_tests::scenarios::find;

macro_rules! tests {
    ([$transport:ident $brokers:literal $flush:literal] $($module:ident { $($name:ident)* })*) => {
        $(mod $module {
            use super::*;

            $(#[test]
            fn $name() {
                let rig = Rig { flush: $flush, ..Rig::new(Transport::$transport, $brokers) };
                rig.run(find(stringify!($name)));
            })*
        })*
    };
}

mod memory_1_broker {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [Memory 1 false]);
}

mod memory_4_brokers {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [Memory 4 false]);
}

mod tcp_1_broker {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [Tcp 1 false]);
}

mod tcp_4_brokers {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [Tcp 4 false]);
}

mod memory_flush_2_brokers {
    use super::*;
    landfall_hw_tests::for_each_scenario!(tests, [Memory 2 true]);
}
