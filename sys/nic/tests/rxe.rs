//! Verbs on a real device, soft-RoCE included: connections, data, windows, failures, the end.
//!
//! Runs where `HW_RDMA=device` is set, and then a missing device is a failure. `scripts/rack` runs
//! it on an emulated host; `scripts/rxe` makes a device for it where the kernel has the module.
//! One process plays both sides, over the device's own address.

mod rxe {
    pub mod allocations;
    pub mod connections;
    pub mod data;
    pub mod ends;
    pub mod extended;
    pub mod support;
    pub mod windows;
}
