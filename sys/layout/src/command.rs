//! Command rings: what control and a broker say to each other through the pool.

use crate::ids::TopicId;
use crate::limits::{COMMAND_LINES, LINE_BYTES};
use crate::segment::SegmentKind;

/// Bytes of one command ring: its lines. Who takes them has a line elsewhere.
pub const COMMAND_RING_BYTES: u64 = COMMAND_LINES * LINE_BYTES;
/// Index of the first command of an epoch: those of another epoch are never taken for its own.
pub fn first_command(epoch: u64) -> u64 {
    epoch << 32
}

/// Sessions that one `Joined` names.
pub const JOINED_SESSIONS: usize = 5;

/// A line of a ring without its commit word: what a command packs into.
pub type Body = [u64; 7];

/// Why control could not do what a broker asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// No such topic, or it is being deleted.
    NoTopic,
    /// No free segment, and nothing that retention may take.
    PoolFull,
    /// Every session line is in use.
    SessionsFull,
    /// The session was fenced, or another publisher opened a later epoch of it.
    Fenced,
    /// No such session epoch was ever opened.
    NoSession,
    /// Another publisher of the client id opened the session since this one had it.
    Superseded,
}

impl Denial {
    fn raw(self) -> u64 {
        match self {
            Self::NoTopic => 1,
            Self::PoolFull => 2,
            Self::SessionsFull => 3,
            Self::Fenced => 4,
            Self::NoSession => 5,
            Self::Superseded => 6,
        }
    }

    fn from_raw(raw: u64) -> Option<Self> {
        Some(match raw {
            1 => Self::NoTopic,
            2 => Self::PoolFull,
            3 => Self::SessionsFull,
            4 => Self::Fenced,
            5 => Self::NoSession,
            6 => Self::Superseded,
            _ => return None,
        })
    }
}

/// From control to a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Answers `Register`: this control leads and knows the broker.
    Accepted {
        /// Epoch of the leader.
        epoch: u64,
        /// Incarnation that registered.
        incarnation: u64,
    },
    /// A segment is the broker's to fill. Sent again when in doubt: the broker knows what it has
    /// by (segment, generation).
    Grant {
        /// Payload, or order log for the broker's own log.
        kind: SegmentKind,
        /// Topic it serves.
        topic: TopicId,
        /// The segment.
        segment: u32,
        /// Its generation.
        generation: u64,
        /// Order log: absolute index of its first entry.
        base_index: u64,
    },
    /// The ring line of (topic, broker) is set.
    RingReady {
        /// Topic.
        topic: TopicId,
    },
    /// Nothing could be granted.
    Denied {
        /// Topic it was asked for.
        topic: TopicId,
        /// What was asked for.
        kind: SegmentKind,
        /// Why not.
        why: Denial,
        /// Segments free, for the message to people.
        free: u32,
        /// Segments in all.
        segments: u32,
    },
    /// A session is open.
    SessionOpen {
        /// Number of the broker's request.
        request: u64,
        /// Index of the session's line.
        index: u32,
        /// Its epoch.
        epoch: u32,
        /// Batch sequence expected next.
        next_seq: u64,
        /// What came last in it was the same publisher's when it opened it in this pool first.
        is_own: bool,
    },
    /// A session could not be opened.
    SessionDenied {
        /// Number of the broker's request.
        request: u64,
        /// Why not.
        why: Denial,
        /// Current epoch of that client's session, when there is one.
        epoch: u32,
        /// Batch sequence expected next in it.
        next_seq: u64,
    },
    /// Stop reading this segment and say `Retired`: the oldest index has moved past it.
    Retire {
        /// The segment.
        segment: u32,
        /// Its generation.
        generation: u64,
    },
    /// The topic is being deleted: let go of everything of it, then say `TopicReleased`.
    DropTopic {
        /// Topic.
        topic: TopicId,
    },
    /// A client that may connect over verbs, once, and for how long.
    Expect {
        /// Topic it named.
        topic: TopicId,
        /// What it will show. Random, so that nobody can guess it.
        token: u128,
        /// The token is void so long after the broker heard of it, nanoseconds.
        lease_ns: u64,
    },
    /// Positions that a session may write.
    Reserved {
        /// Number of the broker's request.
        request: u64,
        /// The first of them.
        first: u64,
        /// How many.
        count: u32,
    },
}

