//! Completion queues: polling, asking for an event, and the extended kind.

use std::os::raw::{c_int, c_uint};

use super::context::{call_or, call_or_null};
use super::{EOPNOTSUPP, operation};
use crate::types::{
    ibv_context, ibv_cq, ibv_cq_ex, ibv_cq_init_attr_ex, ibv_modify_cq_attr, ibv_poll_cq_attr,
    ibv_wc, ibv_wc_opcode, ibv_wc_tm_info,
};

/// Takes up to `most` completions; a negative number is an error.
///
/// # Safety
/// `cq` is a live completion queue and `into` has room for `most`.
#[inline]
pub unsafe fn ibv_poll_cq(cq: *mut ibv_cq, most: c_int, into: *mut ibv_wc) -> c_int {
    // SAFETY: a live queue has a context, and libibverbs gives every context this operation.
    unsafe { ((*(*cq).context).ops.poll_cq.unwrap_unchecked())(cq, most, into) }
}

/// Asks for an event on the queue's channel at its next completion.
///
/// # Safety
/// `cq` is a live completion queue.
#[inline]
pub unsafe fn ibv_req_notify_cq(cq: *mut ibv_cq, solicited_only: c_int) -> c_int {
    // SAFETY: a live queue has a context, and libibverbs gives every context this operation.
    unsafe { ((*(*cq).context).ops.req_notify_cq.unwrap_unchecked())(cq, solicited_only) }
}

/// Creates a completion queue of the extended kind.
///
/// # Safety
/// `context` is an open device and `attributes` are well formed.
pub unsafe fn ibv_create_cq_ex(
    context: *mut ibv_context,
    attributes: *mut ibv_cq_init_attr_ex,
) -> *mut ibv_cq_ex {
    // SAFETY: the caller vouches for both.
    unsafe { call_or_null!(context, create_cq_ex, context, attributes) }
}

/// The same queue for the functions of the ordinary kind, which begins like it.
#[inline]
pub fn ibv_cq_ex_to_cq(cq: *mut ibv_cq_ex) -> *mut ibv_cq {
    cq.cast()
}

/// Changes when the queue makes events.
///
/// # Safety
/// `cq` is a live completion queue and `attributes` are well formed.
pub unsafe fn ibv_modify_cq(cq: *mut ibv_cq, attributes: *mut ibv_modify_cq_attr) -> c_int {
    // SAFETY: the caller vouches for both.
    unsafe { call_or!(EOPNOTSUPP, (*cq).context, modify_cq, cq, attributes) }
}

/// The functions of an `ibv_cq_ex`, those of `read_*` filled in if they were asked for when the
/// queue was created.
macro_rules! readers {
    ($($(#[$doc:meta])* $function:ident = $slot:ident($($name:ident: $type:ty),*) $(-> $out:ty)?;)*)
    => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `cq` is a live queue that was created with this function, and polling has begun where
        /// it reads the present completion.
        #[inline]
        pub unsafe fn $function(cq: *mut ibv_cq_ex, $($name: $type),*) $(-> $out)? {
            // SAFETY: the caller vouches for `cq` and the arguments.
            unsafe { (operation!((*cq).$slot))(cq, $($name),*) }
        }
    )*};
}

readers! {
    /// Begins polling: 0 with a completion at hand, ENOENT without.
    ibv_start_poll = start_poll(attributes: *mut ibv_poll_cq_attr) -> c_int;
    /// Goes on to the next completion.
    ibv_next_poll = next_poll() -> c_int;
    /// Ends polling; only after an [`ibv_start_poll`] that returned 0.
    ibv_end_poll = end_poll();
    /// What was completed.
    ibv_wc_read_opcode = read_opcode() -> ibv_wc_opcode;
    /// The vendor's number of an error.
    ibv_wc_read_vendor_err = read_vendor_err() -> u32;
    /// Bytes received.
    ibv_wc_read_byte_len = read_byte_len() -> u32;
    /// The number that came along (big endian).
    ibv_wc_read_imm_data = read_imm_data() -> u32;
    /// The key that a message invalidated: in the same place as the number.
    ibv_wc_read_invalidated_rkey = read_imm_data() -> u32;
    /// The queue pair of this side.
    ibv_wc_read_qp_num = read_qp_num() -> u32;
    /// The queue pair of the other side.
    ibv_wc_read_src_qp = read_src_qp() -> u32;
    /// Flags: whether a number came along.
    ibv_wc_read_wc_flags = read_wc_flags() -> c_uint;
    /// The other side's local id.
    ibv_wc_read_slid = read_slid() -> u32;
    /// Service level.
    ibv_wc_read_sl = read_sl() -> u8;
    /// Path bits.
    ibv_wc_read_dlid_path_bits = read_dlid_path_bits() -> u8;
    /// The device's clock at the completion.
    ibv_wc_read_completion_ts = read_completion_ts() -> u64;
    /// Wall-clock time of the completion, in nanoseconds.
    ibv_wc_read_completion_wallclock_ns = read_completion_wallclock_ns() -> u64;
    /// The VLAN tag.
    ibv_wc_read_cvlan = read_cvlan() -> u16;
    /// The flow's tag.
    ibv_wc_read_flow_tag = read_flow_tag() -> u32;
    /// What tag matching found.
    ibv_wc_read_tm_info = read_tm_info(tm_info: *mut ibv_wc_tm_info);
}
