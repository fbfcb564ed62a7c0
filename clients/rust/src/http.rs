//! Requests to control, over TCP or a Unix socket.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Request, Response, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport,
};
use ureq::{Agent, AsSendBody, Body};

use crate::authority::check_authority;
use crate::connect::connect_unix;
use crate::error::Error;

/// Bytes of the longest answer that is read: 256 topics and 33 processes take far less.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Longest wait for a Unix socket that takes nobody, where no other bound is set.
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    Get,
    Post,
    Delete,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Control's addresses, and which of them is asked first.
#[derive(Clone)]
pub(crate) struct Door {
    /// As they were given.
    address: String,
    steps: Vec<Step>,
    /// Where somebody answered last who leads: one of them, or one that a control named which
    /// stands by. Shared with every copy.
    leads: Arc<Mutex<Option<Step>>>,
    timeout: Duration,
}

/// One address and the agent that keeps connections to it.
#[derive(Clone)]
struct Step {
    address: String,
    base: String,
    agent: Agent,
}

/// Why an address did not answer as control does that leads.
struct Missed {
    error: Error,
    /// Whether another address may be asked instead: this one has done nothing.
    elsewhere: bool,
    /// Who leads, as a control says that stands by.
    leader: Option<String>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Door").field(&self.address).finish()
    }
}

/// The body of control's errors.
#[derive(Deserialize)]
struct Failure {
    error: FailureText,
}

#[derive(Deserialize)]
struct FailureText {
    code: String,
    message: String,
    #[serde(default)]
    leader: Option<String>,
}

/// Code of the error of a control that stands by.
const STANDS_BY: &str = "standing_by";

/// A control answers within milliseconds whether it leads, while there are others to ask.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

impl Step {
    fn new(address: &str, timeout: Duration) -> Result<Self, Error> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            // Control is addressed directly, whatever the environment says of proxies.
            .proxy(None)
            .user_agent("landfall")
            .build();
        let bad = |why: &str| Error::Address { address: address.to_owned(), why: why.to_owned() };
        let (base, agent) = match address.strip_prefix("unix:") {
            Some("" | "@") => return Err(bad("the socket has no name")),
            Some(path) => {
                let connector = UnixConnector { path: path.to_owned() };
                let agent = Agent::with_parts(config, connector, NoResolver);
                ("http://control".to_owned(), agent)
            }
            None => {
                let authority = match address.split_once("://") {
                    None => address,
                    Some(("http", rest)) => rest,
                    Some(_) => return Err(bad("only http is spoken")),
                };
                let authority = authority.strip_suffix('/').unwrap_or(authority);
                check_authority(authority).map_err(bad)?;
                let connector = TcpConnector::default();
                let agent = Agent::with_parts(config, connector, DefaultResolver::default());
                (format!("http://{authority}"), agent)
            }
        };
        Ok(Self { address: address.to_owned(), base, agent })
    }

    /// An address that this one named. What listens on every address of its host is asked where
    /// that host is asked.
    fn named(&self, address: &str, timeout: Duration) -> Option<Self> {
        let port = address.strip_prefix("http://0.0.0.0:");
        let address = match port {
            Some(port) => {
                let uri: Uri = self.base.parse().ok()?;
                let is_unix = self.address.starts_with("unix:");
                let host = uri.host().filter(|_| !is_unix).unwrap_or("127.0.0.1");
                format!("http://{host}:{port}")
            }
            None => address.to_owned(),
        };
        Self::new(&address, timeout).ok()
    }
}

impl Door {
    /// The addresses, with commas between them.
    pub(crate) fn new(address: &str, timeout: Duration) -> Result<Self, Error> {
        let steps = address.split(',').map(|one| Step::new(one.trim(), timeout));
        let steps = steps.collect::<Result<_, _>>()?;
        Ok(Self { address: address.to_owned(), steps, leads: Arc::default(), timeout })
    }

