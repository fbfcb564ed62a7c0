//! What the keeper and the sequencer thread say to each other, and what HTTP asks the keeper.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use landfall_layout::command::{Command, JOINED_SESSIONS};
use landfall_layout::topic::Order;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::log::LogSegment;
use landfall_pool::slot_ring::SlotRing;
use tokio::sync::oneshot;

use crate::answers::{Cluster, Health, Problem, Token, TokenSpec, Topic, TopicSpec};
use crate::segments::LastEntries;
use crate::sequencer::{Cause, TopicSequencer, Wish};

/// Messages that may wait in each of the two channels; beyond that they wait at the sender.
pub const CHANNEL_MESSAGES: usize = 1024;

/// A sequenced topic as the sequencer thread takes it over.
pub struct NewTopic {
    /// The topic.
    pub topic: TopicId,
    /// Its order.
    pub order: Order,
    /// Its sessions and rings.
    pub sequencer: TopicSequencer,
    /// The log begins, so its frontier line is written first.
    pub is_new: bool,
    /// Where its next entries go.
    pub log: LogSegment,
}

/// The ring of one (topic, broker).
#[derive(Clone, Copy, Debug)]
pub struct NewRing {
    /// Topic.
    pub topic: TopicId,
    /// Broker.
    pub broker: BrokerId,
    /// Where it is.
    pub ring: SlotRing,
}

/// From the keeper to the sequencer thread.
pub enum ToSequencer {
    /// A topic to order.
    AddTopic(Box<NewTopic>),
    /// A ring to read.
    AddRing(NewRing),
    /// Room for more entries, right behind the room there is.
    AddLog {
        /// Topic.
        topic: TopicId,
        /// The segment.
        segment: LogSegment,
    },
    /// A topic to forget, with its sessions.
    DropTopic {
        /// Topic.
        topic: TopicId,
    },
    /// A publisher's session.
    OpenSession(OpenSession),
    /// A publisher said goodbye to a broker.
    CloseSession {
        /// Broker.
        broker: BrokerId,
        /// Index of the session's line.
        index: u32,
        /// Epoch.
        epoch: u32,
    },
    /// Publishers are with a broker.
    Joined {
        /// Broker.
        broker: BrokerId,
        /// Index and epoch of each of their sessions; epoch 0: none.
        sessions: [(u32, u32); JOINED_SESSIONS],
    },
    /// A broker has named all.
    JoinedAll {
        /// Broker.
        broker: BrokerId,
    },
    /// Time has passed: sessions that no broker is in may have to be closed. Whoever came back
    /// through a broker that was heard is named before this.
    CloseLeft {
        /// Time that the keeper has listened, nanoseconds.
        heard_ns: u64,
        /// How long a session is kept open that no broker is in, nanoseconds.
        lease_ns: u64,
    },
    /// A session is over.
    Fence {
        /// Topic.
        topic: TopicId,
        /// Client id.
        client: u64,
        /// Epoch.
        epoch: u32,
        /// The batch that it waits for, if that did not come; else one of it was rewritten.
        late: Option<u64>,
    },
    /// A publisher wants positions.
    Reserve {
        /// Topic.
        topic: TopicId,
        /// What it wants.
        wish: Wish,
    },
    /// A broker's process is gone, and its connections with it.
    BrokerGone {
        /// Broker.
        broker: BrokerId,
    },
}

/// A broker's request for a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenSession {
    /// Broker that asks.
    pub broker: BrokerId,
    /// Its number for the request.
    pub request: u64,
    /// Topic.
    pub topic: TopicId,
    /// Client id.
    pub client: u64,
    /// Epoch to join; 0 opens the next one.
    pub epoch: u32,
    /// The publisher's own number, or 0.
    pub life: u32,
    /// It had the session before.
    pub comes_back: bool,
}

