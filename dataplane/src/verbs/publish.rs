//! A publisher's extents over verbs: each behind a gate that only its own queue pair passes.
//!
//! An extent's claim ends only when its gate is closed for certain: until then the publisher's NIC
//! could still write there, and nobody else may be given the room.

use landfall_layout::frame::{Frame, Refusal};
use landfall_layout::limits::LINE_BYTES;
use landfall_layout::verbs::{EXTENT_SLOTS, Said};

use crate::claim::Claim;
use crate::env::Env;
use crate::extents::{Extent, From, Wish, Written};
use crate::land::Wait;
use crate::publish_tcp::Stop;
use crate::topics::Topic;
use crate::unused::Open;

/// How the pool is opened to one publisher, slot by slot.
pub trait Gate {
    /// Opens a claim that begins at `at` in the pool: the remote key. `None`: not at this moment.
    fn open(&mut self, slot: usize, claim: &Claim, at: u64) -> Option<u32>;
    /// Begins to close a slot.
    fn close(&mut self, slot: usize) -> Closing;
}

/// What became of closing a gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// It is closed.
    Closed,
    /// It will be: [`Grants::closed`] is to be called then.
    Begun,
    /// Not at this moment: ask again.
    Later,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Open,
    /// To be closed, as soon as the queue has room for that.
    Ending,
    /// Being closed.
    Closing,
}

#[derive(Debug)]
struct Grant {
    extent: Extent,
    stage: Stage,
}

/// A verbs publisher's extents, by slot.
#[derive(Debug, Default)]
pub struct Grants {
    slots: [Option<Grant>; EXTENT_SLOTS],
    wish: Wish,
    next_number: u32,
}

impl Grants {
    /// Acts on one immediate, which came with a write of `bytes` bytes. A frame is for the
    /// publisher; true: a batch landed.
    ///
    /// # Errors
    ///
    /// [`Stop::Wait`]: the same immediate is to be given again. Everything else is final.
    #[inline]
    pub fn take(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        from: &mut From<'_>,
        (said, bytes): (Said, u32),
        gate: &mut impl Gate,
    ) -> Result<(Option<Frame>, bool), Stop> {
        match said {
            Said::Batch { slot, line } => {
                let i = usize::from(slot);
                let Some(Grant { extent, stage: Stage::Open }) = &mut self.slots[i] else {
                    return Err(not_held(slot));
                };
                // Lines are 24 bits and an extent lies in one segment, so this fits 32 bits.
                let offset = extent.claim.offset.saturating_add(line * LINE_BYTES as u32);
                let written = Written { offset, bytes, batch_seq: None };
                let outcome = extent.land(env, topic, from, written);
                if extent.is_full() {
                    self.wish.filled(env, extent.claim.bytes);
                    self.end(env, topic, i, gate);
                }
                outcome.map(|()| (None, true))
            }
            Said::Wanted { lines } => {
                from.check_standing(env, topic.id)?;
                let frame = self.wanted(env, topic, lines, gate)?;
                Ok((Some(frame), false))
            }
            Said::Done { slot } => {
                let i = usize::from(slot);
                match self.slots.get(i).and_then(Option::as_ref) {
                    None => return Err(not_held(slot)),
                    Some(Grant { extent, stage: Stage::Open }) => {
                        if !extent.is_untouched() {
                            self.wish.filled(env, extent.claim.bytes);
                        }
                        self.end(env, topic, i, gate);
                    }
                    // It filled up meanwhile.
                    Some(_) => {}
                }
                Ok((None, false))
            }
            other => Err(Stop::Refuse(
                Refusal::Malformed,
                format!("a publisher in this grant mode does not say {other:?}"),
            )),
        }
    }

    /// Makes a claim a slot's extent, its gate open already: for measuring without a NIC.
    pub fn adopt(&mut self, slot: usize, claim: Claim) {
        let extent = Extent { number: 0, next: claim.offset, claim };
        self.slots[slot] = Some(Grant { extent, stage: Stage::Open });
    }

