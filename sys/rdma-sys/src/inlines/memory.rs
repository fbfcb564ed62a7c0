//! Memory regions and windows.

use std::os::raw::{c_int, c_uint, c_void};
use std::ptr;

use super::context::{call_or, call_or_null};
use super::{EINVAL, EOPNOTSUPP, EPERM, operation, set_errno};
use crate::Verbs;
use crate::types::{
    IBV_ACCESS_OPTIONAL_FIRST, IBV_MW_TYPE_1, ib_uverbs_advise_mr_advice, ibv_mr, ibv_mw,
    ibv_mw_bind, ibv_mw_type, ibv_pd, ibv_qp, ibv_sge,
};

/// The first bit above the access flags that a kernel may drop when it does not know them.
const ACCESS_OPTIONAL_LAST: u32 = 1 << 29;
/// All of those flags.
pub const IBV_ACCESS_OPTIONAL_RANGE: u32 =
    ((ACCESS_OPTIONAL_LAST << 1) - 1) & !(IBV_ACCESS_OPTIONAL_FIRST - 1);

/// Whether flags may go through the old entry points, which pass all of them to the kernel.
fn fits_old_entry(access: c_uint) -> bool {
    access & IBV_ACCESS_OPTIONAL_RANGE == 0
}

/// Registers memory under its own address.
///
/// # Safety
/// `pd` is a live domain, and the memory stays mapped while it is registered.
pub unsafe fn ibv_reg_mr(
    verbs: &Verbs,
    pd: *mut ibv_pd,
    address: *mut c_void,
    bytes: usize,
    access: c_uint,
) -> *mut ibv_mr {
    // SAFETY: the caller vouches for the arguments.
    unsafe {
        if fits_old_entry(access) {
            verbs.ibv_reg_mr(pd, address, bytes, access as c_int)
        } else {
            verbs.ibv_reg_mr_iova2(pd, address, bytes, address as u64, access)
        }
    }
}

/// Registers memory under an address of the caller's choice.
///
/// # Safety
/// As for [`ibv_reg_mr`].
pub unsafe fn ibv_reg_mr_iova(
    verbs: &Verbs,
    pd: *mut ibv_pd,
    address: *mut c_void,
    bytes: usize,
    iova: u64,
    access: c_uint,
) -> *mut ibv_mr {
    // SAFETY: the caller vouches for the arguments.
    unsafe {
        if fits_old_entry(access) {
            verbs.ibv_reg_mr_iova(pd, address, bytes, iova, access as c_int)
        } else {
            verbs.ibv_reg_mr_iova2(pd, address, bytes, iova, access)
        }
    }
}

/// Tells the device what will be asked of registered memory.
///
/// # Safety
/// `pd` is a live domain and `pieces` points to `count` pieces of its regions.
pub unsafe fn ibv_advise_mr(
    pd: *mut ibv_pd,
    advice: ib_uverbs_advise_mr_advice,
    flags: u32,
    pieces: *mut ibv_sge,
    count: u32,
) -> c_int {
    // SAFETY: the caller vouches for the arguments.
    unsafe { call_or!(EOPNOTSUPP, (*pd).context, advise_mr, pd, advice, flags, pieces, count) }
}

/// A region that takes every write and keeps nothing.
///
/// # Safety
/// `pd` is a live domain.
pub unsafe fn ibv_alloc_null_mr(pd: *mut ibv_pd) -> *mut ibv_mr {
    // SAFETY: the caller vouches for `pd`.
    unsafe { call_or_null!((*pd).context, alloc_null_mr, pd) }
}

/// Allocates a window.
///
/// # Safety
/// `pd` is a live domain.
pub unsafe fn ibv_alloc_mw(pd: *mut ibv_pd, kind: ibv_mw_type) -> *mut ibv_mw {
    // SAFETY: the caller vouches for `pd`, which has a context.
    unsafe {
        match (*(*pd).context).ops.alloc_mw {
            Some(call) => call(pd, kind),
            None => {
                set_errno(EOPNOTSUPP);
                ptr::null_mut()
            }
        }
    }
}

/// Frees a window.
///
/// # Safety
/// `mw` came from [`ibv_alloc_mw`] and was not freed.
pub unsafe fn ibv_dealloc_mw(mw: *mut ibv_mw) -> c_int {
    // SAFETY: the caller vouches for `mw`; a provider that allocates windows frees them.
    unsafe { (operation!((*(*mw).context).ops.dealloc_mw))(mw) }
}

/// The key with its low byte, the part that is the consumer's, moved on by one.
#[inline]
pub fn ibv_inc_rkey(key: u32) -> u32 {
    (key & !0xff) | (key.wrapping_add(1) & 0xff)
}

/// Binds a window of type 1.
///
/// # Safety
/// The queue pair, the window and the region are live.
pub unsafe fn ibv_bind_mw(qp: *mut ibv_qp, mw: *mut ibv_mw, bind: *mut ibv_mw_bind) -> c_int {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        let info = &(*bind).bind_info;
        if (*mw).type_ != IBV_MW_TYPE_1 {
            return EINVAL;
        }
        if info.mr.is_null() && (info.addr != 0 || info.length != 0) {
            return EINVAL;
        }
        if !info.mr.is_null() && (*mw).pd != (*info.mr).pd {
            return EPERM;
        }
        (operation!((*(*mw).context).ops.bind_mw))(qp, mw, bind)
    }
}
