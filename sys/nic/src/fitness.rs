//! Whether this process can do with a device what a broker does, and the sentence when it cannot.
//!
//! A broker refuses to start with these sentences and `landfall doctor` says them beforehand.

use std::fmt;
use std::net::IpAddr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::verbs::DeviceInfo;

/// The bit of CAP_IPC_LOCK in a process's capabilities (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;

/// What this process may lock in memory. A NIC pins what is registered with it, which counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryLock {
    /// Bytes it may lock now.
    pub soft: u64,
    /// Bytes up to which it may raise that by itself.
    pub hard: u64,
    /// Whether no limit holds for it.
    pub exempt: bool,
}

impl MemoryLock {
    /// That of this process.
    pub fn here() -> std::io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let exempt = is_exempt(&read("/proc/self/status"), &read("/proc/self/uid_map"));
        Ok(Self { soft, hard, exempt })
    }

    /// Raises the soft limit as far as the process itself may.
    pub fn raise(self) -> std::io::Result<Self> {
        if self.exempt || self.soft >= self.hard {
            return Ok(self);
        }
        setrlimit(Resource::RLIMIT_MEMLOCK, self.hard, self.hard)?;
        Ok(Self { soft: self.hard, ..self })
    }

    /// Whether a region of this many bytes can be registered, if need be after raising the limit.
    pub fn admits(&self, bytes: u64) -> bool {
        self.exempt || self.hard >= bytes
    }
}

/// Whether the lock limit does not hold for a process. The kernel asks for CAP_IPC_LOCK on the
/// whole machine, so that root of a user namespace of its own has it in vain.
fn is_exempt(status: &str, uid_map: &str) -> bool {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .unwrap_or(0);
    // The first namespace maps every number to itself (user_namespaces(7)).
    let of_machine = uid_map.split_whitespace().eq(["0", "0", "4294967295"]);
    of_machine && effective >> CAP_IPC_LOCK & 1 == 1
}

/// Why something that was asked for cannot be, and how to mend it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// The pool is larger than what this process may lock.
    MemoryLock {
        /// What it may lock.
        lock: MemoryLock,
        /// Bytes of the pool.
        bytes: u64,
    },
    /// A device without windows of type 2B.
    NoWindows {
        /// The device.
        device: String,
    },
    /// An address that no device has.
    NoAddress {
        /// The address.
        address: IpAddr,
        /// Those that devices have, with the devices.
        known: Vec<(IpAddr, String)>,
    },
}

impl Unfit {
    /// Commands that mend it, the best first.
    pub fn mends(&self) -> Vec<String> {
        match self {
            Self::MemoryLock { .. } => lock_mends(),
            Self::NoWindows { .. } => vec!["landfall up --verbs --verbs-grant pull".to_owned()],
            Self::NoAddress { known, .. } => match known.first() {
                Some((ip, _)) => vec![format!("landfall up --verbs {ip}")],
                None => vec!["ip address add ADDRESS/24 dev INTERFACE".to_owned()],
            },
        }
    }
}

