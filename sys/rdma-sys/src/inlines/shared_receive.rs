//! Shared receive queues.

use std::os::raw::c_int;

use super::EOPNOTSUPP;
use super::context::{call_or, call_or_null};
use crate::Verbs;
use crate::types::{
    IBV_SRQ_INIT_ATTR_PD, IBV_SRQ_INIT_ATTR_TYPE, IBV_SRQT_BASIC, ibv_context, ibv_ops_wr,
    ibv_recv_wr, ibv_srq, ibv_srq_init_attr_ex,
};
use crate::verbs_get_ctx_op;

/// Creates a shared receive queue. A basic one with a domain goes through the ordinary entry.
///
/// # Safety
/// `context` is an open device and `attributes` are well formed.
pub unsafe fn ibv_create_srq_ex(
    verbs: &Verbs,
    context: *mut ibv_context,
    attributes: *mut ibv_srq_init_attr_ex,
) -> *mut ibv_srq {
    // SAFETY: the caller vouches for both. The extended attributes begin like the ordinary ones.
    unsafe {
        let mask = (*attributes).comp_mask;
        let ordinary = mask & !(IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_TYPE) == 0
            && mask & IBV_SRQ_INIT_ATTR_PD != 0
            && (mask & IBV_SRQ_INIT_ATTR_TYPE == 0 || (*attributes).srq_type == IBV_SRQT_BASIC);
        if ordinary {
            return verbs.ibv_create_srq((*attributes).pd, attributes.cast());
        }
        call_or_null!(context, create_srq_ex, context, attributes)
    }
}

/// The number of a shared receive queue.
///
/// # Safety
/// `srq` is live and `into` may be written.
pub unsafe fn ibv_get_srq_num(srq: *mut ibv_srq, into: *mut u32) -> c_int {
    // SAFETY: the caller vouches for both.
    unsafe { call_or!(EOPNOTSUPP, (*srq).context, get_srq_num, srq, into) }
}

/// Posts a list of receives.
///
/// # Safety
/// `srq` is live, the list is well formed and `bad` may be written.
#[inline]
pub unsafe fn ibv_post_srq_recv(
    srq: *mut ibv_srq,
    requests: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: a provider that creates shared receive queues has this operation.
    unsafe { ((*(*srq).context).ops.post_srq_recv.unwrap_unchecked())(srq, requests, bad) }
}

/// Posts operations on tags.
///
/// # Safety
/// As for [`ibv_post_srq_recv`].
pub unsafe fn ibv_post_srq_ops(
    srq: *mut ibv_srq,
    requests: *mut ibv_ops_wr,
    bad: *mut *mut ibv_ops_wr,
) -> c_int {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        if verbs_get_ctx_op!((*srq).context, post_srq_ops).is_null() {
            *bad = requests;
        }
        call_or!(EOPNOTSUPP, (*srq).context, post_srq_ops, srq, requests, bad)
    }
}
