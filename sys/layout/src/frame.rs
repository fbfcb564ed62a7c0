//! Frames between clients and brokers: one line each, some with a tail of text behind it.
//!
//! The same lines travel over sockets and through a memory client's channel. A publisher's stream
//! holds frames and batches; both are 64 bytes first and their first word tells them apart.

mod error;
mod hello;
mod tail;

use crate::command::Body;
use crate::held::Held;
use crate::ids::TopicId;

pub use error::FrameError;
pub use hello::{Ack, Carrier, From, Hello, Role};
pub use tail::{HelloTail, LogPlace, TailError};

/// First word of a frame: "LFF1".
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"LFF1");
/// Version of the frames; a broker refuses a `Hello` of any other.
pub const FRAME_VERSION: u8 = 3;
/// Bytes of a frame without its tail.
pub const FRAME_BYTES: usize = 64;
/// Bytes of the longest tail: a topic's name and a place in each of its logs fit.
pub const TAIL_BYTES_MAX: usize = 768;

/// The broker's answer to a `Hello` it accepts. To a memory client it comes with two descriptors:
/// the pool (read-only for subscribers) and the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Topic id.
    pub topic: TopicId,
    /// When the topic was made. Another pool may give its id to another topic of that name.
    pub created_ns: u64,
    /// The topic's order level, raw.
    pub order: u8,
    /// This broker's number.
    pub broker: u8,
    /// Batches the connection may have landed and unacknowledged.
    pub in_flight_max: u16,
    /// Publisher: session epoch.
    pub session_epoch: u32,
    /// Publisher: index of the session's line.
    pub session_index: u32,
    /// Bytes of the largest batch.
    pub batch_bytes_max: u32,
    /// Publisher: batch sequence expected next; all below it is ordered.
    pub next_seq: u64,
    /// Subscriber: position of the first message it will see, sequenced topics.
    pub start: u64,
    /// Subscriber: position just past the last message there was, sequenced topics.
    pub end: u64,
    /// Copies of each batch, the pool counted as the first.
    pub copies: u8,
    /// Publisher: when it opened the session in this pool first, what came last in the session was
    /// its own. Otherwise it is another publisher's, or there was nothing.
    pub is_own: bool,
    /// Publisher: disks let go of old batches of the topic, and with the pool goes what was known
    /// of a publisher that has none there.
    pub has_bounds: bool,
}

/// Why a connection or a batch was refused. The tail of `Refused` says it in a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Refusal {
    /// Not a frame or batch of ours, or a field that makes no sense.
    Malformed = 1,
    /// Another version of the protocol.
    Version = 2,
    /// No topic of that name.
    NoTopic = 3,
    /// This broker cannot serve what was asked for.
    NotServed = 4,
    /// The batch does not belong to this session, topic or sequence.
    BadBatch = 5,
    /// Every session line is in use.
    SessionsFull = 6,
    /// Control does not answer.
    NoControl = 7,
    /// The acknowledgement level is not possible for this topic.
    BadAck = 8,
    /// The broker has as many connections as it takes, or gives up what was begun here: whoever
    /// comes again may be served.
    Busy = 9,
    /// The topic is being deleted.
    TopicGone = 10,
}

impl Refusal {
    const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Version,
        Self::NoTopic,
        Self::NotServed,
        Self::BadBatch,
        Self::SessionsFull,
        Self::NoControl,
        Self::BadAck,
        Self::Busy,
        Self::TopicGone,
    ];

    fn from_raw(raw: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| *refusal as u16 == raw)
    }
}

/// What a receipt says happened to a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// In the pool, in its broker's log.
    Landed,
    /// In the total order.
    Ordered,
    /// Ordered earlier: this copy was a duplicate. The position is not known here.
    Duplicate,
    /// On stable storage, on every disk replica.
    Durable,
    /// Written by every disk replica, and maybe not synced yet.
    Replicated,
    /// It was ordered, and its bytes changed before every disk replica had them: it is not durable
    /// and never will be.
    Lost,
}

