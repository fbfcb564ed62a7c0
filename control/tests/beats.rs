//! What control says of brokers' heartbeats.

mod fake;

use fake::{Broker, System, eventually};
use landfall_control::messages::Ask;

fn age_ms(system: &System) -> Option<u64> {
    let cluster = system.asker.ask_now(Ask::Cluster).unwrap();
    cluster.brokers[0].heartbeat_age_ms
}

/// When a broker beat last that ended before this control began, nobody knows.
#[test]
fn a_heartbeat_that_this_control_did_not_see_has_no_age() {
    let mut system = System::start(64);
    let broker = Broker::register(&system.pool, 0, 1);
    let sees_beats = |system: &System, broker: &Broker| {
        eventually("its heartbeat is seen", || {
            broker.beat();
            age_ms(system)
        });
    };
    sees_beats(&system, &broker);
    drop(broker);
    system.stop();
    system.start_again();
    assert_eq!(age_ms(&system), None);
    sees_beats(&system, &Broker::register(&system.pool, 0, 2));
}