/// From a broker to control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// A process took this broker number. Segments of the incarnation before are sealed.
    Register {
        /// Its random number, the same as in its line.
        incarnation: u64,
    },
    /// A ring for (topic, this broker).
    OpenRing {
        /// Topic.
        topic: TopicId,
    },
    /// A segment.
    Want {
        /// Payload, or order log for the broker's own log.
        kind: SegmentKind,
        /// Topic.
        topic: TopicId,
        /// The one in use has room: nobody waits, and nothing that can be read goes for it.
        is_ahead: bool,
    },
    /// Open a session, or join an epoch of it that another connection opened.
    OpenSession {
        /// Number that comes back in the answer.
        request: u64,
        /// Topic.
        topic: TopicId,
        /// Client id.
        client: u64,
        /// Epoch to join; 0 opens the next one.
        epoch: u32,
        /// The publisher's own number, or 0.
        life: u32,
        /// It had the session before, and is refused where another one has opened it since.
        comes_back: bool,
    },
    /// The publisher said goodbye.
    CloseSession {
        /// Index of the session's line.
        index: u32,
        /// Its epoch.
        epoch: u32,
    },
    /// Nothing more will be written into this segment by this broker.
    Sealed {
        /// The segment.
        segment: u32,
        /// Its generation.
        generation: u64,
        /// Payload: ring index (orders `none` and `broker`: log index) below which every batch
        /// in the segment is.
        through: u64,
    },
    /// Nobody on this broker reads the segment any more.
    Retired {
        /// The segment.
        segment: u32,
        /// Its generation.
        generation: u64,
    },
    /// Nothing on this broker touches the topic any more.
    TopicReleased {
        /// Topic.
        topic: TopicId,
    },
    /// Positions for a session of a topic of order `token`. Answered by `Reserved`, once, or by
    /// `SessionDenied`.
    Reserve {
        /// Number that comes back in the answer. A broker's numbers only grow.
        request: u64,
        /// Topic.
        topic: TopicId,
        /// Index of the session's line.
        session: u32,
        /// Its epoch.
        epoch: u32,
        /// Positions.
        count: u32,
        /// One batch will fill them all.
        whole: bool,
    },
    /// A page of this segment cannot be read any more. Repeated until its header says so.
    Lost {
        /// The segment.
        segment: u32,
    },
    /// Fence the epoch, if it is the session's still: a batch of it is not what it was when it
    /// landed, or one that others of it wait for did not come.
    Fence {
        /// Topic.
        topic: TopicId,
        /// Client id.
        client: u64,
        /// The epoch.
        epoch: u32,
        /// One did not come: that sequence, while it is the session's next one.
        late: Option<u64>,
    },
    /// A client of this broker may still write into a segment of a topic that is deleted: it is not
    /// used again before `LetGo`. Said before `TopicReleased`, and again to each new leader.
    Withhold {
        /// The segment.
        segment: u32,
        /// Its generation.
        generation: u64,
    },
    /// Nobody can write into that segment any more.
    LetGo {
        /// The segment.
        segment: u32,
        /// Its generation.
        generation: u64,
    },
    /// Publishers of these sessions are connected to this broker. Said to each new leader.
    Joined {
        /// Epoch of the leader that it is said to.
        leader: u64,
        /// Index and epoch of each; epoch 0: none.
        sessions: [(u32, u32); JOINED_SESSIONS],
    },
    /// Publishers of other sessions than were named to that leader, or opened by it, are not.
    JoinedAll {
        /// Epoch of the leader that it is said to.
        leader: u64,
    },
    /// What was named with `Withhold` since the broker follows this leader is all that clients of
    /// its may write into, deleted topics' segments, and those of earlier processes of its number.
    AllWithheld {
        /// The leader's epoch: what was said to another one says nothing to this one.
        epoch: u64,
        /// Whose word it is.
        incarnation: u64,
    },
    /// What the topic is stands on stable storage in this broker's data directory. Said by each
    /// process of a home, once for each topic.
    TopicSaid {
        /// Topic.
        topic: TopicId,
    },
}

