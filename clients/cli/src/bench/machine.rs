//! The machine that a figure was measured on.

use serde::Serialize;

/// What a figure depends on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// CPU model.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl Machine {
    /// This machine; what cannot be read is said to be unknown.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let known = |text: &str| match text.trim() {
            "" => "unknown".to_owned(),
            text => text.to_owned(),
        };
        let memory_kib: u64 = field(&read("/proc/meminfo"), "MemTotal")
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        Self {
            cpu: known(&field(&read("/proc/cpuinfo"), "model name")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: known(&read("/proc/sys/kernel/osrelease")),
            memory_bytes: memory_kib << 10,
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let memory = crate::out::human_bytes(self.memory_bytes as f64);
        write!(f, "{}, {} cores, {memory}, Linux {}", self.cpu, self.cores, self.kernel)
    }
}

/// The first value of a field in `name : value` lines.
fn field(text: &str, name: &str) -> String {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: A: B\nmodel name\t: C\n";
        assert_eq!(field(text, "model name"), "A: B");
        assert_eq!(field(text, "missing"), "");
    }
}
