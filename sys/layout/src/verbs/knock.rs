//! The private data of a connection's handshake.

use std::fmt;

use super::{
    FRAME_RING_LINES, GREETING_BYTES, KNOCK_BYTES, KNOCK_MAGIC, REJECTION_BYTES, RING_LINES_MAX,
    VERBS_VERSION,
};
use crate::frame::{Ack, FRAME_BYTES, Frame, From, Refusal};
use crate::ids::TopicId;

/// What a client wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// Publish batches.
    Publish,
    /// Have batches written into its ring.
    Subscribe,
    /// Read the log and the segments by itself.
    Read,
}

/// How a publisher's bytes get into the pool, by trust.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum GrantMode {
    /// The broker reads them from the publisher: nothing of the pool can be written from outside.
    Pull,
    /// The publisher writes through a memory window on one extent, which is invalidated when the
    /// extent ends.
    #[default]
    Window,
    /// The publisher writes under the key of a payload segment's memory region. For a rack whose
    /// hosts are all trusted.
    Open,
}

impl fmt::Display for GrantMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Window => "window",
            Self::Open => "open",
        })
    }
}

impl std::str::FromStr for GrantMode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "pull" => Ok(Self::Pull),
            "window" => Ok(Self::Window),
            "open" => Ok(Self::Open),
            _ => Err(format!("{word:?} is no grant mode; say one of window, pull, open")),
        }
    }
}

/// A connection request's private data.
///
/// ```text
/// 0 magic u32 | 4 version u8 | 5 intent u8 | 6 ack u8, or where a subscription starts | 7 grant u8
/// 8 client u64, or the position or time where it starts | 16 session epoch u32 | 20 topic u32
/// 24 token u128 | 40 ring key u32 | 44 log2 of ring lines u8 | 45 comes back u8 | 46 path MTU u16
/// 48 arena key u32 | 52 life u32
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Knock {
    /// What the client wants.
    pub intent: Intent,
    /// Publisher: the receipts it wants.
    pub ack: Ack,
    /// Publisher: how its bytes travel.
    pub grant: GrantMode,
    /// Publisher: its client id.
    pub client: u64,
    /// Publisher: session epoch to join; 0 opens the next one.
    pub session_epoch: u32,
    /// Publisher: its own number, and whether it had the session before, see
    /// [`Hello`](crate::frame::Hello).
    pub life: u32,
    /// The same.
    pub comes_back: bool,
    /// Subscriber: where to start.
    pub from: From,
    /// The topic.
    pub topic: TopicId,
    /// What control gave the client for this one connection.
    pub token: u128,
    /// Remote key of the client's ring, which begins at address 0 of its region.
    pub ring_key: u32,
    /// Lines of the ring; a power of two.
    pub ring_lines: u32,
    /// Publisher with [`GrantMode::Pull`]: remote key of the memory its batches lie in, address 0
    /// first; otherwise 0.
    pub arena_key: u32,
    /// Bytes of the client's port's active MTU.
    pub mtu: u32,
}

/// Why private data is no knock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KnockError {
    /// Too short.
    Short {
        /// Bytes found.
        bytes: usize,
    },
    /// The first word is another.
    Magic {
        /// Word found.
        found: u32,
    },
    /// Another version of the handshake.
    Version {
        /// Version found.
        found: u8,
    },
    /// A value that does not exist.
    Field {
        /// The field.
        field: &'static str,
        /// Value found.
        value: u64,
    },
}

impl fmt::Display for KnockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { bytes } => {
                write!(f, "a knock of {bytes} bytes; {KNOCK_BYTES} were expected")
            }
            Self::Magic { found } => {
                write!(f, "a knock begins with {KNOCK_MAGIC:#010x}; this one with {found:#010x}")
            }
            Self::Version { found } => write!(
                f,
                "a knock of protocol version {found}; this broker speaks {VERBS_VERSION}: use a \
                 client of the same release"
            ),
            Self::Field { field, value } => {
                write!(f, "a knock with {field} = {value}, which does not exist")
            }
        }
    }
}

impl std::error::Error for KnockError {}

