//! What a device, its ports and their addresses are.

use std::os::raw::c_int;
use std::ptr;

use super::EOPNOTSUPP;
use crate::types::{
    ibv_context, ibv_device_attr_ex, ibv_gid_entry, ibv_port_attr, ibv_query_device_ex_input,
};
use crate::{Verbs, verbs_get_ctx_op};

/// A port's attributes: through the extended operation, or without what came later.
///
/// # Safety
/// `context` is an open device and `into` may be written.
pub unsafe fn ibv_query_port(
    verbs: &Verbs,
    context: *mut ibv_context,
    port: u8,
    into: *mut ibv_port_attr,
) -> c_int {
    // SAFETY: the caller vouches for both pointers. The old entry writes only the first part of
    // the structure, so the whole of it is zeroed before.
    unsafe {
        let around = verbs_get_ctx_op!(context, query_port);
        if around.is_null() {
            ptr::write_bytes(into, 0, 1);
            return verbs.ibv_query_port(context, port, into.cast());
        }
        let call = (*around).query_port.expect("looked at by verbs_get_ctx_op");
        call(context, port, into, size_of::<ibv_port_attr>())
    }
}

/// A device's attributes with the extended ones, which are zero where the provider has none.
///
/// # Safety
/// `context` is an open device, `input` is null or well formed, and `into` may be written.
pub unsafe fn ibv_query_device_ex(
    verbs: &Verbs,
    context: *mut ibv_context,
    input: *const ibv_query_device_ex_input,
    into: *mut ibv_device_attr_ex,
) -> c_int {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        if !input.is_null() && (*input).comp_mask != 0 {
            return super::EINVAL;
        }
        let around = verbs_get_ctx_op!(context, query_device_ex);
        if !around.is_null() {
            let call = (*around).query_device_ex.expect("looked at by verbs_get_ctx_op");
            let result = call(context, input, into, size_of::<ibv_device_attr_ex>());
            if result != EOPNOTSUPP && result != super::ENOSYS {
                return result;
            }
        }
        ptr::write_bytes(into, 0, 1);
        verbs.ibv_query_device(context, &raw mut (*into).orig_attr)
    }
}

/// One entry of a port's table of addresses.
///
/// # Safety
/// `context` is an open device and `into` may be written.
pub unsafe fn ibv_query_gid_ex(
    verbs: &Verbs,
    context: *mut ibv_context,
    port: u32,
    index: u32,
    into: *mut ibv_gid_entry,
    flags: u32,
) -> c_int {
    // SAFETY: the caller vouches for both pointers.
    unsafe {
        verbs._ibv_query_gid_ex(context, port, index, into, flags, size_of::<ibv_gid_entry>())
    }
}

/// All valid entries of all ports' tables: how many, or a negative number.
///
/// # Safety
/// `context` is an open device and `into` has room for `most` entries.
pub unsafe fn ibv_query_gid_table(
    verbs: &Verbs,
    context: *mut ibv_context,
    into: *mut ibv_gid_entry,
    most: usize,
    flags: u32,
) -> isize {
    // SAFETY: the caller vouches for both pointers.
    unsafe {
        verbs._ibv_query_gid_table(context, into, most, flags, size_of::<ibv_gid_entry>()) as isize
    }
}
