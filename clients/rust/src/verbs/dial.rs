//! Connecting over verbs: a token from control, the knock, and what the broker answers.

use std::cell::OnceCell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Instant;

use landfall_layout::TopicId;
use landfall_layout::frame::{Ack, Frame, Hello, LogPlace, Refusal, Welcome};
use landfall_layout::verbs::{
    FRAME_RING_LINES, GrantMode, Greeting, Intent, Knock, RECEIVES, Rejection,
};
use landfall_nic::{Access, Depths, Dialing, Domain, NicError, Queue, Refused, Region};
use landfall_pool::Mapping;
use landfall_pool::slab::Slab;

use super::ring::Ring;
use super::wire::{SEND_DEPTH, Wire};
use crate::api::Broker;
use crate::client::Client;
use crate::connect::{Wait, refusal_text};
use crate::error::Error;
use crate::route::Opened;

/// Bytes that a client would like to send without the NIC fetching them.
const INLINE_BYTES: u32 = 128;
/// READs that may be under way, on either side.
pub(crate) const READS: u8 = 16;

/// Control's word for a broker without RDMA.
const NO_RDMA: &str = "no_rdma";

/// What a client brings to a connection beside its hello; all but the places is for verbs.
pub(crate) struct Wants<'a> {
    /// Subscriber over a socket: where it goes on.
    pub(crate) places: &'a [LogPlace],
    pub(crate) intent: Intent,
    pub(crate) grant: GrantMode,
    /// Lines of its ring; a power of two.
    pub(crate) ring_lines: u32,
    /// Publisher: the memory that its batches lie in.
    pub(crate) arena: Option<&'a Arena>,
    /// Reader: the memory that READs land in.
    pub(crate) landing: Option<&'a Arc<Mapping>>,
}

/// The memory that a publisher's batches lie in, made when it is first needed.
pub(crate) struct Arena {
    buffers: u32,
    bytes_each: u32,
    slab: OnceCell<Arc<Slab>>,
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("buffers", &self.buffers).finish_non_exhaustive()
    }
}

impl Arena {
    /// `buffers` buffers for batches of `batch_bytes` bytes.
    pub(crate) fn new(buffers: u32, batch_bytes: u32) -> Self {
        Self { buffers, bytes_each: batch_bytes.next_multiple_of(64), slab: OnceCell::new() }
    }

    /// The memory, if there was a connection over verbs.
    #[inline]
    pub(crate) fn slab(&self) -> Option<&Arc<Slab>> {
        self.slab.get()
    }

    /// The memory, which is mapped now if it was not.
    pub(crate) fn get_or_map(&self) -> io::Result<&Arc<Slab>> {
        if let Some(slab) = self.slab.get() {
            return Ok(slab);
        }
        let slab = Slab::new(self.buffers, self.bytes_each)?;
        Ok(self.slab.get_or_init(|| slab))
    }
}

/// A connection that a broker accepted.
pub(crate) struct Dialed {
    pub(crate) wire: Wire,
    pub(crate) domain: Domain,
    pub(crate) greeting: Greeting,
    pub(crate) welcome: Welcome,
    pub(crate) grant: GrantMode,
    /// Number of the arena's region in the wire.
    pub(crate) arena: Option<usize>,
}

impl std::fmt::Debug for Dialed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialed").field("welcome", &self.welcome).finish_non_exhaustive()
    }
}

/// Whether this machine has RDMA, and why not.
pub(crate) fn check_rdma() -> Result<(), Error> {
    match landfall_nic::devices() {
        Ok(_) => Ok(()),
        Err(why) => Err(Error::NoRdma { why: why.to_string() }),
    }
}

/// How deep a client's queue is.
const DEPTHS: Depths<'static> = Depths {
    send: SEND_DEPTH,
    receive: RECEIVES,
    inline: INLINE_BYTES,
    reads: READS,
    shared_receive: None,
};

fn post_receives(queue: &mut Queue) -> Result<(), NicError> {
    queue.receive(RECEIVES).map_err(|_| NicError {
        call: "ibv_post_recv",
        object: format!("{RECEIVES} receives"),
        source: io::Error::other("there is no room for them"),
    })
}

