//! Copies that go round the cache, and the one door to the checksum.
//!
//! A publisher writes a batch once and does not read it again. Ordinary stores would first fetch
//! every destination line and then evict something useful; non-temporal ("streaming") stores
//! collect a line in a write-combining buffer and send it to memory (Intel SDM vol. 1, "Caching of
//! Temporal vs. Non-Temporal Data"; AMD APM vol. 2, "Buffering and Combining Memory Writes").
//! [`StreamWriter`] does that message by message with the CRC32C in the same pass;
//! [`stream_copy`] does it for bytes that already lie together.
//!
//! Streaming stores are weakly ordered: a release store does **not** wait for them. Only
//! [`stream_fence`], on the thread that made them, puts them before the word that publishes.

use crc_fast::{CrcAlgorithm, Digest};

/// Bytes in a coherence line, the unit a write-combining buffer sends. A partly filled one goes out
/// as several smaller transactions, so everything here streams whole lines.
const LINE_BYTES: usize = 64;

/// Bytes in a word of the format: messages start and end at whole ones.
const WORD_BYTES: usize = 8;

/// Bytes staged before they are summed and streamed, on CPUs without the fused kernel. Five times
/// the 384 bytes `crc-fast` folds at once, since it sums a remainder eight bytes at a time, each
/// waiting for the last. Twice as much is no faster, four times as much is slower: the store queue
/// holds a few KiB, and beyond that summing no longer overlaps the stores of the piece before. More
/// than one piece of staging gains nothing either.
pub const PIECE_BYTES: usize = 1920;

const _: () = {
    assert!(PIECE_BYTES.is_multiple_of(LINE_BYTES), "a piece leaves the next one line-aligned");
    assert!(PIECE_BYTES.is_multiple_of(384), "a whole piece leaves the checksum no remainder");
    assert!(LINE_BYTES.is_multiple_of(WORD_BYTES));
    assert!(usize::BITS == 64, "`append` adds the lengths of slices unchecked");
};

/// Waits until every streaming store of this thread is visible to all who see a later store.
///
/// Call it after the last byte of a batch and before the store, work request or message that
/// makes the batch known. SFENCE orders streaming stores before all later stores (Intel SDM vol. 2
/// and AMD APM vol. 3, both under SFENCE).
#[inline]
pub fn stream_fence() {
    // SAFETY: SFENCE came with SSE, which every x86-64 has; it takes no operands.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::x86_64::_mm_sfence();
    }
    // `stream_copy` makes ordinary stores here, and this orders those.
    #[cfg(not(target_arch = "x86_64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Copies `bytes` bytes with streaming stores where the CPU has them, else like `ptr::copy`. Bytes
/// past the last whole line are stored normally: nothing after `dst + bytes` is touched.
///
/// # Safety
///
/// - `src` is readable and `dst` writable for `bytes` bytes, and the two do not overlap.
/// - `dst` is a multiple of 64: streaming stores fault when misaligned.
/// - Nobody else reads or writes the destination until the caller has called [`stream_fence`] and
///   then published it.
#[inline]
pub unsafe fn stream_copy(dst: *mut u8, src: *const u8, bytes: usize) {
    debug_assert!(dst.addr().is_multiple_of(LINE_BYTES));
    #[cfg(target_arch = "x86_64")]
    let whole = {
        let whole = bytes - bytes % LINE_BYTES;
        // The detection macro is a load and a bit test: the standard library caches CPUID.
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: AVX-512F was found on the line above; the caller vouches for `bytes` bytes
            // on both sides and for the alignment, and `whole` is no more than `bytes`.
            unsafe { x86::stream_512(dst, src, whole) }
        } else if is_x86_feature_detected!("avx") {
            // SAFETY: as above, with AVX found on the line above.
            unsafe { x86::stream_256(dst, src, whole) }
        } else {
            // SAFETY: as above; SSE2 is part of x86-64.
            unsafe { x86::stream_128(dst, src, whole) }
        }
        whole
    };
    #[cfg(not(target_arch = "x86_64"))]
    let whole = 0;
    // SAFETY: `whole <= bytes`, so both ranges end where the caller's ranges end, and those are
    // valid and disjoint by contract.
    unsafe { dst.add(whole).copy_from_nonoverlapping(src.add(whole), bytes - whole) }
}