/// From the sequencer thread to the keeper.
#[derive(Debug)]
pub enum FromSequencer {
    /// An answer for a broker.
    Answer {
        /// The broker.
        broker: BrokerId,
        /// The answer.
        command: Command,
    },
    /// A topic's log is running out of room.
    LogWanted {
        /// Topic.
        topic: TopicId,
        /// Entries it should have room for behind its frontier, at least.
        room: u64,
    },
    /// Nothing of the topic is touched any more.
    Dropped {
        /// Topic.
        topic: TopicId,
    },
    /// A session was fenced.
    Fenced {
        /// Topic.
        topic: TopicId,
        /// Client.
        client: u64,
        /// Why.
        cause: Cause,
    },
}

/// What control's threads share.
#[derive(Debug)]
pub struct Shared {
    /// Everybody stops.
    pub stop: AtomicBool,
    /// A later epoch that was found in the pool: another control leads. 0 while there is none.
    pub deposed_by: AtomicU64,
    /// Brokers that may follow logs, a bit each.
    pub brokers: AtomicU32,
    /// Messages wait for the sequencer thread.
    pub for_sequencer: AtomicBool,
    /// Last entry of each segment.
    pub last_entries: LastEntries,
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(segments: u32) -> Self {
        Self {
            stop: AtomicBool::new(false),
            deposed_by: AtomicU64::new(0),
            brokers: AtomicU32::new(0),
            for_sequencer: AtomicBool::new(false),
            last_entries: LastEntries::new(segments),
        }
    }

    /// Another control leads, in `epoch`: everybody stops.
    pub fn depose(&self, epoch: u64) {
        // Relaxed: numbers on their own.
        self.deposed_by.store(epoch, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether this process has to stop.
    pub fn is_stopping(&self) -> bool {
        // Relaxed: nothing else is read on the strength of it.
        self.stop.load(Ordering::Relaxed)
    }
}

/// The sending side of a bounded channel. What does not fit waits here, so nothing is lost and
/// nobody blocks.
pub struct Sender<T> {
    channel: SyncSender<T>,
    waiting: VecDeque<T>,
}

impl<T> Sender<T> {
    /// Sends into `channel`.
    pub fn new(channel: SyncSender<T>) -> Self {
        Self { channel, waiting: VecDeque::new() }
    }

    /// Queues a message behind those that wait.
    pub fn send(&mut self, message: T) {
        self.waiting.push_back(message);
        self.flush();
    }

    /// Sends what waits, as far as there is room. True when something went.
    pub fn flush(&mut self) -> bool {
        let before = self.waiting.len();
        while let Some(message) = self.waiting.pop_front() {
            match self.channel.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.waiting.push_front(message);
                    break;
                }
                // The other thread ended, which only happens when the process stops.
                Err(TrySendError::Disconnected(_)) => self.waiting.clear(),
            }
        }
        self.waiting.len() < before
    }

    /// Whether something waits for room.
    pub fn is_backed_up(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// An answer that somebody awaits.
pub type Reply<T> = oneshot::Sender<T>;

/// What HTTP asks the keeper.
pub enum Ask {
    /// `GET /v1/health`.
    Health(Reply<Health>),
    /// `GET /v1/cluster`.
    Cluster(Reply<Cluster>),
    /// `GET /v1/topics`.
    Topics(Reply<Arc<Vec<Topic>>>),
    /// `GET /v1/topics/{name}`.
    Topic(String, Reply<Result<Topic, Problem>>),
    /// `POST /v1/topics`.
    Create(TopicSpec, Reply<Result<Topic, Problem>>),
    /// `DELETE /v1/topics/{name}`; answered when nothing of the topic is left.
    Delete(String, Reply<Result<(), Problem>>),
    /// `DELETE /v1/brokers/{number}`.
    Forget(u8, Reply<Result<(), Problem>>),
    /// `POST /v1/topics/{name}/tokens`; answered when the broker can see the token.
    Token(String, TokenSpec, Option<IpAddr>, Reply<Result<Token, Problem>>),
}
