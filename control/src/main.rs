//! The control process.

#![forbid(unsafe_code)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod flags;
mod lead;
mod leavers;

use std::process::ExitCode;

use clap::Parser;
use landfall_pool::stderr;

fn main() -> ExitCode {
    stderr::end_on_panic();
    // A usage error ends the process here, with status 2.
    let flags = flags::Flags::parse();
    match lead::run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            stderr::note(format_args!("landfall-control: {sentence}"));
            ExitCode::FAILURE
        }
    }
}
