//! How hardware is called, made safe: devices, queues, windows.
//!
//! Where a payload lies is `landfall-pool`'s matter, and what its bytes mean is
//! `landfall-layout`'s; this crate decides neither. RDMA is in [`verbs`], whose types are also
//! found here.

pub mod fitness;
pub mod verbs;

pub use verbs::*;
