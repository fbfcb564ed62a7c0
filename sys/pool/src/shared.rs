//! Bytes of the mapping that others may be storing to while they are read.
//!
//! A publisher over memory can store to the pool at any time, and a NIC through a window that is
//! still bound. A slice of such bytes would be a promise that nobody can keep: the compiler may
//! load a byte of it twice and take both for the same. [`SharedBytes`] promises only that the
//! memory is there. They can be copied out, each byte as it was at some time, and be handed to the
//! system, which reads them as they are.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use crate::hold::Hold;
use crate::map::Mapping;
use crate::pool::Pool;
use crate::stream::{Ahead, Crc32c, PIECE_BYTES};

/// Bytes of a mapping, in which anything may change at any time.
#[derive(Clone, Copy, Debug)]
pub struct SharedBytes<'a> {
    start: *const u8,
    bytes: usize,
    of: PhantomData<&'a Mapping>,
}

impl Pool {
    /// The bytes at `offset` of the held segment, where they lie. `None` outside the segment.
    #[inline]
    pub fn shared<'a>(
        &'a self,
        hold: &'a Hold,
        offset: u32,
        bytes: u32,
    ) -> Option<SharedBytes<'a>> {
        let at = self.at(hold.segment(), offset, bytes)?;
        let start = self.span(at, bytes.into())?;
        Some(SharedBytes { start, bytes: bytes as usize, of: PhantomData })
    }
}

impl SharedBytes<'_> {
    /// No bytes.
    pub const EMPTY: Self = Self { start: std::ptr::dangling(), bytes: 0, of: PhantomData };

    /// How many they are.
    #[inline]
    pub fn len(self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.bytes == 0
    }

    /// What is left behind the first `bytes` of them.
    #[inline]
    pub fn behind(self, bytes: usize) -> Self {
        let passed = bytes.min(self.bytes);
        // In bounds, or one past the end.
        Self { start: self.start.wrapping_add(passed), bytes: self.bytes - passed, ..self }
    }

    /// A copy of the first `N` bytes. `None` if they are fewer.
    #[inline]
    pub fn first<const N: usize>(self) -> Option<[u8; N]> {
        let mut copy = [0; N];
        if self.bytes < N {
            return None;
        }
        // SAFETY: `start` is valid for `bytes` bytes and those are at least `N`, as `copy` is.
        unsafe { copy_out(copy.as_mut_ptr(), self.start, N) };
        Some(copy)
    }

    /// Appends a copy of them to `into`.
    #[inline]
    pub fn append_to(self, into: &mut Vec<u8>) {
        into.reserve(self.bytes);
        // SAFETY: there is room for as many as are left of them.
        unsafe { self.append_within(into, self.bytes) };
    }

    /// Appends a copy of them to `into`, and returns the copy's CRC32C. A piece is summed when it
    /// was copied, while it is in the nearest cache, and what comes next is asked for: no slower
    /// than summing alone where the bytes lie in memory. Larger pieces are faster in a cache (38
    /// and not 31 GB/s) and slower where it matters.
    pub fn append_summed(self, into: &mut Vec<u8>) -> u32 {
        into.reserve(self.bytes);
        let (mut crc, mut ahead, mut rest) = (Crc32c::new(), Ahead::default(), self);
        while !rest.is_empty() {
            let (from, bytes) = (into.len(), rest.bytes.min(PIECE_BYTES));
            ahead.ask(self.start, self.bytes, self.bytes - rest.bytes + bytes);
            // SAFETY: room for all of them was reserved, and `bytes` are no more than are left.
            unsafe { rest.append_within(into, bytes) };
            crc.update(&into[from..]);
            rest = rest.behind(bytes);
        }
        crc.finish()
    }

    /// CRC32C of a copy that is not kept.
    pub fn crc32c(self) -> u32 {
        let mut piece = [0; PIECE_BYTES];
        let (mut crc, mut ahead, mut rest) = (Crc32c::new(), Ahead::default(), self);
        while !rest.is_empty() {
            let bytes = rest.bytes.min(PIECE_BYTES);
            ahead.ask(self.start, self.bytes, self.bytes - rest.bytes + bytes);
            // SAFETY: `bytes` are no more than are left of them and than `piece` has.
            unsafe { copy_out(piece.as_mut_ptr(), rest.start, bytes) };
            crc.update(&piece[..bytes]);
            rest = rest.behind(bytes);
        }
        crc.finish()
    }

    /// Appends a copy of the first `bytes` of them.
    ///
    /// # Safety
    ///
    /// They are at least as many, and `into` has room for them.
    #[inline]
    unsafe fn append_within(self, into: &mut Vec<u8>, bytes: usize) {
        let target = into.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY:
        // - `start` is valid for `bytes` bytes: a span of the mapping that `of` borrows, of which
        //   the caller takes no more than there is;
        // - `target` is valid for as many, as the caller promises, and private;
        // - all of what becomes part of `into` was written.
        unsafe {
            copy_out(target, self.start, bytes);
            into.set_len(into.len() + bytes);
        }
    }
}