fn word(bytes: &[u8; KNOCK_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8; KNOCK_BYTES], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

impl Knock {
    /// The bytes of the private data.
    pub fn to_bytes(self) -> [u8; KNOCK_BYTES] {
        let (start, value) = match self.from {
            From::Earliest => (0, 0),
            From::Latest => (1, 0),
            From::Position(position) => (2, position),
            From::Time(ns) => (3, ns),
        };
        let is_publisher = self.intent == Intent::Publish;
        let mut bytes = [0; KNOCK_BYTES];
        bytes[0..4].copy_from_slice(&KNOCK_MAGIC.to_le_bytes());
        bytes[4] = VERBS_VERSION;
        bytes[5] = self.intent as u8;
        bytes[6] = if is_publisher { self.ack as u8 } else { start };
        bytes[7] = self.grant as u8;
        let who = if is_publisher { self.client } else { value };
        bytes[8..16].copy_from_slice(&who.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.session_epoch.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.topic.0.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.token.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.ring_key.to_le_bytes());
        bytes[44] = self.ring_lines.trailing_zeros() as u8;
        bytes[45] = self.comes_back.into();
        bytes[46..48].copy_from_slice(&(self.mtu as u16).to_le_bytes());
        bytes[48..52].copy_from_slice(&self.arena_key.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.life.to_le_bytes());
        bytes
    }

    /// What private data says. Bytes behind the knock are padding.
    pub fn from_bytes(private: &[u8]) -> Result<Self, KnockError> {
        let bytes: &[u8; KNOCK_BYTES] =
            private.first_chunk().ok_or(KnockError::Short { bytes: private.len() })?;
        if word(bytes, 0) != KNOCK_MAGIC {
            return Err(KnockError::Magic { found: word(bytes, 0) });
        }
        if bytes[4] != VERBS_VERSION {
            return Err(KnockError::Version { found: bytes[4] });
        }
        let bad = |field, value: u8| KnockError::Field { field, value: value.into() };
        let intent = match bytes[5] {
            0 => Intent::Publish,
            1 => Intent::Subscribe,
            2 => Intent::Read,
            value => return Err(bad("intent", value)),
        };
        let who = long(bytes, 8);
        let mtu = u32::from(u16::from_le_bytes([bytes[46], bytes[47]]));
        if !is_mtu(mtu) {
            return Err(KnockError::Field { field: "MTU", value: mtu.into() });
        }
        let mut knock = Self {
            intent,
            ack: Ack::None,
            grant: match bytes[7] {
                0 => GrantMode::Pull,
                1 => GrantMode::Window,
                2 => GrantMode::Open,
                value => return Err(bad("grant", value)),
            },
            client: 0,
            session_epoch: word(bytes, 16),
            from: From::Earliest,
            topic: TopicId(word(bytes, 20)),
            token: u128::from(long(bytes, 24)) | u128::from(long(bytes, 32)) << 64,
            ring_key: word(bytes, 40),
            ring_lines: 1_u32.checked_shl(bytes[44].into()).unwrap_or(0),
            arena_key: word(bytes, 48),
            mtu,
            life: word(bytes, 52),
            comes_back: match bytes[45] {
                0 => false,
                1 => true,
                value => return Err(bad("comes back", value)),
            },
        };
        if intent == Intent::Publish {
            knock.client = who;
            knock.ack = match bytes[6] {
                0 => Ack::None,
                1 => Ack::Ordered,
                2 => Ack::Durable,
                value => return Err(bad("ack", value)),
            };
        } else {
            knock.from = match bytes[6] {
                0 => From::Earliest,
                1 => From::Latest,
                2 => From::Position(who),
                3 => From::Time(who),
                value => return Err(bad("start", value)),
            };
        }
        let lines = knock.ring_lines;
        if !(FRAME_RING_LINES..=RING_LINES_MAX).contains(&lines) || !lines.is_power_of_two() {
            return Err(KnockError::Field { field: "ring lines", value: lines.into() });
        }
        Ok(knock)
    }
}

/// An accept's private data: the `Welcome` frame, then what only verbs clients need.
///
/// ```text
/// 0 Welcome 64 B | 64 MTU u32 | 68 key of the tables u32 | 72 address of the tables u64
/// | 80 logs u32 | 84 key of the segment headers u32 | 88 address of the segment headers u64
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// The `Welcome` frame.
    pub welcome: [u8; FRAME_BYTES],
    /// Bytes of the broker's port's active MTU: both sides take the smaller one.
    pub mtu: u32,
    /// A client that reads by itself: remote key of the topic's frontier and chain lines.
    pub tables_key: u32,
    /// Where they begin: log 0's frontier line, its chain line, log 1's, and so on.
    pub tables_at: u64,
    /// Logs there are.
    pub logs: u32,
    /// A client that reads by itself: remote key of the segment headers, by which it follows the
    /// chains of the logs.
    pub headers_key: u32,
    /// Where segment 0's header line is.
    pub headers_at: u64,
    /// A client that reads by itself: remote key of the frontier lines of the brokers' own logs.
    pub frontiers_key: u32,
    /// Where log 0's is; one line a broker.
    pub frontiers_at: u64,
}