    #[cold]
    fn wanted(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        lines: u32,
        gate: &mut impl Gate,
    ) -> Result<Frame, Stop> {
        let Some(slot) = self.slots.iter().position(Option::is_none) else {
            if self.slots.iter().flatten().any(|grant| grant.stage != Stage::Open) {
                // A gate is being closed, and its slot is free in a moment.
                return Err(Stop::Wait(Wait::Queue));
            }
            let text = format!("{EXTENT_SLOTS} extents are open, which is the bound; say Done");
            return Err(Stop::Refuse(Refusal::NotServed, text));
        };
        let bytes = lines.saturating_mul(LINE_BYTES as u32);
        let has_room = self.slots.iter().flatten().any(|grant| grant.extent.is_untouched());
        let claim = self.wish.claim(env, &mut topic.stock, bytes, has_room)?;
        let claim = claim.ok_or(Stop::Wait(Wait::Segment))?;
        let at = env.pool.at(claim.segment, claim.offset, claim.bytes);
        let key = at.and_then(|at| gate.open(slot, &claim, at));
        let (Some(at), Some(key)) = (at, key) else {
            let from = claim.offset;
            topic.stock.give_back(env, claim, from);
            return Err(Stop::Wait(Wait::Queue));
        };
        let frame = Frame::Extent {
            extent: slot as u32,
            segment: claim.segment,
            generation: claim.generation,
            offset: claim.offset,
            bytes: claim.bytes,
            key,
            at,
        };
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let extent = Extent { number, next: claim.offset, claim };
        self.slots[slot] = Some(Grant { extent, stage: Stage::Open });
        Ok(frame)
    }

    /// Closes a slot's gate, now or as soon as may be.
    #[cold]
    fn end(&mut self, env: &Env, topic: &mut Topic, slot: usize, gate: &mut impl Gate) {
        let Some(grant) = &mut self.slots[slot] else { return };
        match gate.close(slot) {
            Closing::Closed => self.closed(env, topic, slot),
            Closing::Begun => grant.stage = Stage::Closing,
            Closing::Later => grant.stage = Stage::Ending,
        }
    }

    /// A gate is closed for certain: what was not used of its extent goes back.
    #[cold]
    pub fn closed(&mut self, env: &Env, topic: &mut Topic, slot: usize) {
        let Some(Grant { extent, .. }) = self.slots.get_mut(slot).and_then(Option::take) else {
            return;
        };
        if extent.is_full() {
            topic.stock.done(extent.claim);
        } else {
            topic.stock.give_back(env, extent.claim, extent.next);
        }
    }

    /// What is open of them.
    pub fn open(&self) -> Open {
        let extents = self.slots.iter().flatten().map(|grant| &grant.extent);
        extents.fold(Open::default(), |open, of| open.with(of.left(), of.is_untouched()))
    }

    /// Whether a gate waits for room in the queue to be closed.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.slots.iter().flatten().any(|grant| grant.stage == Stage::Ending)
    }

    /// Tries again to close what is ending.
    pub fn close_ending(&mut self, env: &Env, topic: &mut Topic, gate: &mut impl Gate) {
        for slot in 0..EXTENT_SLOTS {
            if matches!(&self.slots[slot], Some(grant) if grant.stage == Stage::Ending) {
                self.end(env, topic, slot, gate);
            }
        }
    }

    /// Closes every gate: the session is over, or the publisher said goodbye.
    #[cold]
    pub fn close_all(&mut self, env: &Env, topic: &mut Topic, gate: &mut impl Gate) {
        for slot in 0..EXTENT_SLOTS {
            if matches!(&self.slots[slot], Some(grant) if grant.stage == Stage::Open) {
                self.end(env, topic, slot, gate);
            }
        }
    }

    /// The queue pair is no more, and every gate with it.
    pub fn abandon(&mut self, env: &Env, topic: &mut Topic) {
        for grant in self.slots.iter_mut().filter_map(Option::take) {
            topic.stock.abandon(env, grant.extent.claim, grant.extent.next);
        }
    }
}

#[cold]
fn not_held(slot: u8) -> Stop {
    let text = format!("slot {slot} holds no extent of this connection");
    Stop::Refuse(Refusal::BadBatch, text)
}

