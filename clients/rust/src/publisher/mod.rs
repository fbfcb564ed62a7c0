//! Publishing.
//!
//! Messages gather in the open batch of their lane. A batch that is full, or was open for long
//! enough, is *filled*; it is *sealed* (gets its sequence and preamble) when a connection takes
//! it, and *settles* with its receipt. What has not settled when a connection is lost is sealed
//! and sent again.

mod append;
mod batch;
mod builder;
mod drive;
mod extents;
mod lanes;
mod link;
mod memory;
mod patience;
mod positions;
mod receipts;
mod recover;
mod reserve;
mod session;
mod store;
mod tcp;
mod verbs;

use std::time::Instant;

use landfall_layout::TopicId;
use landfall_layout::frame::{Ack, Reached};
use landfall_layout::held::Held;
use landfall_layout::topic::Order;
use landfall_layout::verbs::GrantMode;

use self::batch::Identity;
use self::lanes::{Clock, LaneState, Open};
use self::link::{Carrier, Link};
use self::positions::Positions;
use self::receipts::{Known, LANES, ReceiptRing, Spoilt};
use self::session::Session;
use self::store::Store;
use crate::connect::Transport;
use crate::error::{Error, Stalled};
use crate::route::Route;
use crate::wait::{Reconnects, random_id};

pub use builder::PublisherBuilder;
pub use positions::ReservedPositions;
pub use receipts::{Acked, BatchReceipt, Lane, PublisherStats, Receipt, Ticket};
pub use reserve::{Reservation, Reserved};

/// A message to publish.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// What it says.
    pub payload: &'a [u8],
    /// Its timestamp, nanoseconds; `None`: the publisher's clock, as of its last look.
    pub timestamp_ns: Option<u64>,
    /// How urgent it is.
    pub lane: Lane,
}

/// Why a message was not taken without waiting.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// No room now; call [`Publisher::poll`] and try again.
    Full {
        /// Bytes of batches open, queued or not yet acknowledged.
        queued_bytes: u64,
        /// The bound on them.
        bound: u64,
    },
    /// The message is larger than the topic takes.
    TooLarge {
        /// Bytes of the batch it would need.
        bytes: u64,
        /// Most that are possible.
        most: u64,
    },
    /// The publisher failed.
    Failed(Error),
}

impl std::fmt::Display for PublishError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full { queued_bytes, bound } => write!(
                f,
                "no room now: {queued_bytes} of {bound} bytes are queued or not acknowledged; \
                 poll the publisher and try again"
            ),
            Self::TooLarge { bytes, most } => Error::TooLarge { bytes: *bytes, most: *most }.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {}

/// Batches that were bound to a connection one behind the other.
#[derive(Clone, Copy, Debug, Default)]
struct Dealt {
    batches: u32,
    bytes: u64,
}

/// Publishes to one topic. Built by [`Client::publisher`](crate::Client::publisher).
///
/// A publisher has one owner at a time and no thread: it moves when it is called. It may be handed
/// to another thread by any means that makes a system call or a locked instruction, as all of the
/// standard library's do; streamed bytes are then in memory before the other thread goes on.
pub struct Publisher {
    setup: PublisherBuilder,
    linger_ns: u64,
    route: Route,
    links: Vec<Link>,
    next_link: usize,
    /// What that connection was dealt in a row. See [`Self::deal`].
    dealt: Dealt,
    topic: Option<TopicId>,
    /// When that topic was made: another pool may give its id to another one.
    made_ns: u64,
    order: Order,
    epoch: u32,
    batch_bytes_max: u32,
    session: Session,
    positions: Positions,
    store: Store,
    lanes: [LaneState; LANES],
    clock: Clock,
    /// Bytes of batches that are filled or sealed, and not settled.
    waiting_bytes: u64,
    spare_buffers: Vec<Vec<u8>>,
    /// Sequences that one write let go of; kept for its memory.
    written: Vec<u64>,
    receipts: ReceiptRing,
    acked: Acked,
    stats: PublisherStats,
    stalled: Option<Stalled>,
    held: Option<Held>,
    /// Counts everything that moves, so that a wait knows whether anything did.
    moves: u64,
    /// When it was last looked whether the brokers of memory connections are there.
    looked_ns: u64,
    /// How a connection ended, until what came before that is taken.
    ended: Option<Error>,
    reconnects: Reconnects,
    retry_at: Instant,
    /// The pool that the session's epoch is of.
    pool_uuid: String,
    /// Hellos that may still open an epoch: one that was not answered is perhaps on its way.
    hellos: u32,
    /// The publisher's own number, which its batches and hellos carry.
    life: u32,
    /// Its first sequence: those below are of whoever had the client id before.
    began_at: u64,
    /// The level that batches reach: the last that a receipt named.
    level: Option<Reached>,
    /// Batches that are lost and were not told of.
    spoilt: Spoilt,
    lost_broker: Option<u8>,
    down_why: Option<String>,
    failed: Option<String>,
    closing: bool,
}

