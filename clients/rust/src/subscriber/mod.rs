//! Subscribing.
//!
//! A subscriber knows its place in each log and its connection does not: a connection that is lost
//! is replaced by one to any broker, and reading goes on where it was.

mod batch;
mod builder;
mod detour;
mod dial;
mod frames;
mod mark;
mod memory;
mod one_sided;
mod patience;
mod places;
mod tcp;
mod verbs;

pub use batch::{Batch, Event};
pub(crate) use batch::{Place, Wanted, check_batch, check_entry, check_head};
pub use builder::SubscriberBuilder;
pub use mark::{Mark, NoMark};

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_layout::frame::{GapReason, LogPlace};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::Order;
use landfall_pool::Mapping;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::detour::Detour;
use self::memory::{Located, MemoryReader};
use self::one_sided::{OneSided, Rest};
use self::places::Places;
use self::tcp::{Received, StreamReader};
use self::verbs::{PushReader, Pushed};
use crate::Start;
use crate::connect::Transport;
use crate::error::Error;
use crate::route::{Route, is_final, may_pass};
use crate::silence::Silence;
use crate::wait::{Reconnects, random_id};
use landfall_pool::clock::coarse_ns;
use landfall_pool::idle::Waiter;

/// Longest sleep: a safety net under the bells, not a clock.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Sleep of a reader that has to look for itself whether there is more.
const ONE_SIDED_SLEEP: Duration = Duration::from_millis(1);

/// What a look at a connection found.
#[derive(Debug)]
pub(crate) enum Step<T> {
    Batch(T),
    Gap {
        log: u8,
        reason: GapReason,
        missed: u64,
        resume: u64,
    },
    CaughtUp,
    /// Where logs ended when the subscription began.
    Ends(Vec<LogPlace>),
    TopicGone,
    Nothing,
}

impl<T> Step<T> {
    /// Retention was faster.
    fn gap(log: u8, missed: u64, resume: u64) -> Self {
        Self::Gap { log, reason: GapReason::Retention, missed, resume }
    }

    fn map<U>(self, with: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Self::Batch(batch) => Step::Batch(with(batch)),
            Self::Gap { log, reason, missed, resume } => Step::Gap { log, reason, missed, resume },
            Self::CaughtUp => Step::CaughtUp,
            Self::Ends(ends) => Step::Ends(ends),
            Self::TopicGone => Step::TopicGone,
            Self::Nothing => Step::Nothing,
        }
    }
}

/// Where a found batch is.
enum Found {
    Memory(Located),
    Pushed(Pushed),
    Tcp(Received),
}

/// The connection, if there is one.
enum Via {
    Memory(Box<MemoryReader>),
    Pushed(Box<PushReader>),
    OneSided(Box<OneSided>),
    Tcp(Box<StreamReader>),
    Down,
}

/// Reads one topic in its order. Built by [`Client::subscriber`](crate::Client::subscriber).
///
/// Every broker delivers the whole topic, so there is one connection. When it is lost, the next
/// call connects to any broker and goes on where it was: nothing is shown twice, and what
/// retention took meanwhile is a counted gap.
pub struct Subscriber {
    setup: SubscriberBuilder,
    route: Route,
    via: Via,
    places: Places,
    /// Memory that READs land in, of a subscriber that reads by itself.
    landing: Option<Arc<Mapping>>,
    /// When the topic was made that it reads: another pool may give its id to another one.
    made_ns: Option<u64>,
    /// The pool of the latest connection, as control named it.
    pool_uuid: String,
    /// It has read, or could have: what it asks for is where it is, and no more where to begin.
    has_begun: bool,
    order: Order,
    start: u64,
    end: u64,
    /// Drawn at random: the broker that it begins with.
    turn: u64,
    broker: u8,
    caught_up: bool,
    gone: bool,
    reconnects: Reconnects,
    retry_at: Instant,
    detour: Detour,
    /// Since when there is no connection, and why.
    down: Option<(Instant, Error)>,
    /// How long nothing was heard of the broker, and when that was last looked at.
    silence: Silence,
    listened_ns: u64,
}

