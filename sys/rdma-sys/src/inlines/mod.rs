//! What the headers define as `static inline` functions or as macros, with the same guards.
//!
//! The names are C's. Where a header's function would set `errno` and return NULL, so do these.
//! Those that end in a call of an exported function take the table it is in.

// Each is one call through a pointer that the caller vouches for, as its C original is.
#![allow(clippy::missing_safety_doc)]

pub mod completion;
pub mod context;
pub mod memory;
pub mod query;
pub mod queue;
pub mod shared_receive;
pub mod work;

pub use completion::*;
pub use context::*;
pub use memory::*;
pub use query::*;
pub use queue::*;
pub use shared_receive::*;
pub use work::*;

use std::os::raw::c_int;

/// Linux's number for an operation that a provider does not have.
pub const EOPNOTSUPP: c_int = 95;
/// Linux's number for an argument that makes no sense.
pub const EINVAL: c_int = 22;
/// Linux's number for a call that the kernel does not have.
pub const ENOSYS: c_int = 38;
/// Linux's number for an object of another owner.
pub const EPERM: c_int = 1;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

pub(crate) fn set_errno(number: c_int) {
    // SAFETY: the C library returns the address of this thread's `errno`, which lives as long as
    // the thread does.
    unsafe { *__errno_location() = number }
}

/// Calls an operation that the library fills in for every provider.
macro_rules! operation {
    ($slot:expr) => {
        $slot.expect("libibverbs gives every context this operation when it opens the device")
    };
}
pub(crate) use operation;
