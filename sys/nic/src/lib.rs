//! How hardware is called, made safe: devices, queues, windows, ports. Empty so far.
//!
//! It will hold the safe side of `rdma-sys` and `dpdk-sys`: devices found and opened, queues whose
//! work requests borrow the memory they name, memory windows with an owner, ports. Where a payload
//! lies is `landfall-pool`'s matter, and what its bytes mean is `landfall-layout`'s; this crate
//! decides neither.