impl Subscriber {
    pub(crate) fn connect(setup: SubscriberBuilder) -> Result<Self, Error> {
        let route =
            Route::new(setup.client.clone(), setup.topic.clone(), setup.transport, setup.broker);
        let mark = setup.mark.as_ref();
        let is_sequenced = mark.is_some_and(|mark| mark.position().is_some());
        let mut subscriber = Self {
            places: mark.map_or_else(Places::new, Mark::places),
            made_ns: mark.map(|mark| mark.created_ns),
            order: if is_sequenced { Order::Total } else { Order::None },
            setup,
            route,
            via: Via::Down,
            landing: None,
            pool_uuid: String::new(),
            has_begun: false,
            start: 0,
            end: 0,
            turn: random_id(),
            broker: 0,
            caught_up: false,
            gone: false,
            reconnects: Reconnects::new(random_id()),
            retry_at: Instant::now(),
            detour: Detour::default(),
            down: None,
            silence: Silence::default(),
            listened_ns: 0,
        };
        subscriber.begin()?;
        Ok(subscriber)
    }

    /// Connects for the first time, or for the first time since it was told to go elsewhere.
    fn begin(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.setup.timeout;
        loop {
            let error = match self.dial(None) {
                Ok(()) => {
                    self.begun();
                    return Ok(());
                }
                Err(error) => error,
            };
            let delay = self.reconnects.next_delay();
            if !may_pass(&error) || Instant::now() + delay >= deadline {
                return Err(error);
            }
            std::thread::sleep(delay);
        }
    }

    /// Goes on from `start`, of the topic that it reads and no other of its name. An error leaves
    /// it without a connection, to be told once more where to go.
    pub fn seek(&mut self, start: Start) -> Result<(), Error> {
        self.setup.from = start;
        self.setup.mark = None;
        self.places = Places::new();
        self.via = Via::Down;
        self.down = None;
        self.detour = Detour::default();
        (self.has_begun, self.caught_up) = (false, false);
        let topic = self.setup.topic.clone();
        self.begin().map_err(|error| error.of_topic(&topic))
    }

    /// Position of the message that comes next, in the topic's one sequence; `None` for orders
    /// `none` and `broker`, where each log has its own. Everything below it was shown, or told of
    /// as a gap, or lay before the start. A batch counts as a whole.
    pub fn position(&self) -> Option<u64> {
        let place = self.places.get(SEQUENCED_LOG as u8).filter(|_| self.order.is_sequenced());
        place.and_then(|place| place.position)
    }

    /// Where it is, to be stored: [`SubscriberBuilder::resume`] goes on there. Every batch that was
    /// shown lies before it.
    pub fn mark(&self) -> Mark {
        let is_sequenced = self.order.is_sequenced();
        Mark {
            created_ns: self.made_ns.unwrap_or_default(),
            from: self.setup.from,
            position: is_sequenced.then(|| self.position().unwrap_or(self.start)),
            logs: if is_sequenced { Vec::new() } else { self.places.seen() },
        }
    }

    /// The transport in use; `Auto` while there is no connection. What memory has no more comes
    /// over a stream, whatever was asked for.
    pub fn transport(&self) -> Transport {
        match self.via {
            Via::Memory(_) => Transport::Memory,
            Via::Pushed(_) | Via::OneSided(_) => Transport::Verbs,
            Via::Tcp(_) => Transport::Tcp,
            Via::Down => Transport::Auto,
        }
    }

    /// The topic's order.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Position of the first message that will be seen; 0 for orders `none` and `broker`, where
    /// each log has its own.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Position just past the last message there was when the subscription began; 0 for orders
    /// `none` and `broker`.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The broker in use, or the one used last.
    pub fn broker(&self) -> u8 {
        self.broker
    }

    /// What became of the topic after [`Event::TopicGone`], as an error for whoever wants one:
    /// [`Error::TopicGone`].
    pub fn topic_gone(&self) -> Error {
        let another_pool = self.route.is_another_pool(&self.pool_uuid);
        Error::TopicGone { topic: self.setup.topic.clone(), another_pool }
    }