fn kind_raw(kind: SegmentKind) -> u64 {
    kind as u64
}

fn kind_from(raw: u64) -> Option<SegmentKind> {
    match raw {
        1 => Some(SegmentKind::Payload),
        2 => Some(SegmentKind::Ring),
        3 => Some(SegmentKind::OrderLog),
        _ => None,
    }
}

impl Command {
    /// The command as the first seven words of its line.
    pub fn pack(self) -> Body {
        match self {
            Self::Accepted { epoch, incarnation } => [1, epoch, incarnation, 0, 0, 0, 0],
            Self::Grant { kind, topic, segment, generation, base_index } => {
                [2, kind_raw(kind), topic.0.into(), segment.into(), generation, base_index, 0]
            }
            Self::RingReady { topic } => [3, topic.0.into(), 0, 0, 0, 0, 0],
            Self::Denied { topic, kind, why, free, segments } => {
                [4, topic.0.into(), kind_raw(kind), why.raw(), free.into(), segments.into(), 0]
            }
            Self::SessionOpen { request, index, epoch, next_seq, is_own } => {
                [5, request, index.into(), epoch.into(), next_seq, is_own.into(), 0]
            }
            Self::SessionDenied { request, why, epoch, next_seq } => {
                [6, request, why.raw(), epoch.into(), next_seq, 0, 0]
            }
            Self::Retire { segment, generation } => [7, segment.into(), generation, 0, 0, 0, 0],
            Self::DropTopic { topic } => [8, topic.0.into(), 0, 0, 0, 0, 0],
            Self::Expect { topic, token, lease_ns } => {
                [9, topic.0.into(), token as u64, (token >> 64) as u64, lease_ns, 0, 0]
            }
            Self::Reserved { request, first, count } => [10, request, first, count.into(), 0, 0, 0],
        }
    }

    /// The command that a line says; `None` for what no version of ours wrote.
    pub fn unpack(body: Body) -> Option<Self> {
        let [tag, a, b, c, d, e, _] = body;
        Some(match tag {
            1 => Self::Accepted { epoch: a, incarnation: b },
            2 => Self::Grant {
                kind: kind_from(a)?,
                topic: TopicId(b as u32),
                segment: c as u32,
                generation: d,
                base_index: e,
            },
            3 => Self::RingReady { topic: TopicId(a as u32) },
            4 => Self::Denied {
                topic: TopicId(a as u32),
                kind: kind_from(b)?,
                why: Denial::from_raw(c)?,
                free: d as u32,
                segments: e as u32,
            },
            5 => Self::SessionOpen {
                request: a,
                index: b as u32,
                epoch: c as u32,
                next_seq: d,
                is_own: e == 1,
            },
            6 => Self::SessionDenied {
                request: a,
                why: Denial::from_raw(b)?,
                epoch: c as u32,
                next_seq: d,
            },
            7 => Self::Retire { segment: a as u32, generation: b },
            8 => Self::DropTopic { topic: TopicId(a as u32) },
            9 => Self::Expect {
                topic: TopicId(a as u32),
                token: u128::from(b) | u128::from(c) << 64,
                lease_ns: d,
            },
            10 => Self::Reserved { request: a, first: b, count: c as u32 },
            _ => return None,
        })
    }
}

