//! SIGINT and SIGTERM as a word that loops look at.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use landfall_pool::process::ignores_hangup;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Failure, Outcome};
use crate::out;

/// How long after it was told what a further signal does, a signal may still come of impatience, of
/// a key that bounces or of a supervisor that sends each twice.
const READ_IN: Duration = Duration::from_secs(2);

/// Whether somebody asked this process to stop.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on SIGINT and SIGTERM only set the word. A second one ends the process at once, so
    /// that a command that does not look any more can still be ended.
    pub fn on_signals() -> Outcome<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 1, stop.0.clone())
                .and_then(|_| signal_hook::flag::register(signal, stop.0.clone()))
                .map_err(cannot)?;
        }
        Ok(stop)
    }

    /// The same for a process whose stop takes a while, and whose sudden end loses what only memory
    /// has. SIGHUP, a terminal that is closed, counts too, but under nohup. A second signal says
    /// what a further one does, and only one that comes [`READ_IN`] after that ends the process at
    /// once.
    pub fn on_patient_signals() -> Outcome<Self> {
        let stop = Self::default();
        let hangup = (!ignores_hangup()).then_some(SIGHUP);
        let mut signals =
            Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup)).map_err(cannot)?;
        let asked = stop.0.clone();
        let listen = move || {
            let mut patience = Patience::default();
            for _ in signals.forever() {
                match patience.heard(Instant::now()) {
                    Heard::Stop => asked.store(true, Ordering::Relaxed),
                    Heard::Again => out::note(format_args!(
                        "stopping in good order; a further SIGINT or SIGTERM, {} s from now or \
                         later, ends this at once, and what only memory has is lost",
                        READ_IN.as_secs()
                    )),
                    Heard::TooSoon => {}
                    Heard::End => {
                        out::note("ended at once, as asked: not in good order");
                        exit(1);
                    }
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(cannot)?;
        Ok(stop)
    }

    /// Whether it is time to stop.
    pub fn asked(&self) -> bool {
        // Relaxed: nothing is published with the word; it is looked at again and again.
        self.0.load(Ordering::Relaxed)
    }
}

fn cannot(error: std::io::Error) -> Failure {
    Failure::failed("cannot take signals", error)
}

/// What is to be done about a signal.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Stop,
    /// To say what a further one does.
    Again,
    TooSoon,
    End,
}

/// What was asked for so far.
#[derive(Default)]
struct Patience {
    is_asked: bool,
    told: Option<Instant>,
}

impl Patience {
    fn heard(&mut self, now: Instant) -> Heard {
        if !self.is_asked {
            self.is_asked = true;
            return Heard::Stop;
        }
        let Some(told) = self.told else {
            self.told = Some(now);
            return Heard::Again;
        };
        if now.saturating_duration_since(told) < READ_IN { Heard::TooSoon } else { Heard::End }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_had_time_to_read_what_it_does_ends_a_stop() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut patience = Patience::default();
        assert_eq!(patience.heard(at(0)), Heard::Stop);
        assert_eq!(patience.heard(at(5_000)), Heard::Again, "however late");
        assert_eq!(patience.heard(at(5_030)), Heard::TooSoon);
        assert_eq!(patience.heard(at(6_999)), Heard::TooSoon);
        assert_eq!(patience.heard(at(7_000)), Heard::End);
    }
}
