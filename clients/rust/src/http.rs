//! Requests to control, over TCP or a Unix socket.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Request, Response, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport,
};
use ureq::{Agent, AsSendBody, Body};

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

/// Control's address and the agent that keeps connections to it.
#[derive(Clone)]
pub(crate) struct Door {
    address: String,
    base: String,
    agent: Agent,
    timeout: Duration,
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
}

impl Door {
    pub(crate) fn new(address: &str, timeout: Duration) -> Result<Self, Error> {
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
        Ok(Self { address: address.to_owned(), base, agent, timeout })
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

    /// Sends one request and reads its answer.
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<T, Error> {
        let request = format!("{} {path}", method.name());
        let wrong = |why: String| Error::Answer { request: request.clone(), why };
        let mut answer = self.send(method, path, body);
        if matches!(method, Method::Get) && answer.as_ref().is_err_and(was_closed) {
            // Control may close a connection that rested at the moment it is used again. What only
            // asks may be asked twice (RFC 9110, 9.2.2); what changes something may not.
            answer = self.send(method, path, body);
        }
        let mut answer = answer.map_err(|error| self.failed(&request, error))?;
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| self.failed(&request, error))?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()));
        }
        match serde_json::from_slice::<Failure>(&body) {
            Ok(Failure { error: FailureText { code, message } }) => {
                Err(Error::Control { request, status, code, message })
            }
            Err(_) => Err(wrong(format!("status {status} and {} bytes", body.len()))),
        }
    }

    fn send(
        &self,
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
                self.agent.run(self.bounded(message))
            }
            None => self.agent.run(self.bounded(message.body(())?)),
        }
    }

    fn bounded<B: AsSendBody>(&self, request: Request<B>) -> Request<B> {
        self.agent.configure_request(request).timeout_global(Some(self.timeout)).build()
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

/// Whether the other side ended the connection before it answered.
fn was_closed(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ureq::Error::Io(error) = error else { return false };
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// `HOST:PORT`, the port said: a client that guesses one talks to somebody else.
fn check_authority(authority: &str) -> Result<(), &'static str> {
    let uri: Uri =
        format!("http://{authority}/").parse().map_err(|_| "it cannot be read as HOST:PORT")?;
    if uri.path() != "/" || authority.contains(['/', '?', '#', '@']) {
        return Err("something follows the port");
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("the host is missing");
    }
    uri.port_u16().map(|_| ()).ok_or("the port is missing")
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
    use std::net::TcpListener;

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