impl Request {
    /// The request as the first seven words of its line.
    pub fn pack(self) -> Body {
        match self {
            Self::Register { incarnation } => [1, incarnation, 0, 0, 0, 0, 0],
            Self::OpenRing { topic } => [2, topic.0.into(), 0, 0, 0, 0, 0],
            Self::Want { kind, topic, is_ahead } => {
                [3, kind_raw(kind), topic.0.into(), is_ahead.into(), 0, 0, 0]
            }
            Self::OpenSession { request, topic, client, epoch, life, comes_back } => {
                [4, request, topic.0.into(), client, epoch.into(), life.into(), comes_back.into()]
            }
            Self::CloseSession { index, epoch } => [5, index.into(), epoch.into(), 0, 0, 0, 0],
            Self::Sealed { segment, generation, through } => {
                [6, segment.into(), generation, through, 0, 0, 0]
            }
            Self::Retired { segment, generation } => [7, segment.into(), generation, 0, 0, 0, 0],
            Self::TopicReleased { topic } => [8, topic.0.into(), 0, 0, 0, 0, 0],
            Self::Reserve { request, topic, session, epoch, count, whole } => [
                9,
                request,
                topic.0.into(),
                session.into(),
                epoch.into(),
                count.into(),
                whole.into(),
            ],
            Self::Lost { segment } => [10, segment.into(), 0, 0, 0, 0, 0],
            Self::Fence { topic, client, epoch, late } => {
                let (is_late, seq) = (late.is_some().into(), late.unwrap_or_default());
                [11, topic.0.into(), client, epoch.into(), is_late, seq, 0]
            }
            Self::Withhold { segment, generation } => [12, segment.into(), generation, 0, 0, 0, 0],
            Self::LetGo { segment, generation } => [13, segment.into(), generation, 0, 0, 0, 0],
            Self::Joined { leader, sessions } => {
                let [a, b, c, d, e] =
                    sessions.map(|(index, epoch)| u64::from(index) | u64::from(epoch) << 32);
                [14, leader, a, b, c, d, e]
            }
            Self::JoinedAll { leader } => [15, leader, 0, 0, 0, 0, 0],
            Self::AllWithheld { epoch, incarnation } => [16, epoch, incarnation, 0, 0, 0, 0],
            Self::TopicSaid { topic } => [17, topic.0.into(), 0, 0, 0, 0, 0],
        }
    }

    /// The request that a line says; `None` for what no version of ours wrote.
    pub fn unpack(body: Body) -> Option<Self> {
        let [tag, a, b, c, d, e, f] = body;
        Some(match tag {
            1 => Self::Register { incarnation: a },
            2 => Self::OpenRing { topic: TopicId(a as u32) },
            3 => Self::Want {
                kind: kind_from(a)?,
                topic: TopicId(b as u32),
                is_ahead: match c {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
            },
            4 => Self::OpenSession {
                request: a,
                topic: TopicId(b as u32),
                client: c,
                epoch: d as u32,
                life: e as u32,
                comes_back: match f {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
            },
            5 => Self::CloseSession { index: a as u32, epoch: b as u32 },
            6 => Self::Sealed { segment: a as u32, generation: b, through: c },
            7 => Self::Retired { segment: a as u32, generation: b },
            8 => Self::TopicReleased { topic: TopicId(a as u32) },
            9 => Self::Reserve {
                request: a,
                topic: TopicId(b as u32),
                session: c as u32,
                epoch: d as u32,
                count: e as u32,
                whole: match f {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
            },
            10 => Self::Lost { segment: a as u32 },
            11 => Self::Fence {
                topic: TopicId(a as u32),
                client: b,
                epoch: c as u32,
                late: match d {
                    0 => None,
                    1 => Some(e),
                    _ => return None,
                },
            },
            12 => Self::Withhold { segment: a as u32, generation: b },
            13 => Self::LetGo { segment: a as u32, generation: b },
            14 => Self::Joined {
                leader: a,
                sessions: [b, c, d, e, f].map(|word| (word as u32, (word >> 32) as u32)),
            },
            15 => Self::JoinedAll { leader: a },
            16 => Self::AllWithheld { epoch: a, incarnation: b },
            17 => Self::TopicSaid { topic: TopicId(a as u32) },
            _ => return None,
        })
    }
}
