//! Bindings to DPDK, behind the feature `dpdk`. Empty so far.
//!
//! It will hold what DPDK's headers say, generated at build time from the installed DPDK (its
//! inline functions make the version part of the interface), and a small C shim for those inline
//! functions. Calling them safely is `landfall-nic`'s part.
//!
//! The feature is off by default, and then this crate needs nothing. With it, the build script
//! checks that DPDK's development files are there and names the package if they are not.