/// Knocks at a broker, from a machine that has RDMA. `said` is called unless it is certain that
/// nobody heard the hello.
pub(crate) fn dial(
    client: &Client,
    topic: &str,
    broker: &Broker,
    hello: Hello,
    said: impl Fn(),
    wants: &Wants<'_>,
    wait: &Wait<'_>,
) -> Result<Opened<Dialed>, Error> {
    let number = broker.broker;
    let began = Instant::now();
    let client = &client.within(wait.deadline.saturating_duration_since(began));
    let is_there = || !matches!(client.topic(topic), Err(Error::NoTopic { .. }));
    let token = client.token(topic, number);
    let token = token.map_err(|error| about_token(number, error, is_there))?;
    let Some(secret) = token.number() else {
        let why = format!("{:?} is no token", token.token);
        return Err(Error::Answer { request: format!("a token for broker {number}"), why });
    };
    let deadline = wait.deadline;
    let nic = |source| Error::Verbs { broker: number, source: Box::new(source) };
    let unreachable = |why: String| Error::Unreachable {
        who: format!("broker {number}"),
        address: token.verbs.clone(),
        why,
    };
    let dialing = resolve(&token.verbs, deadline).map_err(unreachable)?;
    let domain = dialing.domain().map_err(nic)?;
    let ring = Ring::new(wants.ring_lines)
        .map_err(|source| Error::Channel { broker: number, source: Box::new(source) })?;
    let (ring_region, arena, landing) = register(&domain, &ring, wants).map_err(nic)?;
    let knock = Knock {
        intent: wants.intent,
        ack: wire_ack(hello.ack, wants.grant),
        grant: wants.grant,
        client: hello.client,
        session_epoch: hello.session_epoch,
        life: hello.life,
        comes_back: hello.comes_back,
        from: hello.from,
        topic: TopicId(token.topic),
        token: secret,
        ring_key: ring_region.remote_key(),
        ring_lines: wants.ring_lines,
        arena_key: match (&arena, wants.grant) {
            (Some(arena), GrantMode::Pull) => arena.remote_key(),
            _ => 0,
        },
        mtu: dialing.port_mtu(),
    };
    let mtu_of = |private: &[u8]| Greeting::from_bytes(private).map_or(0, |greeting| greeting.mtu);
    let mut given_up = None;
    let mut goes_on = || {
        given_up = (wait.doubt)(began.elapsed());
        given_up.is_none()
    };
    let patience: (Instant, &mut dyn FnMut() -> bool) = (deadline, &mut goes_on);
    let knock = knock.to_bytes();
    let connected = dialing.connect_while(&domain, DEPTHS, &knock, post_receives, mtu_of, patience);
    // Without a word it was rejected by a machine on which no broker listens.
    if !matches!(&connected, Err(Refused::Rejected(private)) if private.is_empty()) {
        said();
    }
    let (queue, private) = match connected {
        Ok(connected) => connected,
        Err(Refused::Rejected(private)) => return rejected(number, &private, unreachable),
        Err(Refused::Failed(error)) => {
            return Err(given_up.unwrap_or_else(|| unreachable(error.to_string())));
        }
    };
    let (greeting, welcome) = greeted(number, &private)?;
    let mut wire = Wire::new(number, queue, ring, ring_region);
    if let Some(landing) = landing {
        wire.set_landing(landing);
    }
    let arena = arena.map(|region| wire.add_region(region));
    Ok(Opened::Yes(Dialed { wire, domain, greeting, welcome, grant: wants.grant, arena }))
}

/// The receipts to ask for: pulled batches stay where they are until theirs comes, so there have
/// to be some.
pub(crate) fn wire_ack(ack: Ack, grant: GrantMode) -> Ack {
    match (ack, grant) {
        (Ack::None, GrantMode::Pull) => Ack::Ordered,
        (ack, _) => ack,
    }
}

/// What control said of a token, as it would look by another way: a topic that is not there is
/// refused, and a broker that is not there, or takes no commands now, does not answer.
fn about_token(broker: u8, error: Error, topic_is_there: impl FnOnce() -> bool) -> Error {
    match error {
        Error::Control { status: 404, message, .. } if !topic_is_there() => {
            Error::Refused { broker, why: Refusal::NoTopic, sentence: message }
        }
        Error::Control { status: 409, code, message, .. } if code != NO_RDMA => {
            Error::Refused { broker, why: Refusal::TopicGone, sentence: message }
        }
        Error::Control { status: 404 | 503, request, message, .. } => {
            Error::Unreachable { who: format!("broker {broker}"), address: request, why: message }
        }
        other => other,
    }
}

