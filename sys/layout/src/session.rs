//! Session lines: what the sequencer says of each publisher's identity.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::TopicId;
use crate::limits::STREAM_WINDOW;

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// The line is unused.
    Free,
    /// Its batches are ordered.
    Active,
    /// A gap outlived the lease: nothing after the gap is ever ordered in this epoch.
    Fenced,
    /// The publisher said goodbye; the line may be used again when lines run out.
    Closed,
}

/// A session's line. Writer: the sequencer. Readers: brokers, tools.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SessionLine {
    /// [`Standing`], packed; stored last.
    pub standing: u64,
    /// The publisher's client id.
    pub client: u64,
    /// Batch sequence expected next. Order `strong`: everything below it is ordered. Order
    /// `stream`: nothing from it on is, and `floor` says how much below.
    pub next_seq: u64,
    /// Topic id.
    pub topic: u32,
    /// The epoch that `opened_by` opened. Stored before it, and so no line that was being changed
    /// when its writer died names a request beside an epoch that it did not open.
    pub opened_epoch: u32,
    /// Entries that the topic's log had when the line was given to this client: those below are of
    /// another life of the line. Not a time: its writer's clock and that of whoever lands differ.
    pub opened_at: u64,
    /// Who opened `opened_epoch`, an [`Opening`], packed. 0: not known.
    pub opened_by: u64,
    /// Order `stream`: everything from `known_from` up to here is ordered, with how many there are
    /// from here on, see [`counted_floor`]. Order `strong`: first of
    /// those that the pool was lost under, and of which some are not in the log any more.
    pub floor: u64,
    /// Order `stream`: of what is below nothing is known. Order `strong`: end of those that
    /// `floor` begins.
    pub known_from: u64,
}

lines!(SessionLine, 1, {
    standing @ 0, client @ 8, next_seq @ 16, topic @ 24, opened_epoch @ 28,
    opened_at @ 32, opened_by @ 40, floor @ 48, known_from @ 56,
});

impl SessionLine {
    /// Whether the line is that client's in that topic. One that was needed for another session
    /// says nothing of this one, whatever epoch it shows.
    pub fn is_of(&self, topic: TopicId, client: u64) -> bool {
        self.client == client && self.topic == topic.0
    }

    /// Whether batches of that client in that topic, sealed under that epoch, are ordered.
    pub fn stands(&self, topic: TopicId, client: u64, epoch: u32) -> bool {
        let wanted = Standing { epoch, state: SessionState::Active };
        self.is_of(topic, client) && Standing::unpack(self.standing) == wanted
    }

    /// Order `stream`: the floor, and how many sequences from it on are in the log.
    pub fn counted(&self) -> (u64, u64) {
        match has_count(self.next_seq) {
            true => (self.floor & (COUNT_FROM - 1), self.floor / COUNT_FROM),
            false => (self.floor, 0),
        }
    }

    /// Order `strong`: whether the batch of that sequence may be lost although it was ordered.
    /// Which of these are stands in the topic's doubt lines.
    pub fn is_doubtful(&self, batch_seq: u64) -> bool {
        (self.floor..self.known_from).contains(&batch_seq)
    }
}

/// Sequences below this leave room for a count in their word.
const COUNT_FROM: u64 = 1 << 48;
const _: () = assert!(STREAM_WINDOW < u64::MAX / COUNT_FROM, "the count of a window fits");

fn has_count(next_seq: u64) -> bool {
    next_seq < COUNT_FROM
}

/// The word `floor` of a line of order `stream`: the floor, and how many sequences between it and
/// the next one are in the log. Whoever reads the log again knows by the count whether retention
/// took some of their entries.
pub fn counted_floor(next_seq: u64, floor: u64, had: u64) -> u64 {
    if has_count(next_seq) { floor | (had * COUNT_FROM) } else { floor }
}

/// Low bits of an epoch, which count the openings by one client. Those above count the clients
/// that had the line, so that no two of its epochs are the same: a batch of an epoch that is over
/// may still come when the line is another's, or is the first one's again.
const OPENING_BITS: u32 = 20;

/// The first epoch of whoever gets a line whose last epoch was that one.
pub fn first_epoch_after(epoch: u32) -> u32 {
    ((epoch >> OPENING_BITS).wrapping_add(1) << OPENING_BITS) | 1
}

/// The epoch that the same client opens next; where the count is full, as if the line had gone to
/// somebody else.
pub fn next_epoch(epoch: u32) -> u32 {
    if is_same_life(epoch, epoch.wrapping_add(1)) { epoch + 1 } else { first_epoch_after(epoch) }
}

/// Whether two epochs are of one client's time with the line: only then one can be later.
pub fn is_same_life(epoch: u32, other: u32) -> bool {
    life_of(epoch) == life_of(other)
}

/// A client's time with the line that an epoch is of: only there sequences go on.
pub fn life_of(epoch: u32) -> u32 {
    epoch >> OPENING_BITS
}

/// Who opened a session's epoch, in one word of its line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Opening {
    /// The publisher's own number, or 0. In a line that came back from disk it is that of the
    /// batch that came last.
    pub life: u32,
    /// What came last in the session was the same publisher's when it opened it in this pool first.
    pub is_own: bool,
    /// Mark of the broker's request: asked again, of this control or of the next one, it is
    /// answered with that epoch and opens no other. 0: nobody opened the line in this pool.
    pub request: u32,
}

impl Opening {
    const IS_OWN: u64 = 1 << 31;

    /// The opening by a publisher that a broker asked for under that number, not 0.
    pub fn by(life: u32, request: u64, is_own: bool) -> Self {
        // All bits of the number count: its low ones are alike in brokers that began alike.
        let mark = (request.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 34) as u32 | 1;
        Self { life, is_own, request: if request == 0 { 0 } else { mark } }
    }

    /// The word as it lies in the line.
    pub fn pack(self) -> u64 {
        let own = if self.is_own { Self::IS_OWN } else { 0 };
        u64::from(self.life) << 32 | own | u64::from(self.request)
    }

    /// What a word says.
    pub fn unpack(word: u64) -> Self {
        Self {
            life: (word >> 32) as u32,
            is_own: word & Self::IS_OWN != 0,
            request: (word & (Self::IS_OWN - 1)) as u32,
        }
    }

    /// Whether a publisher opened the line in this pool.
    pub fn is_here(self) -> bool {
        self.request != 0
    }
}

/// Epoch and state of a session in one word, so that a broker reads both at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Session epoch, from 1.
    pub epoch: u32,
    /// State in that epoch.
    pub state: SessionState,
}

impl Standing {
    /// The word as it lies in the line.
    pub fn pack(self) -> u64 {
        u64::from(self.epoch) | (self.state as u64) << 32
    }

    /// What a word says; an unknown state reads as fenced, the one that stops everything.
    pub fn unpack(word: u64) -> Self {
        let state = match word >> 32 {
            0 => SessionState::Free,
            1 => SessionState::Active,
            3 => SessionState::Closed,
            _ => SessionState::Fenced,
        };
        Self { epoch: word as u32, state }
    }
}
