//! Numbers that are none of the pool's brokers any more.

mod fake;

use std::sync::Arc;

use fake::{Broker, System, eventually, spec};
use landfall_control::Options;
use landfall_control::answers::{Problem, TopicSpec};
use landfall_control::messages::Ask;
use landfall_layout::pool::{BrokerAddress, BrokerLine};
use landfall_pool::Pool;

fn system() -> System {
    System::with(64, Options { grace_ns: 1, ..Options::default() })
}

/// A broker with a disk.
fn with_disk(pool: &Arc<Pool>, number: usize) -> Broker {
    let broker = Broker::register(pool, number, number as u64 + 1);
    let line = BrokerLine { disk: 1, ..pool.broker(broker.id) };
    pool.set_broker(broker.id, &line, &BrokerAddress::new("127.0.0.1:9", "@nowhere", "").unwrap());
    broker
}

fn known(system: &System) -> Vec<(u8, &'static str)> {
    let cluster = system.asker.ask_now(Ask::Cluster).unwrap();
    cluster.brokers.iter().map(|broker| (broker.broker, broker.state)).collect()
}

fn forget(system: &System, number: u8) -> Result<(), Problem> {
    system.asker.ask_now(|reply| Ask::Forget(number, reply)).unwrap()
}

/// What a topic with a copy on disk is refused with. One that is begun is on no disk here.
fn refused(system: &System) -> Option<String> {
    let two = TopicSpec { replicas: Some(2), ..spec("two", "total") };
    let problem = system.create(two).err()?;
    (problem.code != "not_on_disk").then_some(problem.message)
}

#[test]
fn the_highest_numbers_that_left_with_nothing_are_forgotten() {
    let system = system();
    let _first = with_disk(&system.pool, 0);
    let [third, sixth] = [2, 6].map(|number| Broker::register(&system.pool, number, 9));
    let said = refused(&system).unwrap();
    assert!(said.contains("none has number 1") && said.contains("without broker 2, 6"), "{said}");
    assert!(said.contains("landfall broker forget"), "{said}");
    sixth.leave();
    eventually("6 is forgotten", || {
        (known(&system) == [(0, "serving"), (2, "serving")]).then_some(())
    });
    third.leave();
    eventually("2 is forgotten", || (known(&system) == [(0, "serving")]).then_some(()));
    assert_eq!(refused(&system), None);
}

#[test]
fn one_below_others_stays_and_so_does_one_with_a_ring() {
    let system = system();
    let topic = system.topic("a", "total");
    let below = Broker::register(&system.pool, 1, 9);
    let mut above = Broker::register(&system.pool, 4, 9);
    above.open_ring(topic);
    below.leave();
    above.leave();
    eventually("both have left", || (known(&system) == [(1, "dead"), (4, "dead")]).then_some(()));
    let why = forget(&system, 4).unwrap_err();
    assert_eq!((why.status, why.code), (409, "held"));
    assert!(why.message.contains("it landed batches of topic a"), "{}", why.message);
    system.asker.ask_now(|reply| Ask::Delete("a".into(), reply)).unwrap().unwrap();
    eventually("both are forgotten", || known(&system).is_empty().then_some(()));
}

#[test]
fn a_dead_one_is_forgotten_when_somebody_says_so_and_nothing_is_on_it() {
    let mut system = system();
    let _first = with_disk(&system.pool, 0);
    let sixth = Broker::register(&system.pool, 6, 9);
    let why = forget(&system, 6).unwrap_err().message;
    assert!(why.contains(&format!("process {}, which is there", std::process::id())), "{why}");
    assert_eq!(forget(&system, 5).unwrap_err().status, 404);
    assert_eq!(forget(&system, 200).unwrap_err().status, 400);
    drop(sixth);
    eventually("it is dead", || known(&system).contains(&(6, "dead")).then_some(()));
    assert!(refused(&system).unwrap().contains("without broker 6"));
    forget(&system, 6).unwrap();
    assert_eq!(known(&system), [(0, "serving")]);
    system.stop();
    system.start_again();
    eventually("the next control knows too", || (known(&system) == [(0, "serving")]).then_some(()));
    assert_eq!(refused(&system), None);
    // Whoever takes the number is a broker like any other, unless it has copies of a topic.
    let mut again = Broker::register(&system.pool, 6, 10);
    again.open_ring(system.topic("b", "total"));
    drop(again);
    eventually("it is dead again", || known(&system).contains(&(6, "dead")).then_some(()));
    assert!(forget(&system, 6).unwrap_err().message.contains("topic b"));
    assert!(forget(&system, 0).unwrap_err().message.contains("stop it"));
}