/// Sixty-four bytes at an address that a 512-bit aligned load accepts.
#[cfg(any(target_arch = "x86_64", test))]
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

/// Streams messages into one destination, one after the other, and keeps the CRC32C of them all.
///
/// With AVX-512 each line is put together in a register, summed and streamed: no staging copy, and
/// the caller's bytes are read once. Elsewhere pieces of [`PIECE_BYTES`] go through staging.
///
/// Deliberately not `Send`: a fence covers the streaming stores of its own thread only, so a writer
/// is finished where it was filled. Dropped unfinished, it leaves any part of the messages behind.
pub struct StreamWriter {
    /// Bytes that can still be appended.
    room: usize,
    kernel: Kernel,
}

enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Fused(x86::Fused),
    Staged(Staged),
}

impl StreamWriter {
    /// A writer that fills `room` bytes from `dst` on.
    ///
    /// # Safety
    ///
    /// - `dst` is writable for `room` bytes as long as the writer lives.
    /// - Nobody else reads or writes those bytes until [`finish`](Self::finish) has returned and
    ///   the caller has published them. Nothing given to [`append`](Self::append) overlaps them.
    ///
    /// # Panics
    ///
    /// When `dst` is not a multiple of 64.
    pub unsafe fn new(dst: *mut u8, room: usize) -> Self {
        assert!(dst.addr().is_multiple_of(LINE_BYTES), "a destination starts at a line");
        Self { room, kernel: Kernel::best(dst) }
    }

    /// Bytes that can still be appended.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Bytes that a message takes whose parts are `part_bytes` long together: a header of two
    /// words, the parts, zeros up to a whole word.
    pub const fn message_bytes(part_bytes: usize) -> usize {
        2 * WORD_BYTES + part_bytes.next_multiple_of(WORD_BYTES)
    }

