//! Posting work requests, by list (`ibv_post_send`) and by building (`ibv_wr_*`).

use std::os::raw::{c_int, c_void};

use super::operation;
use crate::types::{
    ibv_ah, ibv_data_buf, ibv_mw, ibv_mw_bind_info, ibv_qp, ibv_qp_ex, ibv_recv_wr, ibv_send_wr,
    ibv_sge,
};

/// Posts a list of work requests to the send queue: two loads and an indirect call.
///
/// # Safety
/// `qp` is a live queue pair, the list is well formed for it, `bad` may be written, and what the
/// requests name stays registered as long as the device may look at it.
#[inline]
pub unsafe fn ibv_post_send(
    qp: *mut ibv_qp,
    requests: *mut ibv_send_wr,
    bad: *mut *mut ibv_send_wr,
) -> c_int {
    // SAFETY: a live queue pair has a context, and libibverbs gives every context this operation.
    unsafe { ((*(*qp).context).ops.post_send.unwrap_unchecked())(qp, requests, bad) }
}

/// Posts a list of work requests to the receive queue.
///
/// # Safety
/// As for [`ibv_post_send`].
#[inline]
pub unsafe fn ibv_post_recv(
    qp: *mut ibv_qp,
    requests: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: a live queue pair has a context, and libibverbs gives every context this operation.
    unsafe { ((*(*qp).context).ops.post_recv.unwrap_unchecked())(qp, requests, bad) }
}

/// The functions of an `ibv_qp_ex`, each filled in if the queue pair was created with its
/// operation among `send_ops_flags`.
///
/// # Safety
/// Of all: `qp` is a live queue pair created with that operation, and the pointers are good for
/// what the provider reads through them, which happens before the call returns.
macro_rules! builders {
    ($($(#[$doc:meta])* $function:ident = $slot:ident($($name:ident: $type:ty),*) $(-> $out:ty)?;)*)
    => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// `qp` is a live queue pair that was created with this operation, and the pointers are
        /// good for what is read through them before the call returns.
        #[inline]
        pub unsafe fn $function(qp: *mut ibv_qp_ex, $($name: $type),*) $(-> $out)? {
            // SAFETY: the caller vouches for `qp` and the arguments.
            unsafe { (operation!((*qp).$slot))(qp, $($name),*) }
        }
    )*};
}

builders! {
    /// Begins a batch of work requests.
    ibv_wr_start = wr_start();
    /// Posts the batch; a number other than 0 says that nothing of it was posted.
    ibv_wr_complete = wr_complete() -> c_int;
    /// Drops the batch.
    ibv_wr_abort = wr_abort();
    /// An atomic compare and swap.
    ibv_wr_atomic_cmp_swp =
        wr_atomic_cmp_swp(rkey: u32, remote_addr: u64, compare: u64, swap: u64);
    /// An atomic addition.
    ibv_wr_atomic_fetch_add = wr_atomic_fetch_add(rkey: u32, remote_addr: u64, add: u64);
    /// Binds a window of type 2.
    ibv_wr_bind_mw = wr_bind_mw(mw: *mut ibv_mw, rkey: u32, bind_info: *const ibv_mw_bind_info);
    /// Invalidates a key of this side.
    ibv_wr_local_inv = wr_local_inv(invalidate_rkey: u32);
    /// A read of the other side's memory.
    ibv_wr_rdma_read = wr_rdma_read(rkey: u32, remote_addr: u64);
    /// A write to the other side's memory.
    ibv_wr_rdma_write = wr_rdma_write(rkey: u32, remote_addr: u64);
    /// A write that takes a receive of the other side and hands it a number (big endian).
    ibv_wr_rdma_write_imm = wr_rdma_write_imm(rkey: u32, remote_addr: u64, imm_data: u32);
    /// A message.
    ibv_wr_send = wr_send();
    /// A message with a number (big endian).
    ibv_wr_send_imm = wr_send_imm(imm_data: u32);
    /// A message that invalidates a key of the other side.
    ibv_wr_send_inv = wr_send_inv(invalidate_rkey: u32);
    /// A message that the device cuts into segments.
    ibv_wr_send_tso = wr_send_tso(hdr: *mut c_void, hdr_sz: u16, mss: u16);
    /// A write of eight bytes that become visible at once.
    ibv_wr_atomic_write = wr_atomic_write(rkey: u32, remote_addr: u64, atomic_wr: *const c_void);
    /// Where a datagram goes.
    ibv_wr_set_ud_addr = wr_set_ud_addr(ah: *mut ibv_ah, remote_qpn: u32, remote_qkey: u32);
    /// The shared receive queue that takes it.
    ibv_wr_set_xrc_srqn = wr_set_xrc_srqn(remote_srqn: u32);
    /// Data that the provider copies before it returns.
    ibv_wr_set_inline_data = wr_set_inline_data(addr: *mut c_void, length: usize);
    /// Data in pieces that the provider copies before it returns.
    ibv_wr_set_inline_data_list =
        wr_set_inline_data_list(num_buf: usize, buf_list: *const ibv_data_buf);
    /// One piece of registered memory.
    ibv_wr_set_sge = wr_set_sge(lkey: u32, addr: u64, length: u32);
    /// Pieces of registered memory.
    ibv_wr_set_sge_list = wr_set_sge_list(num_sge: usize, sg_list: *const ibv_sge);
}
