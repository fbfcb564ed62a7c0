//! The two clocks: one that says how long something takes, and one that people read.
//!
//! Leases, ages, deadlines and heartbeats go by [`boot_ns`], which nobody can set and which goes on
//! while a host is suspended. [`wall_ns`] is shown, and stored with what is kept; it may jump in
//! both directions at any time, so nothing that happens may hang on a difference of two of it
//! without a rule for that. `clippy.toml` forbids other ways to ask for wall time.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since this host was started, suspended time included (CLOCK_BOOTTIME,
/// clock_gettime(2)). Never goes back. Of another host, or of another time namespace, it says
/// nothing here.
#[inline]
pub fn boot_ns() -> u64 {
    let ns = read(ClockId::CLOCK_BOOTTIME);
    #[cfg(feature = "kill-switch")]
    let ns = crate::skew::boot(ns);
    ns
}

/// Time that goes on while this host runs, as of the last timer tick, some milliseconds ago at most
/// (CLOCK_MONOTONIC_COARSE): a quarter of the cost. Not to be compared with [`boot_ns`].
#[inline]
pub fn coarse_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since 1970, as this host is told; 0 on a clock before that.
#[inline]
pub fn wall_ns() -> u64 {
    let ns = read(ClockId::CLOCK_REALTIME);
    #[cfg(feature = "kill-switch")]
    let ns = crate::skew::wall(ns);
    ns
}

/// Nanoseconds from one wall time to another; 0 when the clock was set back in between.
#[inline]
pub fn wall_age_ns(since_wall_ns: u64, now_wall_ns: u64) -> u64 {
    now_wall_ns.saturating_sub(since_wall_ns)
}

#[inline]
#[expect(clippy::disallowed_methods, reason = "the one place that asks for the time")]
fn read(clock: ClockId) -> u64 {
    // These clocks are there in every kernel that this runs on, and are read without a system call
    // (vdso(7)); the conversion fails only for times before 1970.
    let Ok(time) = clock_gettime(clock) else { return 0 };
    u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + time.tv_nsec() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_goes_on_and_is_not_wall_time() {
        let before = boot_ns();
        assert!(before > 0);
        assert!(boot_ns() >= before);
        assert!(wall_ns() > boot_ns(), "this host was not started before 1970");
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_older() {
        assert_eq!(wall_age_ns(5, 9), 4);
        assert_eq!(wall_age_ns(9, 5), 0);
    }
}
