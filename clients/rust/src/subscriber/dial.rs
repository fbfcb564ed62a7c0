//! Connecting, at first and again.

use std::sync::Arc;
use std::time::Instant;

use landfall_layout::frame::{Ack, From, Hello, LogPlace, Refusal, Role, Welcome};
use landfall_layout::limits::BATCH_BYTES_MAX;
use landfall_layout::topic::Order;
use landfall_layout::verbs::{FRAME_RING_LINES, GrantMode, Intent};
use landfall_pool::Mapping;
use landfall_pool::idle::{Idle, Waiter};

use super::memory::MemoryReader;
use super::one_sided::{self, OneSided};
use super::places::Places;
use super::tcp::StreamReader;
use super::verbs::PushReader;
use super::{SLEEP_MAX, Step, Subscriber, Via, Wanted};
use crate::connect::{Accepted, Transport, Way};
use crate::error::Error;
use crate::route::{Opened, is_final};
use crate::verbs::dial::{Wants, ring_lines};

impl Subscriber {
    pub(super) fn reconnect_if_due(&mut self) -> Result<(), Error> {
        if !matches!(self.via, Via::Down) || self.gone || Instant::now() < self.retry_at {
            return Ok(());
        }
        let lost = (!self.detour.is_on()).then_some(self.broker);
        match self.dial(lost) {
            Ok(()) => {
                self.reconnects.reset();
                self.down = None;
                Ok(())
            }
            Err(
                Error::TopicGone { .. }
                | Error::Refused { why: Refusal::NoTopic | Refusal::TopicGone, .. },
            ) => {
                self.gone = true;
                Ok(())
            }
            Err(error) => {
                self.retry_at = Instant::now() + self.reconnects.next_delay();
                if self.detour.not_connected() && !is_final(&error) {
                    self.retry_at = Instant::now();
                }
                let since = self.down.as_ref().map_or_else(Instant::now, |(since, _)| *since);
                if is_final(&error) || since.elapsed() >= self.setup.timeout {
                    self.down = None;
                    return Err(error);
                }
                self.down = Some((since, error));
                Ok(())
            }
        }
    }

    /// One attempt at each broker that serves, until one takes the subscription.
    pub(super) fn dial(&mut self, lost: Option<u8>) -> Result<(), Error> {
        self.route.refresh(self.setup.timeout)?;
        self.route.go_by(self.way());
        if self.setup.one_sided && self.landing.is_none() {
            let most = self.route.batch_bytes_max();
            self.landing = Some(one_sided::landing(self.setup.ring_bytes, most)?);
        }
        let first = !self.has_begun;
        let is_new = first && self.setup.mark.is_none();
        let from = if is_new {
            self.setup.from
        } else {
            let sequenced = self.order.is_sequenced();
            self.places.resume_from(sequenced, self.setup.from)
        };
        let checked = self.detour.is_checked();
        let hello = |carrier| Hello {
            role: Role::Subscribe,
            carrier,
            ack: Ack::None,
            client: 0,
            session_epoch: 0,
            life: 0,
            comes_back: false,
            from,
            checked,
        };
        let turn = self.turn.wrapping_add(self.reconnects.attempts().into());
        // Readers of the pool look for themselves.
        let went_on = match self.way() {
            Transport::Tcp | Transport::Auto if !self.order.is_sequenced() => self.places.seen(),
            _ => Vec::new(),
        };
        let mut attempts = Vec::new();
        for broker in &self.route.candidates(turn, lost) {
            let (places, made_ns) = (&self.places, self.made_ns);
            let name = &self.setup.topic;
            let landing = self.landing.as_ref();
            let wants = Wants {
                places: &went_on,
                intent: if landing.is_some() { Intent::Read } else { Intent::Subscribe },
                grant: GrantMode::Pull,
                ring_lines: match landing {
                    Some(_) => FRAME_RING_LINES,
                    None => ring_lines(self.setup.ring_bytes, self.route.batch_bytes_max()),
                },
                arena: None,
                landing,
            };
            let opened = self.route.open(
                broker,
                hello,
                || {},
                &wants,
                self.setup.timeout,
                |accepted| {
                    let own = Own { places, landing, idle: self.setup.idle };
                    adopt(broker.broker, accepted, from, own, made_ns, name)
                },
            );
            match opened {
                Ok(Opened::Yes((via, welcome))) => {
                    self.via = via;
                    self.broker = broker.broker;
                    let order = Order::from_raw(welcome.order).expect("it was checked");
                    if first && let Err(error) = self.check_start(from, order, welcome.end) {
                        self.via = Via::Down;
                        return Err(error);
                    }
                    if is_new && from == From::Latest && !order.is_sequenced() {
                        match self.hear_ends() {
                            Ok(ends) => self.places.begin(&ends),
                            Err(error) => {
                                self.via = Via::Down;
                                attempts.push(error);
                                continue;
                            }
                        }
                    }
                    self.detour.connected(welcome.end, welcome.copies);
                    self.silence.heard();
                    self.pool_uuid.clone_from(&self.route.pool_uuid);
                    if first {
                        self.made_ns = Some(welcome.created_ns);
                        self.order = order;
                        self.has_begun = true;
                        (self.start, self.end) = (welcome.start, welcome.end);
                    }
                    if is_new {
                        let start = self.order.is_sequenced().then_some(welcome.start);
                        self.places.expect_start(from, start);
                    }
                    return Ok(());
                }
                Ok(Opened::Fenced(_)) => attempts.push(Error::Unexpected {
                    broker: broker.broker,
                    what: "told a subscriber that it is fenced".to_owned(),
                }),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => attempts.push(error),
            }
        }
        Err(self.route.nobody(attempts))
    }
}