impl<'a> SharedBytes<'a> {
    /// The same bytes, as the system takes them.
    #[inline]
    pub fn piece(self) -> Piece<'a> {
        let iov_base = self.start.cast_mut().cast();
        Piece(libc::iovec { iov_base, iov_len: self.bytes }, PhantomData)
    }
}

/// Copies bytes that others may be storing to.
///
/// # Safety
///
/// `source` is mapped for `bytes` bytes, `target` is valid for writes of as many and private.
#[inline]
unsafe fn copy_out(target: *mut u8, source: *const u8, bytes: usize) {
    // SAFETY:
    // - both ranges are valid, as the caller promises, and do not overlap, since one is private;
    // - the loads are one instruction's and not the language's (Intel SDM vol. 2, MOVS): whatever
    //   others store meanwhile, each byte of the target is some byte, and stays it;
    // - a signal in between goes on with what is left, so a handler may put memory there.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") bytes => _,
            inout("rdi") target => _,
            inout("rsi") source => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..bytes {
        use std::sync::atomic::{AtomicU8, Ordering};
        // SAFETY: inside the ranges that the caller promises, and every address is aligned for a
        // byte; an atomic load is no race with what other processes and devices store.
        unsafe {
            let byte = AtomicU8::from_ptr(source.add(i).cast_mut());
            target.add(i).write(byte.load(Ordering::Relaxed));
        }
    }
}

/// A piece of what one call sends: private bytes, or bytes of a mapping.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Piece<'a>(libc::iovec, PhantomData<&'a [u8]>);

impl<'a> Piece<'a> {
    /// Private bytes.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        let iov_base = bytes.as_ptr().cast_mut().cast();
        Self(libc::iovec { iov_base, iov_len: bytes.len() }, PhantomData)
    }
}

/// Sends pieces over a connected socket, one after the other, without blocking. Returns how many
/// bytes were taken, possibly fewer than there are.
pub fn send(socket: impl AsFd, pieces: &[Piece<'_>]) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let message = libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: pieces.as_ptr().cast_mut().cast(),
        msg_iovlen: pieces.len() as _,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    };
    // SAFETY:
    // - `message` points at `pieces.len()` iovecs, as which a piece is laid out, and what they
    //   point at is borrowed for the call;
    // - sendmsg only reads through them;
    // - `fd` is open while `socket` is borrowed.
    let sent = unsafe { libc::sendmsg(fd, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mapping's bytes, from a vector that outlives them.
    fn shared(bytes: &[u8]) -> SharedBytes<'_> {
        SharedBytes { start: bytes.as_ptr(), bytes: bytes.len(), of: PhantomData }
    }

    #[test]
    fn copies_are_whole_and_sums_are_the_copies() {
        for bytes in [0, 1, 63, 64, 65, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 70_001] {
            let source: Vec<u8> = (0..bytes).map(|i| (i * 7 % 253) as u8).collect();
            let of_slice = landfall_layout::batch::crc32c(&source);
            let mut copy = b"before".to_vec();
            assert_eq!(shared(&source).append_summed(&mut copy), of_slice, "{bytes} bytes");
            assert_eq!((&copy[..6], &copy[6..]), (&b"before"[..], &source[..]), "{bytes} bytes");
            assert_eq!(shared(&source).crc32c(), of_slice, "{bytes} bytes");
            let mut copy = Vec::new();
            shared(&source).append_to(&mut copy);
            assert_eq!(copy, source);
        }
    }

    #[test]
    fn what_is_behind_and_what_is_first_end_where_the_bytes_end() {
        let bytes = shared(b"0123456789");
        assert_eq!(bytes.first::<4>(), Some(*b"0123"));
        assert_eq!(bytes.behind(6).first::<4>(), Some(*b"6789"));
        assert_eq!((bytes.behind(7).first::<4>(), bytes.behind(7).len()), (None, 3));
        assert!(bytes.behind(10).is_empty() && bytes.behind(usize::MAX).is_empty());
        assert_eq!(SharedBytes::EMPTY.crc32c(), landfall_layout::batch::crc32c(b""));
    }
}
