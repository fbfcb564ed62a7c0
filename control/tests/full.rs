//! A control that takes over where the pool has no free segment.

mod fake;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fake::{Batch, Broker, Granted, System, eventually, spec};
use landfall_control::election::Candidate;
use landfall_control::messages::Ask;
use landfall_control::{Control, Options};
use landfall_layout::TopicId;
use landfall_layout::command::{Command, Request};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::segment::SegmentKind;
use landfall_pool::lock::{Byte, Locks};
use landfall_pool::slot_ring::SlotWriter;

/// A topic for which a broker lands, and others until no segment is free.
struct Full {
    system: System,
    topic: TopicId,
    broker: Broker,
    granted: Granted,
    ring: SlotWriter,
    session: (u32, u32),
}

impl Full {
    fn new() -> Self {
        let system = System::start(64);
        let topic = system.topic("a", "strong");
        let mut broker = Broker::register(&system.pool, 0, 1);
        // A segment that control never wrote into, to be free later.
        broker.want(system.topic("b", "total"), SegmentKind::Payload);
        let ring = broker.open_ring(topic);
        let granted = broker.want(topic, SegmentKind::Payload);
        let (session, epoch, _) = broker.session(topic, 7, 0);
        let mut full = Self { system, topic, broker, granted, ring, session: (session, epoch) };
        full.publish(0..3);
        let own = full.system.topic("own", "none");
        full.broker.want(own, SegmentKind::OrderLog);
        let another = |i| full.system.create(spec(&format!("other-{i}"), "total"));
        let made = (0..).take_while(|i| another(*i).is_ok()).count();
        assert!(made > 2, "{made}");
        // A log that grows takes the rest.
        for _ in 0..full.system.free() {
            full.broker.want(own, SegmentKind::OrderLog);
        }
        assert_eq!(full.system.free(), 0);
        full
    }

    /// Lands batches, and waits until they are ordered.
    fn publish(&mut self, sequences: Range<u64>) {
        let end = sequences.end;
        self.land(sequences);
        self.system.wait_for_entries(self.topic, SEQUENCED_LOG, end);
    }

    fn land(&mut self, sequences: Range<u64>) {
        let Self { topic, granted, session: (session, epoch), .. } = *self;
        for seq in sequences {
            let offset = seq as u32 * 4096;
            let batch = Batch { topic, granted, client: 7, session, epoch, seq, offset };
            self.broker.land(&mut self.ring, batch);
        }
    }

    fn sequences(&self) -> Vec<u64> {
        self.system.entries(self.topic).iter().map(|entry| entry.batch_seq).collect()
    }

    /// The leader ends, and its successor takes it for one that may still write.
    fn take_over_from_the_stopped(&mut self) -> Locks {
        let (slot, _) = self.system.pool.serving().unwrap();
        self.system.stop();
        let held = Locks::open(&self.system.pool).unwrap();
        assert!(held.take(Byte::Leader(slot)).unwrap());
        let pool = Arc::clone(&self.system.pool);
        let mut candidate = Some(Candidate::new(&pool, 1_000_000).unwrap());
        let elected = eventually("the lead", || {
            let stood = candidate.take()?.stand(&pool);
            stood.map_err(|(again, _)| candidate = Some(again)).ok()
        });
        let path = self.system.memory.path();
        let control = Control::lead(pool, &path, Options::default(), elected, &[]).unwrap();
        self.system.asker = control.asker().unwrap();
        self.system.control = Some(control);
        held
    }
}

#[test]
fn a_log_without_a_segment_goes_on_when_one_is_free() {
    let mut full = Full::new();
    let _stopped = full.take_over_from_the_stopped();
    full.land(3..5);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(full.sequences(), [0, 1, 2], "the one before it may write behind these");
    let asker = full.system.asker.clone();
    let deleted = std::thread::spawn(move || asker.ask_now(|reply| Ask::Delete("b".into(), reply)));
    let topic = full.broker.wait("DropTopic", |command| match command {
        Command::DropTopic { topic } => Some(topic),
        _ => None,
    });
    full.broker.ask(Request::TopicReleased { topic });
    deleted.join().unwrap().unwrap().unwrap();
    full.publish(5..7);
    assert_eq!(full.sequences(), (0..7).collect::<Vec<_>>());
    // The next control finds it so.
    full.system.stop();
    full.system.start_again();
    full.publish(7..9);
    assert_eq!(full.sequences(), (0..9).collect::<Vec<_>>());
}

#[test]
fn a_log_without_a_segment_goes_on_where_it_was_when_nobody_else_writes_there() {
    let mut full = Full::new();
    let stopped = full.take_over_from_the_stopped();
    full.land(3..5);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(full.sequences(), [0, 1, 2]);
    drop(stopped);
    full.publish(5..7);
    assert_eq!(full.sequences(), (0..7).collect::<Vec<_>>());
}

/// The one between them was the last to lead, and has ended.
#[test]
fn a_leader_that_was_stopped_before_the_last_one_is_waited_for_too() {
    let mut full = Full::new();
    let stopped = full.take_over_from_the_stopped();
    full.system.stop();
    full.system.start_again();
    full.land(3..5);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(full.sequences(), [0, 1, 2], "the first may write behind these");
    drop(stopped);
    full.publish(5..7);
    assert_eq!(full.sequences(), (0..7).collect::<Vec<_>>());
}