    /// The same, which waits no longer than `timeout` for an answer.
    pub(crate) fn within(&self, timeout: Duration) -> Self {
        // A timeout of nothing would be none at all.
        let timeout = timeout.min(self.timeout).max(Duration::from_millis(1));
        Self { timeout, ..self.clone() }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Sends one request and reads its answer: of whoever leads, as far as the addresses and what
    /// is said there tell.
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<T, Error> {
        let first = self.leads().clone();
        let is_first =
            |step: &&Step| first.as_ref().is_none_or(|first| first.address != step.address);
        let mut left: VecDeque<Step> = self.steps.iter().filter(is_first).cloned().collect();
        first.iter().for_each(|first| left.push_front(first.clone()));
        let mut asked: Vec<String> = Vec::new();
        let mut errors = Vec::new();
        while let Some(step) = left.pop_front() {
            asked.push(step.address.clone());
            let is_last = left.is_empty();
            let missed = match self.ask_leader(&step, method, path, body, is_last) {
                Ok(answer) => {
                    *self.leads() = Some(step);
                    return Ok(answer);
                }
                Err(missed) => missed,
            };
            if !missed.elsewhere {
                return Err(missed.error);
            }
            let leader = missed.leader.and_then(|leader| step.named(&leader, self.timeout));
            let is_new = |leader: &Step| !asked.contains(&leader.address);
            if let Some(leader) = leader.filter(is_new) {
                left.retain(|step| step.address != leader.address);
                left.push_front(leader);
            }
            errors.push(missed.error);
        }
        *self.leads() = None;
        Err(self.nobody(errors))
    }

    fn leads(&self) -> MutexGuard<'_, Option<Step>> {
        self.leads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One error of those that each address gave.
    fn nobody(&self, mut errors: Vec<Error>) -> Error {
        if errors.len() == 1 {
            return errors.remove(0);
        }
        if let Some(at) = errors.iter().position(|error| !error.is_unreachable()) {
            // Who stands by says more than who is not there.
            return errors.remove(at);
        }
        let why = errors.iter().map(Error::to_string).collect::<Vec<_>>().join("; ");
        Error::Unreachable { who: "control".to_owned(), address: self.address.clone(), why }
    }

    /// Asks at one address. What changes something is not sent to one that may be silent while
    /// there are others: it could not be sent to them after.
    fn ask_leader<T: DeserializeOwned>(
        &self,
        step: &Step,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
        is_last: bool,
    ) -> Result<T, Missed> {
        let soon = self.timeout.min(ANSWERS_WITHIN);
        if matches!(method, Method::Get) {
            let timeout = if is_last { self.timeout } else { soon };
            return self.ask_at(step, timeout, method, path, body);
        }
        if !is_last {
            self.ask_at::<serde::de::IgnoredAny>(step, soon, Method::Get, "/v1/health", None)?;
        }
        self.ask_at(step, self.timeout, method, path, body)
    }

    fn ask_at<T: DeserializeOwned>(
        &self,
        step: &Step,
        timeout: Duration,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<T, Missed> {
        let request = format!("{} {path}", method.name());
        let stays = |error| Missed { error, elsewhere: false, leader: None };
        let wrong = |why: String| stays(Error::Answer { request: request.clone(), why });
        let mut answer = step.send(timeout, method, path, body);
        if matches!(method, Method::Get) && answer.as_ref().is_err_and(was_closed) {
            // Control may close a connection that rested at the moment it is used again. What only
            // asks may be asked twice (RFC 9110, 9.2.2); what changes something may not.
            answer = step.send(timeout, method, path, body);
        }
        let failed = |error: ureq::Error| {
            let elsewhere = matches!(method, Method::Get) || was_never_sent(&error);
            let error = step.failed(&request, error);
            Missed { elsewhere: elsewhere && error.is_unreachable(), error, leader: None }
        };
        let mut answer = answer.map_err(failed)?;
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(failed)?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()));
        }
        match serde_json::from_slice::<Failure>(&body) {
            Ok(Failure { error: FailureText { code, message, leader } }) => {
                let elsewhere = code == STANDS_BY;
                let error = Error::Control { request, status, code, message };
                Err(Missed { error, elsewhere, leader })
            }
            Err(_) => Err(wrong(format!("status {status} and {} bytes", body.len()))),
        }
    }
}