/// Commands that raise the lock limit: of a shell, of a user for good, of a service.
pub fn lock_mends() -> Vec<String> {
    vec![
        "sudo prlimit --pid $$ --memlock=unlimited  (this shell)".to_owned(),
        "echo \"$USER - memlock unlimited\" | sudo tee /etc/security/limits.d/landfall.conf  (from \
         the next login on)"
            .to_owned(),
        "sudo systemctl edit UNIT  (a service: LimitMEMLOCK=infinity below [Service])".to_owned(),
        "docker run --ulimit memlock=-1 ..  (in a container)".to_owned(),
    ]
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemoryLock { lock, bytes } => write!(
                f,
                "a NIC pins the whole pool, {bytes} bytes, and this process may lock {} (hard \
                 limit of ulimit -l) and is without CAP_IPC_LOCK; raise the limit, or make the \
                 pool smaller",
                lock.hard
            ),
            Self::NoWindows { device } => write!(
                f,
                "{device} has no memory windows of type 2B; say --verbs-grant pull, or open on a \
                 trusted rack"
            ),
            Self::NoAddress { address, known } => {
                write!(f, "no RDMA device has the address {address}; addresses with one: ")?;
                if known.is_empty() {
                    return f.write_str("none");
                }
                for (at, (ip, device)) in known.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{ip} ({device})")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Unfit {}

/// Refuses a pool that this process could not register with a device.
pub fn check_lock(lock: MemoryLock, bytes: u64) -> Result<(), Unfit> {
    if lock.admits(bytes) { Ok(()) } else { Err(Unfit::MemoryLock { lock, bytes }) }
}

/// Refuses a device that cannot grant publishers windows.
pub fn check_windows(device: &str, windows_2b: bool) -> Result<(), Unfit> {
    if windows_2b { Ok(()) } else { Err(Unfit::NoWindows { device: device.to_owned() }) }
}

/// The device that has an address.
pub fn device_with(devices: &[DeviceInfo], address: IpAddr) -> Result<&DeviceInfo, Unfit> {
    let has = |device: &&DeviceInfo| addresses_of(device).any(|ip| ip == address);
    devices.iter().find(has).ok_or_else(|| {
        let each = |device: &DeviceInfo| {
            let name = device.name.clone();
            addresses_of(device).map(|ip| (ip, name.clone())).collect::<Vec<_>>()
        };
        let mut known: Vec<(IpAddr, String)> = devices.iter().flat_map(each).collect();
        known.dedup();
        Unfit::NoAddress { address, known }
    })
}

fn addresses_of(device: &DeviceInfo) -> impl Iterator<Item = IpAddr> {
    device.ports.iter().flat_map(|port| &port.gids).filter_map(|gid| gid.ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::{GidInfo, GidKind, Link, PortInfo, PortState};

    const WHOLE_MACHINE: &str = "         0          0 4294967295\n";

    #[test]
    fn only_the_capability_on_the_whole_machine_lifts_the_limit() {
        let root = "Name:\tx\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n";
        assert!(is_exempt(root, WHOLE_MACHINE));
        assert!(is_exempt("CapEff:\t0000000000004000\n", WHOLE_MACHINE));
        assert!(!is_exempt("CapEff:\t0000000000003fff\n", WHOLE_MACHINE));
        assert!(!is_exempt(root, "         0       1000          1\n"), "root of a container");
        assert!(!is_exempt("", ""), "nothing known");
    }

    #[test]
    fn a_pool_larger_than_the_hard_limit_is_refused_with_both_numbers() {
        let lock = MemoryLock { soft: 4096, hard: 8 << 20, exempt: false };
        assert_eq!(check_lock(lock, 8 << 20), Ok(()), "the soft limit can be raised");
        let said = check_lock(lock, (8 << 20) + 1).unwrap_err().to_string();
        assert!(said.contains("8388609 bytes") && said.contains("lock 8388608 "), "{said}");
        assert_eq!(check_lock(MemoryLock { exempt: true, ..lock }, u64::MAX), Ok(()));
    }

    #[test]
    fn the_limit_of_this_process_can_be_read_and_raised() {
        let lock = MemoryLock::here().unwrap();
        assert!(lock.soft <= lock.hard, "{lock:?}");
        let raised = lock.raise().unwrap();
        assert!(raised.exempt || raised.soft == raised.hard, "{raised:?}");
        assert_eq!(MemoryLock::here().unwrap(), raised);
    }

    #[test]
    fn an_address_nobody_has_is_refused_with_those_that_there_are() {
        let gid = |ip: &str| GidInfo {
            index: 1,
            gid: [0; 16],
            kind: GidKind::RoceV2,
            interface: None,
            ip: Some(ip.parse().unwrap()),
        };
        let port = PortInfo {
            number: 1,
            state: PortState::Active,
            mtu: 1024,
            mtu_max: 4096,
            link: Link::Ethernet,
            gids: vec![gid("10.0.0.1"), gid("fe80::1")],
            lid: 0,
        };
        let device = DeviceInfo { name: "rxe0".into(), ports: vec![port], ..DeviceInfo::default() };
        let all = [device];
        let found = device_with(&all, "fe80::1".parse().unwrap()).unwrap();
        assert_eq!(found.name, "rxe0");
        let refused = device_with(&all, "10.0.0.2".parse().unwrap()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "no RDMA device has the address 10.0.0.2; addresses with one: 10.0.0.1 (rxe0), \
             fe80::1 (rxe0)"
        );
        let refused = device_with(&[], "10.0.0.2".parse().unwrap()).unwrap_err();
        assert!(refused.to_string().ends_with("addresses with one: none"), "{refused}");
    }

    #[test]
    fn every_refusal_says_how_to_mend_it() {
        assert_eq!(check_windows("rxe0", true), Ok(()));
        let refused = check_windows("mlx4_0", false).unwrap_err();
        assert!(refused.to_string().starts_with("mlx4_0 has no memory windows of type 2B; say "));
        assert!(!refused.mends().is_empty() && !lock_mends().is_empty());
    }
}
