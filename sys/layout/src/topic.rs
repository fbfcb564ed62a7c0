//! Topics: the table's entries, order levels and names.

use std::fmt;
use std::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ids::BrokerId;
use crate::limits::{DISK_REPLICAS_MAX, RING_SLOTS_MAX, RING_SLOTS_MIN, TOPIC_NAME_BYTES_MAX};

/// What order a topic promises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Order {
    /// Every message is delivered; no order between them is promised.
    None = 0,
    /// Each broker's log in its own order, positions per broker.
    Broker = 1,
    /// One sequence, the same for every subscriber.
    Total = 2,
    /// Positions reserved first and written anywhere.
    Token = 3,
    /// Total, and first-in first-out for each (client, broker).
    Stream = 4,
    /// Total, first-in first-out for each client across brokers, exactly once.
    Strong = 5,
}

impl Order {
    /// All levels with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::None, "none"),
        (Self::Broker, "broker"),
        (Self::Total, "total"),
        (Self::Token, "token"),
        (Self::Stream, "stream"),
        (Self::Strong, "strong"),
    ];

    /// The level as structures carry it.
    pub fn raw(self) -> u8 {
        self as u8
    }

    /// The level that a structure says.
    pub fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.iter().map(|(order, _)| *order).find(|order| order.raw() == raw)
    }

    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        Self::ALL[usize::from(self.raw())].1
    }

    /// Whether the sequencer gives this topic one log for all brokers.
    pub fn is_sequenced(self) -> bool {
        self >= Self::Total
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownOrder(pub String);

impl fmt::Display for UnknownOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no order; say one of none, broker, total, token, stream, strong", self.0)
    }
}

impl std::error::Error for UnknownOrder {}

impl FromStr for Order {
    type Err = UnknownOrder;

    fn from_str(word: &str) -> Result<Self, UnknownOrder> {
        Self::ALL
            .iter()
            .find(|(_, name)| *name == word)
            .map(|(order, _)| *order)
            .ok_or_else(|| UnknownOrder(word.to_owned()))
    }
}

/// Stages of a topic's slot in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopicState {
    /// The slot is unused.
    Absent,
    /// Publish and subscribe.
    Live,
    /// Being deleted: nothing more lands or is delivered.
    Deleting,
}

impl TopicState {
    /// The state that an entry says; anything unknown is absent.
    pub fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Live,
            2 => Self::Deleting,
            _ => Self::Absent,
        }
    }
}

/// When the batches of a topic with replicas are put on stable storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// At once, group by group: a receipt says durable.
    #[default]
    Sync,
    /// Now and then: a receipt says replicated, which is written and maybe not synced.
    Window,
}

impl Durability {
    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Window => "window",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "sync" => Ok(Self::Sync),
            "window" => Ok(Self::Window),
            _ => Err(format!("{word:?} is no durability; say sync or window")),
        }
    }
}

/// The topic keeps everything: a full pool is backpressure and never loss.
pub const TOPIC_KEEP: u8 = 1;
/// Brokers check each payload's CRC before it is ordered.
pub const TOPIC_CHECK_INGEST: u8 = 2;
/// The topic's replicas are synced now and then, so its receipts say replicated.
pub const TOPIC_WINDOW: u8 = 4;

/// A topic's entry in the table. Writer: control. Readers: everyone.
///
/// `version` is odd while the entry changes and even when it is whole; a reader takes the copy
/// only when it saw the same even version before and after.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TopicEntry {
    /// Change counter.
    pub version: u64,
    /// Topic id.
    pub id: u32,
    /// A [`TopicState`].
    pub state: u8,
    /// An [`Order`].
    pub order: u8,
    /// [`TOPIC_KEEP`], [`TOPIC_CHECK_INGEST`] and [`TOPIC_WINDOW`].
    pub flags: u8,
    /// Copies of each batch, the pool counted as the first; 0 means 1.
    pub replicas: u8,
    /// Slots of each broker's ring.
    pub ring_slots: u32,
    /// Bytes in `name`.
    pub name_bytes: u32,
    /// Payload bytes to keep at least; 0: as many as the pool has room for.
    pub retention_bytes: u64,
    /// Nanoseconds to keep a batch at least; 0: as long as the pool has room.
    pub retention_ns: u64,
    /// Wall clock at creation, nanoseconds.
    pub created_ns: u64,
    /// Longest wait for a missing batch of a session before it is fenced, nanoseconds.
    pub session_lease_ns: u64,
    /// The name, UTF-8.
    pub name: [u8; 120],
    /// Brokers that keep the topic's disk replicas: numbers 0 up to this one. 0: none does.
    pub replica_brokers: u8,
    /// Zero.
    pub reserved8: [u8; 7],
    /// Bytes of batches to keep in each replica's files at least; 0: everything.
    pub disk_bytes: u64,
    /// Nanoseconds to keep a batch in replica files at least; 0: for ever.
    pub disk_ns: u64,
    /// Wall clock when its deletion began, nanoseconds. 0: nobody deleted it, whatever the state
    /// says.
    pub deleted_ns: u64,
    /// How often the topic had gone on in another pool when it came into this one; 0: it was made
    /// here. Directories that another pool has taken up since say as much or more.
    pub life: u64,
    /// Log index at which a broker's own log begins here of which nothing was known when the topic
    /// came into this pool: below it, one before may have had it.
    pub begin_index: u64,
    /// The position there.
    pub begin_position: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