fn resolve(address: &str, deadline: Instant) -> Result<Dialing, String> {
    let resolved: Vec<SocketAddr> =
        address.to_socket_addrs().map_err(|error| error.to_string())?.collect();
    let mut last = "the name has no address".to_owned();
    for address in resolved {
        match Dialing::resolve(address, deadline) {
            Ok(dialing) => return Ok(dialing),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

type Regions = (Region, Option<Region>, Option<Region>);

/// Every right is as small as it can be: the broker writes the ring and nothing else, and reads
/// the arena only where it is to pull from there.
fn register(domain: &Domain, ring: &Ring, wants: &Wants<'_>) -> Result<Regions, NicError> {
    let written =
        Access { local_write: true, remote_read: false, remote_write: true, windows: false };
    let landed =
        Access { local_write: true, remote_read: false, remote_write: false, windows: false };
    let ring = Region::of_mapping(domain, ring.memory(), 0, ring.bytes(), written)?;
    let arena = match wants.arena {
        None => None,
        Some(arena) => {
            let slab = arena.get_or_map().map_err(|source| NicError {
                call: "mmap",
                object: "the memory that batches lie in".to_owned(),
                source,
            })?;
            Some(Region::of_slab(domain, slab, sent(wants.grant))?)
        }
    };
    let landing = wants
        .landing
        .map(|memory| Region::of_mapping(domain, memory, 0, memory.bytes(), landed))
        .transpose()?;
    Ok((ring, arena, landing))
}

/// The rights to memory that batches lie in.
pub(crate) fn sent(grant: GrantMode) -> Access {
    let remote_read = grant == GrantMode::Pull;
    Access { local_write: false, remote_read, remote_write: false, windows: false }
}

fn rejected(
    broker: u8,
    private: &[u8],
    unreachable: impl Fn(String) -> Error,
) -> Result<Opened<Dialed>, Error> {
    match Rejection::from_bytes(private) {
        Some(Rejection { frame: Frame::Fenced { session_epoch, .. }, .. }) => {
            Ok(Opened::Fenced(session_epoch))
        }
        Some(Rejection { frame: Frame::Refused(why), sentence }) => {
            let sentence = refusal_text(why, sentence.as_bytes());
            Err(Error::Refused { broker, why, sentence })
        }
        Some(Rejection { frame, .. }) => {
            Err(Error::Unexpected { broker, what: format!("rejected a knock with {frame:?}") })
        }
        None => Err(unreachable("the connection was rejected without a word".to_owned())),
    }
}

fn greeted(broker: u8, private: &[u8]) -> Result<(Greeting, Welcome), Error> {
    let Some(greeting) = Greeting::from_bytes(private) else {
        let what = format!("accepted a knock with {} bytes, which greet nobody", private.len());
        return Err(Error::Unexpected { broker, what });
    };
    let frame = Frame::decode(greeting.welcome);
    match frame.map_err(|source| Error::Frame { broker, source })? {
        (Frame::Welcome(welcome), _) => Ok((greeting, welcome)),
        (other, _) => {
            Err(Error::Unexpected { broker, what: format!("accepted a knock with {other:?}") })
        }
    }
}

/// The lines of a subscriber's ring of about `bytes` bytes: at least as many as two batches of the
/// largest size take, so that one can be read while another comes.
pub(crate) fn ring_lines(bytes: u64, batch_bytes_max: u32) -> u32 {
    let two = 2 * (u64::from(batch_bytes_max).div_ceil(64) + 1);
    let lines = (bytes / 64).max(two).max(FRAME_RING_LINES.into()).next_power_of_two();
    lines.min(landfall_layout::verbs::RING_LINES_MAX.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_layout::limits::BATCH_BYTES_MAX;

    #[test]
    fn a_ring_holds_two_batches_and_is_a_power_of_two() {
        assert_eq!(ring_lines(32 << 20, BATCH_BYTES_MAX), (32 << 20) / 64);
        assert_eq!(ring_lines(0, BATCH_BYTES_MAX), (16 << 20) / 64);
        assert_eq!(ring_lines(0, 1000), FRAME_RING_LINES);
        assert_eq!(ring_lines(33 << 20, 1000), (64 << 20) / 64);
        assert_eq!(ring_lines(u64::MAX / 2, 1000), landfall_layout::verbs::RING_LINES_MAX);
    }

    #[test]
    fn a_rejection_says_why_and_silence_is_nobody() {
        let unreachable = |why: String| Error::Unreachable {
            who: "broker 3".into(),
            address: "10.0.0.1:1".into(),
            why,
        };
        let said = Rejection::refused(Refusal::BadAck, "not here").to_bytes();
        let error = rejected(3, &said, unreachable).unwrap_err();
        assert!(matches!(error, Error::Refused { broker: 3, why: Refusal::BadAck, .. }));
        assert!(error.to_string().contains("not here"), "{error}");
        let fenced = Rejection {
            frame: Frame::Fenced { session_epoch: 1, next_seq: 0 },
            sentence: String::new(),
        };
        let fenced = rejected(3, &fenced.to_bytes(), unreachable).unwrap();
        assert!(matches!(fenced, Opened::Fenced(1)));
        assert!(rejected(3, &[], unreachable).unwrap_err().is_unreachable());
    }

    #[test]
    fn what_control_does_not_give_out_is_told_apart() {
        let said = |status, code: &str| Error::Control {
            request: "POST /v1/topics/t/tokens".into(),
            status,
            code: code.into(),
            message: "no".into(),
        };
        let refusal = |error: Error| match error {
            Error::Refused { broker: 1, why, .. } => Some(why),
            _ => None,
        };
        let about = |status, code, there| refusal(about_token(1, said(status, code), || there));
        assert_eq!(about(404, "not_found", false), Some(Refusal::NoTopic));
        assert_eq!(about(409, "being_deleted", true), Some(Refusal::TopicGone));
        assert_eq!(about(409, NO_RDMA, true), None);
        for (status, code) in [(404, "not_found"), (503, "broker_behind")] {
            let error = about_token(1, said(status, code), || true);
            assert!(error.is_unreachable(), "the broker is what is missing: {error}");
        }
    }

    #[test]
    fn pulled_batches_always_have_receipts() {
        assert_eq!(wire_ack(Ack::None, GrantMode::Pull), Ack::Ordered);
        assert_eq!(wire_ack(Ack::None, GrantMode::Window), Ack::None);
        assert_eq!(wire_ack(Ack::Durable, GrantMode::Pull), Ack::Durable);
    }
}
