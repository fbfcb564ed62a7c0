//! Order `strong`: a batch lands when the one before it is ordered, or lies in the same ring.

use std::time::Duration;

use landfall_dataplane::Idle;
use landfall_layout::counters::Counter;
use landfall_layout::frame::Reached;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::Order;

use crate::client::{Client, publisher};
use crate::rig::{Rig, until};

#[test]
fn a_batch_lands_in_its_turn_and_keeps_nobody_else_up() {
    let rig = Rig::with(2, Idle::Backoff);
    let topic = rig.control().topic("turns", Order::Strong, 16, 0);
    let mut here = Client::welcomed(rig.tcp(), publisher(1), "turns");
    let mut joins = publisher(1);
    joins.session_epoch = here.welcome().session_epoch;
    let mut there = Client::welcomed(&rig.brokers[1].tcp, joins, "turns");
    let mut other = Client::welcomed(rig.tcp(), publisher(2), "turns");
    for seq in [1, 2, 3, 5] {
        here.publish(1, seq, b"m");
    }
    // More than the ring has: a slot that is kept would stop them.
    for seq in 0..40 {
        other.publish(2, seq, b"m");
        assert_eq!(other.receipt().batch_seq, seq);
    }
    assert_eq!(rig.counter(Counter::BatchesLanded), 40, "its turn has not come");
    there.publish(1, 0, b"m");
    assert_eq!(there.receipt().reached, Reached::Ordered);
    for seq in 1..4 {
        assert_eq!(here.receipt().batch_seq, seq);
    }
    there.publish(1, 4, b"m");
    assert_eq!((there.receipt().batch_seq, here.receipt().batch_seq), (4, 5));
    assert_eq!(rig.pool.frontier(topic, SEQUENCED_LOG).entries, 46);
}

#[test]
fn who_waits_for_what_does_not_come_is_named_to_control_once_the_lease_is_over() {
    let rig = Rig::new();
    let topic = rig.control().topic("turns", Order::Strong, 16, 0);
    let mut entry = rig.pool.topic(topic).unwrap();
    entry.session_lease_ns = 500_000_000;
    rig.pool.set_topic(&entry);
    let mut gappy = Client::welcomed(rig.tcp(), publisher(1), "turns");
    let epoch = gappy.welcome().session_epoch;
    gappy.publish(1, 1, b"m");
    // Nobody leads, so nobody could order what is missing: that time is none of the lease.
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(rig.control().fenced, []);
    let mut beats = 0;
    until("control is told", || {
        beats += 1;
        rig.pool.beat_leader(beats);
        rig.control().fenced.contains(&(1, epoch))
    });
    assert_eq!(rig.counter(Counter::BatchesLanded), 0);
}

#[test]
fn who_waits_while_its_session_moves_is_not_late() {
    let rig = Rig::with(2, Idle::Backoff);
    let topic = rig.control().topic("turns", Order::Strong, 16, 0);
    let mut entry = rig.pool.topic(topic).unwrap();
    entry.session_lease_ns = 500_000_000;
    rig.pool.set_topic(&entry);
    let mut here = Client::welcomed(rig.tcp(), publisher(1), "turns");
    let mut joins = publisher(1);
    joins.session_epoch = here.welcome().session_epoch;
    let mut there = Client::welcomed(&rig.brokers[1].tcp, joins, "turns");
    here.publish(1, 10, b"m");
    for seq in 0..10 {
        std::thread::sleep(Duration::from_millis(150));
        rig.pool.beat_leader(seq + 1);
        there.publish(1, seq, b"m");
        assert_eq!(there.receipt().batch_seq, seq);
    }
    assert_eq!(here.receipt().reached, Reached::Ordered);
    assert_eq!(rig.control().fenced, []);
}
