//! Which broker to talk to, and how.

use std::time::{Duration, Instant};

use landfall_layout::frame::{Carrier, Hello, Refusal};

use crate::api::Broker;
use crate::client::Client;
use crate::connect::{Accepted, Answer, Transport, greet};
use crate::error::Error;

/// The way to a topic's brokers. Control is asked for them; while it is away, those last heard of
/// are tried.
#[derive(Debug)]
pub(crate) struct Route {
    client: Client,
    pub(crate) topic: String,
    transport: Transport,
    pinned: Option<u8>,
    known: Vec<Broker>,
}

impl Route {
    pub(crate) fn new(
        client: Client,
        topic: String,
        transport: Transport,
        pinned: Option<u8>,
    ) -> Self {
        Self { client, topic, transport, pinned, known: Vec::new() }
    }

    /// Asks control who serves.
    pub(crate) fn refresh(&mut self) -> Result<(), Error> {
        match self.client.cluster() {
            Ok(cluster) => {
                self.known = cluster.brokers;
                Ok(())
            }
            Err(_) if !self.known.is_empty() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Brokers to try, best first: those that serve, from a place that `turn` chooses, with the
    /// one that was just lost at the end.
    pub(crate) fn candidates(&self, turn: u64, lost: Option<u8>) -> Vec<Broker> {
        let wanted = |broker: &&Broker| self.pinned.is_none_or(|pinned| pinned == broker.broker);
        let mut brokers: Vec<Broker> =
            self.known.iter().filter(|b| b.is_serving()).filter(wanted).cloned().collect();
        if !brokers.is_empty() {
            let first = (turn % brokers.len() as u64) as usize;
            brokers.rotate_left(first);
        }
        brokers.sort_by_key(|broker| Some(broker.broker) == lost);
        brokers
    }

    /// Says hello to `broker` by each transport that is allowed, until one works. `take` turns
    /// what was accepted into a connection.
    pub(crate) fn open<T>(
        &self,
        broker: &Broker,
        hello: impl Fn(Carrier) -> Hello,
        timeout: Duration,
        mut take: impl FnMut(Accepted) -> Result<T, Error>,
    ) -> Result<Opened<T>, Error> {
        let mut by = |carrier: Carrier| {
            let address = match carrier {
                Carrier::Memory => &broker.unix,
                Carrier::Stream => &broker.tcp,
            };
            if address.is_empty() {
                return Err(Error::NoBroker {
                    topic: self.topic.clone(),
                    why: format!("broker {} has no address for {carrier:?}", broker.broker),
                });
            }
            let deadline = Instant::now() + timeout;
            match greet(broker.broker, address, hello(carrier), &self.topic, deadline)? {
                Answer::Accepted(accepted) => take(*accepted).map(Opened::Yes),
                Answer::Fenced => Ok(Opened::Fenced),
            }
        };
        match self.transport {
            Transport::Memory => by(Carrier::Memory),
            Transport::Tcp => by(Carrier::Stream),
            Transport::Auto if broker.unix.is_empty() => by(Carrier::Stream),
            Transport::Auto => match by(Carrier::Memory) {
                Err(error) if is_about_memory(&error) => by(Carrier::Stream),
                other => other,
            },
        }
    }

    /// The error when no candidate could be used, from what each attempt said.
    pub(crate) fn nobody(&self, mut attempts: Vec<Error>) -> Error {
        if attempts.len() == 1 {
            // One broker, one reason: it says more than that nobody is left.
            return attempts.remove(0);
        }
        let why = if attempts.is_empty() {
            self.none_serving()
        } else {
            attempts.iter().map(Error::to_string).collect::<Vec<_>>().join("; ")
        };
        Error::NoBroker { topic: self.topic.clone(), why }
    }

    fn none_serving(&self) -> String {
        let states: Vec<String> =
            self.known.iter().map(|b| format!("broker {} is {}", b.broker, b.state)).collect();
        let states = if states.is_empty() { "none registered".into() } else { states.join(", ") };
        match self.pinned {
            Some(pinned) => format!("broker {pinned} is wanted and does not serve ({states})"),
            None => format!("none serves ({states}); start one"),
        }
    }
}

/// A hello's outcome.
#[derive(Debug)]
pub(crate) enum Opened<T> {
    Yes(T),
    Fenced,
}

/// Whether memory is what failed, so that TCP may work.
fn is_about_memory(error: &Error) -> bool {
    match error {
        Error::Refused { why, .. } => matches!(why, Refusal::NotServed | Refusal::Malformed),
        Error::Unreachable { .. }
        | Error::Connection { .. }
        | Error::Unexpected { .. }
        | Error::Pool { .. }
        | Error::Channel { .. } => true,
        _ => false,
    }
}

/// Whether a broker's refusal will be the same at every broker and every time.
pub(crate) fn is_final(error: &Error) -> bool {
    match error {
        Error::Refused { why, .. } => matches!(
            why,
            Refusal::Malformed
                | Refusal::Version
                | Refusal::NoTopic
                | Refusal::BadBatch
                | Refusal::BadAck
                | Refusal::TopicGone
        ),
        Error::Frame { .. } | Error::Setting { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(pinned: Option<u8>) -> Route {
        let client = Client::new("127.0.0.1:1").unwrap();
        let mut route = Route::new(client, "t".into(), Transport::Auto, pinned);
        route.known = [(0, "serving"), (1, "dead"), (2, "serving"), (3, "serving")]
            .map(|(broker, state)| Broker {
                broker,
                state: state.into(),
                tcp: "x".into(),
                unix: String::new(),
                pid: 1,
                heartbeat_age_ms: 1,
                epoch_seen: 1,
            })
            .to_vec();
        route
    }

    fn numbers(brokers: &[Broker]) -> Vec<u8> {
        brokers.iter().map(|broker| broker.broker).collect()
    }

    #[test]
    fn only_brokers_that_serve_are_tried_and_the_lost_one_last() {
        assert_eq!(numbers(&route(None).candidates(0, None)), [0, 2, 3]);
        assert_eq!(numbers(&route(None).candidates(4, None)), [2, 3, 0]);
        assert_eq!(numbers(&route(None).candidates(4, Some(2))), [3, 0, 2]);
        assert_eq!(numbers(&route(Some(3)).candidates(7, None)), [3]);
        assert!(route(Some(1)).candidates(0, None).is_empty());
    }

    #[test]
    fn a_pinned_broker_that_is_dead_is_named() {
        let text = route(Some(1)).nobody(Vec::new()).to_string();
        assert!(text.contains("broker 1 is wanted"), "{text}");
        assert!(text.contains("broker 1 is dead"), "{text}");
    }
}