impl Greeting {
    const USED: usize = FRAME_BYTES + 44;

    /// The bytes of the private data.
    pub fn to_bytes(self) -> [u8; Self::USED] {
        let mut bytes = [0; Self::USED];
        bytes[..64].copy_from_slice(&self.welcome);
        bytes[64..68].copy_from_slice(&self.mtu.to_le_bytes());
        bytes[68..72].copy_from_slice(&self.tables_key.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.tables_at.to_le_bytes());
        bytes[80..84].copy_from_slice(&self.logs.to_le_bytes());
        bytes[84..88].copy_from_slice(&self.headers_key.to_le_bytes());
        bytes[88..96].copy_from_slice(&self.headers_at.to_le_bytes());
        bytes[96..100].copy_from_slice(&self.frontiers_key.to_le_bytes());
        bytes[100..108].copy_from_slice(&self.frontiers_at.to_le_bytes());
        bytes
    }

    /// What private data says; `None` when it is too short, or its MTU is none. Bytes behind it
    /// are padding.
    pub fn from_bytes(private: &[u8]) -> Option<Self> {
        let (welcome, rest) = private.split_first_chunk()?;
        let (mtu, rest) = rest.split_first_chunk()?;
        let mtu = Some(u32::from_le_bytes(*mtu)).filter(|mtu| is_mtu(*mtu))?;
        let (tables_key, rest) = rest.split_first_chunk()?;
        let (tables_at, rest) = rest.split_first_chunk()?;
        let (logs, rest) = rest.split_first_chunk()?;
        let (headers_key, rest) = rest.split_first_chunk()?;
        let (headers_at, rest) = rest.split_first_chunk()?;
        let (frontiers_key, rest) = rest.split_first_chunk()?;
        let (frontiers_at, _) = rest.split_first_chunk()?;
        Some(Self {
            welcome: *welcome,
            mtu,
            tables_key: u32::from_le_bytes(*tables_key),
            tables_at: u64::from_le_bytes(*tables_at),
            logs: u32::from_le_bytes(*logs),
            headers_key: u32::from_le_bytes(*headers_key),
            headers_at: u64::from_le_bytes(*headers_at),
            frontiers_key: u32::from_le_bytes(*frontiers_key),
            frontiers_at: u64::from_le_bytes(*frontiers_at),
        })
    }
}

/// A reject's private data: a `Refused` or `Fenced` frame, then as much of the sentence as fits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The frame.
    pub frame: Frame,
    /// The sentence, cut at a character.
    pub sentence: String,
}

impl Rejection {
    /// Refused, and why.
    pub fn refused(why: Refusal, sentence: &str) -> Self {
        Self { frame: Frame::Refused(why), sentence: sentence.to_owned() }
    }

    /// The bytes of the private data.
    pub fn to_bytes(&self) -> [u8; REJECTION_BYTES] {
        let mut end = self.sentence.len().min(REJECTION_BYTES - FRAME_BYTES);
        while !self.sentence.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; REJECTION_BYTES];
        bytes[..FRAME_BYTES].copy_from_slice(&self.frame.encode(end));
        bytes[FRAME_BYTES..FRAME_BYTES + end].copy_from_slice(&self.sentence.as_bytes()[..end]);
        bytes
    }

    /// What private data says; `None` when no broker of ours sent it.
    pub fn from_bytes(private: &[u8]) -> Option<Self> {
        let (head, rest) = private.split_first_chunk()?;
        let (frame, tail) = Frame::decode(*head).ok()?;
        let sentence = String::from_utf8_lossy(rest.get(..tail)?).into_owned();
        Some(Self { frame, sentence })
    }
}

