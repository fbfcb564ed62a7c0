//! Whether a context has the extended operations, and which of them.

use std::mem::offset_of;
use std::ptr;

use crate::types::{ibv_context, verbs_context};

/// What `abi_compat` holds in a context that lies inside a `verbs_context`.
const ABI_IS_EXTENDED: usize = usize::MAX;

/// The `verbs_context` around `context`, or null if it is of the old kind.
///
/// # Safety
/// `context` points to a context that libibverbs opened, or to one laid out as it does.
#[inline]
pub unsafe fn verbs_get_ctx(context: *mut ibv_context) -> *mut verbs_context {
    // SAFETY: the caller vouches for `context`.
    if unsafe { (*context).abi_compat } as usize != ABI_IS_EXTENDED {
        return ptr::null_mut();
    }
    // All ones say that the context is the last member of a `verbs_context`. The pointer is made
    // without `add`: its provenance is the whole allocation, and the arithmetic is C's.
    context.wrapping_byte_sub(offset_of!(verbs_context, context)).cast()
}

/// The `verbs_context` around a context if it has the operation: it is of the extended kind, it is
/// large enough to have the slot, and the slot is filled. Otherwise null.
///
/// The size is counted from the slot to the end, since older and newer versions of the structure
/// agree at its end. It is compared before the slot is looked at.
#[macro_export]
macro_rules! verbs_get_ctx_op {
    ($context:expr, $operation:ident) => {{
        let around = $crate::inlines::verbs_get_ctx($context);
        let needed = ::std::mem::size_of::<$crate::types::verbs_context>()
            - ::std::mem::offset_of!($crate::types::verbs_context, $operation);
        if around.is_null() || (*around).sz < needed || (*around).$operation.is_none() {
            ::std::ptr::null_mut()
        } else {
            around
        }
    }};
}

/// Calls an extended operation, or sets `errno` to EOPNOTSUPP and returns null.
macro_rules! call_or_null {
    ($context:expr, $operation:ident, $($argument:expr),* $(,)?) => {{
        let around = $crate::verbs_get_ctx_op!($context, $operation);
        if around.is_null() {
            $crate::inlines::set_errno($crate::inlines::EOPNOTSUPP);
            ::std::ptr::null_mut()
        } else {
            let call = (*around).$operation.expect("looked at by verbs_get_ctx_op");
            call($($argument),*)
        }
    }};
}
pub(crate) use call_or_null;

/// Calls an extended operation, or returns the given value.
macro_rules! call_or {
    ($otherwise:expr, $context:expr, $operation:ident, $($argument:expr),* $(,)?) => {{
        let around = $crate::verbs_get_ctx_op!($context, $operation);
        if around.is_null() {
            $otherwise
        } else {
            let call = (*around).$operation.expect("looked at by verbs_get_ctx_op");
            call($($argument),*)
        }
    }};
}
pub(crate) use call_or;
