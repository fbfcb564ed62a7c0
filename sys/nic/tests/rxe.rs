//! Verbs on a real device, soft-RoCE included: connections, data, windows, failures, the end.
//!
//! Left out unless asked for, and then a missing device is a failure: `HW_RDMA=device scripts/test`
//! where there is one, `scripts/rxe` to make one where the kernel has the module. `scripts/rack`
//! runs all of it on an emulated host.
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
