//! Cache-line instructions, found by CPUID.
//!
//! `core::arch` has no CLWB and no CLFLUSHOPT, so both are inline assembly. None of the blocks
//! says `nomem`: each is also a compiler barrier for the stores before it.

/// What this CPU writes lines back and drops them with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineOps {
    /// CLWB: writes back and may keep the line.
    pub clwb: bool,
    /// CLFLUSHOPT: writes back and drops, without serialising against its neighbours.
    pub clflushopt: bool,
}

#[cfg(target_arch = "x86_64")]
mod ops {
    use super::LineOps;
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _mm_clflush, _mm_mfence, _mm_sfence};

    /// Reads CPUID leaf 7 (Intel SDM vol. 2A, CPUID): EBX bit 23 CLFLUSHOPT, bit 24 CLWB.
    pub fn detect() -> LineOps {
        if __cpuid(0).eax < 7 {
            return LineOps { clwb: false, clflushopt: false };
        }
        let leaf = __cpuid_count(7, 0);
        LineOps { clwb: leaf.ebx >> 24 & 1 == 1, clflushopt: leaf.ebx >> 23 & 1 == 1 }
    }

    /// Writes back the line that holds `address`.
    ///
    /// # Safety
    /// `address` is inside a live mapping.
    pub unsafe fn write_back(ops: LineOps, address: *const u8) {
        if ops.clwb {
            // SAFETY:
            // - the caller says that `address` is mapped;
            // - CLWB exists here: `ops` comes from CPUID;
            // - it changes no register and no byte.
            unsafe { asm!("clwb [{}]", in(reg) address, options(nostack, preserves_flags)) }
        } else {
            // SAFETY: passed on.
            unsafe { drop_line(ops, address) }
        }
    }

    /// Writes back, if dirty, and drops the line that holds `address`.
    ///
    /// # Safety
    /// `address` is inside a live mapping.
    pub unsafe fn drop_line(ops: LineOps, address: *const u8) {
        if ops.clflushopt {
            // SAFETY:
            // - the caller says that `address` is mapped;
            // - CLFLUSHOPT exists here: `ops` comes from CPUID;
            // - it changes no register and no byte.
            unsafe { asm!("clflushopt [{}]", in(reg) address, options(nostack, preserves_flags)) }
        } else {
            // SAFETY: CLFLUSH came with SSE2, which every x86-64 has; `address` is mapped.
            unsafe { _mm_clflush(address) }
        }
    }

    /// SFENCE: stores and write-backs before it come before stores after it.
    pub fn store_fence() {
        // SAFETY: SFENCE came with SSE, which every x86-64 has.
        unsafe { _mm_sfence() }
    }

    /// MFENCE: everything before it comes before everything after it.
    pub fn memory_fence() {
        // SAFETY: MFENCE came with SSE2, which every x86-64 has.
        unsafe { _mm_mfence() }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod ops {
    use super::LineOps;
    use std::sync::atomic::{Ordering, fence};

    /// No cache-line instruction is known here; pools in flush mode are refused.
    pub fn detect() -> LineOps {
        LineOps { clwb: false, clflushopt: false }
    }

    /// Nothing: such a pool cannot be attached here.
    ///
    /// # Safety
    /// None needed.
    pub unsafe fn write_back(_: LineOps, _: *const u8) {}

    /// Nothing: such a pool cannot be attached here.
    ///
    /// # Safety
    /// None needed.
    pub unsafe fn drop_line(_: LineOps, _: *const u8) {}

    /// Stores before it come before stores after it.
    pub fn store_fence() {
        fence(Ordering::SeqCst);
    }

    /// Everything before it comes before everything after it.
    pub fn memory_fence() {
        fence(Ordering::SeqCst);
    }
}

pub use ops::{detect, drop_line, memory_fence, store_fence, write_back};
