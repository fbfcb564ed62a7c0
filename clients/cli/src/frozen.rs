//! A control that is there and does not answer: on this host the kernel says which process it is.
//!
//! The kernel takes connections for a process that is stopped, so that such a control looks like a
//! slow one, and another one beside it would be no help.

use std::fmt;
use std::fs;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use landfall::api::Health;
use landfall::{Client, Error};
use landfall_pool::process::is_stopped;

use crate::error::{Failure, Outcome};
use crate::out::note;

/// Control answers whether it serves within milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// What the kernel's tables call a TCP socket that listens, and a Unix socket.
const TCP_LISTENS: &str = "0A";
const UNIX_LISTENS: &str = "00010000";

/// The process of this host that listens at control's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    pid: u32,
    address: String,
    is_stopped: bool,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, address, is_stopped } = self;
        write!(f, "control at {address} is process {pid}, which is there and does not answer: ")?;
        match is_stopped {
            true => write!(f, "it is frozen, as by SIGSTOP, and goes on with kill -CONT {pid}"),
            false => f.write_str("it hangs, or has very much to do; give it time"),
        }
    }
}

/// Asks control whether it serves, and says what it answered. One that is stopped is a failure; of
/// one that is only silent a line is said, and whatever comes next waits for it.
pub fn look(client: &Client) -> Outcome<Result<Health, Error>> {
    let began = Instant::now();
    let answer = client.health_within(PATIENCE);
    if !answer.as_ref().is_err_and(Error::is_unreachable) || began.elapsed() < PATIENCE {
        // Whatever is wrong, what comes next finds it too.
        return Ok(answer);
    }
    match client.address().split(',').find_map(|address| listener(address.trim())) {
        Some(process) if process.is_stopped => {
            Err(Failure::unreachable("nothing can be asked of control", process))
        }
        Some(process) => {
            note(format_args!("{process}"));
            Ok(answer)
        }
        None => {
            let seconds = PATIENCE.as_secs();
            note(format_args!("control at {} is silent for {seconds} s", client.address()));
            Ok(answer)
        }
    }
}

/// The process that listens at an address of this host, as far as this user may know.
pub fn listener(address: &str) -> Option<Listener> {
    let inode = match address.strip_prefix("unix:") {
        Some(path) => unix_inode(&fs::read_to_string("/proc/net/unix").ok()?, path)?,
        None => {
            let authority = address.strip_prefix("http://").unwrap_or(address);
            let mut found = authority.trim_end_matches('/').to_socket_addrs().ok()?;
            let found = found.find(|address| is_here(address.ip()))?;
            let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
            let mut tables = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
            tables.find_map(|table| tcp_inode(&table, found.port()))?
        }
    };
    let pid = holder(&inode)?;
    let is_stopped = is_stopped(pid);
    Some(Listener { pid, address: address.to_owned(), is_stopped })
}

/// Whether an address is one of this host: nobody can bind another's.
fn is_here(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Inode of the socket that listens on a port.
fn tcp_inode(table: &str, port: u16) -> Option<String> {
    let port = format!(":{port:04X}");
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listens = |fields: &Vec<&str>| {
        fields.get(1).is_some_and(|local| local.ends_with(&port))
            && fields.get(3) == Some(&TCP_LISTENS)
    };
    fields.into_iter().find(listens)?.get(9).map(|inode| (*inode).to_owned())
}

/// Inode of the Unix socket that listens at a path, or at `@name`.
fn unix_inode(table: &str, path: &str) -> Option<String> {
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listens =
        |fields: &Vec<&str>| fields.get(3) == Some(&UNIX_LISTENS) && fields.get(7) == Some(&path);
    fields.into_iter().find(listens)?.get(6).map(|inode| (*inode).to_owned())
}

/// A process that has the socket open.
fn holder(inode: &str) -> Option<u32> {
    let socket = format!("socket:[{inode}]");
    let has_it = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        links.any(|link| link.as_os_str() == socket.as_str())
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(has_it)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use super::*;

    #[test]
    fn who_listens_here_is_found_and_who_does_not_is_not() {
        let me = std::process::id();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        for address in [address.clone(), format!("http://{address}/")] {
            let found = listener(&address).unwrap();
            assert_eq!((found.pid, found.is_stopped), (me, false));
            assert!(found.to_string().contains(&format!("is process {me}")), "{found}");
        }
        drop(tcp);
        assert_eq!(listener(&address), None);
        let name = format!("landfall-frozen-{me}");
        let unix = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let unix = UnixListener::bind_addr(&unix).unwrap();
        assert_eq!(listener(&format!("unix:@{name}")).unwrap().pid, me);
        drop(unix);
        assert_eq!(listener(&format!("unix:@{name}")), None);
        assert_eq!(listener("192.0.2.1:7400"), None, "another host's");
    }
}
