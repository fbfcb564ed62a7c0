//! `landfall bench`: what the whole path does, beside what this machine can do.

mod bw;
mod lat;
mod limit;
mod machine;
mod parties;
mod target;
pub mod window;

use std::time::Duration;

use crate::args::bench::Bench;
use crate::config::Config;
use crate::error::{Failure, Outcome};

pub use self::lat::sum_of;
pub use self::machine::Machine;

pub fn run(args: &Bench, config: &Config) -> Outcome {
    match args {
        Bench::Bw(args) => bw::run(args, config),
        Bench::Lat(args) => lat::run(args, config),
    }
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
