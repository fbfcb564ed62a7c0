//! Bytes between the mapping and descriptors or private memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::hold::Hold;
use crate::map::{Mapping, stored};
use crate::pool::Pool;
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
        // - source and target do not overlap: one is private, the other this mapping's, and
        //   slices of the mapping exist only under a hold, after their bytes were landed.
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

impl Pool {
    /// Landed bytes in the held segment, where they lie. `None` outside the segment.
    #[inline]
    pub fn read<'a>(&'a self, hold: &'a Hold, offset: u32, bytes: u32) -> Option<&'a [u8]> {
        let at = self.at(hold.segment(), offset, bytes)?;
        let start = self.span(at, bytes.into())?;
        // SAFETY:
        // - valid: `span` checked the range against the mapping, which outlives the slice;
        // - not written meanwhile: a landed batch is never written again, and the segment is not
        //   reused while the hold stands (module `hold`);
        // - initialised: mapped memory always holds some bytes.
        Some(unsafe { std::slice::from_raw_parts(start, bytes as usize) })
    }
}

impl Pool {
    /// Appends a copy of landed bytes in the held segment to `into`. Who can write the pool may do
    /// so meanwhile: what holds of the copy is for its caller to check. `None` outside the segment.
    #[inline]
    pub fn copy(&self, hold: &Hold, offset: u32, bytes: u32, into: &mut Vec<u8>) -> Option<()> {
        let at = self.at(hold.segment(), offset, bytes)?;
        let start = self.span(at, bytes.into())?;
        let bytes = bytes as usize;
        into.reserve(bytes);
        let target = into.spare_capacity_mut().as_mut_ptr();
        // SAFETY:
        // - `start` is valid for `bytes` bytes: `span` checked it against the mapping, and the
        //   segment is not reused while the hold stands (module `hold`);
        // - `target` is valid for as many: they were reserved just now;
        // - no overlap: one is the mapping, the other private;
        // - no reference to the mapped bytes exists here, so that another process may store to
        //   them; which of its bytes the copy has is not known, and all of them are initialised.
        unsafe {
            std::ptr::copy_nonoverlapping(start, target.cast(), bytes);
            into.set_len(into.len() + bytes);
        }
        Some(())
    }
}

/// Sends pieces over a connected socket, one after the other, without blocking. Returns how many
/// bytes were taken, possibly fewer than there are.
pub fn send(socket: impl AsFd, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let message = libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        // IoSlice is guaranteed to be laid out as iovec on Unix.
        msg_iov: pieces.as_ptr().cast_mut().cast(),
        msg_iovlen: pieces.len() as _,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    };
    // SAFETY:
    // - `message` points at `pieces.len()` iovecs that are borrowed for the call;
    // - sendmsg only reads through them;
    // - `fd` is open while `socket` is borrowed.
    let sent = unsafe { libc::sendmsg(fd, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives from a Unix socket, with the descriptors that came along, at most two. Returns how
/// many bytes came; 0 at end of stream. Blocks as long as the socket does.
pub fn recv_with_fds(socket: impl AsFd, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut pieces = [io::IoSliceMut::new(into)];
    let mut space = nix::cmsg_space!([RawFd; 2]);
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