    /// Appends a message: the header's two words, little-endian, then both parts (key and payload)
    /// end to end, then zeros up to a whole word. All is copied before this returns, and reaches
    /// the destination with [`finish`](Self::finish) at the latest.
    ///
    /// The header comes by value: a header just written to memory in parts would be readable as a
    /// whole only once the streaming stores queued before it have drained.
    ///
    /// # Panics
    ///
    /// When the message is longer than [`room`](Self::room): the bound that keeps a wrong length
    /// from becoming a write past the extent.
    #[inline]
    pub fn append(&mut self, header: [u64; 2], parts: [&[u8]; 2]) {
        // Slices are bounded by the address space, of which 64-bit CPUs wire 57 bits at most: the
        // sum cannot overflow and slip past the assert.
        let bytes = Self::message_bytes(parts[0].len() + parts[1].len());
        assert!(bytes <= self.room, "{bytes} bytes into {}", self.room);
        self.room -= bytes;
        match &mut self.kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Kernel::best` makes a `Fused` only after finding its three features. By the
            // assert the message ends within the room, which `new`'s contract covers.
            Kernel::Fused(fused) => unsafe { fused.append(header[0], header[1], parts) },
            // SAFETY: as above; no feature is needed.
            Kernel::Staged(staged) => unsafe { staged.append(header, parts) },
        }
    }

    /// Stores what is still held, fences, and returns the CRC32C of all that was appended. After
    /// this the destination may be published.
    #[must_use = "the checksum belongs in the batch preamble"]
    pub fn finish(self) -> u32 {
        let (dst, tail, mut crc) = match &self.kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Fused(fused) => {
                let (dst, streamed, tail) = fused.rest();
                // As good as the bytes it stands for, in a register that starts at zero.
                let zero = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, 0);
                let mut crc = Crc32c(zero);
                crc.update(streamed);
                (dst, tail, crc)
            }
            Kernel::Staged(staged) => {
                (staged.dst, &staged.piece.0[..staged.pending], staged.crc.clone())
            }
        };
        crc.update(tail);
        // SAFETY: `dst` is past what was streamed, line-aligned, and `tail` is what `append` let
        // into the room beyond, which `new`'s contract covers; `tail` itself is our own memory.
        unsafe { stream_copy(dst, tail.as_ptr(), tail.len()) }
        stream_fence();
        crc.finish()
    }
}

impl Kernel {
    fn best(dst: *mut u8) -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("vpclmulqdq")
        {
            return Self::Fused(x86::Fused::new(dst));
        }
        Self::staged(dst)
    }

    fn staged(dst: *mut u8) -> Self {
        let piece = Box::new(Piece([0; PIECE_BYTES]));
        Self::Staged(Staged { dst, pending: 0, piece, crc: Crc32c::new() })
    }
}

/// A [`StreamWriter`] for any CPU.
struct Staged {
    /// Where the next piece goes; line-aligned.
    dst: *mut u8,
    /// Bytes of the piece that are filled; less than all.
    pending: usize,
    piece: Box<Piece>,
    crc: Crc32c,
}

#[repr(C, align(64))]
struct Piece([u8; PIECE_BYTES]);

impl Staged {
    /// # Safety
    ///
    /// The message fits the writer's room, and the contract of [`StreamWriter::new`] holds.
    unsafe fn append(&mut self, header: [u64; 2], parts: [&[u8]; 2]) {
        let [low, high] = header.map(u64::to_le_bytes);
        let part_bytes = parts[0].len() + parts[1].len();
        let zeros = &[0; WORD_BYTES][..part_bytes.next_multiple_of(WORD_BYTES) - part_bytes];
        for mut bytes in [&low, &high, parts[0], parts[1], zeros] {
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.pending));
                self.piece.0[self.pending..][..now.len()].copy_from_slice(now);
                self.pending += now.len();
                bytes = later;
                if self.pending == PIECE_BYTES {
                    // Summed first: the loads overlap the draining stores of the piece before.
                    self.crc.update(&self.piece.0);
                    // SAFETY: the piece is part of a message that fits the room; `dst` stays a
                    // multiple of 64 because a piece is whole lines; the piece is our own memory.
                    unsafe { stream_copy(self.dst, self.piece.0.as_ptr(), PIECE_BYTES) }
                    // In bounds: at most one past the room.
                    self.dst = self.dst.wrapping_add(PIECE_BYTES);
                    self.pending = 0;
                }
            }
        }
    }
}

/// CRC32C (Castagnoli: RFC 3720 12.1, RFC 9260 appendix A) of bytes that arrive in parts.
#[derive(Clone)]
pub struct Crc32c(Digest);

impl Crc32c {
    /// The checksum of no bytes yet.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Takes in the next `bytes`.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of everything taken in so far.
    pub fn finish(&self) -> u32 {
        self.0.finalize() as u32 // The library's widest register is 64 bits; ours fills the low 32.
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// CRC32C of bytes that are not in a cache, such as a batch that a NIC wrote just now.
pub fn crc32c_far(bytes: &[u8]) -> u32 {
    if bytes.len() <= PIECE_BYTES {
        return landfall_layout::batch::crc32c(bytes);
    }
    let (mut crc, mut ahead) = (Crc32c::new(), Ahead::default());
    for (i, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        ahead.ask(bytes.as_ptr(), bytes.len(), i * PIECE_BYTES + piece.len());
        crc.update(piece);
    }
    crc.finish()
}

/// How far ahead lines are asked for, by who reads bytes that are in no cache piece by piece.
/// Measured on two cores: blocks of 1 MiB that lie in memory are summed at 22 GB/s without, 38 GB/s
/// with it; the hardware's own prefetching ends at each page.
const AHEAD_BYTES: usize = 6144;

/// How far lines were asked for.
#[derive(Default)]
pub(crate) struct Ahead(usize);

impl Ahead {
    /// Asks for what comes behind the first `taken` of the `bytes` bytes from `start` on.
    #[inline]
    pub(crate) fn ask(&mut self, start: *const u8, bytes: usize, taken: usize) {
        let until = bytes.min(taken + AHEAD_BYTES);
        while self.0 < until {
            prefetch(start.wrapping_add(self.0));
            self.0 += LINE_BYTES;
        }
    }
}

/// Asks for the line at `address`.
#[inline]
fn prefetch(address: *const u8) {
    // SAFETY: PREFETCHT0 came with SSE; it changes nothing and any address will do.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;