const _: () = assert!(Greeting::USED <= GREETING_BYTES);

/// Whether a path can have this MTU, in bytes (`enum ibv_mtu` of `ibv_query_port(3)`).
fn is_mtu(bytes: u32) -> bool {
    matches!(bytes, 256 | 512 | 1024 | 2048 | 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knock(intent: Intent) -> Knock {
        Knock {
            intent,
            ack: if intent == Intent::Publish { Ack::Ordered } else { Ack::None },
            grant: GrantMode::Window,
            client: if intent == Intent::Publish { 0x1122_3344_5566_7788 } else { 0 },
            session_epoch: 7,
            life: 0x55,
            comes_back: true,
            from: if intent == Intent::Publish { From::Earliest } else { From::Position(99) },
            topic: TopicId(0x301),
            token: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            ring_key: 0xaabb_ccdd,
            ring_lines: 2048,
            arena_key: 5,
            mtu: 4096,
        }
    }

    #[test]
    fn a_knock_has_golden_bytes() {
        let bytes = knock(Intent::Publish).to_bytes();
        assert_eq!(&bytes[..8], b"LFV1\x03\x00\x01\x01");
        assert_eq!(&bytes[8..16], &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(&bytes[16..24], &[7, 0, 0, 0, 1, 3, 0, 0]);
        assert_eq!(bytes[24], 0x10);
        assert_eq!(&bytes[40..48], &[0xdd, 0xcc, 0xbb, 0xaa, 11, 1, 0, 16]);
        assert_eq!(&bytes[48..], &[5, 0, 0, 0, 0x55, 0, 0, 0]);
    }

    #[test]
    fn knocks_come_back_as_they_were() {
        for intent in [Intent::Publish, Intent::Subscribe, Intent::Read] {
            let mut padded = knock(intent).to_bytes().to_vec();
            padded.extend([0; 20]);
            assert_eq!(Knock::from_bytes(&padded), Ok(knock(intent)));
        }
    }

    #[test]
    fn what_is_no_knock_is_named() {
        let good = knock(Intent::Publish).to_bytes();
        assert_eq!(Knock::from_bytes(&good[..55]), Err(KnockError::Short { bytes: 55 }));
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Knock::from_bytes(&bytes)
        };
        assert!(matches!(with(0, 0), Err(KnockError::Magic { .. })));
        assert_eq!(with(4, 9), Err(KnockError::Version { found: 9 }));
        assert_eq!(with(5, 3), Err(KnockError::Field { field: "intent", value: 3 }));
        assert_eq!(with(6, 3), Err(KnockError::Field { field: "ack", value: 3 }));
        assert_eq!(with(7, 3), Err(KnockError::Field { field: "grant", value: 3 }));
        assert_eq!(with(44, 1), Err(KnockError::Field { field: "ring lines", value: 2 }));
        assert_eq!(with(44, 32), Err(KnockError::Field { field: "ring lines", value: 0 }));
        assert_eq!(with(45, 2), Err(KnockError::Field { field: "comes back", value: 2 }));
    }

    #[test]
    fn greetings_and_rejections_come_back() {
        let greeting = Greeting {
            welcome: Frame::CaughtUp.encode(0),
            mtu: 1024,
            tables_key: 3,
            tables_at: 1 << 40,
            logs: 33,
            headers_key: 4,
            headers_at: 9,
            frontiers_key: 5,
            frontiers_at: 10,
        };
        let mut padded = greeting.to_bytes().to_vec();
        padded.resize(GREETING_BYTES, 0);
        assert_eq!(Greeting::from_bytes(&padded), Some(greeting));
        assert_eq!(Greeting::from_bytes(&padded[..95]), None);

        let long = "ä".repeat(60);
        let bytes = Rejection::refused(Refusal::Version, &long).to_bytes();
        let back = Rejection::from_bytes(&bytes).unwrap();
        assert_eq!(back.frame, Frame::Refused(Refusal::Version));
        assert_eq!(back.sentence, "ä".repeat(42), "cut at a character");
        assert_eq!(Rejection::from_bytes(&[0; REJECTION_BYTES]), None);
    }
}
