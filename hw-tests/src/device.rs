//! The RDMA device that the scenarios run on, and how fast the machine around it is.
//!
//! Whoever asks for scenarios on an RDMA device gets a failure where there is none.

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use landfall_layout::pool::PoolHeader;
use landfall_nic::{GidKind, PortState, devices};
use landfall_pool::map::examine;
use landfall_pool::{Mapping, Memory};

use crate::Failure;

/// An address of the RDMA device: `RACK_ADDRESS`, or the first that an active port has.
pub fn address() -> Result<IpAddr, Failure> {
    if let Ok(word) = std::env::var("RACK_ADDRESS") {
        return word.parse().map_err(|_| Failure::new(format!("RACK_ADDRESS={word}: no address")));
    }
    let all = devices().map_err(|error| Failure::new(error.to_string()))?;
    let ports = all.iter().flat_map(|device| &device.ports);
    let mut gids = ports.filter(|port| port.state == PortState::Active).flat_map(|port| &port.gids);
    let found = gids.find_map(|gid| gid.ip.filter(|ip| ip.is_ipv4() && is_routable(gid.kind)));
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|device| device.name.as_str()).collect();
        Failure::new(format!("no active port with an IPv4 address among {names:?}"))
    })
}

fn is_routable(kind: GidKind) -> bool {
    matches!(kind, GidKind::RoceV2 | GidKind::Infiniband)
}

/// `HW_POOL`: a devdax device, or a file, that scenarios have their pool on. What is there is
/// forgotten: whoever names it gives it away.
pub fn fresh_pool() -> Result<Option<PathBuf>, Failure> {
    let Some(path) = std::env::var_os("HW_POOL").map(PathBuf::from) else { return Ok(None) };
    let named =
        |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let file = File::options().read(true).write(true).open(&path).map_err(|error| named(&error))?;
    let (backing, _) = examine(&file, &path).map_err(|error| named(&error))?;
    let head = Mapping::new(&file, 2 << 20, backing, true).map_err(|error| named(&error))?;
    for word in 0..PoolHeader::BYTES / 8 {
        head.store(word * 8, 0);
    }
    Ok(Some(path))
}

fn number(name: &str) -> u64 {
    match std::env::var(name) {
        Ok(word) => {
            let number: Option<u64> = word.parse().ok();
            number.unwrap_or_else(|| panic!("{name}={word} is no number")).max(1)
        }
        Err(_) => 1,
    }
}

/// `HW_SLOW`: how many times longer than usual things may take. An emulated host is slow.
pub fn slow(usual: Duration) -> Duration {
    static TIMES: LazyLock<u64> = LazyLock::new(|| number("HW_SLOW"));
    usual * u32::try_from(*TIMES).unwrap_or(1)
}

/// `HW_TRIM`: how many times fewer of something there are; never less than `least`.
pub fn trim(usual: u64, least: u64) -> u64 {
    static TIMES: LazyLock<u64> = LazyLock::new(|| number("HW_TRIM"));
    (usual / *TIMES).max(least)
}
