//! The control process.

#![forbid(unsafe_code)]

mod flags;
mod lead;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // A usage error ends the process here, with status 2.
    let flags = flags::Flags::parse();
    match lead::run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("landfall-control: {sentence}");
            ExitCode::FAILURE
        }
    }
}
