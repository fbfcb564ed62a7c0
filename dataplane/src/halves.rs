//! Batches over sockets of which a part has come, or that wait for their turn: what they hold, and
//! who gives one up.
//!
//! Such a batch has its place from its preamble on, and a segment that is left is sealed only when
//! no batch in it is half. So a client that goes no further is given up: soon where others need
//! the room, after a while in any case.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use landfall_layout::frame::Refusal;
use landfall_layout::limits::HEARTBEAT_EVERY_NS;

use crate::broker::Broker;
use crate::conn::{Conn, Kind, Publisher, Stalled, Via};
use crate::conns::Token;
use crate::land::Wait;

/// Ticks without a byte after which what was begun is given up: 5 s.
const PATIENCE: u32 = (5_000_000_000 / HEARTBEAT_EVERY_NS) as u32;
/// The same where others wait for room, and for those too of which less than `SLOW_BYTES` come in
/// each of these ticks: 300 ms.
const PATIENCE_SHORT: u32 = 3;
/// Fewer bytes than these in a tick are next to nothing: 64 KiB/s.
const SLOW_BYTES: u64 = (64 << 10) * HEARTBEAT_EVERY_NS / 1_000_000_000;

/// What half batches hold, and may hold together, in bytes.
#[derive(Debug)]
pub struct Halves {
    held: Rc<Cell<u64>>,
    /// Of this broker and all others.
    bound_all: u64,
    bound: Cell<u64>,
}

/// The room of a half batch, until it is dropped.
#[derive(Debug)]
pub struct Half {
    all: Rc<Cell<u64>>,
    bytes: u64,
}

impl Drop for Half {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.bytes);
    }
}

impl Halves {
    /// None yet, on a pool of that many bytes: a quarter is for half batches of all brokers.
    pub fn new(pool_bytes: u64) -> Self {
        Self { held: Rc::default(), bound_all: pool_bytes / 4, bound: Cell::new(pool_bytes / 4) }
    }

    /// So many brokers serve: each has its share.
    pub fn share(&self, brokers: usize) {
        self.bound.set(self.bound_all / brokers.max(1) as u64);
    }

    /// Whether a batch of that many bytes may begin, of a client that has brought so many. One
    /// alone always may. Half of the room is for clients that have brought as much before.
    pub fn takes(&self, bytes: u64, brought: u64) -> bool {
        let held = self.held.get();
        let bound = self.bound.get();
        let bound = if brought < bytes { bound / 2 } else { bound };
        held == 0 || held + bytes <= bound
    }

    /// MiB that are held, and that may be; for people.
    pub fn in_use(&self) -> (u32, u32) {
        let mib = |bytes: u64| u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        (mib(self.held.get()), mib(self.bound.get()))
    }

    /// Room for a batch that begins.
    pub fn begin(&self, bytes: u64) -> Half {
        self.held.set(self.held.get() + bytes);
        Half { all: Rc::clone(&self.held), bytes }
    }
}

/// For how long a connection has brought nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stillness {
    /// Bytes it had brought when that was looked at last.
    brought: u64,
    /// Ticks since they were fewer. A broker that is stopped has none.
    ticks: u32,
    /// Ticks in each of which next to nothing came.
    slow: u32,
}

impl Stillness {
    /// Ticks in which nothing came.
    pub fn ticks(self) -> u32 {
        self.ticks
    }

    /// One more tick.
    pub fn look(&mut self, brought: u64) -> u32 {
        let more = brought - self.brought;
        let ticks = if more == 0 { self.ticks.saturating_add(1) } else { 0 };
        let slow = if more < SLOW_BYTES { self.slow.saturating_add(1) } else { 0 };
        *self = Self { brought, ticks, slow };
        ticks
    }

    /// Nothing is on its way, so nothing is slow.
    fn rest(&mut self) {
        self.slow = 0;
    }
}

/// What has come of something that a client has begun to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begun {
    pub have: u32,
    pub of: u32,
    /// The segment that it lies in, if it has a place, and the bytes of that.
    pub place: Option<(u32, u32)>,
}

