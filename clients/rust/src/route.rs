//! Which broker to talk to, and how.

use std::time::{Duration, Instant};

use landfall_layout::frame::{Carrier, Hello, HelloTail, Refusal};
use landfall_layout::limits::{BATCH_BYTES_MAX, BROKER_SILENT_NS};
use landfall_layout::pool::Attach;
use landfall_pool::pool::PoolError;

use crate::api::Broker;
use crate::client::Client;
use crate::connect::{Accepted, Answer, Transport, Wait, Way, greet};
use crate::error::Error;
use crate::silence::{Finding, WAITING, lost};
use crate::verbs::dial::{Wants, check_rdma, dial};

/// Longest wait for control, where those last heard of can be tried without it.
const REFRESH_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for what control says of a broker that does not answer.
const FINDING_WAIT: Duration = Duration::from_secs(1);
/// A broker says yes or no within this time, as long as it runs, whatever control does.
const ANSWER_WAIT: Duration = Duration::from_secs(6);

/// The way to a topic's brokers. Control is asked for them; while it is away, those last heard of
/// are tried.
#[derive(Debug)]
pub(crate) struct Route {
    client: Client,
    pub(crate) topic: String,
    transport: Transport,
    pinned: Option<u8>,
    known: Vec<Broker>,
    batch_bytes_max: u32,
    /// The pool's name, as control last said it.
    pub(crate) pool_uuid: String,
}

impl Route {
    pub(crate) fn new(
        client: Client,
        topic: String,
        transport: Transport,
        pinned: Option<u8>,
    ) -> Self {
        Self {
            client,
            topic,
            transport,
            pinned,
            known: Vec::new(),
            batch_bytes_max: BATCH_BYTES_MAX,
            pool_uuid: String::new(),
        }
    }

    /// Whether the pool is another one than that of the latest connection, if there was any.
    pub(crate) fn is_another_pool(&self, before: &str) -> bool {
        !before.is_empty() && before != self.pool_uuid
    }

    /// By which transport brokers are reached from now on.
    pub(crate) fn go_by(&mut self, transport: Transport) {
        self.transport = transport;
    }

