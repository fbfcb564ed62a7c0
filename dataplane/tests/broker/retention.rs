//! What is taken away: segments that retire, topics that are dropped.

use std::time::Duration;

use landfall_layout::SegmentId;
use landfall_layout::command::Command;
use landfall_layout::counters::Counter;
use landfall_layout::frame::{Frame, From, GapReason, Reached, Refusal};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::segment::{SegmentKind, What};
use landfall_layout::topic::{Order, TOPIC_KEEP};
use landfall_pool::channel::HOLD;

use crate::client::{Client, Member, publisher, subscriber};
use crate::rig::{Rig, until};

#[test]
fn a_subscriber_that_retention_overtakes_gets_a_counted_gap() {
    let rig = Rig::new();
    let topic = rig.control().topic("short", Order::Total, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "short");
    let mut slow = Client::welcomed(rig.tcp(), subscriber(From::Earliest), "short");
    assert_eq!(slow.frame().0, Frame::CaughtUp);
    // More than the sockets hold, so that the broker waits for the subscriber.
    let count = 40;
    for seq in 0..count {
        publish.publish(1, seq, &vec![seq as u8; 600_000]);
        publish.receipt();
    }
    rig.pool.raise_oldest(topic, SEQUENCED_LOG, count - 2, count - 2);
    let (mut next, mut missed) = (0, 0);
    while next < count {
        match slow.frame().0 {
            Frame::Delivery(delivery) => {
                slow.bytes(delivery.bytes as usize);
                assert_eq!(delivery.first_position, next);
                next += 1;
            }
            Frame::Gap { log, reason, missed: gap, resume } => {
                assert_eq!((u64::from(log), gap), (SEQUENCED_LOG as u64, resume - next));
                assert_eq!(reason, GapReason::Retention);
                (missed, next) = (missed + gap, resume);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(missed > 0);
    until("they are counted", || rig.counter(Counter::MessagesMissed) == missed);
}

/// The broker was away for a moment: what it landed was ordered, read by others and retained
/// before it looked.
#[test]
fn what_retention_took_before_its_broker_saw_it_was_ordered() {
    let rig = Rig::new();
    for order in [Order::Total, Order::Stream, Order::Strong] {
        let name = format!("{order}");
        let topic = rig.control().topic(&name, order, 64, 0);
        let mut publish = Client::welcomed(rig.tcp(), publisher(1), &name);
        rig.pool.raise_oldest(topic, SEQUENCED_LOG, 2, 2);
        for seq in 0..3 {
            publish.publish(1, seq, b"ordered");
            let receipt = publish.receipt();
            let found = (receipt.batch_seq, receipt.reached);
            let reached = if seq < 2 { Reached::Duplicate } else { Reached::Ordered };
            assert_eq!(found, (seq, reached), "{order}");
        }
    }
}

#[test]
fn a_slow_subscriber_does_not_keep_a_segment_from_retiring() {
    let rig = Rig::new();
    let topic = rig.control().topic("slow", Order::Total, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "slow");
    let mut slow = Client::welcomed(rig.tcp(), subscriber(From::Earliest), "slow");
    assert_eq!(slow.frame().0, Frame::CaughtUp);
    // The last one lies in a segment that is not finished yet.
    for seq in 0..21 {
        publish.publish(1, seq, &vec![seq as u8; 1_500_000]);
        publish.receipt();
    }
    // Wherever the socket stopped taking bytes, every segment is let go of.
    let entries: Vec<_> = (0..20).map(|i| rig.control().entry(topic, i).unwrap()).collect();
    rig.pool.raise_oldest(topic, SEQUENCED_LOG, 20, 20);
    let mut segments: Vec<u32> = entries.iter().map(|entry| entry.segment).collect();
    segments.dedup();
    for segment in &segments {
        let generation = rig.pool.segment_generation(*segment);
        rig.control().tell_all(Command::Retire { segment: *segment, generation });
    }
    until("all are retired", || {
        segments.iter().all(|segment| rig.control().retired.contains(&(0, *segment)))
    });
    // Their bytes may change now; what was begun arrives whole all the same.
    for entry in &entries {
        let at = rig.pool.at(entry.segment, entry.offset, entry.bytes).unwrap();
        rig.pool.write(at, &vec![0xee; entry.bytes as usize]).unwrap();
    }
    let mut next = 0;
    while next < 20 {
        match slow.frame().0 {
            Frame::Delivery(delivery) => {
                let bytes = slow.bytes(delivery.bytes as usize);
                assert!(bytes[80..1_500_080].iter().all(|byte| *byte == next as u8));
                next += 1;
            }
            Frame::Gap { resume, .. } => next = resume,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_segment_retires_only_when_no_memory_subscriber_holds_it() {
    let rig = Rig::new();
    let topic = rig.control().topic("held", Order::Total, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "held");
    for seq in 0..2 {
        publish.publish(1, seq, &vec![seq as u8; 1_500_000]);
        publish.receipt();
    }
    let segment = rig.control().entry(topic, 0).unwrap().segment;
    let generation = rig.pool.segment_generation(segment);
    let member = Member::new(rig.unix(), subscriber(From::Earliest), "held");
    HOLD.announce(&member.channel, segment);
    rig.control().tell_all(Command::Retire { segment, generation });
    rig.control().tell_all(Command::Retire { segment: segment + 20, generation: 99 });
    until("the other one is retired", || rig.control().retired.contains(&(0, segment + 20)));
    assert!(!rig.control().retired.contains(&(0, segment)));
    HOLD.release(&member.channel);
    until("this one too", || rig.control().retired.contains(&(0, segment)));
}

#[test]
fn a_memory_subscriber_that_never_lets_go_is_cut_off() {
    const OTHER: u32 = 20;
    const HELD: u32 = 21;
    const OF_GONE: u32 = 22;
    let rig = Rig::new();
    rig.control().topic("held", Order::Total, 64, 0);
    let gone = rig.control().topic("gone", Order::Total, 64, 0);
    let reader = |name: &str, holds: u32| {
        let member = Member::new(rig.unix(), subscriber(From::Earliest), name);
        HOLD.announce(&member.channel, holds);
        member
    };
    let mut stuck = reader("held", HELD);
    let mut honest = reader("held", OTHER + 10);
    let mut late = reader("gone", OF_GONE);
    // Who may write has claims that stand until it ends: a hold of its own counts for nothing.
    let mut writer = Member::new(rig.unix(), publisher(1), "held");
    HOLD.announce(&writer.channel, OTHER);
    for segment in [HELD, OTHER] {
        rig.control().tell_all(Command::Retire { segment, generation: 9 });
    }
    rig.control().delete(gone);
    until("the other one is retired", || rig.control().retired.contains(&(0, OTHER)));
    assert!(!rig.control().retired.contains(&(0, HELD)), "it has some time");
    until("who holds it is cut off", || rig.control().retired.contains(&(0, HELD)));
    until("the topic is released", || rig.control().released.contains(&(0, gone.0)));
    for segment in [HELD, OF_GONE] {
        let text = format!("did not let go of segment {segment} for 3 s");
        assert!(rig.errors().iter().any(|error| error.contains(&text)), "{:?}", rig.errors());
    }
    assert!(stuck.has_ended() && late.has_ended());
    assert!(!honest.has_ended() && !writer.has_ended());
}

#[test]
fn a_deleted_topics_clients_are_told_and_the_topic_is_released() {
    let rig = Rig::new();
    let topic = rig.control().topic("gone", Order::Total, 64, 0);
    rig.control().topic("stays", Order::Total, 64, 0);
    let mut stays = Client::welcomed(rig.tcp(), publisher(1), "stays");
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "gone");
    publish.publish(1, 0, b"m");
    publish.receipt();
    let mut read = Client::welcomed(rig.tcp(), subscriber(From::Latest), "gone");
    assert_eq!(read.frame().0, Frame::CaughtUp);
    let mut member = Member::new(rig.unix(), publisher(2), "gone");
    rig.control().delete(topic);
    assert_eq!(publish.refused().0, Refusal::TopicGone);
    assert_eq!(read.refused().0, Refusal::TopicGone);
    assert_eq!(member.hear(), Frame::Refused(Refusal::TopicGone));
    drop(member);
    until("it is released", || rig.control().released.contains(&(0, topic.0)));
    let (_, frame, _) = Client::hello(rig.tcp(), publisher(1), "gone");
    assert_eq!(frame, Frame::Refused(Refusal::TopicGone));
    stays.publish(1, 0, b"m");
    assert_eq!(stays.receipt().position, 0);
}

/// It holds no batch: not the last one of the log either.
#[test]
fn what_is_kept_ahead_comes_back_as_empty_where_others_wait() {
    let rig = Rig::new();
    let topic = rig.control().topic("own", Order::None, 64, 0);
    let mut own = Client::welcomed(rig.tcp(), publisher(2), "own");
    own.publish(2, 0, b"m");
    assert_eq!(own.receipt().position, 0);
    let sealed = || rig.control().sealed.clone();
    assert_eq!(sealed(), []);
    let is_payload = |segment| {
        let what = rig.pool.segment_header(SegmentId(segment)).map_or(0, |header| header.what);
        What::unpack(what).is_ok_and(|what| what.kind == SegmentKind::Payload)
    };
    let segments = rig.pool.geometry().segments();
    until("there is a spare", || (0..segments).filter(|it| is_payload(*it)).count() == 2);
    rig.control().deny = true;
    rig.pool.say_short(true);
    until("the spare is given back", || !sealed().is_empty());
    assert!(sealed().iter().all(|(_, through)| *through == 0), "{:?}", sealed());
    // The one with the batch follows when nothing has landed for a while: its publisher is there,
    // and has no use for it.
    until("the other is sealed", || sealed().iter().any(|(_, through)| *through == 1));
    assert_eq!(rig.pool.frontier(topic, 0).entries, 1);
}

/// It would keep all its room from batches for as long as one of those in it is kept.
#[test]
fn a_segment_with_few_batches_is_filled_by_the_next_publisher() {
    let rig = Rig::new();
    let topic = rig.control().topic("kept", Order::Total, 64, TOPIC_KEEP);
    // Others wait; what is kept is no help to them.
    rig.pool.say_short(true);
    let publish = |client: u64| {
        let mut publishing = Client::welcomed(rig.tcp(), publisher(client), "kept");
        publishing.publish(client, 0, b"m");
        publishing.receipt();
        drop(publishing);
        std::thread::sleep(Duration::from_millis(5_500));
        rig.control().entry(topic, client - 1).unwrap().segment
    };
    assert_eq!(publish(1), publish(2));
}