lines!(TopicEntry, 4, {
    version @ 0, id @ 8, state @ 12, order @ 13, flags @ 14, replicas @ 15, ring_slots @ 16,
    name_bytes @ 20, retention_bytes @ 24, retention_ns @ 32, created_ns @ 40,
    session_lease_ns @ 48, name @ 56, replica_brokers @ 176, reserved8 @ 177, disk_bytes @ 184,
    disk_ns @ 192, deleted_ns @ 200, life @ 208, begin_index @ 216,
    begin_position @ 224, reserved @ 232,
});

impl TopicEntry {
    /// The name; empty when the entry says nothing readable.
    pub fn name(&self) -> &str {
        self.name
            .get(..self.name_bytes as usize)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or("")
    }

    /// The state.
    pub fn state(&self) -> TopicState {
        TopicState::from_raw(self.state)
    }

    /// The order; an unknown one cannot be served.
    pub fn order(&self) -> Option<Order> {
        Order::from_raw(self.order)
    }

    /// Whether the topic keeps everything.
    pub fn keeps(&self) -> bool {
        self.flags & TOPIC_KEEP != 0
    }

    /// When its batches are put on stable storage.
    pub fn durability(&self) -> Durability {
        if self.flags & TOPIC_WINDOW != 0 { Durability::Window } else { Durability::Sync }
    }

    /// Copies of each batch on disk: one less than it has replicas, within bounds.
    pub fn disk_replicas(&self) -> usize {
        usize::from(self.replicas.saturating_sub(1)).min(DISK_REPLICAS_MAX)
    }

    /// The broker that keeps disk replica `replica`, from 0, of what `source` landed. `None` where
    /// there is no such replica.
    pub fn replica_broker(&self, source: BrokerId, replica: usize) -> Option<BrokerId> {
        let brokers = usize::from(self.replica_brokers);
        if replica >= self.disk_replicas() || brokers == 0 {
            return None;
        }
        BrokerId::new((source.index() + replica) % brokers)
    }

    /// Whether brokers check payload CRCs before a batch is ordered.
    pub fn checks_ingest(&self) -> bool {
        self.flags & TOPIC_CHECK_INGEST != 0
    }
}

/// Why a topic's name or ring size was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopicError {
    /// No name at all.
    NameEmpty,
    /// Longer than the table has room for.
    NameTooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// A character outside letters, digits, `.`, `_` and `-`.
    NameCharacter {
        /// The character.
        character: char,
        /// Its byte offset.
        at: usize,
    },
    /// A ring size that is not a power of two within bounds.
    RingSlots {
        /// Slots asked for.
        slots: u32,
    },
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameEmpty => f.write_str("a topic needs a name of at least one character"),
            Self::NameTooLong { bytes } => write!(
                f,
                "topic name has {bytes} bytes; at most {TOPIC_NAME_BYTES_MAX} are possible"
            ),
            Self::NameCharacter { character, at } => write!(
                f,
                "topic name has {character:?} at byte {at}; \
                 only letters a-z A-Z, digits, '.', '_' and '-' are possible"
            ),
            Self::RingSlots { slots } => write!(
                f,
                "a ring of {slots} slots is not possible; \
                 say a power of two from {RING_SLOTS_MIN} to {RING_SLOTS_MAX}"
            ),
        }
    }
}

impl std::error::Error for TopicError {}

/// Checks a topic's name: 1 to 120 bytes of `[A-Za-z0-9._-]`.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::NameEmpty);
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(TopicError::NameTooLong { bytes: name.len() });
    }
    match name.char_indices().find(|(_, c)| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        Some((at, character)) => Err(TopicError::NameCharacter { character, at }),
        None => Ok(()),
    }
}

/// Checks a ring size.
pub fn check_ring_slots(slots: u32) -> Result<(), TopicError> {
    if slots.is_power_of_two() && (RING_SLOTS_MIN..=RING_SLOTS_MAX).contains(&slots) {
        Ok(())
    } else {
        Err(TopicError::RingSlots { slots })
    }
}
