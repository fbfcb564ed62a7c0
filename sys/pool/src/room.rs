//! How much memory there is.

use std::fs;
use std::path::Path;

/// Bytes that can be taken without anything being ended for it: of the machine, or of this
/// process's control group where that has less. `None` where the system does not say.
pub fn available() -> Option<u64> {
    let machine = of_machine(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|groups| of_group(&groups));
    Some(group.map_or(machine, |group| machine.min(group)))
}

/// The kernel's own guess (proc_meminfo(5)).
fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What is left in the control group (version 2) of a process, if it has a bound.
fn of_group(groups: &str) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let file = Path::new("/sys/fs/cgroup").join(group);
    let number = |name: &str| fs::read_to_string(file.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_calls_available_is_read() {
        let text = "MemTotal:       24684568 kB\nMemAvailable:   2048 kB\nBuffers: 1 kB\n";
        assert_eq!(of_machine(text), Some(2 << 20));
        assert_eq!(
            (of_machine("MemTotal: 1 kB\n"), of_machine("MemAvailable: x kB\n")),
            (None, None)
        );
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