/// A client that has begun something.
#[derive(Clone, Copy, Debug)]
struct Standing {
    owner: Token,
    begun: Begun,
    /// Ticks without a byte.
    ticks: u32,
    /// Ticks with next to nothing.
    slow: u32,
    /// Its segment is one that is left.
    is_left: bool,
    /// All of it came, and it waits for its turn. The session's lease ends that.
    is_whole: bool,
}

/// One that is given up: its time is over, or others need the room, of which so many bytes are
/// held and may be.
#[derive(Clone, Copy, Debug)]
struct GivenUp {
    standing: Standing,
    for_room: Option<(u64, u64)>,
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing { begun: Begun { have, of, .. }, ticks, slow, is_whole, .. } = self.standing;
        let ms = |ticks: u32| u64::from(ticks) * HEARTBEAT_EVERY_NS / 1_000_000;
        let (ms, slow_ms) = (ms(ticks), ms(slow));
        if is_whole {
            write!(f, "a batch of {of} bytes came, and the one before it did not for {ms} ms")?;
        } else if ticks > 0 {
            write!(f, "{have} of {of} bytes of a batch came, and then nothing for {ms} ms")?;
        } else {
            write!(
                f,
                "{have} of {of} bytes of a batch came, less than 64 KiB/s for the last {slow_ms} ms"
            )?;
        }
        if let Some((held, bound)) = self.for_room {
            write!(f, ", while such batches hold {held} bytes of the {bound} that they may")?;
        }
        write!(f, ": it is given up; connect again and send it again")
    }
}

/// What half batches hold: their places, and all of a segment that only they keep from being
/// sealed.
struct Held {
    segment_bytes: u64,
    left: HashMap<u32, u32>,
    bytes: u64,
}

impl Held {
    fn of(all: &[Standing], segment_bytes: u64) -> Self {
        let mut held = Self { segment_bytes, left: HashMap::new(), bytes: 0 };
        for Standing { begun, is_left, .. } in all {
            let Some((segment, bytes)) = begun.place else { continue };
            match is_left {
                true => *held.left.entry(segment).or_default() += 1,
                false => held.bytes += u64::from(bytes),
            }
        }
        held.bytes += held.left.len() as u64 * segment_bytes;
        held
    }

    fn without(&mut self, gone: &Standing) {
        let Some((segment, bytes)) = gone.begun.place else { return };
        if !gone.is_left {
            self.bytes -= u64::from(bytes);
        } else if let Some(count) = self.left.get_mut(&segment) {
            *count -= 1;
            if *count == 0 {
                self.bytes -= self.segment_bytes;
            }
        }
    }
}

/// Who is given up: whoever has stood still for long, and, while they hold too much, who has stood
/// still longest, if for a little while at least.
fn given_up(mut all: Vec<Standing>, segment_bytes: u64, bound: u64, wanted: u64) -> Vec<GivenUp> {
    all.sort_by_key(|standing| std::cmp::Reverse((standing.slow, standing.ticks)));
    let mut held = Held::of(&all, segment_bytes);
    let mut gone = Vec::new();
    for standing in all {
        let more = wanted.min(bound / 2);
        let is_much = held.bytes > bound || (more > 0 && held.bytes + more > bound / 2);
        let makes_room = is_much && standing.begun.place.is_some();
        let is_over = standing.ticks >= PATIENCE && !standing.is_whole;
        let for_room = (!is_over).then_some((held.bytes, bound));
        if is_over || (makes_room && standing.slow >= PATIENCE_SHORT) {
            held.without(&standing);
            gone.push(GivenUp { standing, for_room });
        }
    }
    gone
}

