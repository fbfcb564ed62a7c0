//! Clients that use the pool themselves.

use std::io::{Read, Write};
use std::time::Duration;

use landfall_dataplane::Idle;
use landfall_layout::BrokerId;
use landfall_layout::batch::BatchPreamble;
use landfall_layout::counters::Counter;
use landfall_layout::frame::{Frame, From, Reached, Refusal, Stall};
use landfall_layout::pool::BrokerState;
use landfall_layout::topic::Order;
use landfall_pool::Memory;
use landfall_pool::channel::HOLD;
use landfall_pool::lock::Locks;
use landfall_pool::log::{Found, LogReader};

use crate::client::{Client, Member, batch, publisher, subscriber};
use crate::rig::{Rig, until};

struct Extent {
    number: u32,
    segment: u32,
    next: u32,
    end: u32,
}

fn extent(member: &mut Member, bytes: u32) -> Extent {
    member.say(Frame::ExtentWanted { bytes });
    match member.hear() {
        Frame::Extent { extent, segment, offset, bytes, .. } => {
            Extent { number: extent, segment, next: offset, end: offset + bytes }
        }
        other => panic!("{other:?}"),
    }
}

/// Writes a batch into the extent and returns the frame that announces it.
fn write(member: &Member, extent: &mut Extent, client: u64, seq: u64, payload: &[u8]) -> Frame {
    let bytes = batch(member.welcome.topic, client, member.welcome.session_epoch, seq, payload);
    let at = member.pool.at(extent.segment, extent.next, bytes.len() as u32).unwrap();
    member.pool.write(at, &bytes).unwrap();
    let offset = extent.next;
    extent.next = (offset + bytes.len() as u32).next_multiple_of(64);
    assert!(extent.next <= extent.end);
    Frame::Written { extent: extent.number, offset, bytes: bytes.len() as u32, batch_seq: seq }
}

fn receipt(member: &mut Member) -> (u64, Reached, u64) {
    match member.hear() {
        Frame::Receipt(receipt) => (receipt.batch_seq, receipt.reached, receipt.position),
        other => panic!("{other:?}"),
    }
}