    /// Asks control who serves; waits for it no longer than `timeout`, and not that long where
    /// there are brokers to try without it.
    pub(crate) fn refresh(&mut self, timeout: Duration) -> Result<(), Error> {
        let timeout = if self.known.is_empty() { timeout } else { timeout.min(REFRESH_WAIT) };
        match self.client.within(timeout).cluster() {
            Ok(cluster) => {
                self.known = cluster.brokers;
                self.batch_bytes_max = cluster.pool.batch_bytes_max.min(BATCH_BYTES_MAX);
                self.pool_uuid = cluster.pool.uuid;
                Ok(())
            }
            Err(_) if !self.known.is_empty() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks control about a broker that does not answer.
    #[cold]
    pub(crate) fn ask_about(&self, broker: u8) -> Finding {
        match self.client.within(FINDING_WAIT).cluster() {
            Ok(cluster) => self.finding(broker, &cluster.brokers),
            Err(error) => Finding::Unknown { why: error.to_string() },
        }
    }

    fn finding(&self, broker: u8, brokers: &[Broker]) -> Finding {
        let found = brokers.iter().find(|found| found.broker == broker);
        if found.is_some_and(Broker::is_serving) {
            return Finding::Serves;
        }
        let stays = if self.pinned.is_some() {
            Some("this client is pinned to it")
        } else if brokers.iter().any(Broker::is_serving) {
            None
        } else {
            Some("no other serves")
        };
        let state = found.map_or_else(|| "unknown".to_owned(), |found| found.state.clone());
        Finding::Gone { state, beat_ms: found.and_then(|found| found.heartbeat_age_ms), stays }
    }

    /// Why not to wait any longer for a broker's answer to a hello, after so long.
    fn doubt(&self, broker: u8, waited: Duration) -> Option<Error> {
        if waited < Duration::from_nanos(BROKER_SILENT_NS) {
            return None;
        }
        let finding = self.ask_about(broker);
        let is_over = match &finding {
            Finding::Serves => false,
            // There is nothing in hand that would be lost by coming back later.
            Finding::Gone { .. } => true,
            Finding::Unknown { .. } => waited >= ANSWER_WAIT,
        };
        is_over.then(|| lost(broker, waited, &finding))
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

    /// Bytes of the largest batch, as control last said it.
    pub(crate) fn batch_bytes_max(&self) -> u32 {
        self.batch_bytes_max
    }

    /// Says hello to `broker` by each transport that is allowed, until one works. `said` is called
    /// for each hello that the broker may hear. `wants` is what the connection needs beside it;
    /// `take` turns what was accepted into a connection.
    pub(crate) fn open<T>(
        &self,
        broker: &Broker,
        hello: impl Fn(Carrier) -> Hello,
        said: impl Fn(),
        wants: &Wants<'_>,
        timeout: Duration,
        mut take: impl FnMut(Accepted) -> Result<T, Error>,
    ) -> Result<Opened<T>, Error> {
        let mut by = |carrier: Carrier| {
            let address = match carrier {
                Carrier::Memory => &broker.unix,
                Carrier::Stream => &broker.tcp,
                Carrier::Verbs => {
                    // Without RDMA here it does not matter what the broker has.
                    check_rdma()?;
                    &broker.verbs
                }
            };
            if address.is_empty() {
                return Err(self.no_address(broker.broker, carrier));
            }
            let doubt = |waited| self.doubt(broker.broker, waited);
            let wait = Wait { deadline: Instant::now() + timeout, doubt: &doubt };
            if carrier == Carrier::Verbs {
                let (client, topic) = (&self.client, &self.topic);
                let dialed = dial(client, topic, broker, hello(carrier), &said, wants, &wait)?;
                let dialed = match dialed {
                    Opened::Yes(dialed) => dialed,
                    Opened::Fenced(epoch) => return Ok(Opened::Fenced(epoch)),
                };
                let welcome = dialed.welcome;
                let way = Way::Verbs(Box::new(dialed));
                return take(Accepted { welcome, way }).map(Opened::Yes);
            }
            let tail = HelloTail { topic: self.topic.clone(), places: wants.places.to_vec() };
            let by = |address| greet(broker.broker, address, hello(carrier), &said, &tail, &wait);
            let answer = match by(address) {
                // A socket of the broker's host speaks the same bytes: for who is in a network of
                // its own there and reads from disk what memory has no more.
                Err(error @ Error::Unreachable { .. })
                    if self.transport == Transport::Tcp && !broker.unix.is_empty() =>
                {
                    match by(&broker.unix) {
                        Err(
                            Error::Unreachable { .. }
                            | Error::Refused { why: Refusal::NotServed, .. },
                        ) => Err(error),
                        answer => answer,
                    }
                }
                answer => answer,
            };
            match answer? {
                Answer::Accepted(accepted) => take(*accepted).map(Opened::Yes),
                Answer::Fenced(epoch) => Ok(Opened::Fenced(epoch)),
            }
        };
        let carriers: &[Carrier] = match self.transport {
            Transport::Memory => &[Carrier::Memory],
            Transport::Verbs => &[Carrier::Verbs],
            Transport::Tcp => &[Carrier::Stream],
            Transport::Auto => &[Carrier::Memory, Carrier::Verbs, Carrier::Stream],
        };
        let last = carriers.len() - 1;
        for carrier in &carriers[..last] {
            let has_address = match carrier {
                Carrier::Memory => !broker.unix.is_empty(),
                _ => !broker.verbs.is_empty(),
            };
            match has_address.then(|| by(*carrier)) {
                None => {}
                Some(Err(error)) if is_about_carrier(&error) => {}
                Some(other) => return other,
            }
        }
        by(carriers[last])
    }

    #[cold]
    fn no_address(&self, broker: u8, carrier: Carrier) -> Error {
        let why = match carrier {
            Carrier::Verbs => format!(
                "broker {broker} has no address for verbs: its host has no RDMA, or it was not \
                 given an address of an RDMA device; landfall doctor on that host says which"
            ),
            _ => format!("broker {broker} has no address for {carrier:?}"),
        };
        Error::NoBroker { topic: self.topic.clone(), why, may_pass: false }
    }

    /// The error when no candidate could be used, from what each attempt said.
    pub(crate) fn nobody(&self, mut attempts: Vec<Error>) -> Error {
        let all_alike = attempts.iter().all(|error| matches!(error, Error::NoRdma { .. }));
        if attempts.len() == 1 || (all_alike && !attempts.is_empty()) {
            // One reason, of one broker or of none: it says more than that nobody is left.
            return attempts.remove(0);
        }
        let (why, may_pass) = if attempts.is_empty() {
            (self.none_serving(), self.is_awaited())
        } else {
            let why = attempts.iter().map(Error::to_string).collect::<Vec<_>>().join("; ");
            (why, attempts.iter().any(may_pass))
        };
        Error::NoBroker { topic: self.topic.clone(), why, may_pass }
    }

    /// Whether a broker that does not serve may do so in a while: it is just being started, or
    /// again. One that control never heard of beside others is not waited for.
    fn is_awaited(&self) -> bool {
        let is_known = |pinned| self.known.iter().any(|broker| broker.broker == pinned);
        self.known.is_empty() || self.pinned.is_none_or(is_known)
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
    /// The epoch is over that was to be joined, or none was opened beside this one.
    Fenced(u32),
}

/// Whether the way is what failed, so that another may work.
fn is_about_carrier(error: &Error) -> bool {
    match error {
        Error::Refused { why, .. } => matches!(why, Refusal::NotServed | Refusal::Malformed),
        Error::Connection { doing, .. } => *doing != WAITING,
        Error::Unreachable { .. }
        | Error::Unexpected { .. }
        | Error::Pool { .. }
        | Error::NoRdma { .. }
        | Error::Verbs { .. }
        | Error::Control { .. }
        | Error::Channel { .. } => true,
        _ => false,
    }
}

/// Whether what stood in the way of a first connection may be over in a moment: a broker is just
/// dying, or not quite there. Without control nobody says where brokers are.
pub(crate) fn may_pass(error: &Error) -> bool {
    match error {
        Error::Unreachable { who, .. } => who != "control",
        Error::Refused { .. } | Error::Connection { .. } => !is_final(error),
        Error::NoBroker { may_pass, .. } => *may_pass,
        _ => false,
    }
}

/// Whether it will be the same at every broker and every time: to try again would never help.
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
        Error::Frame { .. }
        | Error::Setting { .. }
        | Error::TopicGone { .. }
        | Error::NoTopic { .. }
        | Error::BeyondEnd { .. }
        | Error::MadeAgain { .. }
        | Error::Superseded { .. } => true,
        // All brokers hand over the same pool.
        Error::Pool { source, .. } => matches!(
            **source,
            PoolError::Attach { found: Attach::Foreign { .. } | Attach::Other { .. }, .. }
                | PoolError::CannotFlush
        ),
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
                verbs: String::new(),
                pid: 1,
                heartbeat_age_ms: Some(1),
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
    fn a_broker_is_left_only_when_it_does_not_serve_and_another_one_does() {
        let all = route(None).known;
        assert_eq!(route(None).finding(0, &all), Finding::Serves);
        assert!(route(None).finding(1, &all).leaves());
        assert!(!route(Some(1)).finding(1, &all).leaves(), "it is pinned");
        assert!(!route(None).finding(1, &all[1..2]).leaves(), "there is no other");
        assert!(route(None).finding(9, &all).leaves(), "control never heard of it");
    }

    #[test]
    fn a_pinned_broker_that_is_dead_is_named() {
        let text = route(Some(1)).nobody(Vec::new()).to_string();
        assert!(text.contains("broker 1 is wanted"), "{text}");
        assert!(text.contains("broker 1 is dead"), "{text}");
    }

    #[test]
    fn a_broker_that_may_come_is_waited_for_and_one_that_nobody_knows_is_not() {
        assert!(may_pass(&route(Some(1)).nobody(Vec::new())), "it may be started again");
        assert!(!may_pass(&route(Some(9)).nobody(Vec::new())), "there is no such broker");
        let mut none = route(None);
        none.known.clear();
        assert!(may_pass(&none.nobody(Vec::new())), "none is there yet");
        let gone = |who: &str| Error::Unreachable {
            who: who.into(),
            address: "x".into(),
            why: "refused".into(),
        };
        assert!(may_pass(&none.nobody(vec![gone("broker 0"), gone("broker 2")])));
        assert!(!may_pass(&gone("control")));
        assert!(!may_pass(&none.no_address(0, Carrier::Verbs)));
    }

    #[test]
    fn what_no_broker_and_no_time_changes_is_final() {
        let pool = |source| Error::Pool { broker: 0, source: Box::new(source) };
        let path = || "x".into();
        let attach = |found| pool(PoolError::Attach { path: path(), found });
        let refused = |why| Error::Refused { broker: 0, why, sentence: String::new() };
        for error in [
            Error::TopicGone { topic: "t".into(), another_pool: false },
            Error::BeyondEnd { topic: "t".into(), position: 6, end: 5 },
            Error::MadeAgain { topic: "t".into(), batches: 0, messages: 0 },
            Error::Superseded { client: 7, epoch: 1, now: 2 },
            attach(Attach::Other { theirs: 9, ours: 6 }),
            attach(Attach::Foreign { magic: 1 }),
            pool(PoolError::CannotFlush),
            refused(Refusal::NoTopic),
            refused(Refusal::Version),
        ] {
            assert!(is_final(&error) && !may_pass(&error), "{error}");
        }
        // Control may be making it, the broker may be leaving, others may go.
        assert!(!is_final(&attach(Attach::NotYet)));
        for why in [Refusal::NotServed, Refusal::SessionsFull, Refusal::NoControl, Refusal::Busy] {
            assert!(!is_final(&refused(why)), "{why:?}");
        }
    }
}