impl Publisher {
    pub(crate) fn connect(setup: PublisherBuilder) -> Result<Self, Error> {
        if setup.ack == Ack::Durable {
            check_durable(&setup)?;
        }
        let route =
            Route::new(setup.client.clone(), setup.topic.clone(), setup.transport, setup.broker);
        let store = Store::new(setup.memory_bytes, setup.batch_bytes);
        let mut publisher = Self {
            linger_ns: u64::try_from(setup.linger.as_nanos()).unwrap_or(u64::MAX),
            reconnects: Reconnects::new(setup.client_id),
            setup,
            route,
            links: Vec::new(),
            next_link: 0,
            dealt: Dealt::default(),
            topic: None,
            made_ns: 0,
            order: Order::None,
            epoch: 0,
            batch_bytes_max: 0,
            session: Session::default(),
            positions: Positions::default(),
            store,
            lanes: Default::default(),
            clock: Clock::new(),
            waiting_bytes: 0,
            spare_buffers: Vec::new(),
            written: Vec::new(),
            receipts: ReceiptRing::default(),
            acked: Acked::default(),
            stats: PublisherStats::default(),
            stalled: None,
            held: None,
            moves: 0,
            looked_ns: 0,
            ended: None,
            retry_at: Instant::now(),
            pool_uuid: String::new(),
            hellos: 0,
            life: (random_id() as u32).max(1),
            began_at: 0,
            level: None,
            spoilt: Spoilt::default(),
            lost_broker: None,
            down_why: None,
            failed: None,
            closing: false,
        };
        publisher.connect_first()?;
        publisher.reconnects.reset();
        Ok(publisher)
    }

    /// The client id in use.
    pub fn client_id(&self) -> u64 {
        self.setup.client_id
    }

    /// The transport in use; `Auto` while there is no connection.
    pub fn transport(&self) -> Transport {
        self.links.first().map_or(Transport::Auto, Link::transport)
    }

    /// The topic's order.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The session epoch that batches are sealed under now.
    pub fn session_epoch(&self) -> u32 {
        self.epoch
    }

    /// The sequence that the next batch will get. In order `token` batches are named by their
    /// positions, and this only counts them.
    pub fn next_seq(&self) -> u64 {
        self.session.next_seq()
    }

    /// Publishes a message in the normal lane without ever blocking.
    ///
    /// A call that only adds to an open batch makes no system call, allocates nothing and looks at
    /// no clock. While a connection is lost, messages gather up to the memory bound; it takes
    /// [`poll`](Self::poll) or a call that waits to connect again.
    #[inline]
    pub fn try_publish(
        &mut self,
        key: Option<&[u8]>,
        payload: &[u8],
    ) -> Result<Ticket, PublishError> {
        self.append(Lane::Normal, key, payload, None)
    }

    /// Publishes a message in the normal lane, waiting for room if need be.
    #[inline]
    pub fn publish(&mut self, payload: &[u8]) -> Result<Ticket, Error> {
        match self.append(Lane::Normal, None, payload, None) {
            Ok(ticket) => Ok(ticket),
            Err(error) => self.publish_waiting(Outgoing { payload, ..Outgoing::default() }, error),
        }
    }

    /// Publishes a message, waiting for room if need be.
    #[inline]
    pub fn publish_message(&mut self, message: Outgoing<'_>) -> Result<Ticket, Error> {
        let Outgoing { key, payload, timestamp_ns, lane } = message;
        match self.append(lane, key, payload, timestamp_ns) {
            Ok(ticket) => Ok(ticket),
            Err(error) => self.publish_waiting(message, error),
        }
    }

    #[cold]
    fn publish_waiting(
        &mut self,
        message: Outgoing<'_>,
        error: PublishError,
    ) -> Result<Ticket, Error> {
        room_or::<Ticket>(Err(error))?;
        let Outgoing { key, payload, timestamp_ns, lane } = message;
        self.wait_until("room to publish", |publisher| {
            room_or(publisher.append(lane, key, payload, timestamp_ns))
        })
    }

    /// Moves everything on without waiting: fills batches that lingered, sends, takes receipts.
    /// Returns how many came.
    ///
    /// When a connection is lost this makes an attempt to connect again, as often as the back-off
    /// of 10 ms to 1 s allows; an attempt takes as long as the broker takes to answer, up to the
    /// timeout.
    pub fn poll(&mut self) -> Result<usize, Error> {
        self.clock.look();
        self.close_lingering();
        self.drive()
    }

    /// Fills the open batches now, high before normal before low, and sends what can be sent.
    pub fn seal(&mut self) -> Result<(), Error> {
        self.close_through(LANES - 1);
        self.drive()?;
        Ok(())
    }

