//! Which host this is, so that process ids are not taken for those of another one.

use std::sync::OnceLock;

/// The name of every host whose kernel has no boot id.
const UNKNOWN: u64 = 1;

/// A number of this host's present boot, never 0: the first half of the kernel's random boot id
/// (`/proc/sys/kernel/random/boot_id`, random(4)). A host without one is 1, like every other.
pub fn id() -> u64 {
    static ID: OnceLock<u64> = OnceLock::new();
    *ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        parse(&text)
    })
}

/// Whether a host that was named so is this one. Hosts without a boot id have one name, so that
/// none of them is taken for another.
pub fn is_this(host: u64) -> bool {
    host == id() && host != UNKNOWN
}

fn parse(text: &str) -> u64 {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0).max(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sixteen_digits_name_the_boot() {
        let text = "01234567-89ab-cdef-0011-223344556677\n";
        assert_eq!(parse(text), 0x0123_4567_89ab_cdef);
        assert_eq!(parse(""), 1);
        assert_eq!(id(), id());
    }
}
