//! Connecting to a broker.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::time::{Duration, Instant};

use landfall_layout::frame::{
    Carrier, FRAME_BYTES, Frame, Hello, HelloTail, Refusal, Role, TAIL_BYTES_MAX, Welcome,
};
use landfall_pool::io::recv_with_fds;
use landfall_pool::owner::check_server;
use landfall_pool::peer;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, socket};
use nix::sys::time::TimeVal;

use crate::error::Error;
use crate::verbs::dial::Dialed;

/// How bytes travel between client and broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Transport {
    /// Memory where the broker's Unix socket allows it, then verbs where both sides have RDMA,
    /// otherwise TCP.
    #[default]
    Auto,
    /// Through the pool, on the broker's host.
    Memory,
    /// By RDMA.
    Verbs,
    /// Over TCP.
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Memory => "memory",
            Self::Verbs => "verbs",
            Self::Tcp => "tcp",
        })
    }
}

/// A word that names no transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownTransport(pub String);

impl fmt::Display for UnknownTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no transport; say one of auto, memory, verbs, tcp", self.0)
    }
}

impl std::error::Error for UnknownTransport {}

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(word: &str) -> Result<Self, UnknownTransport> {
        match word {
            "auto" => Ok(Self::Auto),
            "memory" => Ok(Self::Memory),
            "verbs" => Ok(Self::Verbs),
            "tcp" => Ok(Self::Tcp),
            _ => Err(UnknownTransport(word.to_owned())),
        }
    }
}