impl Broker {
    /// Looks at what clients have begun to send, and gives up what nothing comes of.
    pub(crate) fn tick_halves(&mut self) {
        let Self { env, topics, conns, peers, .. } = self;
        env.halves.share(peers.len() + 1);
        let segment_bytes = env.pool.geometry().segment_bytes();
        let mut all = Vec::new();
        // Somebody waits for a segment, here or at another broker.
        let mut wanted = if env.pool.is_short() { segment_bytes } else { 0 };
        for Conn { token, kind, .. } in conns.iter_mut() {
            let Kind::Publisher(publisher) = kind else { continue };
            let Publisher { topic: id, via: Via::Stream(reading), still, stalled, .. } = publisher
            else {
                continue;
            };
            let why = stalled.map(|Stalled { why, .. }| why);
            if why.is_some_and(|why| why != Wait::Turn) {
                // Nothing is read from it.
                *still = Stillness::default();
                if why == Some(Wait::Halves) {
                    wanted += reading.wants();
                }
                continue;
            }
            let ticks = still.look(publisher.brought);
            let Some(begun) = reading.begun() else {
                still.rest();
                continue;
            };
            let topic = topics[id.slot()].as_deref().filter(|topic| topic.id == *id);
            let filling = topic.and_then(|topic| topic.stock.filling());
            let is_left = begun.place.is_some_and(|(segment, _)| filling != Some(segment));
            let (slow, is_whole) = (still.slow, why.is_some());
            all.push(Standing { owner: *token, begun, ticks, slow, is_left, is_whole });
        }
        let gone = given_up(all, segment_bytes, env.halves.bound.get(), wanted);
        for given_up in gone {
            let slot = given_up.standing.owner.slot();
            self.refuse(slot, Refusal::Busy, &given_up.to_string());
        }
        self.looks_at_halves = true;
        self.sort_waiting();
    }

    /// Of publishers that wait, those go first that ask for no more than they have brought before;
    /// then who asks for least: segments come one by one, and each half batch may take a whole one.
    fn sort_waiting(&mut self) {
        let conns = &mut self.conns;
        let mut waiting = std::mem::take(&mut conns.waiting);
        waiting.sort_by_cached_key(|slot| match conns.get(*slot).map(|conn| &conn.kind) {
            Some(Kind::Publisher(Publisher { via: Via::Stream(reading), brought, .. })) => {
                Some(reading.wants()).filter(|wants| brought < wants)
            }
            _ => None,
        });
        conns.waiting = waiting;
    }

