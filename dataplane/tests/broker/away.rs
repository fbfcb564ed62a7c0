//! A broker that control does not count on any more, and what it does not let go of.

use std::time::Duration;

use landfall_dataplane::Ended;
use landfall_layout::BrokerId;
use landfall_layout::command::Command;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::Order;

use crate::client::{Client, publisher};
use crate::rig::{Rig, until};

fn me() -> BrokerId {
    BrokerId::new(0).unwrap()
}

#[test]
fn a_broker_that_is_not_counted_on_ends_without_another_word() {
    let mut rig = Rig::new();
    let topic = rig.control().topic("left", Order::Total, 64, 0);
    let mut client = Client::welcomed(rig.tcp(), publisher(1), "left");
    client.publish(1, 0, b"landed");
    client.receipt();
    rig.pool.count_on(me(), 0);
    client.assert_closed();
    assert_eq!(rig.brokers[0].ended(), Ended::CastOff);
    let line = rig.pool.broker(me());
    std::thread::sleep(Duration::from_millis(300));
    let later = rig.pool.broker(me());
    assert_eq!((line.heartbeat_ns, line.state), (later.heartbeat_ns, later.state));
    assert_eq!(rig.pool.frontier(topic, SEQUENCED_LOG).entries, 1);
}

#[test]
fn the_next_process_of_the_number_goes_on_and_the_one_before_ends() {
    let mut rig = Rig::new();
    rig.control().topic("next", Order::Total, 64, 0);
    rig.pool.count_on(me(), 0);
    assert_eq!(rig.brokers[0].ended(), Ended::CastOff);
    rig.brokers[0] = rig.serve(0, landfall_dataplane::Idle::Backoff);
    let mut client = Client::welcomed(rig.tcp(), publisher(1), "next");
    client.publish(1, 0, b"landed");
    client.receipt();
}

#[test]
fn what_may_still_be_written_into_is_not_let_go_of() {
    let rig = Rig::new();
    let topic = rig.control().topic("asked", Order::Total, 64, 0);
    let mut client = Client::welcomed(rig.tcp(), publisher(1), "asked");
    let big = vec![7; 1_500_000];
    client.publish(1, 0, &big);
    client.receipt();
    let first = rig.control().entry(topic, 0).unwrap();
    let generation = rig.pool.segment_generation(first.segment);
    // Asked for by a control that takes the broker for gone, which it is not.
    rig.pool.raise_oldest(topic, SEQUENCED_LOG, 1, 1);
    rig.control().tell_all(Command::Retire { segment: first.segment, generation });
    client.publish(1, 1, b"goes into the same segment");
    client.receipt();
    let second = rig.control().entry(topic, 1).unwrap();
    assert_eq!(second.segment, first.segment);
    assert_eq!(rig.control().retired, []);
    // It is when the next batch does not fit and it is finished.
    client.publish(1, 2, &big);
    client.receipt();
    until("it is let go of", || rig.control().retired == [(0, first.segment)]);
}