/// A connected socket, of either kind.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Socket {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Socket {
    /// Connects to `host:port`, a path, or `@name`.
    fn connect(address: &str, deadline: Instant) -> io::Result<Self> {
        if address.starts_with(['@', '/', '.']) {
            return connect_unix(address, deadline).map(Self::Unix);
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&resolved, left(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    peer::ask_for(&stream)?;
                    return Ok(Self::Tcp(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn set_timeouts(&self, deadline: Instant) -> io::Result<()> {
        let left = Some(left(deadline)?);
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(left).and(stream.set_write_timeout(left)),
            Self::Unix(stream) => stream.set_read_timeout(left).and(stream.set_write_timeout(left)),
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Why a broker was not reached.
fn no_way(broker: u8, address: &str, error: &io::Error) -> Error {
    let is_unix = address.starts_with(['@', '/', '.']);
    if is_unix && error.kind() == io::ErrorKind::PermissionDenied {
        let user = nix::unistd::geteuid();
        let sentence = format!(
            "{address} is not for user {user}: {error}; over memory only the broker's own user, \
             its group and root come in; over TCP use transport tcp"
        );
        return Error::Refused { broker, why: Refusal::NotServed, sentence };
    }
    let (who, address, why) = (format!("broker {broker}"), address.to_owned(), error.to_string());
    Error::Unreachable { who, address, why }
}

/// Connects to a path, or `@name`. Whoever took a name that anybody may take is refused, but for
/// root and this user.
pub(crate) fn connect_unix(address: &str, deadline: Instant) -> io::Result<UnixStream> {
    let name = match address.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
        None => UnixAddr::new(address)?,
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Connecting waits while the listener's queue is full; the send timeout bounds that wait.
    let left = left(deadline)?;
    let bound = TimeVal::new(left.as_secs() as i64, i64::from(left.subsec_micros()));
    setsockopt(&fd, SendTimeout, &bound)?;
    nix::sys::socket::connect(fd.as_raw_fd(), &name)?;
    check_server(&fd, address)?;
    Ok(UnixStream::from(fd))
}

/// A connection that a broker accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) welcome: Welcome,
    pub(crate) way: Way,
}

/// What a connection is made of.
#[derive(Debug)]
pub(crate) enum Way {
    /// A socket that carries everything.
    Stream(Socket),
    /// A socket that is a bell, and memory.
    Memory(Handed),
    /// A queue pair.
    Verbs(Box<Dialed>),
}

/// What a broker hands to a memory client.
#[derive(Debug)]
pub(crate) struct Handed {
    /// The bell.
    pub(crate) socket: Socket,
    pub(crate) pool: OwnedFd,
    pub(crate) channel: OwnedFd,
    /// A publisher's, and to be kept for as long as it may write into what this broker granted:
    /// until it is closed, nobody else is granted that.
    pub(crate) writer: Option<OwnedFd>,
}

impl Handed {
    fn new(role: Role, socket: Socket, fds: Vec<OwnedFd>) -> Result<Self, String> {
        let expected = if role == Role::Publish { 3 } else { 2 };
        let count = fds.len();
        let mut fds = fds.into_iter();
        match (fds.next(), fds.next(), fds.next()) {
            (Some(pool), Some(channel), writer) if count == expected => {
                Ok(Self { socket, pool, channel, writer })
            }
            _ => Err(format!(
                "welcomed a memory client with {count} descriptors; {expected} were expected"
            )),
        }
    }
}

/// What a broker answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Yes.
    Accepted(Box<Accepted>),
    /// The session epoch that was to be joined is over, or none was opened, since another publisher
    /// opened this one.
    Fenced(u32),
}

/// How long an answer is waited for.
pub(crate) struct Wait<'a> {
    pub(crate) deadline: Instant,
    /// Asked about once a second while nothing comes: why not to wait any longer.
    pub(crate) doubt: &'a dyn Fn(Duration) -> Option<Error>,
}

/// Time between two doubts.
const DOUBT_EVERY: Duration = Duration::from_secs(1);

/// Says hello at `address` and waits for the answer. `said` is called once somebody is there who
/// may hear it.
pub(crate) fn greet(
    broker: u8,
    address: &str,
    hello: Hello,
    said: impl Fn(),
    tail: &HelloTail,
    wait: &Wait<'_>,
) -> Result<Answer, Error> {
    let began = Instant::now();
    let deadline = wait.deadline;
    let not_there = |error| no_way(broker, address, &error);
    let mut socket = Socket::connect(address, deadline).map_err(not_there)?;
    let lost = |doing| move |source| Error::Connection { broker, doing, source };
    socket.set_timeouts(deadline).map_err(lost("setting its timeouts"))?;
    let tail = tail.encode();
    if tail.len() > TAIL_BYTES_MAX {
        let why = format!("{} bytes; at most {TAIL_BYTES_MAX} can be asked for", tail.len());
        return Err(Error::Setting { setting: "topic", why });
    }
    let mut greeting = Frame::Hello(hello).encode(tail.len()).to_vec();
    greeting.extend_from_slice(&tail);
    said();
    socket.write_all(&greeting).map_err(lost("saying hello"))?;

    let mut bytes = [0; FRAME_BYTES];
    let mut fds = Vec::new();
    let mut have = 0;
    while have < FRAME_BYTES {
        let part = deadline.min(Instant::now() + DOUBT_EVERY);
        // The last part is waited for as long as the system's clock has ticks.
        let part = part.max(Instant::now() + Duration::from_millis(1));
        socket.set_timeouts(part).map_err(lost("setting its timeouts"))?;
        // Descriptors come with the first byte of the message they were sent with.
        let got = match &socket {
            Socket::Unix(stream) => recv_with_fds(stream, &mut bytes[have..]).map(|(got, more)| {
                fds.extend(more);
                got
            }),
            Socket::Tcp(_) => socket.read(&mut bytes[have..]),
        };
        have += match got {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Some(error) = (wait.doubt)(began.elapsed()) {
                    return Err(error);
                }
                if Instant::now() < deadline {
                    continue;
                }
                return Err(Error::Timeout {
                    awaited: format!("broker {broker} to answer a hello"),
                    waited: began.elapsed(),
                    stalled: None,
                    held: None,
                });
            }
            other => other,
        }
        .map_err(lost("waiting for the answer to a hello"))?;
    }
    let (frame, tail) = Frame::decode(bytes).map_err(|source| Error::Frame { broker, source })?;
    socket
        .set_timeouts(deadline.max(Instant::now() + DOUBT_EVERY))
        .map_err(lost("setting its timeouts"))?;
    let mut sentence = vec![0; tail];
    socket.read_exact(&mut sentence).map_err(lost("reading its answer"))?;
    let welcome = match frame {
        Frame::Welcome(welcome) => welcome,
        Frame::Fenced { session_epoch, .. } => return Ok(Answer::Fenced(session_epoch)),
        Frame::Refused(why) => {
            let sentence = refusal_text(why, &sentence);
            return Err(Error::Refused { broker, why, sentence });
        }
        other => {
            let what = format!("answered a hello with {other:?}");
            return Err(Error::Unexpected { broker, what });
        }
    };
    socket.set_nonblocking().map_err(lost("making it non-blocking"))?;
    let way = match hello.carrier {
        Carrier::Memory => Handed::new(hello.role, socket, fds)
            .map(Way::Memory)
            .map_err(|what| Error::Unexpected { broker, what })?,
        Carrier::Stream | Carrier::Verbs => Way::Stream(socket),
    };
    Ok(Answer::Accepted(Box::new(Accepted { welcome, way })))
}

/// A refusal's sentence; where none came, one that says the reason.
pub(crate) fn refusal_text(why: Refusal, sentence: &[u8]) -> String {
    if !sentence.is_empty() {
        return String::from_utf8_lossy(sentence).into_owned();
    }
    match why {
        Refusal::Malformed => "a frame or batch was malformed",
        Refusal::Version => "it speaks another version of the protocol",
        Refusal::NoTopic => "there is no such topic",
        Refusal::NotServed => "it cannot serve what was asked for",
        Refusal::BadBatch => "a batch does not belong to this session, topic or sequence",
        Refusal::SessionsFull => "every session line of the pool is in use",
        Refusal::NoControl => "control does not answer it",
        Refusal::BadAck => "the topic cannot give that acknowledgement",
        Refusal::Busy => "it has as many connections as it takes",
        Refusal::TopicGone => "the topic is being deleted",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use nix::sys::socket::sockopt::{KeepAlive, TcpUserTimeout};

    use super::*;

    #[test]
    fn a_brokers_host_that_is_gone_without_a_word_is_asked_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let socket = Socket::connect(&address, Instant::now() + Duration::from_secs(10)).unwrap();
        let Socket::Tcp(stream) = socket else { panic!("{address}") };
        assert!(getsockopt(&stream, KeepAlive).unwrap());
        assert_eq!(
            getsockopt(&stream, TcpUserTimeout).unwrap(),
            0,
            "a frozen broker is waited for"
        );
    }
}
