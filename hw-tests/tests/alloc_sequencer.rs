//! The sequencer allocates when a ring or a session is opened, and never while it orders.

mod counting;

use counting::allocations;
use landfall_control::sequencer::{Frontier, TopicSequencer, Verdict};
use landfall_layout::BrokerId;
use landfall_layout::slot::RingSlot;
use landfall_layout::topic::Order;

const BROKERS: usize = 32;
const SESSIONS: u32 = 10_000;
const SLOTS: u32 = 4096;
const LEASE_NS: u64 = 1_000_000;

/// Orders half a million batches, some out of sequence, some twice, some never, and returns the
/// allocations and how often each verdict was given.
fn order(order: Order) -> (u64, [u64; 6]) {
    let mut sequencer = TopicSequencer::new(order, LEASE_NS, Frontier::default()).unwrap();
    let brokers: Vec<BrokerId> = BrokerId::all().take(BROKERS).collect();
    for broker in &brokers {
        sequencer.open_ring(*broker, SLOTS, 0).unwrap();
    }
    let mut epochs = vec![1_u32; SESSIONS as usize];
    for session in 0..SESSIONS {
        sequencer.open_session(session, u64::from(session) + 1, 1, 0);
    }
    let mut verdicts = [0; 6];
    // In order `strong` a batch out of turn ends its epoch, which is no part of ordering.
    let ahead = if order == Order::Strong { [0; 8] } else { [0, 0, 0, 0, 1, 2, 2, 5] };
    let mut entries = 0;
    let mut moved = 0;
    let before = allocations();
    for batch in 0..500_000_u64 {
        let draw = batch.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let session = (draw % u64::from(SESSIONS)) as u32;
        let next = sequencer.session(session).unwrap().next_seq;
        let slot = RingSlot {
            client: u64::from(session) + 1,
            batch_seq: (next + ahead[batch as usize % 8])
                .saturating_sub(u64::from(batch % 31 == 0)),
            session_epoch: epochs[session as usize],
            session,
            bytes: 64,
            count: u16::from(batch % 97 != 0),
            ..RingSlot::default()
        };
        let verdict = sequencer.offer(brokers[draw as usize / 7 % BROKERS], &slot, |_| {
            entries += 1;
        });
        verdicts[verdict as usize] += 1;
        if batch % 256 == 0 {
            sequencer.tick(batch * 100, |fencing| panic!("fenced: {fencing:?}"));
            sequencer.drain_touched(|_| moved += 1);
            epochs[session as usize] += 1;
            sequencer.open_session(session, slot.client, epochs[session as usize], 0);
        }
    }
    let allocated = allocations() - before;
    assert!(entries >= verdicts[Verdict::Ordered as usize] && entries > 1000);
    assert_eq!(order != Order::Total, moved > 0);
    (allocated, verdicts)
}

#[test]
fn ordering_allocates_nothing() {
    // A counter that counts nothing would pass everything below.
    let before = allocations();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(allocations(), before + 1);

    for level in [Order::Total, Order::Stream, Order::Strong] {
        let (allocated, verdicts) = order(level);
        assert_eq!(allocated, 0, "order {level}, verdicts {verdicts:?}");
        let seen = |verdict: Verdict| verdicts[verdict as usize] > 0;
        assert!(seen(Verdict::Ordered) && seen(Verdict::Padding), "{verdicts:?}");
        assert!(!seen(Verdict::Held) && !seen(Verdict::Fenced), "{verdicts:?}");
        assert_eq!(seen(Verdict::Duplicate), level != Order::Total, "{verdicts:?}");
    }
}