/// One batch's receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// Frontier it reached.
    pub reached: Reached,
    /// Messages in the batch. 0, in order `stream` to a publisher that waits for replicas and comes
    /// back: this is about everything below its `next_seq`, the last of which is named.
    pub count: u16,
    /// Batch sequence.
    pub batch_seq: u64,
    /// Position of its first message; of no meaning for a duplicate.
    pub position: u64,
    /// Wall clock when it landed, nanoseconds.
    pub landed_ns: u64,
    /// Session epoch.
    pub session_epoch: u32,
}

/// In front of each delivered batch; preamble and payload follow on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Log it comes from.
    pub log: u8,
    /// Broker that landed it.
    pub broker: u8,
    /// Messages.
    pub count: u16,
    /// Bytes of preamble and payload.
    pub bytes: u32,
    /// Absolute index of the entry in its log.
    pub index: u64,
    /// Position of its first message.
    pub first_position: u64,
    /// Wall clock when it landed, nanoseconds.
    pub landed_ns: u64,
    /// The entry's checksum: the `header_crc` of the preamble that the broker landed.
    pub checksum: u32,
}

/// Why positions of a log will never be seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GapReason {
    /// Retention took them.
    #[default]
    Retention,
    /// Order `token`: they were reserved and never written.
    Unwritten,
    /// They were ordered, went with a pool that was lost, and no replica has them.
    Lost,
    /// They were passed over when a pool was lost, so that no position is ever used twice: no disk
    /// knows of any message there. What was only shown from memory may have been among them.
    Skipped,
    /// A batch was there, and its bytes are not what its broker landed, neither in memory nor in a
    /// copy that could be read.
    Corrupt,
}

impl GapReason {
    /// The reason that a number stands for.
    pub fn from_raw(raw: u64) -> Option<Self> {
        let all = [Self::Retention, Self::Unwritten, Self::Lost, Self::Skipped, Self::Corrupt];
        all.into_iter().find(|why| *why as u64 == raw)
    }
}

/// Why a publisher has to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stall {
    /// The ring of (topic, broker) is full: the sequencer is behind, or a gap is open.
    RingFull,
    /// No segment to write into: the pool is full.
    PoolFull,
    /// Batches that have not come whole hold as much as they may.
    HalvesFull,
    /// No room in this broker's log of the topic: order logs and rings have what they may have.
    LogsFull,
}

impl Stall {
    const ALL: [Self; 4] = [Self::RingFull, Self::PoolFull, Self::HalvesFull, Self::LogsFull];
}

