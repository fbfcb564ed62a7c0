//! Time in which somebody leads and this broker looks: what a session waits for can only come then.

use landfall_layout::limits::HEARTBEAT_EVERY_NS;

/// What passes between two looks counts for no more, nanoseconds: behind it one of the two stood
/// still.
const LOOK_MOST_NS: u64 = 3 * HEARTBEAT_EVERY_NS;

/// How much of such time there was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Led {
    /// The leader's heartbeat when it had moved last, and when that was seen.
    beat: u64,
    seen_ns: u64,
    led_ns: u64,
}

impl Led {
    /// Looks at the leader's heartbeat; nanoseconds so far.
    pub fn look(&mut self, now_ns: u64, beat: u64) -> u64 {
        if beat != self.beat {
            self.led_ns += now_ns.saturating_sub(self.seen_ns).min(LOOK_MOST_NS);
            (self.beat, self.seen_ns) = (beat, now_ns);
        }
        self.led_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_without_a_leader_or_without_a_look_does_not_count() {
        const TICK: u64 = HEARTBEAT_EVERY_NS;
        let mut led = Led::default();
        let begun = led.look(TICK, 1);
        assert_eq!(led.look(2 * TICK, 2) - begun, TICK);
        assert_eq!(led.look(3 * TICK, 2) - begun, TICK, "the beat is yet to come");
        assert_eq!(led.look(4 * TICK, 3) - begun, 3 * TICK);
        // Control was away, and then this broker was.
        assert_eq!(led.look(400 * TICK, 3) - begun, 3 * TICK);
        assert_eq!(led.look(401 * TICK, 4) - begun, 6 * TICK);
        assert_eq!(led.look(999 * TICK, 500) - begun, 9 * TICK);
    }
}
