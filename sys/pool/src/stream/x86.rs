//! The streaming copies, and the kernel that sums, joins and streams lines in registers.

use super::{LINE_BYTES, Line, WORD_BYTES};
use core::arch::x86_64::*;

macro_rules! stream {
    ($name:ident, $feature:literal, $register:ty, $load:ident, $stream:ident) => {
        /// # Safety
        ///
        /// `whole` is a multiple of 64; the rest is `stream_copy`'s contract.
        #[target_feature(enable = $feature)]
        pub unsafe fn $name(dst: *mut u8, src: *const u8, whole: usize) {
            let (dst, src) = (dst.cast::<$register>(), src.cast::<$register>());
            for i in 0..whole / size_of::<$register>() {
                // SAFETY: register `i` ends within `whole` bytes, which the caller vouches
                // for on both sides; the load takes any alignment; the store needs the
                // register's own, of which 64 is a multiple.
                unsafe { $stream(dst.add(i), $load(src.add(i))) }
            }
        }
    };
}

stream!(stream_512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_stream_si512);
stream!(stream_256, "avx", __m256i, _mm256_loadu_si256, _mm256_stream_si256);
stream!(stream_128, "sse2", __m128i, _mm_loadu_si128, _mm_stream_si128);

/// The Castagnoli polynomial, lowest power in the highest bit, as the CRC32 instruction has it.
const POLY: u32 = 0x82f6_3b78;

/// x^n modulo the polynomial, bit-reflected.
const fn x_to_the(n: usize) -> u32 {
    let mut power = 1 << 31;
    let mut i = 0;
    while i < n {
        power = (power >> 1) ^ (POLY * (power & 1));
        i += 1;
    }
    power
}

/// What carries the two halves of a 128-bit lane `lines` lines further on (Gopal et al., "Fast
/// CRC Computation for Generic Polynomials Using PCLMULQDQ", Intel 2009). The lower half lies
/// 64 bits earlier in the stream; the 33 is the product's width and its reflection.
const fn carry(lines: usize) -> [i64; 2] {
    let bits = lines * LINE_BYTES * 8;
    [x_to_the(bits + 64 - 33) as i64, x_to_the(bits - 33) as i64]
}

const CARRY: [[i64; 2]; 5] = [[0; 2], carry(1), carry(2), carry(3), carry(4)];

/// A line to fold before the first: from a zero register it leads to all ones, which is where
/// CRC32C starts. So the first line of a stream needs no case of its own.
pub const SEED: Line = {
    let mut word = u32::MAX;
    let mut i = 0;
    while i < 32 {
        // One step back. The polynomial's top bit is set, so the register's tells if it was
        // subtracted.
        let out = word >> 31;
        word = ((word ^ (POLY * out)) << 1) | out;
        i += 1;
    }
    let bytes = word.to_le_bytes();
    let mut line = [0; LINE_BYTES];
    line[60] = bytes[0];
    line[61] = bytes[1];
    line[62] = bytes[2];
    line[63] = bytes[3];
    Line(line)
};

