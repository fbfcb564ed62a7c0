//! Creating queue pairs of the extended kind.

use std::os::raw::c_int;

use super::EOPNOTSUPP;
use super::context::{call_or, call_or_null};
use crate::Verbs;
use crate::types::{
    IBV_QP_INIT_ATTR_PD, ibv_context, ibv_qp, ibv_qp_init_attr_ex, ibv_qp_open_attr,
    ibv_qp_rate_limit_attr,
};

/// Creates a queue pair. With no more than a domain asked for, the ordinary entry does.
///
/// # Safety
/// `context` is an open device and `attributes` are well formed.
pub unsafe fn ibv_create_qp_ex(
    verbs: &Verbs,
    context: *mut ibv_context,
    attributes: *mut ibv_qp_init_attr_ex,
) -> *mut ibv_qp {
    // SAFETY: the caller vouches for both. The extended attributes begin like the ordinary ones.
    unsafe {
        if (*attributes).comp_mask == IBV_QP_INIT_ATTR_PD {
            return verbs.ibv_create_qp((*attributes).pd, attributes.cast());
        }
        call_or_null!(context, create_qp_ex, context, attributes)
    }
}

/// Opens a queue pair that processes share.
///
/// # Safety
/// As for [`ibv_create_qp_ex`].
pub unsafe fn ibv_open_qp(
    context: *mut ibv_context,
    attributes: *mut ibv_qp_open_attr,
) -> *mut ibv_qp {
    // SAFETY: the caller vouches for both.
    unsafe { call_or_null!(context, open_qp, context, attributes) }
}

/// Bounds how fast a queue pair sends.
///
/// # Safety
/// `qp` is live and `attributes` are well formed.
pub unsafe fn ibv_modify_qp_rate_limit(
    qp: *mut ibv_qp,
    attributes: *mut ibv_qp_rate_limit_attr,
) -> c_int {
    // SAFETY: the caller vouches for both.
    unsafe { call_or!(EOPNOTSUPP, (*qp).context, modify_qp_rate_limit, qp, attributes) }
}