#[test]
fn extents_that_nothing_is_put_into_are_taken_back_while_others_wait() {
    let rig = Rig::new();
    rig.control().topic("wanted", Order::Total, 64, 0);
    let mut idle = Member::new(rig.unix(), publisher(1), "wanted");
    let unused = extent(&mut idle, 4096);
    let mut busy = Member::new(rig.unix(), publisher(2), "wanted");
    let mut used = extent(&mut busy, 4096);
    let mut seq = 0;
    let mut publish = || {
        let frame = write(&busy, &mut used, 2, seq, b"m");
        busy.say(frame);
        assert_eq!(receipt(&mut busy).0, seq);
        seq += 1;
        std::thread::sleep(Duration::from_millis(100));
    };
    for _ in 0..15 {
        publish();
        assert_eq!(idle.try_hear(), None, "nobody needs what it holds");
    }
    rig.control().deny = true;
    let mut poor = Client::welcomed(rig.tcp(), publisher(3), "wanted");
    for seq in 0.. {
        poor.publish(3, seq, &vec![7; 1_500_000]);
        match poor.frame().0 {
            Frame::Receipt(_) => {}
            Frame::Stalled { why: Stall::PoolFull, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    let told = (0..100).find_map(|_| {
        publish();
        idle.try_hear()
    });
    assert_eq!(told, Some(Frame::Refused(Refusal::Busy)), "extent {}", unused.number);
    let named =
        |error: &String| error.contains("in which nothing landed") && error.contains("taken back");
    assert!(rig.errors().iter().any(named), "{:?}", rig.errors());
    publish();
}

#[test]
fn extents_are_taken_back_where_somebody_waits_at_another_broker() {
    let rig = Rig::new();
    rig.control().topic("wanted", Order::Total, 64, 0);
    let mut idle = Member::new(rig.unix(), publisher(1), "wanted");
    extent(&mut idle, 4096);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(idle.try_hear(), None, "nobody needs what it holds");
    rig.pool.say_short(true);
    until("it gives its extent back", || idle.try_hear() == Some(Frame::Refused(Refusal::Busy)));
}

/// Another pool may give its id to another topic of that name.
#[test]
fn whoever_connects_is_told_when_the_topic_was_made() {
    let rig = Rig::new();
    let id = rig.control().topic("made", Order::Strong, 64, 0);
    let made = rig.pool.topic(id).unwrap().created_ns;
    assert_ne!(made, 0);
    for (client, hello) in [(1, publisher(1)), (0, subscriber(From::Earliest))] {
        let stream = Client::welcomed(rig.tcp(), hello, "made").welcome();
        assert_eq!((stream.topic, stream.created_ns), (id, made), "client {client}");
        let memory = Member::new(rig.unix(), hello, "made").welcome;
        assert_eq!((memory.topic, memory.created_ns), (id, made), "client {client}");
    }
}

#[test]
fn a_publisher_writes_its_extents_itself() {
    let rig = Rig::new();
    rig.control().topic("direct", Order::Strong, 64, 2);
    let mut read = Client::welcomed(rig.tcp(), subscriber(From::Earliest), "direct");
    assert_eq!(read.frame().0, Frame::CaughtUp);
    let mut member = Member::new(rig.unix(), publisher(3), "direct");
    let mut extent = extent(&mut member, 70_000);
    assert!(extent.end - extent.next >= 256 << 10);
    for seq in 0..8 {
        let frame = write(&member, &mut extent, 3, seq, &vec![seq as u8; 1000 * seq as usize]);
        member.say(frame);
        assert_eq!(receipt(&mut member), (seq, Reached::Ordered, seq));
        let (delivery, bytes) = read.delivery();
        assert_eq!(delivery.first_position, seq);
        assert!(bytes[80..80 + 1000 * seq as usize].iter().all(|byte| *byte == seq as u8));
    }
    member.say(Frame::Bye);
    assert_eq!(member.hear(), Frame::Bye);
    assert_eq!(rig.counter(Counter::BytesReceived), 0);
    assert_eq!(rig.counter(Counter::BytesCopied), 0);
}

/// As one that is stopped: it has heard nothing, and may write what it was granted.
#[test]
fn what_a_publisher_may_write_into_outlives_its_deleted_topic() {
    let rig = Rig::new();
    let topic = rig.control().topic("a", Order::Strong, 64, 0);
    let mut member = Member::new(rig.unix(), publisher(7), "a");
    let extent = extent(&mut member, 4096);
    let broker = BrokerId::new(0).unwrap();
    let lent = || Locks::open(&rig.control().pool).unwrap().has_writers(broker, None);
    assert!(lent(), "the kernel knows of it");
    rig.control().delete(topic);
    until("it is released", || !rig.control().released.is_empty());
    assert_eq!(rig.control().withheld, [extent.segment], "that was said before");
    // Longer than any wait of the broker's own.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(rig.control().withheld, [extent.segment]);
    drop(member);
    until("nobody can write there", || rig.control().withheld.is_empty());
    until("the kernel knows it too", || !lent());
}

/// Its other extents may be written until it is gone: it is sent away, and waited for.
#[test]
fn a_publisher_whose_page_is_lost_is_not_taken_for_gone() {
    let rig = Rig::new();
    let topic = rig.control().topic("a", Order::Strong, 64, 0);
    let mut member = Member::new(rig.unix(), publisher(7), "a");
    let mut extent = extent(&mut member, 4096);
    let frame = write(&member, &mut extent, 7, 0, &[7; 100]);
    rig.lose_from(extent.segment);
    member.say(frame);
    let mut bytes = [0; 64];
    until("it is sent away", || member.socket.read(&mut bytes).is_ok_and(|got| got == 0));
    rig.control().delete(topic);
    until("it is released", || !rig.control().released.is_empty());
    assert_eq!(rig.control().withheld, [extent.segment]);
    drop(member);
    until("nobody can write there", || rig.control().withheld.is_empty());
}

/// A broker that is told to stop waits a while for such publishers, and says nothing of them.
#[test]
fn a_broker_that_ends_says_nothing_of_what_a_stopped_publisher_may_write_into() {
    let mut rig = Rig::new();
    let deleted = rig.control().topic("a", Order::Strong, 64, 0);
    let kept = rig.control().topic("b", Order::Strong, 64, 0);
    let mut of_deleted = Member::new(rig.unix(), publisher(7), "a");
    let mut of_kept = Member::new(rig.unix(), publisher(8), "b");
    let (gone, stays) = (extent(&mut of_deleted, 4096), extent(&mut of_kept, 4096));
    rig.control().delete(deleted);
    until("it is released", || !rig.control().released.is_empty());
    assert_eq!(rig.control().withheld, [gone.segment]);
    rig.brokers[0].stop();
    // What it said on the way out is heard.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(rig.control().withheld, [gone.segment], "nobody let go of it");
    let control = rig.control();
    assert!(control.sealed.iter().all(|(segment, _)| *segment != stays.segment), "{kept:?}");
}

#[test]
fn extents_never_overlap_and_segments_are_sealed_when_they_end() {
    let rig = Rig::new();
    rig.control().topic("extents", Order::Total, 64, 0);
    let mut members: Vec<Member> =
        (1..4).map(|client| Member::new(rig.unix(), publisher(client), "extents")).collect();
    let mut granted: Vec<(u32, u32, u32)> = Vec::new();
    for round in 0..6 {
        for (i, member) in members.iter_mut().enumerate() {
            let client = i as u64 + 1;
            let mut extent = extent(member, 100_000);
            let (from, to) = (extent.next, extent.end);
            let overlap = granted.iter().find(|(segment, start, end)| {
                *segment == extent.segment && from < *end && *start < to
            });
            assert_eq!(overlap, None);
            let frame = write(member, &mut extent, client, round, &[1; 90_000]);
            member.say(frame);
            receipt(member);
            granted.push((extent.segment, from, extent.next));
            member.say(Frame::ExtentDone { extent: extent.number });
        }
    }
    assert!(granted.iter().map(|(segment, ..)| *segment).max() < Some(20), "{granted:?}");
    drop(members);
}

#[test]
fn what_a_publisher_leaves_of_an_extent_becomes_padding() {
    let rig = Rig::new();
    rig.control().topic("left", Order::Total, 64, 0);
    let mut member = Member::new(rig.unix(), publisher(3), "left");
    let mut extent = extent(&mut member, 10_000);
    let frame = write(&member, &mut extent, 3, 0, &[1; 5000]);
    member.say(frame);
    receipt(&mut member);
    let (segment, next, end) = (extent.segment, extent.next, extent.end);
    drop(member);
    until("the rest becomes padding", || rig.counter(Counter::ClaimsPadded) > 0);
    let at = rig.pool.at(segment, next, 64).unwrap();
    let padding = BatchPreamble::from_words(rig.pool.load_words(at));
    assert_eq!(padding, BatchPreamble::padding(end - next));
}

#[test]
fn batches_outside_the_extent_are_refused() {
    type Spoil = fn(&mut Extent, u32, u32) -> (u32, u32, u32);
    let cases: [(&str, Spoil); 6] = [
        ("another extent", |extent, offset, bytes| (extent.number + 1, offset, bytes)),
        ("before it", |extent, offset, bytes| (extent.number, offset.wrapping_sub(64), bytes)),
        ("past its end", |extent, _, bytes| (extent.number, extent.end - 64, bytes.max(128))),
        ("off the line", |extent, offset, bytes| (extent.number, offset + 8, bytes)),
        ("of another size", |extent, offset, bytes| (extent.number, offset, bytes + 64)),
        ("overflowing", |extent, offset, _| (extent.number, offset, u32::MAX)),
    ];
    let rig = Rig::new();
    rig.control().topic("spoilt", Order::Total, 64, 0);
    let mut calm = Client::welcomed(rig.tcp(), publisher(1), "spoilt");
    for (seq, (name, spoil)) in cases.into_iter().enumerate() {
        let mut member = Member::new(rig.unix(), publisher(50), "spoilt");
        let mut extent = extent(&mut member, 10_000);
        let Frame::Written { offset, bytes, .. } = write(&member, &mut extent, 50, 0, &[1; 5000])
        else {
            panic!()
        };
        let (number, offset, bytes) = spoil(&mut extent, offset, bytes);
        member.say(Frame::Written { extent: number, offset, bytes, batch_seq: 0 });
        assert_eq!(member.hear(), Frame::Refused(Refusal::BadBatch), "{name}");
        calm.publish(1, seq as u64, b"calm");
        calm.receipt();
    }
    assert_eq!(rig.counter(Counter::BatchesLanded), cases.len() as u64);
}

#[test]
fn a_fenced_memory_publisher_is_told_once_and_its_batches_are_padded() {
    let rig = Rig::new();
    let topic = rig.control().topic("fenced", Order::Strong, 64, 0);
    let mut member = Member::new(rig.unix(), publisher(3), "fenced");
    let mut extent = extent(&mut member, 10_000);
    let frame = write(&member, &mut extent, 3, 0, b"counts");
    member.say(frame);
    receipt(&mut member);
    rig.control().fence(topic, 3);
    let place = extent.next;
    for seq in 1..4 {
        let frame = write(&member, &mut extent, 3, seq, b"does not");
        member.say(frame);
    }
    assert_eq!(member.hear(), Frame::Fenced { session_epoch: 1, next_seq: 1 });
    member.say(Frame::Bye);
    assert_eq!(member.hear(), Frame::Bye);
    let at = rig.pool.at(extent.segment, place, 64).unwrap();
    assert_eq!(BatchPreamble::from_words(rig.pool.load_words(at)), BatchPreamble::padding(128));
    assert_eq!(rig.counter(Counter::BatchesLanded), 1);
}

#[test]
fn a_sleeping_subscriber_is_woken_and_reads_for_itself() {
    let rig = Rig::new();
    for (name, order) in [("woken", Order::Total), ("own", Order::None)] {
        let topic = rig.control().topic(name, order, 64, 0);
        let mut member = Member::new(rig.unix(), subscriber(From::Latest), name);
        member.park(true);
        until("the first bell, which may be for nothing", || {
            member.rung();
            true
        });
        let mut publish = Client::welcomed(rig.tcp(), publisher(3), name);
        publish.publish(3, 0, b"wake up");
        publish.receipt();
        until("the bell", || member.rung());
        member.park(false);
        let log = if order == Order::None { 0 } else { 32 };
        assert_eq!(member.pool.frontier(topic, log).entries, 1);
        let found = LogReader::new(topic, log).entry(&member.pool, 0);
        assert!(matches!(found, Found::Entry(entry) if entry.client == 3), "{found:?}");
    }
}

#[test]
fn a_subscriber_cannot_write_the_pool() {
    let rig = Rig::new();
    rig.control().topic("locked", Order::Total, 64, 0);
    let member = Member::new(rig.unix(), subscriber(From::Latest), "locked");
    assert!(!member.pool.is_writable());
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&member.pool.fd()));
    let link = std::fs::File::open(path).unwrap();
    assert!((&link).write(&[1]).is_err());
    // A mapping for writing of the descriptor itself is refused by the kernel.
    let file = std::fs::File::from(member.pool.fd().try_clone_to_owned().unwrap());
    let again = landfall_pool::Pool::attach_file(file, std::path::Path::new("handed over"), true);
    assert!(again.is_err());
}

#[test]
fn the_in_flight_bound_holds_a_publisher_back_and_every_receipt_comes() {
    let rig = Rig::new();
    rig.control().topic("bound", Order::Total, 1024, 0);
    let mut member = Member::new(rig.unix(), publisher(3), "bound");
    let bound = u64::from(member.welcome.in_flight_max);
    let mut extent = extent(&mut member, 300_000);
    rig.control().paused = true;
    for seq in 0..bound + 100 {
        let frame = write(&member, &mut extent, 3, seq, b"m");
        member.say(frame);
    }
    until("as many land as may", || rig.counter(Counter::BatchesLanded) == bound);
    rig.control().paused = false;
    for seq in 0..bound + 100 {
        assert_eq!(receipt(&mut member).0, seq);
    }
}

fn state(rig: &Rig) -> BrokerState {
    BrokerState::from_raw(rig.pool.broker(BrokerId::new(0).unwrap()).state)
}

/// As one under a pager, or one that is stopped: nothing that it does changes where logs end.
#[test]
fn a_subscriber_that_stands_still_leaves_a_stop_in_good_order() {
    for holds in [false, true] {
        let mut rig = Rig::new();
        rig.control().topic("a", Order::Strong, 64, 0);
        let member = Member::new(rig.unix(), subscriber(From::Earliest), "a");
        if holds {
            HOLD.announce(&member.channel, 3);
        }
        rig.brokers[0].stop();
        assert_eq!(state(&rig), BrokerState::Absent, "it holds a segment: {holds}");
    }
}

#[test]
fn a_publisher_that_may_still_write_is_waited_for_and_named() {
    let named = format!("process {}", std::process::id());
    let mut rig = Rig::new();
    rig.control().topic("a", Order::Strong, 64, 0);
    // Longer than any test: it ends when the publisher does.
    rig.brokers[0].stop();
    rig.stop_wait_ns = 3_600_000_000_000;
    rig.brokers[0] = rig.serve(0, Idle::Backoff);
    let mut member = Member::new(rig.unix(), publisher(7), "a");
    extent(&mut member, 4096);
    let errors = rig.errors_of_0();
    let gone = std::thread::spawn(move || {
        until("it is named", || errors().iter().any(|error| error.contains(&named)));
        drop(member);
    });
    rig.brokers[0].stop();
    gone.join().unwrap();
    assert_eq!(state(&rig), BrokerState::Absent);
    // One that does not go.
    rig.stop_wait_ns = 0;
    rig.brokers[0] = rig.serve(0, Idle::Backoff);
    let mut member = Member::new(rig.unix(), publisher(8), "a");
    extent(&mut member, 4096);
    rig.brokers[0].stop();
    assert_eq!(state(&rig), BrokerState::Landed);
    assert!(rig.errors().iter().any(|error| error.contains("not left in good order")));
}

#[test]
fn who_keeps_a_deleted_topic_is_named() {
    let rig = Rig::new();
    let topic = rig.control().topic("a", Order::Strong, 64, 0);
    let member = Member::new(rig.unix(), subscriber(From::Earliest), "a");
    HOLD.announce(&member.channel, 3);
    rig.control().delete(topic);
    let named = format!("process {}", std::process::id());
    until("it is named", || rig.errors().iter().any(|error| error.contains(&named)));
    assert!(rig.control().released.is_empty());
    HOLD.release(&member.channel);
    until("it is released", || !rig.control().released.is_empty());
}