/// `a` carried `LINES` lines further: two products whose sum it is.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
fn carried<const LINES: usize>(a: __m512i) -> (__m512i, __m512i) {
    let [low, high] = CARRY[LINES];
    let by = _mm512_broadcast_i32x4(_mm_set_epi64x(high, low));
    (_mm512_clmulepi64_epi128(a, by, 0x00), _mm512_clmulepi64_epi128(a, by, 0x11))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64(a, b, c, 0x96)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a `Line` is 64 readable bytes at a multiple of 64.
    unsafe { _mm512_load_si512((&raw const *line).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(line: &mut Line, register: __m512i) {
    // SAFETY: a `Line` is 64 writable bytes at a multiple of 64.
    unsafe { _mm512_store_si512((&raw mut *line).cast(), register) }
}

/// A [`StreamWriter`](super::StreamWriter) that sums, joins and streams lines in registers.
pub struct Fused {
    /// Where the next line goes; a multiple of 64.
    dst: *mut u8,
    /// Bytes of `line` that are filled, in whole words and less than all; zeros follow them.
    pending: usize,
    line: Line,
    /// Stands for everything streamed: from a register at zero it leads to the same CRC.
    sum: Line,
}

/// `Fused` in registers, for the length of a call.
struct Run {
    dst: *mut u8,
    pending: usize,
    line: __m512i,
    sum: __m512i,
}

impl Fused {
    pub fn new(dst: *mut u8) -> Self {
        Self { dst, pending: 0, line: Line([0; LINE_BYTES]), sum: SEED }
    }

    /// Where the next line goes, the stand-in for all that was streamed, what is still held.
    pub fn rest(&self) -> (*mut u8, &[u8], &[u8]) {
        (self.dst, &self.sum.0, &self.line.0[..self.pending])
    }

    /// # Safety
    ///
    /// The message fits the writer's room, and the contract of `StreamWriter::new` holds.
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    pub unsafe fn append(&mut self, low: u64, high: u64, parts: [&[u8]; 2]) {
        let mut run = Run {
            dst: self.dst,
            pending: self.pending,
            line: load(&self.line),
            sum: load(&self.sum),
        };
        // SAFETY: the caller vouches for the whole message; these are its pieces in order, and
        // no more than it has.
        unsafe {
            run.words(low, high);
            for part in parts {
                run.bytes(part);
            }
            run.pad();
        }
        self.dst = run.dst;
        self.pending = run.pending;
        store(&mut self.line, run.line);
        store(&mut self.sum, run.sum);
    }
}

impl Run {
    /// Sums and streams a line.
    ///
    /// # Safety
    ///
    /// The line belongs at `dst`, within the writer's room.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    unsafe fn stream(&mut self, line: __m512i) {
        let (a, b) = carried::<1>(self.sum);
        self.sum = xor(a, b, line);
        // SAFETY: `dst` is a multiple of 64 with 64 bytes of room, by the caller; the step
        // reaches one past them at most.
        unsafe {
            _mm512_stream_si512(self.dst.cast(), line);
            self.dst = self.dst.add(LINE_BYTES);
        }
    }

    /// # Safety
    ///
    /// 16 more bytes fit the writer's room; `pending` is whole words.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    unsafe fn words(&mut self, low: u64, high: u64) {
        let words = _mm512_zextsi128_si512(_mm_set_epi64x(high as i64, low as i64));
        // The shift drops the second word when only one is wanted to fill the line.
        let places = 0b11_u8 << (self.pending / WORD_BYTES);
        let line = _mm512_mask_expand_epi64(self.line, places, words);
        self.pending += 2 * WORD_BYTES;
        if self.pending < LINE_BYTES {
            self.line = line;
            return;
        }
        // SAFETY: the words complete this line, so it is within the room they fit.
        unsafe { self.stream(line) }
        self.pending -= LINE_BYTES;
        let second = _mm512_maskz_compress_epi64(0b10, words);
        self.line = if self.pending == 0 { _mm512_setzero_si512() } else { second };
    }

    /// # Safety
    ///
    /// `bytes` fit the writer's room.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    unsafe fn bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut src = bytes.as_ptr();
        let mut left = bytes.len();

        // The line joins what it held with the first bytes in a register: put together in
        // memory, it could be loaded only after every streaming store before it has drained.
        let wanted = LINE_BYTES - self.pending;
        let taken = left.min(wanted);
        let mask = (u64::MAX >> (LINE_BYTES - taken)) << self.pending;
        // SAFETY: enabled are bytes `pending..pending + taken` from `src - pending`, which is
        // `bytes[..taken]`. Disabled ones are not accessed and cannot fault (Intel SDM vol. 1,
        // "Programming with Intel AVX-512"), so the pointer, made to wrap, may lie outside.
        self.line = unsafe {
            _mm512_mask_loadu_epi8(self.line, mask, src.wrapping_sub(self.pending).cast())
        };
        if left < wanted {
            self.pending += left;
            return;
        }
        // SAFETY: the line is complete, so it is within the room that `bytes` fit; `wanted`
        // is within `bytes` by the test above.
        unsafe {
            self.stream(self.line);
            src = src.add(wanted);
        }
        left -= wanted;

        // Four lines a turn: three of the products do not wait for `sum`, and fill the latency
        // of the one that does.
        while left >= 4 * LINE_BYTES {
            // SAFETY: `left` says that 256 bytes are readable at `src`; they are four lines
            // that belong at `dst`, a multiple of 64, within the room.
            let lines: [__m512i; 4] = unsafe {
                let lines = [0, 1, 2, 3].map(|i| _mm512_loadu_si512(src.cast::<__m512i>().add(i)));
                for line in lines {
                    _mm512_stream_si512(self.dst.cast(), line);
                    self.dst = self.dst.add(LINE_BYTES);
                }
                src = src.add(4 * LINE_BYTES);
                lines
            };
            left -= 4 * LINE_BYTES;
            let (a0, b0) = carried::<3>(lines[0]);
            let (a1, b1) = carried::<2>(lines[1]);
            let (a2, b2) = carried::<1>(lines[2]);
            let four = xor(xor(a0, b0, a1), xor(b1, a2, b2), lines[3]);
            let (a, b) = carried::<4>(self.sum);
            self.sum = xor(a, b, four);
        }
        while left >= LINE_BYTES {
            // SAFETY: `left` says that 64 bytes are readable at `src`; they are a line that
            // belongs at `dst` within the room.
            unsafe {
                self.stream(_mm512_loadu_si512(src.cast()));
                src = src.add(LINE_BYTES);
            }
            left -= LINE_BYTES;
        }
        // SAFETY: enabled are the `left < 64` bytes that remain of `bytes`.
        self.line = unsafe { _mm512_maskz_loadu_epi8((1 << left) - 1, src.cast()) };
        self.pending = left;
    }

    /// Makes `pending` whole words; the line holds the zeros already.
    ///
    /// # Safety
    ///
    /// The zeros fit the writer's room.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    unsafe fn pad(&mut self) {
        self.pending = self.pending.next_multiple_of(WORD_BYTES);
        if self.pending == LINE_BYTES {
            // SAFETY: the zeros complete this line, so it is within the room they fit.
            unsafe { self.stream(self.line) }
            self.pending = 0;
            self.line = _mm512_setzero_si512();
        }
    }
}
