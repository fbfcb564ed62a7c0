//! The one build script of the two binding crates, `sys/rdma-sys` and `sys/dpdk-sys`: both name it
//! as `build = "../../build.rs"`, so what a build asks of the machine stands in one place.
//!
//! Without a feature nothing is asked: every crate builds where there is only a Rust toolchain.

use std::env;
use std::process::{Command, Stdio};

fn main() {
    // The working directory is the crate's own, not this file's.
    println!("cargo::rerun-if-changed=../../build.rs");
    match env::var("CARGO_PKG_NAME").as_deref() {
        // Loaded at run time, so there is nothing to find or link at build time.
        Ok("rdma-sys") => {}
        Ok("dpdk-sys") => dpdk(),
        other => println!("cargo::error=build.rs has no part for the package {other:?}: add one"),
    }
}

/// Refuses the feature `dpdk` where DPDK's development files are missing, before anything else
/// fails on a header. Whoever leaves the feature off needs none of them.
fn dpdk() {
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    if env::var_os("CARGO_FEATURE_DPDK").is_none() {
        return;
    }
    let found = Command::new("pkg-config")
        .args(["--exists", "libdpdk"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match found {
        Ok(status) if status.success() => {}
        Ok(_) => println!(
            "cargo::error=the feature `dpdk` needs DPDK's development files, and pkg-config does \
             not know libdpdk: install the package libdpdk-dev, or leave the feature off"
        ),
        Err(error) => println!(
            "cargo::error=the feature `dpdk` looks for DPDK with pkg-config, which did not run \
             ({error}): install the packages pkg-config and libdpdk-dev, or leave the feature off"
        ),
    }
}
