//! `landfall bench`: what the whole path does, beside what this machine can do.

mod bw;
mod lat;
mod limit;
mod machine;
mod parties;
mod target;
pub mod window;

use std::time::Duration;

use landfall_layout::limits::BROKERS_MAX;

use crate::args::bench::Bench;
use crate::config::Config;
use crate::error::{Failure, Outcome, Tried};

pub use self::lat::sum_of;
pub use self::machine::Machine;

pub fn run(args: &Bench, config: &Config) -> Outcome {
    if config.is_set("control.address") {
        // Before the limit is measured, of which nobody would have anything.
        let health = crate::client(config)?.health();
        health.tried(|| "the system cannot be measured".into())?;
    }
    let brokers = config.settings.bench.brokers;
    if !(1..=BROKERS_MAX).contains(&brokers) {
        let what = format!("--brokers {brokers} is not possible");
        return Err(Failure::usage(what, format!("say 1 to {BROKERS_MAX}")));
    }
    match args {
        Bench::Bw(args) => bw::run(args, config),
        Bench::Lat(args) => lat::run(args, config),
    }
}

/// A measurement that a signal ended before its time: what there is was printed.
fn cut_short() -> Failure {
    Failure::failed("the measurement was cut short", "a signal asked for it")
}

/// The same before anything was measured.
fn nothing_yet() -> Failure {
    Failure::failed("nothing was measured yet", "a signal asked for the end")
}

/// Says in a table that a measurement was cut short.
fn cut_line(measured: f64, wanted: f64) -> String {
    format!("cut short   after {measured:.2} s of {wanted} s, by a signal")
}

/// A number of seconds that a measurement can take.
fn seconds(flag: &str, seconds: f64, least: f64) -> Outcome<Duration> {
    if (least..=86_400.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(Failure::usage(
        format!("{flag} {seconds} is not possible"),
        format!("say {least} to 86400 seconds"),
    ))
}
