//! Where the rings of brokers lie, and what becomes of their room.

mod fake;

use fake::{Batch, Broker, System, eventually, spec};
use landfall_control::messages::Ask;
use landfall_layout::command::{Command, Request};
use landfall_layout::segment::SegmentKind;
use landfall_layout::slot::RingLine;
use landfall_layout::{BrokerId, TopicId};

fn line(system: &System, topic: TopicId, broker: BrokerId) -> RingLine {
    system.pool.ring(topic, broker).unwrap()
}

fn meet(one: &RingLine, other: &RingLine) -> bool {
    let (a, b) = (one.range(), other.range());
    one.segment == other.segment && a.start < b.end && b.start < a.end
}

/// Deletes a topic that one broker has, which lets go at once.
fn delete(system: &System, broker: &mut Broker, (name, topic): (&str, TopicId)) {
    let (asker, name) = (system.asker.clone(), name.to_owned());
    let asks = std::thread::spawn(move || asker.ask_now(|reply| Ask::Delete(name, reply)));
    broker.wait("DropTopic", |c| (c == Command::DropTopic { topic }).then_some(()));
    broker.ask(Request::TopicReleased { topic });
    assert_eq!(asks.join().unwrap(), Some(Ok(())));
}

#[test]
fn rings_of_a_broker_share_segments_and_none_meets_another() {
    let system = System::start(96);
    let (names, mut topics) = (["a", "b", "c", "d", "e", "f"], Vec::new());
    let mut brokers = [0, 1].map(|number| Broker::register(&system.pool, number, 1));
    names.iter().for_each(|name| topics.push(system.topic(name, "total")));
    let free = system.free();
    for broker in &mut brokers {
        topics.iter().for_each(|topic| {
            let _ = broker.open_ring(*topic);
        });
    }
    // Four rings of 4096 slots of 128 bytes fill a segment of 2 MiB.
    assert_eq!(free - system.free(), 4, "two segments for six rings of each broker");
    let lines: Vec<RingLine> = brokers
        .iter()
        .flat_map(|b| topics.iter().map(|topic| line(&system, *topic, b.id)))
        .collect();
    for (i, one) in lines.iter().enumerate() {
        assert!(!lines[..i].iter().any(|other| meet(one, other)), "{lines:?}");
    }
}

#[test]
fn the_room_of_a_topic_that_went_is_used_again_and_what_is_beside_it_stays() {
    let system = System::start(96);
    let (one, two) = (system.topic("one", "total"), system.topic("two", "total"));
    let mut broker = Broker::register(&system.pool, 0, 1);
    let before = system.free();
    let mut rings = [one, two].map(|topic| broker.open_ring(topic));
    let (session, epoch, _) = broker.session(two, 7, 0);
    let granted = broker.want(two, SegmentKind::Payload);
    let batch = |seq| Batch { topic: two, granted, client: 7, session, epoch, seq, offset: 0 };
    broker.land(&mut rings[1], batch(0));
    system.wait_for_entries(two, 32, 1);
    let was = line(&system, one, broker.id);
    delete(&system, &mut broker, ("one", one));
    let three = system.topic("three", "total");
    let _ = broker.open_ring(three);
    let now = line(&system, three, broker.id);
    assert_eq!((now.segment, now.offset), (was.segment, was.offset), "its room is used again");
    broker.land(&mut rings[1], batch(1));
    system.wait_for_entries(two, 32, 2);
    delete(&system, &mut broker, ("three", three));
    delete(&system, &mut broker, ("two", two));
    // The two logs that there were at first, too.
    eventually("all is free", || (system.free() == before + 2).then_some(()));
}

#[test]
fn a_topic_that_would_leave_nothing_for_batches_is_refused_with_the_numbers() {
    let system = System::start(48);
    let all = system.pool.geometry().segments();
    let mut made = 0;
    let problem = loop {
        match system.create(spec(&format!("t{made}"), "total")) {
            Ok(_) => made += 1,
            Err(problem) => break problem,
        }
    };
    assert_eq!(problem.status, 503, "{problem:?}");
    let said = format!("these have {made} of {all} segments");
    assert!(problem.message.contains(&said), "{problem:?}");
    // The last one can be published to.
    let topic = TopicId(system.describe(&format!("t{}", made - 1)).unwrap().id);
    let mut broker = Broker::register(&system.pool, 0, 1);
    let _ = broker.open_ring(topic);
    broker.want(topic, SegmentKind::Payload);
}

#[test]
fn rings_outlive_control_and_room_that_no_line_leads_to_is_free() {
    let mut system = System::start(96);
    let (one, two) = (system.topic("one", "total"), system.topic("two", "total"));
    let mut broker = Broker::register(&system.pool, 0, 1);
    [one, two].iter().for_each(|topic| {
        let _ = broker.open_ring(*topic);
    });
    let (free, lines) = (system.free(), [one, two].map(|topic| line(&system, topic, broker.id)));
    system.stop();
    // As if that control had died before it wrote the second line.
    system.pool.set_ring(two.slot(), broker.id, &RingLine::default());
    system.start_again();
    assert_eq!(system.free(), free, "the first ring keeps the segment");
    assert_eq!(line(&system, one, broker.id), lines[0]);
    let mut broker = Broker::register(&system.pool, 0, 2);
    let _ = broker.open_ring(two);
    let again = line(&system, two, broker.id);
    assert!(!meet(&again, &lines[0]), "{again:?}");
}