/// One frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Client: first frame; tail: [`HelloTail`].
    Hello(Hello),
    /// Broker: accepted.
    Welcome(Welcome),
    /// Broker: refused; tail: a sentence.
    Refused(Refusal),
    /// Broker: what happened to a batch.
    Receipt(Receipt),
    /// Broker: the session epoch is over; batches from `next_seq` on were not ordered in it.
    Fenced {
        /// The epoch that is over.
        session_epoch: u32,
        /// First batch sequence that is not ordered.
        next_seq: u64,
    },
    /// Broker: a batch follows.
    Delivery(Delivery),
    /// Broker: positions that the subscriber will never see, in one log.
    Gap {
        /// The log.
        log: u8,
        /// Why not.
        reason: GapReason,
        /// Messages it will never see.
        missed: u64,
        /// Position it goes on from.
        resume: u64,
    },
    /// Broker: everything that was there when the subscription began has been sent.
    CaughtUp,
    /// Broker: why nothing moves; counts behind it for people.
    Stalled {
        /// Reason.
        why: Stall,
        /// Segments free, slots in use, or MiB held.
        used: u32,
        /// Segments in all, slots in all, or MiB that may be held.
        of: u32,
    },
    /// Broker: which copy on disk holds the publisher's durable receipts back.
    Held(Held),
    /// Broker, to a subscriber from the latest of a topic with several logs, before all else but
    /// `Welcome`: where each log ends that has anything; tail: [`LogPlace`]s. What comes there is
    /// the subscriber's, over whatever connection.
    Ends,
    /// Either side: no more will come, everything before it counts.
    Bye,
    /// Broker, over sockets: it is there, and may have nothing else to say.
    Beat,
    /// Memory publisher: room for batches of up to this many bytes, please.
    ExtentWanted {
        /// Bytes.
        bytes: u32,
    },
    /// Broker: this extent is the publisher's to write.
    Extent {
        /// Number of the grant on this connection.
        extent: u32,
        /// Segment it lies in.
        segment: u32,
        /// The segment's generation.
        generation: u64,
        /// Bytes from the start of the segment; a multiple of the line.
        offset: u32,
        /// Bytes of the extent.
        bytes: u32,
        /// Over verbs: remote key. Otherwise 0.
        key: u32,
        /// Over verbs: remote address of the first byte. Otherwise 0.
        at: u64,
    },
    /// Memory publisher: a sealed batch lies there, whole.
    Written {
        /// Grant it lies in.
        extent: u32,
        /// Bytes from the start of the segment.
        offset: u32,
        /// Bytes of preamble and payload.
        bytes: u32,
        /// Batch sequence.
        batch_seq: u64,
    },
    /// Memory publisher: nothing more will be written into this grant. Broker, to a subscriber
    /// that reads segments over verbs: read nothing more from it, and say so.
    ExtentDone {
        /// Grant.
        extent: u32,
    },
    /// Publisher, order `token`: positions, please.
    Reserve {
        /// Number on this connection; they only grow.
        request: u32,
        /// Positions; at least 1.
        count: u32,
        /// One batch will fill them all. Otherwise several may, and fewer may be granted.
        whole: bool,
    },
    /// Broker: these positions are the publisher's to write.
    Reserved {
        /// Number of the request. Over verbs: how many came before it.
        request: u32,
        /// The first of them.
        first: u64,
        /// How many.
        count: u32,
    },
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn low(word: u64) -> u32 {
    word as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

impl Frame {
    /// The frame as the seven words behind its head, with its kind.
    fn body(self) -> (u8, Body) {
        match self {
            Self::Hello(h) => {
                let (from, value) = match h.from {
                    From::Earliest => (0, 0),
                    From::Latest => (1, 0),
                    From::Position(position) => (2, position),
                    From::Time(ns) => (3, ns),
                };
                let modes = h.role as u64 | (h.carrier as u64) << 8 | (h.ack as u64) << 16;
                let modes = modes | from << 24 | u64::from(h.checked) << 32;
                let modes = modes | u64::from(h.comes_back) << 40;
                (1, [modes, h.client, pair(h.session_epoch, h.life), value, 0, 0, 0])
            }
            Self::Welcome(w) => {
                let small = u64::from(w.order)
                    | u64::from(w.broker) << 8
                    | u64::from(w.in_flight_max) << 16
                    | u64::from(w.copies) << 32
                    | u64::from(w.is_own) << 40
                    | u64::from(w.has_bounds) << 48;
                let body = [
                    pair(w.topic.0, w.session_epoch),
                    pair(w.session_index, w.batch_bytes_max),
                    w.next_seq,
                    w.start,
                    w.end,
                    small,
                    w.created_ns,
                ];
                (2, body)
            }
            Self::Refused(why) => (3, [why as u64, 0, 0, 0, 0, 0, 0]),
            Self::Receipt(r) => {
                let small = r.reached as u64 | u64::from(r.count) << 16;
                (
                    4,
                    [
                        small | u64::from(r.session_epoch) << 32,
                        r.batch_seq,
                        r.position,
                        r.landed_ns,
                        0,
                        0,
                        0,
                    ],
                )
            }
            Self::Fenced { session_epoch, next_seq } => {
                (5, [session_epoch.into(), next_seq, 0, 0, 0, 0, 0])
            }
            Self::Delivery(d) => {
                let small = u64::from(d.log) | u64::from(d.broker) << 8 | u64::from(d.count) << 16;
                let head = small | u64::from(d.bytes) << 32;
                (6, [head, d.index, d.first_position, d.landed_ns, d.checksum.into(), 0, 0])
            }
            Self::Gap { log, reason, missed, resume } => {
                (7, [u64::from(log) | (reason as u64) << 8, missed, resume, 0, 0, 0, 0])
            }
            Self::CaughtUp => (8, [0; 7]),
            Self::Stalled { why, used, of } => (9, [why as u64, pair(used, of), 0, 0, 0, 0, 0]),
            Self::Bye => (10, [0; 7]),
            Self::ExtentWanted { bytes } => (11, [bytes.into(), 0, 0, 0, 0, 0, 0]),
            Self::Extent { extent, segment, generation, offset, bytes, key, at } => {
                let place = pair(offset, bytes);
                (12, [pair(extent, segment), generation, place, key.into(), at, 0, 0])
            }
            Self::Written { extent, offset, bytes, batch_seq } => {
                (13, [extent.into(), pair(offset, bytes), batch_seq, 0, 0, 0, 0])
            }
            Self::ExtentDone { extent } => (14, [extent.into(), 0, 0, 0, 0, 0, 0]),
            Self::Reserve { request, count, whole } => {
                (15, [pair(request, count), whole.into(), 0, 0, 0, 0, 0])
            }
            Self::Reserved { request, first, count } => {
                (16, [pair(request, count), first, 0, 0, 0, 0, 0])
            }
            Self::Held(held) => {
                let [small, durable, awaited] = held.words();
                (17, [small, durable, awaited, 0, 0, 0, 0])
            }
            Self::Beat => (18, [0; 7]),
            Self::Ends => (19, [0; 7]),
        }
    }

    fn from_body(kind: u8, body: Body) -> Result<Self, FrameError> {
        let [a, b, c, d, e, g, h] = body;
        let bad = |field, value| FrameError::Field { kind, field, value };
        Ok(match kind {
            1 => Self::Hello(Hello {
                role: match a & 0xff {
                    0 => Role::Publish,
                    1 => Role::Subscribe,
                    value => return Err(bad("role", value)),
                },
                carrier: match a >> 8 & 0xff {
                    0 => Carrier::Stream,
                    1 => Carrier::Memory,
                    2 => Carrier::Verbs,
                    value => return Err(bad("carrier", value)),
                },
                ack: match a >> 16 & 0xff {
                    0 => Ack::None,
                    1 => Ack::Ordered,
                    2 => Ack::Durable,
                    value => return Err(bad("ack", value)),
                },
                client: b,
                session_epoch: low(c),
                life: high(c),
                from: match a >> 24 & 0xff {
                    0 => From::Earliest,
                    1 => From::Latest,
                    2 => From::Position(d),
                    3 => From::Time(d),
                    value => return Err(bad("from", value)),
                },
                checked: match a >> 32 & 0xff {
                    0 => false,
                    1 => true,
                    value => return Err(bad("checked", value)),
                },
                comes_back: match a >> 40 {
                    0 => false,
                    1 => true,
                    value => return Err(bad("comes back", value)),
                },
            }),
            2 => Self::Welcome(Welcome {
                topic: TopicId(low(a)),
                created_ns: h,
                session_epoch: high(a),
                session_index: low(b),
                batch_bytes_max: high(b),
                next_seq: c,
                start: d,
                end: e,
                order: g as u8,
                broker: (g >> 8) as u8,
                in_flight_max: (g >> 16) as u16,
                copies: (g >> 32) as u8,
                is_own: g >> 40 & 0xff != 0,
                has_bounds: g >> 48 & 0xff != 0,
            }),
            3 => Self::Refused(
                u16::try_from(a).ok().and_then(Refusal::from_raw).ok_or(bad("reason", a))?,
            ),
            4 => Self::Receipt(Receipt {
                reached: match a & 0xffff {
                    0 => Reached::Landed,
                    1 => Reached::Ordered,
                    2 => Reached::Duplicate,
                    3 => Reached::Durable,
                    4 => Reached::Replicated,
                    5 => Reached::Lost,
                    value => return Err(bad("reached", value)),
                },
                count: (a >> 16) as u16,
                session_epoch: high(a),
                batch_seq: b,
                position: c,
                landed_ns: d,
            }),
            5 => Self::Fenced { session_epoch: low(a), next_seq: b },
            6 => Self::Delivery(Delivery {
                log: a as u8,
                broker: (a >> 8) as u8,
                count: (a >> 16) as u16,
                bytes: high(a),
                index: b,
                first_position: c,
                landed_ns: d,
                checksum: low(e),
            }),
            7 => Self::Gap {
                log: a as u8,
                reason: GapReason::from_raw(a >> 8).ok_or(bad("reason", a >> 8))?,
                missed: b,
                resume: c,
            },
            8 => Self::CaughtUp,
            9 => Self::Stalled {
                why: Stall::ALL.into_iter().find(|why| *why as u64 == a).ok_or(bad("why", a))?,
                used: low(b),
                of: high(b),
            },
            10 => Self::Bye,
            11 => Self::ExtentWanted { bytes: low(a) },
            12 => Self::Extent {
                extent: low(a),
                segment: high(a),
                generation: b,
                offset: low(c),
                bytes: high(c),
                key: low(d),
                at: e,
            },
            13 => Self::Written { extent: low(a), offset: low(b), bytes: high(b), batch_seq: c },
            14 => Self::ExtentDone { extent: low(a) },
            15 => Self::Reserve {
                request: low(a),
                count: high(a),
                whole: if b > 1 { return Err(bad("whole", b)) } else { b == 1 },
            },
            16 => Self::Reserved { request: low(a), first: b, count: high(a) },
            17 => Self::Held(Held::from_words([a, b, c]).map_err(|value| bad("held", value))?),
            18 => Self::Beat,
            19 => Self::Ends,
            _ => return Err(bad("kind", kind.into())),
        })
    }

    /// The frame as the first seven words of a channel line: the head shares the word with the
    /// first of the body's, so only frames whose last body word is unused travel this way.
    pub fn to_line(self) -> Body {
        let (kind, [a, b, c, d, e, g, _]) = self.body();
        [
            u64::from(FRAME_MAGIC) | u64::from(FRAME_VERSION) << 32 | u64::from(kind) << 40,
            a,
            b,
            c,
            d,
            e,
            g,
        ]
    }

    /// The frame that a channel line says.
    pub fn from_line(line: Body) -> Result<Self, FrameError> {
        let [head, a, b, c, d, e, g] = line;
        let (kind, _) = check_head(head)?;
        Self::from_body(kind, [a, b, c, d, e, g, 0])
    }

    /// The frame as bytes on the wire, announcing a tail of `tail_bytes` (at most
    /// [`TAIL_BYTES_MAX`]).
    pub fn encode(self, tail_bytes: usize) -> [u8; FRAME_BYTES] {
        assert!(tail_bytes <= TAIL_BYTES_MAX, "a tail of {tail_bytes} bytes");
        let [head, a, b, c, d, e, g] = self.to_line();
        let (_, [.., h]) = self.body();
        zerocopy::transmute!([head | (tail_bytes as u64) << 48, a, b, c, d, e, g, h])
    }

    /// The frame that bytes from the wire say, and the length of its tail.
    pub fn decode(bytes: [u8; FRAME_BYTES]) -> Result<(Self, usize), FrameError> {
        let words: [u64; 8] = zerocopy::transmute!(bytes);
        let (kind, tail) = check_head(words[0])?;
        let [_, body @ ..] = words;
        Ok((Self::from_body(kind, body)?, tail))
    }
}

fn check_head(head: u64) -> Result<(u8, usize), FrameError> {
    if head as u32 != FRAME_MAGIC {
        return Err(FrameError::Magic { found: head as u32 });
    }
    let version = (head >> 32) as u8;
    if version != FRAME_VERSION {
        return Err(FrameError::Version { found: version });
    }
    let tail = (head >> 48) as u16;
    if usize::from(tail) > TAIL_BYTES_MAX {
        return Err(FrameError::Tail { bytes: tail });
    }
    Ok(((head >> 40) as u8, usize::from(tail)))
}