#[cfg(test)]
mod tests {
    use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES};
    use landfall_pool::Memory;

    use super::*;
    use crate::conns::Token;
    use crate::rig::{Shore, shore};

    /// Gates that close when the test says so.
    #[derive(Default)]
    struct Gates {
        open: [bool; EXTENT_SLOTS],
        busy: bool,
        keys: u32,
        begun: Vec<usize>,
    }

    impl Gate for Gates {
        fn open(&mut self, slot: usize, _: &Claim, _: u64) -> Option<u32> {
            assert!(!self.open[slot], "slot {slot} is opened twice");
            if self.busy {
                return None;
            }
            self.open[slot] = true;
            self.keys += 1;
            Some(self.keys)
        }

        fn close(&mut self, slot: usize) -> Closing {
            if self.busy {
                return Closing::Later;
            }
            self.begun.push(slot);
            Closing::Begun
        }
    }

    /// A publisher over verbs on a rig, its NIC and its gates played by the test.
    struct Scene {
        shore: Shore,
        grants: Grants,
        gates: Gates,
        seq: u64,
    }

    impl Scene {
        fn new() -> Self {
            let (shore, _) = shore(12, false);
            Self { shore, grants: Grants::default(), gates: Gates::default(), seq: 0 }
        }

        fn say(&mut self, said: Said, bytes: u32) -> Result<(Option<Frame>, bool), Stop> {
            let Self { shore, grants, gates, .. } = self;
            let Shore { env, topic, session } = shore;
            let mut from = From { session, owner: Token(0), fenced: false, allowance: 9 };
            grants.take(env, topic, &mut from, (said, bytes), gates)
        }

        /// Asks for room; the slot, where it begins and how large it is.
        fn want(&mut self, bytes: u32) -> (usize, u32, u32) {
            let said = self.say(Said::Wanted { lines: bytes / 64 }, 0);
            let Ok((Some(Frame::Extent { extent, segment, offset, bytes, key, at, .. }), false)) =
                said
            else {
                panic!("{said:?}");
            };
            assert_ne!(key, 0);
            assert_eq!(self.shore.env.pool.at(segment, offset, bytes), Some(at));
            (extent as usize, offset, bytes)
        }

        /// Puts a batch where the NIC would, and says so.
        fn batch(&mut self, slot: usize, line: u32, payload: u32) -> Result<bool, Stop> {
            if let Some(grant) = &self.grants.slots[slot] {
                let claim = &grant.extent.claim;
                let at = self.shore.env.pool.at(claim.segment, claim.offset + line * 64, 64);
                let preamble = BatchPreamble {
                    topic: self.shore.topic.id.0,
                    client: 1,
                    session_epoch: 1,
                    batch_seq: self.seq,
                    payload_bytes: payload,
                    count: 1,
                    ..BatchPreamble::default()
                };
                self.seq += 1;
                self.shore.env.pool.store_words(at.unwrap(), &preamble.seal().to_words());
            }
            let said = Said::Batch { slot: slot as u8, line };
            self.say(said, PREAMBLE_BYTES + payload).map(|(_, landed)| landed)
        }

        fn closed(&mut self, slot: usize) {
            let Self { shore, grants, gates, .. } = self;
            gates.open[slot] = false;
            gates.begun.retain(|begun| *begun != slot);
            grants.closed(&shore.env, &mut shore.topic, slot);
        }
    }

    #[test]
    fn batches_land_where_the_publishers_nic_put_them() {
        let mut scene = Scene::new();
        let (slot, offset, bytes) = scene.want(4096);
        assert_eq!((slot, offset), (0, 0));
        assert!(bytes >= 4 * 4096, "room for more than one");
        assert_eq!(scene.batch(0, 0, 64), Ok(true));
        assert_eq!(scene.batch(0, 3, 64), Ok(true));
        let again = scene.batch(0, 3, 64);
        assert!(matches!(again, Err(Stop::Refuse(Refusal::BadBatch, _))), "{again:?}");
        let outside = scene.batch(0, 5, bytes);
        assert!(matches!(outside, Err(Stop::Refuse(Refusal::BadBatch, _))), "{outside:?}");
    }

    #[test]
    fn room_is_given_away_again_only_behind_a_closed_gate() {
        let mut scene = Scene::new();
        let (_, _, bytes) = scene.want(64);
        assert_eq!(scene.batch(0, 0, 64), Ok(true));
        assert_eq!(scene.say(Said::Done { slot: 0 }, 0), Ok((None, false)));
        assert_eq!(scene.gates.begun, [0]);
        let late = scene.batch(0, 2, 64);
        assert!(matches!(late, Err(Stop::Refuse(Refusal::BadBatch, _))), "its gate is closing");
        let (slot, offset, _) = scene.want(64);
        assert_eq!((slot, offset), (1, bytes), "behind the first, whose NIC may still write");
        scene.closed(0);
        let (slot, _, _) = scene.want(64);
        assert_eq!(slot, 0, "the slot is free");
    }

    #[test]
    fn a_full_extent_closes_by_itself_and_its_done_is_no_fault() {
        let mut scene = Scene::new();
        let (_, _, bytes) = scene.want(64);
        assert_eq!(scene.batch(0, 0, bytes - 64), Ok(true));
        assert_eq!(scene.gates.begun, [0]);
        assert_eq!(scene.say(Said::Done { slot: 0 }, 0), Ok((None, false)));
        assert_eq!(scene.gates.begun, [0], "not closed twice");
    }

    #[test]
    fn a_queue_without_room_makes_closing_wait_and_nothing_is_lost() {
        let mut scene = Scene::new();
        scene.want(64);
        scene.gates.busy = true;
        assert_eq!(scene.say(Said::Done { slot: 0 }, 0), Ok((None, false)));
        assert!(scene.grants.is_ending());
        let wanted = scene.say(Said::Wanted { lines: 1 }, 0);
        assert_eq!(wanted, Err(Stop::Wait(Wait::Queue)), "and opening waits too");
        scene.gates.busy = false;
        let Scene { shore, grants, gates, .. } = &mut scene;
        grants.close_ending(&shore.env, &mut shore.topic, gates);
        assert_eq!((gates.begun.as_slice(), grants.is_ending()), ([0].as_slice(), false));
    }

    #[test]
    fn there_is_a_bound_on_extents_and_a_slot_that_closes_is_waited_for() {
        let mut scene = Scene::new();
        for slot in 0..EXTENT_SLOTS {
            assert_eq!(scene.want(64).0, slot);
        }
        let more = Said::Wanted { lines: 1 };
        assert!(matches!(scene.say(more, 0), Err(Stop::Refuse(Refusal::NotServed, _))));
        scene.say(Said::Done { slot: 3 }, 0).unwrap();
        assert_eq!(scene.say(more, 0), Err(Stop::Wait(Wait::Queue)));
        scene.closed(3);
        assert_eq!(scene.want(64).0, 3);
    }

    #[test]
    fn what_dies_with_the_queue_pair_becomes_padding() {
        let mut scene = Scene::new();
        let (_, _, bytes) = scene.want(64);
        assert_eq!(scene.batch(0, 0, 64), Ok(true));
        let Scene { shore, grants, .. } = &mut scene;
        grants.abandon(&shore.env, &mut shore.topic);
        let at = shore.env.pool.at(1, 128, 64).unwrap();
        let padding = BatchPreamble::from_words(shore.env.pool.load_words(at));
        assert_eq!(padding, BatchPreamble::padding(bytes - 128));
    }

    #[test]
    fn a_session_that_is_over_is_given_no_room() {
        let mut scene = Scene::new();
        scene.want(64);
        scene.shore.session.epoch += 1;
        let more = scene.say(Said::Wanted { lines: 1 }, 0);
        assert!(matches!(more, Err(Stop::Fenced { .. })), "{more:?}");
        assert_eq!(scene.gates.open.iter().filter(|open| **open).count(), 1);
    }

    #[test]
    fn a_publisher_says_only_what_its_grant_mode_knows() {
        let mut scene = Scene::new();
        for said in [Said::Ready { line: 0 }, Said::Segment { segment: 0 }] {
            assert!(matches!(scene.say(said, 0), Err(Stop::Refuse(Refusal::Malformed, _))));
        }
        let unheld = scene.batch(2, 0, 64);
        assert!(matches!(unheld, Err(Stop::Refuse(Refusal::BadBatch, _))));
    }
}