    /// Fills the open batches and waits until everything has reached the level that was asked
    /// for; without receipts: until it is sent. The timeout is for standing still, not in all.
    ///
    /// Batches whose bytes changed before every replica had them never will: they are an error,
    /// [`Error::Spoilt`], once, after everything else has its receipt.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.settle_all()?;
        self.spoilt.tell()
    }

    fn settle_all(&mut self) -> Result<(), Error> {
        self.close_through(LANES - 1);
        self.wait_until("receipts for what was published", |publisher| {
            Ok(publisher.is_settled().then_some(()))
        })
    }

    fn is_settled(&self) -> bool {
        self.session.is_empty()
            && self.lanes.iter().all(|lane| lane.open.is_none() && lane.filled.is_empty())
    }

    /// Waits for a message's receipt. Fills its batch now if it is still open.
    ///
    /// Of each lane's batches the outcomes of the last 1024 are known; for an older one the
    /// receipt has no position.
    pub fn wait(&mut self, ticket: Ticket) -> Result<Receipt, Error> {
        if self.setup.ack == Ack::None {
            return Err(Error::NoReceipts);
        }
        let lane = usize::from(ticket.lane);
        let is_open = |open: &Open| open.number == ticket.batch;
        if self.lanes[lane].open.as_ref().is_some_and(is_open) {
            self.close_through(lane);
        }
        self.wait_until("a receipt", |publisher| {
            Ok(match publisher.lanes[lane].outcomes.look(ticket.batch) {
                Known::Pending => None,
                Known::Settled(outcome) => Some(Receipt {
                    reached: outcome.reached,
                    position: outcome
                        .first_position
                        .map(|first| first.saturating_add(ticket.index.into())),
                    landed_ns: outcome.landed_ns,
                    batch_seq: Some(outcome.batch_seq),
                }),
                Known::Forgotten => Some(Receipt {
                    // A later one has reached it, or was a duplicate.
                    reached: publisher.level.unwrap_or(Reached::Duplicate),
                    position: None,
                    landed_ns: 0,
                    batch_seq: None,
                }),
            })
        })
    }

    /// What has reached the level that was asked for; without receipts: what is sent.
    pub fn acked(&self) -> Acked {
        self.acked
    }

    /// What was done so far.
    pub fn stats(&self) -> PublisherStats {
        self.stats
    }

    /// Moves the receipts that came since the last call to the end of `into`. The latest 65,536
    /// are kept for it. Without receipts asked for there are none.
    pub fn take_receipts(&mut self, into: &mut Vec<BatchReceipt>) {
        self.receipts.take(into);
    }

    /// Sends everything, waits until it has reached its level, and says goodbye.
    pub fn close(mut self) -> Result<(), Error> {
        self.settle_all()?;
        let lost = self.spoilt.tell();
        self.closing = true;
        for link in &mut self.links {
            link.say_bye();
        }
        self.wait_until("the brokers to say goodbye", |publisher| {
            Ok(publisher.links.iter().all(|link| link.gone).then_some(()))
        })?;
        lost
    }

    /// Bytes of the largest batch that one message may need. Brokers pull from the memory that they
    /// were told of at first, where batches have one size.
    fn message_batch_max(&self) -> u32 {
        let pulled = self.setup.grant == GrantMode::Pull
            && matches!(self.setup.transport, Transport::Auto | Transport::Verbs);
        if pulled { self.batch_bytes_max.min(self.setup.batch_bytes) } else { self.batch_bytes_max }
    }

    fn identity(&self) -> Identity {
        Identity {
            topic: self.topic.unwrap_or_default(),
            client: self.setup.client_id,
            epoch: self.epoch,
            life: self.life,
        }
    }
}

/// Whether there is a disk for a receipt to wait for: said here, before anything is connected.
fn check_durable(setup: &PublisherBuilder) -> Result<(), Error> {
    let topic = setup.client.within(setup.timeout).topic(&setup.topic)?;
    if topic.replicas >= 2 {
        return Ok(());
    }
    let why = format!(
        "durable needs a copy on a disk, and topic {:?} keeps {}, in the pool: make a topic with \
         2 replicas or more, or publish with ack ordered",
        setup.topic, topic.replicas
    );
    Err(Error::Setting { setting: "ack", why })
}

/// What was done, or `None` where there was no room for it; everything else is an error.
fn room_or<T>(result: Result<T, PublishError>) -> Result<Option<T>, Error> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(PublishError::Full { .. }) => Ok(None),
        Err(PublishError::TooLarge { bytes, most }) => Err(Error::TooLarge { bytes, most }),
        Err(PublishError::Failed(error)) => Err(error),
    }
}

impl Drop for Publisher {
    /// Sends what can be sent at once. What is sure to have arrived only [`Publisher::close`]
    /// knows.
    fn drop(&mut self) {
        if self.failed.is_some() || self.links.is_empty() || self.closing {
            return;
        }
        self.close_through(LANES - 1);
        // Nobody is left to tell of trouble.
        if self.turn().is_ok() {
            self.links.iter_mut().for_each(Link::say_bye);
            self.closing = true;
            let _ = self.turn();
            for link in &mut self.links {
                // A socket's bytes are the system's to send; a queue pair ends with its owner.
                if let Carrier::Verbs(verbs) = &mut link.carrier {
                    verbs.drain();
                }
            }
        }
    }
}
