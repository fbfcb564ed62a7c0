//! What the sequencer promises, case by case.

use landfall_layout::BrokerId;
use landfall_layout::limits::{RING_SLOTS_MIN, SESSIONS_MAX, STREAM_WINDOW};
use landfall_layout::order::OrderEntry;
use landfall_layout::session::{SessionState, Standing};
use landfall_layout::slot::{RingSlot, SLOT_PADDING};
use landfall_layout::topic::Order;

use super::{Cause, Frontier, SessionView, TopicSequencer, Verdict};

const LEASE_NS: u64 = 1000;
const SLOTS: u32 = RING_SLOTS_MIN;
const CLIENT: u64 = 77;
const SESSION: u32 = 5;

struct Rig {
    sequencer: TopicSequencer,
    log: Vec<OrderEntry>,
    now: u64,
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

fn slot(batch_seq: u64) -> RingSlot {
    RingSlot {
        client: CLIENT,
        batch_seq,
        session_epoch: 1,
        session: SESSION,
        checksum: 400_u32.wrapping_add(batch_seq as u32),
        segment: 3,
        offset: 128,
        bytes: 256,
        count: 10,
        landed_ns: batch_seq.saturating_add(50),
        ..RingSlot::default()
    }
}

fn view(index: u32, client: u64, standing: Standing, next_seq: u64) -> SessionView {
    SessionView { index, client, standing, next_seq, floor: next_seq, known_from: 0, had: 0 }
}

impl Rig {
    /// Two rings and one session, in epoch 1, that expects sequence 0.
    fn new(order: Order) -> Self {
        let mut sequencer = TopicSequencer::new(order, LEASE_NS, Frontier::default()).unwrap();
        sequencer.open_ring(broker(0), SLOTS, 0).unwrap();
        sequencer.open_ring(broker(1), SLOTS, 0).unwrap();
        sequencer.open_session(SESSION, CLIENT, 1, 0);
        Self { sequencer, log: Vec::new(), now: 0 }
    }

    fn offer_slot(&mut self, number: usize, slot: RingSlot) -> Verdict {
        let log = &mut self.log;
        self.sequencer.offer(broker(number), &slot, |entry| log.push(entry))
    }

    fn offer(&mut self, number: usize, batch_seq: u64) -> Verdict {
        self.offer_slot(number, slot(batch_seq))
    }

    fn logged(&self) -> Vec<u64> {
        self.log.iter().map(|entry| entry.batch_seq).collect()
    }

    fn consumed(&self) -> [u64; 2] {
        [0, 1].map(|number| self.sequencer.consumed(broker(number)))
    }

    fn tick(&mut self) -> Vec<(u32, u32, u64, u32)> {
        let mut fenced = Vec::new();
        self.sequencer.tick(self.now, |fencing| {
            let session = fencing.session;
            assert_eq!(session.standing.state, SessionState::Fenced);
            let epoch = session.standing.epoch;
            fenced.push((session.index, epoch, session.next_seq, fencing.dropped));
        });
        fenced
    }