impl Step {
    fn send(
        &self,
        timeout: Duration,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Response<Body>, ureq::Error> {
        let message = Request::builder()
            .method(method.name())
            .uri(format!("{}{path}", self.base))
            .header("accept", "application/json");
        match body {
            Some(body) => {
                let message = message.header("content-type", "application/json").body(body)?;
                self.agent.run(self.bounded(timeout, message))
            }
            None => self.agent.run(self.bounded(timeout, message.body(())?)),
        }
    }

    fn bounded<B: AsSendBody>(&self, timeout: Duration, request: Request<B>) -> Request<B> {
        self.agent.configure_request(request).timeout_global(Some(timeout)).build()
    }

    fn failed(&self, request: &str, error: ureq::Error) -> Error {
        let unreachable = |why: String| Error::Unreachable {
            who: "control".to_owned(),
            address: self.address.clone(),
            why,
        };
        match error {
            ureq::Error::Io(error) => unreachable(error.to_string()),
            ureq::Error::Timeout(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
                unreachable(error.to_string())
            }
            other => Error::Answer { request: request.to_owned(), why: other.to_string() },
        }
    }
}

/// Whether nobody can have heard the request, since nobody was there.
fn was_never_sent(error: &ureq::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    match error {
        ureq::Error::Io(error) => matches!(error.kind(), ConnectionRefused | NotFound),
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

/// Whether the other side ended the connection before it answered.
fn was_closed(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ureq::Error::Io(error) = error else { return false };
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Connects to one Unix socket, whatever the request's host is.
#[derive(Debug)]
struct UnixConnector {
    path: String,
}

impl Connector<()> for UnixConnector {
    type Out = UnixTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<UnixTransport>, ureq::Error> {
        let left = details.timeout.not_zero().map_or(LONGEST, |left| (*left).min(LONGEST));
        let stream = connect_unix(&self.path, Instant::now() + left)
            .map_err(|error| late(error, details.timeout))?;
        let (input, output) =
            (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(UnixTransport { stream, buffers: LazyBuffers::new(input, output) }))
    }
}

#[derive(Debug)]
struct UnixTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
}

fn late(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.set_write_timeout(timeout.not_zero().map(|after| *after))?;
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).map_err(|error| late(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.set_read_timeout(timeout.not_zero().map(|after| *after))?;
        let input = self.buffers.input_append_buf();
        let got = loop {
            match self.stream.read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|error| late(error, timeout))?,
            }
        };
        self.buffers.input_appended(got);
        Ok(got > 0)
    }

    fn is_open(&mut self) -> bool {
        // Between requests control says nothing: bytes or an end mean that it is over.
        if self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let quiet = matches!(
            self.stream.read(&mut [0]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock
        );
        self.stream.set_nonblocking(false).is_ok() && quiet
    }
}

/// A Unix socket has no host to look up.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A control that closes the first so many connections when they ask for something; the
    /// requests it read.
    fn control(closes: usize) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serve = move || {
            let mut requests = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    request.push(byte[0]);
                }
                let line = String::from_utf8(request).unwrap();
                requests.push(line.lines().next().unwrap_or_default().to_owned());
                if requests.len() > closes {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7").unwrap();
                    return requests;
                }
            }
        };
        (address, std::thread::spawn(serve))
    }

    #[test]
    fn what_only_asks_is_asked_once_more_on_another_connection() {
        let (address, served) = control(1);
        let door = Door::new(&address, Duration::from_secs(10)).unwrap();
        assert_eq!(door.ask::<u8>(Method::Get, "/x", None).unwrap(), 7);
        assert_eq!(served.join().unwrap(), ["GET /x HTTP/1.1", "GET /x HTTP/1.1"]);
    }

    #[test]
    fn what_changes_something_is_never_sent_twice() {
        let (address, served) = control(1);
        let door = Door::new(&address, Duration::from_secs(10)).unwrap();
        let error = door.ask::<u8>(Method::Delete, "/x", None).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert_eq!(door.ask::<u8>(Method::Delete, "/y", None).unwrap(), 7);
        assert_eq!(served.join().unwrap(), ["DELETE /x HTTP/1.1", "DELETE /y HTTP/1.1"]);
    }

    /// A control that gives each connection one answer, and counts them.
    fn answers(status: &'static str, body: String) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                count.fetch_add(1, Ordering::Relaxed);
                let bytes = body.len();
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {bytes}\r\n");
                stream
                    .write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes())
                    .unwrap();
            }
        });
        (address, asked)
    }

    fn stands_by(leader: &str) -> (String, Arc<AtomicUsize>) {
        let error = format!(r#"{{"code":"standing_by","message":"it does","leader":{leader}}}"#);
        answers("503 Service Unavailable", format!(r#"{{"error":{error}}}"#))
    }

    #[test]
    fn who_leads_is_found_through_one_that_stands_by_and_asked_first_from_then_on() {
        let (leader, led) = answers("200 OK", "7".into());
        let port = leader.rsplit(':').next().unwrap();
        let (standby, stood) = stands_by(&format!(r#""http://0.0.0.0:{port}""#));
        let door = Door::new(&standby, Duration::from_secs(10)).unwrap();
        for method in [Method::Post, Method::Get, Method::Delete] {
            assert_eq!(door.clone().ask::<u8>(method, "/x", None).unwrap(), 7);
        }
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        assert_eq!(count(&stood), 1, "it was asked once");
        assert!(count(&led) >= 3);
    }

    #[test]
    fn an_address_of_ipv6_has_brackets_wherever_it_becomes_a_url() {
        let soon = Duration::from_secs(1);
        for address in ["[::1]:7400", "http://[::1]:7400/"] {
            let step = Step::new(address, soon).unwrap();
            assert_eq!(step.base, "http://[::1]:7400");
            // Its host is asked for what listens on every address.
            let named = step.named("http://0.0.0.0:7401", soon).unwrap();
            assert_eq!(named.base, "http://[::1]:7401");
            assert_eq!(step.named("http://[::1]:7402", soon).unwrap().base, "http://[::1]:7402");
        }
        let refused = |address| Step::new(address, soon).err().unwrap().to_string();
        for address in ["::1", "::1:17400", "http://fe80::1:7400"] {
            assert!(refused(address).contains("needs brackets"), "{}", refused(address));
        }
    }

    #[test]
    fn of_several_addresses_the_one_that_leads_is_asked() {
        // The own port of a connection: nobody else can listen there while it is open.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let held = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let gone = held.local_addr().unwrap().to_string();
        let (standby, _) = stands_by("null");
        let (leader, _) = answers("200 OK", "7".into());
        for method in [Method::Get, Method::Post] {
            let door = format!("{gone},{standby}, {leader}");
            let door = Door::new(&door, Duration::from_secs(10)).unwrap();
            assert_eq!(door.ask::<u8>(method, "/x", None).unwrap(), 7);
        }
        let door = Door::new(&format!("{gone},{standby}"), Duration::from_secs(10)).unwrap();
        let error = door.ask::<u8>(Method::Get, "/x", None).unwrap_err();
        assert!(matches!(&error, Error::Control { code, .. } if code == STANDS_BY), "{error}");
        let door = Door::new(&format!("{gone},{gone}"), Duration::from_secs(10)).unwrap();
        let error = door.ask::<u8>(Method::Get, "/x", None).unwrap_err();
        assert!(error.is_unreachable(), "{error}");
        assert!(Door::new(&format!("{gone},"), Duration::from_secs(10)).is_err());
    }

    #[test]
    fn a_control_that_closes_every_time_is_named() {
        let (address, served) = control(2);
        let door = Door::new(&address, Duration::from_secs(10)).unwrap();
        let error = door.ask::<u8>(Method::Get, "/x", None).unwrap_err();
        assert!(error.to_string().contains("nobody answers for control"), "{error}");
        assert_eq!(door.ask::<u8>(Method::Get, "/x", None).unwrap(), 7);
        assert_eq!(served.join().unwrap().len(), 3);
    }
}