    /// Whether a publisher that waits for room for half a batch would find it: asked in every
    /// turn, and once a tick it looks for itself whether its batch is whole by now.
    pub(crate) fn may_begin(&mut self, slot: usize) -> bool {
        let Self { env, conns, looks_at_halves, .. } = self;
        let Some(Conn { kind: Kind::Publisher(publisher), .. }) = conns.get(slot) else {
            return true;
        };
        match (&publisher.via, publisher.stalled) {
            (Via::Stream(reading), Some(Stalled { why: Wait::Halves, .. })) => {
                *looks_at_halves || env.halves.takes(reading.wants(), publisher.brought)
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    fn standing(owner: u64, ticks: u32, place: (u32, u32), is_left: bool) -> Standing {
        let begun = Begun { have: 64, of: place.1, place: Some(place) };
        Standing { owner: Token(owner), begun, ticks, slow: ticks, is_left, is_whole: false }
    }

    fn who(all: &[Standing], bound: u32, wanted: u32) -> Vec<u64> {
        let gone = given_up(all.to_vec(), u64::from(8 * MIB), bound.into(), wanted.into());
        gone.iter().map(|gone| gone.standing.owner.0).collect()
    }

    #[test]
    fn one_alone_may_begin_and_others_as_far_as_the_bound_goes() {
        let halves = Halves::new(64);
        assert!(halves.takes(100, 0));
        let first = halves.begin(6);
        assert!(halves.takes(2, 1) && !halves.takes(3, 2), "half of the room");
        assert!(halves.takes(10, 10) && !halves.takes(11, 11), "who has brought as much");
        let second = halves.begin(10);
        assert!(!halves.takes(1, 1));
        drop(first);
        assert!(halves.takes(6, 6));
        drop(second);
        assert!(halves.takes(100, 0));
    }

    #[test]
    fn who_stands_still_for_long_is_given_up_and_who_goes_on_is_not() {
        let all =
            [standing(1, PATIENCE, (1, MIB), false), standing(2, PATIENCE - 1, (1, 1), false)];
        assert_eq!(who(&all, 8 * MIB, 0), [1]);
        let mut still = Stillness::default();
        assert_eq!([still.look(1), still.look(1), still.look(1), still.look(2)], [0, 1, 2, 0]);
    }

    #[test]
    fn where_room_is_wanted_the_stillest_go_first_and_no_more_than_have_to() {
        let at = |owner, ticks| standing(owner, ticks, (1, 2 * MIB), false);
        let all = [at(1, 4), at(2, 9), at(3, PATIENCE_SHORT - 1), at(4, 7)];
        assert_eq!(who(&all, 16 * MIB, 0), [0; 0]);
        assert_eq!(who(&all, 16 * MIB, 1), [2]);
        assert_eq!(who(&all, 16 * MIB, 3 * MIB), [2, 4]);
        assert_eq!(who(&all, 16 * MIB, 100 * MIB), [2, 4, 1], "the third goes on");
        assert_eq!(who(&all, 7 * MIB, 0), [2], "more than all may");
    }

    #[test]
    fn a_segment_that_only_half_batches_keep_open_counts_as_a_whole() {
        let at = |owner, ticks, segment| standing(owner, ticks, (segment, 64), true);
        let all = [at(1, 9, 1), at(2, 8, 2), at(3, 7, 2), at(4, 6, 3)];
        assert_eq!(who(&all, 24 * MIB, 0), [0; 0]);
        assert_eq!(who(&all, 23 * MIB, 0), [1]);
        assert_eq!(who(&all, 15 * MIB, 0), [1, 2, 3]);
        let current = all.map(|standing| Standing { is_left: false, ..standing });
        assert_eq!(who(&current, MIB, 1), [0; 0]);
    }

    #[test]
    fn what_has_no_place_makes_no_room() {
        let mut all = [standing(1, 9, (1, MIB), false), standing(2, 8, (1, MIB), false)];
        all[0].begun.place = None;
        assert_eq!(who(&all, 2 * MIB, MIB), [2]);
    }

    #[test]
    fn who_is_given_up_hears_how_far_it_came() {
        let all = vec![standing(1, 12, (1, 4 * MIB), false)];
        let gone = given_up(all, u64::from(8 * MIB), 1 << 20, 1);
        assert_eq!(
            gone[0].to_string(),
            "64 of 4194304 bytes of a batch came, and then nothing for 1200 ms, while such batches \
             hold 4194304 bytes of the 1048576 that they may: it is given up; connect again and \
             send it again"
        );
    }

    #[test]
    fn who_drips_goes_where_room_is_wanted_and_only_there() {
        let mut drips = standing(1, 0, (1, 4 * MIB), false);
        drips.slow = 2 * PATIENCE;
        assert_eq!(who(&[drips], 8 * MIB, 0), [0; 0]);
        let gone = given_up(vec![drips], u64::from(8 * MIB), 8 << 20, 1);
        let text = gone[0].to_string();
        assert!(text.contains("came, less than 64 KiB/s for the last 10000 ms, while"), "{text}");
        let mut still = Stillness::default();
        let slow = [SLOW_BYTES - 1, 2 * SLOW_BYTES - 2, 3 * SLOW_BYTES].map(|brought| {
            assert_eq!(still.look(brought), 0);
            still.slow
        });
        assert_eq!(slow, [1, 2, 0]);
        (0..9).for_each(|_| assert!(still.look(3 * SLOW_BYTES) > 0));
        still.rest();
        assert_eq!(still.slow, 0, "it had nothing on its way");
    }

    #[test]
    fn brokers_share_what_half_batches_may_hold() {
        let halves = Halves::new(64 << 20);
        halves.share(4);
        assert_eq!(halves.in_use(), (0, 4));
        let _first = halves.begin(2 << 20);
        assert!(halves.takes(2 << 20, 2 << 20) && !halves.takes(3 << 20, 3 << 20));
    }

    #[test]
    fn who_waits_for_its_turn_goes_for_room_only() {
        let mut waits = standing(1, 2 * PATIENCE, (1, 4 * MIB), false);
        (waits.begun.have, waits.is_whole) = (4 * MIB, true);
        assert_eq!(who(&[waits], 8 * MIB, 0), [0; 0]);
        let gone = given_up(vec![waits], u64::from(8 * MIB), 1 << 20, 0);
        assert_eq!(
            gone[0].to_string(),
            "a batch of 4194304 bytes came, and the one before it did not for 10000 ms, while such \
             batches hold 4194304 bytes of the 1048576 that they may: it is given up; connect \
             again and send it again"
        );
    }
}