    /// The next thing there is, waiting for it up to `wait`.
    ///
    /// A batch that is not what its broker landed is asked for once more, from a copy on disk where
    /// there is any. What no copy has either is a gap of reason
    /// [`GapReason::Corrupt`]. Without a connection this tries to get one, as often as the back-off
    /// allows, and fails once there was none for as long as the timeout.
    #[inline]
    pub fn next(&mut self, wait: Duration) -> Result<Event<'_>, Error> {
        let step = match self.look()? {
            Step::Nothing => self.next_waiting(wait)?,
            step => step,
        };
        Ok(match step {
            Step::Batch(found) => Event::Batch(self.batch(found)),
            Step::Gap { log, reason, missed, resume } => Event::Gap { log, reason, missed, resume },
            Step::CaughtUp => Event::CaughtUp,
            Step::TopicGone => Event::TopicGone,
            Step::Ends(_) | Step::Nothing => Event::Idle,
        })
    }

    #[inline]
    fn batch(&self, found: Found) -> Batch<'_> {
        match (&self.via, found) {
            (Via::Memory(reader), Found::Memory(found)) => {
                let payload = reader.payload();
                Batch { place: found.place, preamble: found.preamble, payload }
            }
            (Via::Pushed(reader), Found::Pushed(found)) => {
                let payload = reader.payload();
                Batch { place: found.place, preamble: found.preamble, payload }
            }
            (Via::OneSided(reader), Found::Pushed(found)) => {
                let payload = reader.payload();
                Batch { place: found.place, preamble: found.preamble, payload }
            }
            (Via::Tcp(reader), Found::Tcp(found)) => {
                let payload = reader.payload(&found);
                Batch { place: found.place, preamble: found.preamble, payload }
            }
            // The connection is not touched between finding a batch and showing it.
            (_, Found::Memory(Located { place, preamble }))
            | (_, Found::Pushed(Pushed { place, preamble }))
            | (_, Found::Tcp(Received { place, preamble, .. })) => {
                Batch { place, preamble, payload: &[] }
            }
        }
    }

    /// One look, without waiting.
    #[inline]
    fn look(&mut self) -> Result<Step<Found>, Error> {
        if self.gone {
            return Ok(Step::TopicGone);
        }
        match self.step() {
            Ok(Step::CaughtUp) => {
                let is_new = self.found_end() && !std::mem::replace(&mut self.caught_up, true);
                Ok(if is_new { Step::CaughtUp } else { Step::Nothing })
            }
            Ok(gap @ Step::Gap { .. }) => Ok(self.found_gap(gap)),
            Ok(Step::Nothing) => Ok(self.caught_up_by_itself()),
            Ok(Step::TopicGone) => {
                self.gone = true;
                Ok(Step::TopicGone)
            }
            Ok(Step::Ends(_)) => {
                let what = "says where logs end, which nobody asked for".to_owned();
                self.suffer(Error::Unexpected { broker: self.broker, what })
            }
            Ok(step) => Ok(step),
            Err(error) => self.suffer(error),
        }
    }

    /// What the connection has next.
    #[inline]
    fn step(&mut self) -> Result<Step<Found>, Error> {
        let verify = self.setup.verify;
        match &mut self.via {
            Via::Memory(reader) => match reader.check_alive_sometimes() {
                Ok(true) if reader.has_looked => {
                    self.listen(coarse_ns());
                    Ok(Step::Nothing)
                }
                Ok(true) => {
                    reader.step(&mut self.places, verify).map(|step| step.map(Found::Memory))
                }
                Ok(false) => Ok(Step::TopicGone),
                Err(error) => Err(error),
            },
            Via::Pushed(reader) => {
                reader.step(&mut self.places, verify).map(|step| step.map(Found::Pushed))
            }
            Via::OneSided(reader) => {
                reader.step(&mut self.places, verify).map(|step| step.map(Found::Pushed))
            }
            Via::Tcp(reader) => {
                reader.step(&mut self.places, verify).map(|step| step.map(Found::Tcp))
            }
            Via::Down => Ok(Step::Nothing),
        }
    }

    /// A broker that delivers says it; to who reads by himself it shows by there being nothing
    /// more.
    fn caught_up_by_itself(&mut self) -> Step<Found> {
        if self.caught_up && !self.detour.may_lack() {
            return Step::Nothing;
        }
        let is_caught_up = match &self.via {
            Via::Memory(reader) => reader.is_caught_up(),
            Via::OneSided(reader) => reader.is_caught_up(),
            Via::Pushed(_) | Via::Tcp(_) | Via::Down => false,
        };
        let is_new = is_caught_up && self.found_end() && !self.caught_up;
        self.caught_up |= is_new;
        if is_new { Step::CaughtUp } else { Step::Nothing }
    }

    /// A lost connection is replaced later; anything else is told.
    #[cold]
    fn suffer(&mut self, error: Error) -> Result<Step<Found>, Error> {
        match error {
            Error::Corrupt { log, index, position, count, .. } => {
                let (missed, reason) = (u64::from(count), GapReason::Corrupt);
                let resume = position.saturating_add(missed);
                Ok(match self.found_spoilt(log, index, position) {
                    true => Step::Nothing,
                    false => Step::Gap { log, reason, missed, resume },
                })
            }
            Error::Connection { .. } | Error::Refused { .. } if !is_final(&error) => {
                self.let_go(error);
                Ok(Step::Nothing)
            }
            _ => {
                // What such a connection says next means nothing: the next call has another.
                self.via = Via::Down;
                Err(error)
            }
        }
    }

    /// The connection is lost: another one is made later.
    fn let_go(&mut self, why: Error) {
        self.lost();
        self.via = Via::Down;
        self.down = Some((Instant::now(), why));
        self.retry_at = Instant::now() + self.reconnects.next_delay();
    }

    #[cold]
    fn next_waiting(&mut self, wait: Duration) -> Result<Step<Found>, Error> {
        let until = Instant::now() + wait;
        let mut waiter = Waiter::new(self.setup.idle);
        loop {
            self.reconnect_if_due()?;
            match self.look()? {
                Step::Nothing => {}
                step => return Ok(step),
            }
            if let Via::Memory(reader) = &mut self.via {
                match reader.rest(&self.places) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.gone = true;
                        return Ok(Step::TopicGone);
                    }
                    Err(error) => {
                        self.suffer(error)?;
                    }
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            self.listen_sometimes()?;
            if left.is_zero() {
                return Ok(Step::Nothing);
            }
            if waiter.rest() {
                self.park(left.min(SLEEP_MAX));
            }
        }
    }

    fn park(&mut self, longest: Duration) {
        let mut longest = longest;
        let until_retry = self.retry_at.saturating_duration_since(Instant::now());
        let fd = match &mut self.via {
            Via::Down => {
                std::thread::sleep(longest.min(until_retry));
                return;
            }
            Via::Memory(reader) => {
                if !reader.park(true) {
                    reader.park(false);
                    return;
                }
                (**reader).as_fd()
            }
            Via::Pushed(reader) => {
                if !reader.arm() {
                    reader.disarm();
                    return;
                }
                (**reader).as_fd()
            }
            Via::OneSided(reader) => {
                // Nobody rings for a reader that nobody serves.
                longest = longest.min(ONE_SIDED_SLEEP);
                match reader.rest() {
                    Rest::No => {
                        reader.disarm();
                        return;
                    }
                    Rest::Sleep => {
                        std::thread::sleep(longest);
                        return;
                    }
                    Rest::Wait => (**reader).as_fd(),
                }
            }
            Via::Tcp(reader) => (**reader).as_fd(),
        };
        let millis = u16::try_from(longest.as_millis().max(1)).unwrap_or(u16::MAX);
        // A wait that fails or is interrupted only means that we look too early.
        let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(millis));
        match &mut self.via {
            Via::Memory(reader) => {
                reader.park(false);
            }
            Via::Pushed(reader) => reader.disarm(),
            Via::OneSided(reader) => reader.disarm(),
            Via::Tcp(_) | Via::Down => {}
        }
    }
}
