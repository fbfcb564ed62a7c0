//! Listening: TCP, and a Unix socket by path or abstract name.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net as unix;
use std::path::PathBuf;
use std::time::Duration;

use axum::{Extension, Router};
use landfall_pool::owner::check_client;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::Peer;
use super::gate::{Hosts, programs_only};
use super::visitors::{Bounds, Visitors};

/// Longest wait for requests that are being answered when the server stops. Whoever waits for
/// longer, for a deletion say, learns it from the closed connection.
const STOP_WAIT: Duration = Duration::from_millis(500);

/// Pause after nobody could be let in.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct ServeError {
    /// The address, as it was given.
    pub address: String,
    /// The system's answer.
    pub source: io::Error,
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "listen on {}: {}", self.address, self.source)?;
        if self.source.kind() == io::ErrorKind::AddrInUse {
            f.write_str("; a second control, as a standby, listens on an address of its own")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What control listens on.
#[derive(Debug)]
pub struct Listeners {
    tcp: TcpListener,
    unix: Option<UnixListener>,
    unix_address: String,
    path: Option<PathBuf>,
    hosts: Hosts,
}

impl Listeners {
    /// Listens on a TCP address and, if one is given, on a Unix socket: a path, or `@` and an
    /// abstract name. Over TCP it is called by its IP address or by one of `hosts`. Inside a
    /// runtime.
    pub async fn bind(tcp: &str, unix: Option<&str>, hosts: Hosts) -> Result<Self, ServeError> {
        let failed = |address: &str| {
            let address = address.to_owned();
            move |source| ServeError { address, source }
        };
        let listener = TcpListener::bind(tcp).await.map_err(failed(tcp))?;
        let unix_address = unix.unwrap_or_default().to_owned();
        let mut listeners = Self { tcp: listener, unix: None, unix_address, path: None, hosts };
        if let Some(address) = unix {
            let socket = bind_unix(address).map_err(failed(address))?;
            listeners.path = (!address.starts_with('@')).then(|| PathBuf::from(address));
            let socket = socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket));
            listeners.unix = Some(socket.map_err(failed(address))?);
        }
        Ok(listeners)
    }

    /// The same sockets once more. Whoever has them last has them alone.
    pub fn share(&self) -> io::Result<Self> {
        let tcp = self.tcp.as_fd().try_clone_to_owned()?;
        let unix = self.unix.as_ref().map(|unix| unix.as_fd().try_clone_to_owned()).transpose()?;
        let unix = unix.map(|fd| UnixListener::from_std(fd.into())).transpose()?;
        let (unix_address, hosts) = (self.unix_address.clone(), self.hosts.clone());
        let tcp = TcpListener::from_std(tcp.into())?;
        Ok(Self { tcp, unix, unix_address, path: None, hosts })
    }

    /// The TCP address, with the port that was given out.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

fn bind_unix(address: &str) -> io::Result<unix::UnixListener> {
    if let Some(name) = address.strip_prefix('@') {
        return unix::UnixListener::bind_addr(&unix::SocketAddr::from_abstract_name(name)?);
    }
    match unix::UnixListener::bind(address) {
        // A control that was killed leaves its socket; one that runs answers. What is no socket is
        // somebody's.
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse
                && std::fs::symlink_metadata(address)
                    .is_ok_and(|is| is.file_type().is_socket())
                && unix::UnixStream::connect(address)
                    .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) =>
        {
            std::fs::remove_file(address)?;
            unix::UnixListener::bind(address)
        }
        other => other,
    }
}

/// Serves until `stop` is done.
pub async fn serve(
    listeners: Listeners,
    router: Router,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_within(listeners, router, Bounds::here()?, stop).await
}

/// The same with other bounds.
pub async fn serve_within(
    listeners: Listeners,
    router: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let Listeners { tcp, unix, unix_address, path, hosts } = listeners;
    let by_path = programs_only(router.clone(), None).layer(Extension(Peer(None)));
    let by_name = programs_only(router, Some(hosts));
    let mut visitors = Visitors::new(bounds);
    tokio::pin!(stop);
    loop {
        let came = tokio::select! {
            came = tcp.accept() => came.map(|(stream, from)| Came::Tcp(stream, from.ip())),
            came = accept(unix.as_ref()) => came.map(Came::Unix),
            () = visitors.gone() => continue,
            () = &mut stop => break,
        };
        match came {
            Ok(Came::Tcp(stream, from)) => {
                visitors.admit(stream, by_name.clone().layer(Extension(Peer(Some(from)))));
            }
            // Whoever has no business here is closed on: the kernel named another user.
            Ok(Came::Unix(stream)) if check_client(&stream, &unix_address).is_err() => {}
            Ok(Came::Unix(stream)) => visitors.admit(stream, by_path.clone()),
            Err(error) => {
                // Whoever rests makes room: without a descriptor nobody is let in.
                visitors.cannot_admit(&error);
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    visitors.leave(STOP_WAIT).await;
    if let Some(path) = path {
        // Somebody else may have removed it.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// A connection, by its kind.
enum Came {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

async fn accept(unix: Option<&UnixListener>) -> io::Result<UnixStream> {
    match unix {
        Some(unix) => unix.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}
