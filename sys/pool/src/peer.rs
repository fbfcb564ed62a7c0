//! TCP connections whose other host may go without a word.

use std::io;
use std::os::fd::AsFd;

use landfall_layout::limits::{PEER_ASK_EVERY_S, PEER_ASKED_MAX, PEER_GONE_S, PEER_QUIET_S};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{
    KeepAlive, TcpKeepCount, TcpKeepIdle, TcpKeepInterval, TcpUserTimeout,
};

/// Has the kernel ask whether the other host is there when nothing comes from it, and end the
/// connection when it does not answer.
pub fn ask_for(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, TcpKeepIdle, &PEER_QUIET_S)?;
    setsockopt(socket, TcpKeepInterval, &PEER_ASK_EVERY_S)?;
    setsockopt(socket, TcpKeepCount, &PEER_ASKED_MAX)?;
    Ok(setsockopt(socket, KeepAlive, &true)?)
}

/// Whether the kernel ends a connection, too, over which something cannot be brought for as long.
/// The kernel takes another side that reads nothing for one that is gone.
pub fn must_take(socket: &impl AsFd, wanted: bool) -> io::Result<()> {
    let ms = if wanted { PEER_GONE_S * 1000 } else { 0 };
    Ok(setsockopt(socket, TcpUserTimeout, &ms)?)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn the_kernel_is_told_how_long_it_asks() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ask_for(&stream).unwrap();
        must_take(&stream, true).unwrap();
        assert!(getsockopt(&stream, KeepAlive).unwrap());
        let quiet = getsockopt(&stream, TcpKeepIdle).unwrap();
        let asked = getsockopt(&stream, TcpKeepCount).unwrap();
        let every = getsockopt(&stream, TcpKeepInterval).unwrap();
        assert_eq!((quiet + asked * every, quiet), (30, 10));
        assert_eq!(getsockopt(&stream, TcpUserTimeout).unwrap(), 30_000);
        must_take(&stream, false).unwrap();
        assert_eq!(getsockopt(&stream, TcpUserTimeout).unwrap(), 0);
    }
}