impl Subscriber {
    /// Refuses a position that the topic has not come to: from there nothing would be shown, and
    /// what comes before it would be passed over without a word.
    fn check_start(&self, from: From, order: Order, end: u64) -> Result<(), Error> {
        let From::Position(position) = from else { return Ok(()) };
        let end = match order.is_sequenced() {
            true => end,
            // Each log has positions of its own: those of the longest count.
            false => self.setup.client.topic(&self.setup.topic)?.next_position,
        };
        if position <= end {
            return Ok(());
        }
        Err(Error::BeyondEnd { topic: self.setup.topic.clone(), position, end })
    }

    /// Where the logs of the connection's topic end, which have a place each. Until that is known
    /// the subscription has not begun: where the connection were lost before, what came meanwhile
    /// could not be told from what was there.
    fn hear_ends(&mut self) -> Result<Vec<LogPlace>, Error> {
        if let Via::Memory(reader) = &self.via {
            return Ok(reader.ends());
        }
        let began = Instant::now();
        let mut waiter = Waiter::new(self.setup.idle);
        loop {
            match self.step()? {
                Step::Ends(ends) => return Ok(ends),
                Step::Nothing => {}
                Step::TopicGone => return Err(self.topic_gone()),
                Step::Batch(_) | Step::Gap { .. } | Step::CaughtUp => {
                    let what = "does not say where logs end before it sends what is in them";
                    return Err(Error::Unexpected { broker: self.broker, what: what.to_owned() });
                }
            }
            let left = self.setup.timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                let awaited = format!("broker {} to say where logs end", self.broker);
                let waited = began.elapsed();
                return Err(Error::Timeout { awaited, waited, stalled: None, held: None });
            }
            if waiter.rest() {
                self.park(left.min(SLEEP_MAX));
            }
        }
    }
}

/// What a subscriber brings to each of its connections.
#[derive(Clone, Copy)]
struct Own<'a> {
    places: &'a Places,
    landing: Option<&'a Arc<Mapping>>,
    idle: Idle,
}

/// Makes a connection of what a broker accepted.
fn adopt(
    broker: u8,
    accepted: Accepted,
    from: From,
    Own { places, landing, idle }: Own<'_>,
    made_ns: Option<u64>,
    name: &str,
) -> Result<(Via, Welcome), Error> {
    let welcome = accepted.welcome;
    if made_ns.is_some_and(|made_ns| made_ns != welcome.created_ns) {
        return Err(Error::MadeAgain { topic: name.to_owned(), batches: 0, messages: 0 });
    }
    let Some(order) = Order::from_raw(welcome.order) else {
        let what =
            format!("its topic has order {}, which this program does not know", welcome.order);
        return Err(Error::Unexpected { broker, what });
    };
    if welcome.batch_bytes_max > BATCH_BYTES_MAX {
        let what = format!("announces batches of up to {} bytes", welcome.batch_bytes_max);
        return Err(Error::Unexpected { broker, what });
    }
    // "Now" is when the broker said so, not when the pool is mapped or read.
    let from = match from {
        From::Latest if order.is_sequenced() => From::Position(welcome.start),
        from => from,
    };
    let wanted = Wanted { topic: welcome.topic, batch_bytes_max: welcome.batch_bytes_max };
    let via = match accepted.way {
        Way::Memory(handed) => {
            let what = (welcome.topic, order.is_sequenced());
            Via::Memory(Box::new(MemoryReader::new(broker, handed, what, from, places)?))
        }
        Way::Verbs(dialed) if landing.is_some() => {
            let start = (order.is_sequenced(), from);
            Via::OneSided(Box::new(OneSided::new(*dialed, start, landing, idle)?))
        }
        Way::Verbs(dialed) => Via::Pushed(Box::new(PushReader::new(dialed.wire, wanted))),
        Way::Stream(socket) => Via::Tcp(Box::new(StreamReader::new(broker, socket, wanted))),
    };
    Ok((via, welcome))
}
