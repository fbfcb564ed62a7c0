//! Bytes into the mapping, from descriptors and private memory; descriptors over a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::map::{Mapping, stored};
use crate::stream;

impl Mapping {
    /// Receives from a connected socket straight into the mapping: at most `bytes` bytes at `at`.
    /// Returns how many came; 0 at end of stream. Never blocks.
    pub fn recv(&self, socket: impl AsFd, at: u64, bytes: usize) -> io::Result<usize> {
        let target = self.writable_span(at, bytes)?;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY:
        // - `target` is valid for `bytes` bytes: `writable_span` checked it against the mapping;
        // - nobody holds a reference to these bytes: they are a claim that is not yet landed;
        // - `fd` is open while `socket` is borrowed.
        let got = unsafe { libc::recv(fd, target.cast(), bytes, libc::MSG_DONTWAIT) };
        stored();
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// Copies private bytes into the mapping with ordinary stores.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let target = self.writable_span(at, bytes.len())?;
        // SAFETY:
        // - `target` is valid for the length: `writable_span` checked it;
        // - source and target do not overlap: one is private, the other this mapping's, and no
        //   slice of the mapping exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        stored();
        Ok(())
    }

    /// Copies private bytes into the mapping past the caches. `at` is a multiple of the line.
    /// Say [`stream::stream_fence`] before the bytes are published.
    pub fn stream(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if !at.is_multiple_of(64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("offset {at}")));
        }
        let target = self.writable_span(at, bytes.len())?;
        // SAFETY:
        // - `target` is valid for the length and 64-byte aligned: the mapping starts on a page;
        // - no overlap: as in `write`.
        unsafe { stream::stream_copy(target, bytes.as_ptr(), bytes.len()) };
        stored();
        Ok(())
    }

    pub(crate) fn writable_span(&self, at: u64, bytes: usize) -> io::Result<*mut u8> {
        if !self.is_writable() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the mapping is only for reading",
            ));
        }
        self.span(at, bytes as u64).ok_or_else(|| {
            let text = format!("{bytes} bytes at {at} of a mapping of {}", self.bytes());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }
}

/// Receives from a Unix socket, with the descriptors that came along, at most three. Returns how
/// many bytes came; 0 at end of stream. Blocks as long as the socket does.
pub fn recv_with_fds(socket: impl AsFd, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut pieces = [io::IoSliceMut::new(into)];
    let mut space = nix::cmsg_space!([RawFd; 3]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<()>(fd, &mut pieces, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel made these descriptors for this message, so they are open and
            // nobody else knows of them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds))
}