    fn touched(&mut self) -> Vec<(u32, u64)> {
        let mut touched = Vec::new();
        self.sequencer.drain_touched(|view| touched.push((view.index, view.next_seq)));
        touched
    }
}

#[test]
fn an_entry_says_what_the_slot_said_and_where_it_stands() {
    let start = Frontier { entries: 7, position: 1000, bytes: 9, landed_ns: 60 };
    let mut rig = Rig::new(Order::Total);
    rig.sequencer = TopicSequencer::new(Order::Total, LEASE_NS, start).unwrap();
    rig.sequencer.open_ring(broker(31), SLOTS, (2 << 32) + 5).unwrap();
    rig.sequencer.open_session(SESSION, CLIENT, 1, 0);
    assert_eq!(rig.offer(31, 4), Verdict::Ordered);
    let expected = OrderEntry {
        first_position: 1000,
        client: CLIENT,
        batch_seq: 4,
        landed_ns: 60,
        session_epoch: 1,
        ring_index: 5,
        checksum: 404,
        segment: 3,
        offset: 128,
        bytes: 256,
        count: 10,
        broker: 31,
        flags: 0,
        commit: 8,
    };
    assert_eq!(rig.log, [expected]);
    rig.offer(31, 40);
    assert_eq!((rig.log[1].first_position, rig.log[1].landed_ns, rig.log[1].commit), (1010, 90, 9));
    let reached = Frontier { entries: 9, position: 1020, bytes: 521, landed_ns: 90 };
    assert_eq!(rig.sequencer.frontier(), reached);
    let line = reached.line(12, 99);
    assert_eq!((line.topic, line.at_ns), (12, 99));
    assert_eq!(Frontier::of(&line, 90), reached);
}

#[test]
fn only_sequenced_orders_have_a_sequencer() {
    for (order, name) in Order::ALL {
        let made = TopicSequencer::new(order, LEASE_NS, Frontier::default()).is_some();
        assert_eq!(made, ["total", "token", "stream", "strong"].contains(&name), "{name}");
    }
}

#[test]
fn a_ring_that_cannot_be_is_refused_and_a_second_opening_changes_nothing() {
    let mut rig = Rig::new(Order::Total);
    assert!(rig.sequencer.open_ring(broker(2), 48, 0).is_err());
    assert!(rig.sequencer.open_ring(broker(2), 0, 0).is_err());
    assert_eq!(rig.offer(2, 0), Verdict::Busy);
    rig.offer(0, 0);
    rig.sequencer.open_ring(broker(0), SLOTS, 9).unwrap();
    assert_eq!(rig.consumed()[0], 1);
}

#[test]
fn total_orders_every_slot_as_it_is_seen() {
    let mut rig = Rig::new(Order::Total);
    for seq in [5, 5, 0, 9] {
        assert_eq!(rig.offer(0, seq), Verdict::Ordered);
    }
    assert_eq!(rig.logged(), [5, 5, 0, 9]);
    assert_eq!(rig.touched(), [], "a batch below the highest may be on its way to another broker");
}

#[test]
fn stream_drops_what_is_in_the_log_and_nothing_else() {
    let mut rig = Rig::new(Order::Stream);
    let verdicts =
        [(0, 3), (0, 3), (0, 2), (1, 2), (1, 3), (0, 4)].map(|(b, seq)| rig.offer(b, seq));
    use Verdict::{Duplicate, Ordered};
    assert_eq!(verdicts, [Ordered, Duplicate, Ordered, Duplicate, Duplicate, Ordered]);
    assert_eq!(rig.touched(), [(SESSION, 5)]);
    // The next epoch of the same client goes on, another client on this line begins.
    rig.sequencer.open_session(SESSION, CLIENT, 2, 0);
    assert_eq!(rig.offer_slot(0, RingSlot { session_epoch: 2, ..slot(4) }), Duplicate);
    rig.sequencer.open_session(SESSION, CLIENT + 1, 1, 0);
    assert_eq!(rig.offer_slot(0, RingSlot { client: CLIENT + 1, ..slot(0) }), Ordered);
}

#[test]
fn what_never_landed_at_one_broker_is_ordered_through_another() {
    use Verdict::{Duplicate, Fenced, Ordered};
    let mut rig = Rig::new(Order::Stream);
    // Batches 1 and 3 went to broker 1, which ended before they landed.
    assert_eq!([0, 2, 4].map(|seq| rig.offer(0, seq)), [Ordered; 3]);
    rig.sequencer.open_session(SESSION, CLIENT, 2, 0);
    let again = |seq| RingSlot { session_epoch: 2, ..slot(seq) };
    let said = [1, 2, 3, 4, 5].map(|seq| rig.offer_slot(0, again(seq)));
    assert_eq!(said, [Ordered, Duplicate, Ordered, Duplicate, Ordered]);
    let view = rig.sequencer.session(SESSION).unwrap();
    assert_eq!((view.next_seq, view.floor), (6, 6));
    // What is so far below that it was forgotten is neither: the session ends.
    rig.offer_slot(0, again(3 * STREAM_WINDOW));
    assert_eq!(rig.offer_slot(1, again(STREAM_WINDOW)), Fenced);
    let mut fenced = Vec::new();
    rig.sequencer.drain_trespassers(|fencing| fenced.push(fencing.session.index));
    assert_eq!(fenced, [SESSION]);
}

/// Retention took the entry of a batch above a gap: that one and the missing one look alike.
#[test]
fn what_a_new_sequencer_of_a_stream_cannot_count_is_forgotten_and_not_ordered_again() {
    use Verdict::{Duplicate, Fenced, Ordered};
    let mut rig = Rig::new(Order::Stream);
    assert_eq!([0, 1, 3, 5].map(|seq| rig.offer(0, seq)), [Ordered; 4]);
    let line = rig.sequencer.session(SESSION).unwrap();
    assert_eq!((line.next_seq, line.floor, line.had), (6, 2, 2));
    for (in_log, verdicts) in [
        (&[3, 5][..], [Duplicate, Ordered, Duplicate, Ordered]),
        (&[5], [Fenced; 4]),
        (&[], [Fenced; 4]),
    ] {
        let frontier = rig.sequencer.frontier();
        let mut next = TopicSequencer::new(Order::Stream, LEASE_NS, frontier).unwrap();
        next.open_ring(broker(1), SLOTS, 0).unwrap();
        next.restore_session(&line);
        in_log.iter().for_each(|seq| next.restore_ordered(SESSION, *seq));
        next.forget_uncounted(&line);
        rig.sequencer = next;
        let said = [3, 2, 5, 6].map(|seq| rig.offer(1, seq));
        assert_eq!(said, verdicts, "{in_log:?}");
    }
}

#[test]
fn a_new_sequencer_of_a_stream_knows_what_is_in_the_log_above_a_gap() {
    use Verdict::{Duplicate, Ordered};
    let mut rig = Rig::new(Order::Stream);
    assert_eq!([0, 1, 3, 5].map(|seq| rig.offer(0, seq)), [Ordered; 4]);
    let line = rig.sequencer.session(SESSION).unwrap();
    assert_eq!((line.next_seq, line.floor), (6, 2));
    let mut next = TopicSequencer::new(Order::Stream, LEASE_NS, rig.sequencer.frontier()).unwrap();
    next.open_ring(broker(1), SLOTS, 0).unwrap();
    next.restore_session(&line);
    // Retention took the entries of 0 and 1; that of 5 came back from disk.
    next.replay(Some(SESSION), &rig.log[2]);
    next.restore_ordered(SESSION, 5);
    rig.sequencer = next;
    let said = [0, 1, 3, 5, 2, 4, 6].map(|seq| rig.offer(1, seq));
    assert_eq!(said[..4], [Duplicate; 4]);
    assert_eq!(said[4..], [Ordered; 3]);
}

#[test]
fn strong_orders_a_session_in_sequence_across_brokers() {
    use Verdict::{Duplicate, Ordered};
    let mut rig = Rig::new(Order::Strong);
    let said = [(0, 0), (0, 1), (1, 2), (0, 3)].map(|(number, seq)| rig.offer(number, seq));
    assert_eq!(said, [Ordered; 4]);
    let places: Vec<_> = rig.log.iter().map(|e| (e.broker, e.ring_index)).collect();
    assert_eq!(places, [(0, 0), (0, 1), (1, 0), (0, 2)]);
    assert_eq!(rig.touched(), [(SESSION, 4)], "named once, however often it moved");
    assert_eq!(rig.touched(), []);
    assert_eq!([rig.offer(0, 3), rig.offer(0, 4)], [Duplicate, Ordered]);
    assert_eq!(rig.touched(), [(SESSION, 5)]);
}

#[test]
fn what_comes_out_of_turn_ends_the_epoch_and_keeps_no_slot() {
    use Verdict::{Fenced, Ordered};
    let mut rig = Rig::new(Order::Strong);
    assert_eq!([0, 2, 1].map(|seq| rig.offer(0, seq)), [Ordered, Fenced, Fenced]);
    assert_eq!(rig.consumed()[0], 3);
    let mut fenced = Vec::new();
    rig.sequencer.drain_trespassers(|fencing| fenced.push((fencing.session, fencing.cause)));
    let standing = Standing { epoch: 1, state: SessionState::Fenced };
    assert_eq!(fenced, [(view(SESSION, CLIENT, standing, 1), Cause::Turn)]);
    rig.sequencer.open_session(SESSION, CLIENT, 2, 0);
    let again = |seq| RingSlot { session_epoch: 2, ..slot(seq) };
    assert_eq!([1, 2].map(|seq| rig.offer_slot(1, again(seq))), [Ordered; 2]);
    assert_eq!(rig.offer(0, 3), Fenced);
    assert_eq!(rig.logged(), [0, 1, 2]);
    rig.now = 10 * LEASE_NS;
    assert_eq!((rig.tick(), rig.sequencer.deadline_ns()), (vec![], None), "it waits for nothing");
}

#[test]
fn a_ring_goes_round_many_times() {
    let mut rig = Rig::new(Order::Strong);
    for lap in 0..100 {
        for ahead in 0..4 {
            assert_eq!(rig.offer((ahead / 2) as usize, lap * 4 + ahead), Verdict::Ordered);
        }
        assert_eq!(rig.consumed(), [2 * (lap + 1); 2]);
    }
    assert_eq!(rig.logged(), (0..400).collect::<Vec<_>>());
}

#[test]
fn a_slot_of_no_active_session_is_dropped() {
    for order in [Order::Total, Order::Stream, Order::Strong] {
        let mut rig = Rig::new(order);
        for bad in [
            RingSlot { session: SESSION + 1, ..slot(0) },
            RingSlot { session: SESSION + 1000, ..slot(0) },
            RingSlot { session: u32::MAX, ..slot(0) },
            RingSlot { session: SESSION + 1, client: 0, session_epoch: 0, ..slot(0) },
            RingSlot { client: CLIENT + 1, ..slot(0) },
            RingSlot { session_epoch: 0, ..slot(0) },
            RingSlot { session_epoch: 2, ..slot(0) },
        ] {
            assert_eq!(rig.offer_slot(0, bad), Verdict::Fenced, "{bad:?}");
        }
        assert_eq!((rig.log.len(), rig.consumed()[0]), (0, 7));
        rig.sequencer.close_session(SESSION).unwrap();
        assert_eq!(rig.offer(0, 0), Verdict::Fenced);
        assert_eq!(rig.sequencer.close_session(SESSION), None);
    }
}

#[test]
fn padding_has_no_entry() {
    let mut rig = Rig::new(Order::Strong);
    assert_eq!(rig.offer_slot(0, RingSlot { count: 0, ..slot(0) }), Verdict::Padding);
    assert_eq!(rig.offer_slot(0, RingSlot { flags: SLOT_PADDING, ..slot(0) }), Verdict::Padding);
    assert_eq!((rig.log.len(), rig.consumed()[0]), (0, 2));
}

#[test]
fn an_epoch_that_begins_ends_the_one_before() {
    let mut rig = Rig::new(Order::Strong);
    rig.offer(0, 0);
    rig.sequencer.open_session(SESSION, CLIENT, 1, 0);
    assert_eq!(rig.offer(0, 1), Verdict::Ordered, "joining the epoch changes nothing");
    rig.sequencer.open_session(SESSION, CLIENT, 2, 0);
    assert_eq!(rig.offer(0, 2), Verdict::Fenced);
    let view = rig.sequencer.session(SESSION).unwrap();
    assert_eq!((view.client, view.next_seq), (CLIENT, 2), "sequences go on across epochs");
    assert_eq!(view.standing, Standing { epoch: 2, state: SessionState::Active });
}

#[test]
fn a_forgotten_line_is_somebody_elses() {
    let mut rig = Rig::new(Order::Strong);
    rig.offer(0, 0);
    rig.sequencer.forget_session(SESSION);
    assert_eq!(rig.sequencer.session(SESSION), None);
    assert_eq!((rig.touched(), rig.consumed()[0]), (vec![], 1));
    rig.sequencer.open_session(SESSION, CLIENT + 1, 1, 30);
    assert_eq!(rig.sequencer.session(SESSION).unwrap().next_seq, 30);
    rig.sequencer.forget_session(SESSIONS_MAX + 7);
}

#[test]
fn the_largest_sequence_overflows_nothing() {
    for order in [Order::Total, Order::Stream, Order::Strong] {
        let mut rig = Rig::new(order);
        assert_ne!(rig.offer(0, u64::MAX), Verdict::Busy);
        rig.sequencer.open_session(SESSION, CLIENT, 2, u64::MAX);
        let last =
            RingSlot { session_epoch: 2, count: u16::MAX, bytes: u32::MAX, ..slot(u64::MAX) };
        assert_eq!(rig.offer_slot(0, last), Verdict::Ordered, "{order}");
    }
}

#[test]
fn a_new_sequencer_goes_on_from_log_lines_and_rings() {
    let mut rig = Rig::new(Order::Strong);
    for (number, seq) in [(0, 0), (1, 1), (0, 2)] {
        rig.offer(number, seq);
    }
    // The old one died after the frontier moved, before session lines or consumed indices did.
    let standing = Standing { epoch: 1, state: SessionState::Active };
    let mut start = rig.sequencer.frontier();
    start.landed_ns = 0;
    rig.sequencer = TopicSequencer::new(Order::Strong, LEASE_NS, start).unwrap();
    rig.sequencer.open_ring(broker(0), SLOTS, 0).unwrap();
    rig.sequencer.open_ring(broker(1), SLOTS, 0).unwrap();
    rig.sequencer.restore_session(&view(SESSION, CLIENT, standing, 1));
    for entry in &rig.log {
        rig.sequencer.replay(Some(SESSION), entry);
        rig.sequencer.replay(None, entry);
    }
    assert_eq!(rig.sequencer.frontier().landed_ns, 52);
    assert_eq!(rig.sequencer.session(SESSION).unwrap().next_seq, 3);
    assert_eq!(rig.consumed(), [2, 1]);
    assert_eq!(rig.sequencer.scan_index(broker(0)), 2);
    let verdicts = [(1, 3), (1, 4), (0, 5), (0, 6)].map(|(number, seq)| rig.offer(number, seq));
    assert_eq!(verdicts, [Verdict::Ordered; 4]);
    assert_eq!(rig.logged(), (0..7).collect::<Vec<_>>());
    assert_eq!(rig.log[6].commit, 7);
}

#[test]
fn a_line_that_says_fenced_or_closed_stays_so() {
    for state in [SessionState::Fenced, SessionState::Closed, SessionState::Free] {
        let mut rig = Rig::new(Order::Strong);
        rig.sequencer.restore_session(&view(8, 900, Standing { epoch: 4, state }, 20));
        let slot = RingSlot { client: 900, session: 8, session_epoch: 4, ..slot(20) };
        assert_eq!(rig.offer_slot(0, slot), Verdict::Fenced);
        rig.sequencer.open_session(8, 900, 5, 0);
        let next = rig.sequencer.session(8).unwrap().next_seq;
        assert_eq!(next, if state == SessionState::Free { 0 } else { 20 });
    }
}
