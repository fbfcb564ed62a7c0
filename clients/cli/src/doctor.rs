//! `landfall doctor`: what this machine can do and what stands in the way.
//!
//! | module | what |
//! |---|---|
//! | `gather`, `parse` | asking the machine |
//! | `facts` | what was found |
//! | `judge` | what it means: pure functions |
//! | `print` | the findings as text and as a document |

mod facts;
mod gather;
mod judge;
#[cfg(test)]
mod machines;
mod parse;
mod print;
#[cfg(test)]
mod tests;

use crate::args::doctor::Doctor;
use crate::config::Settings;
use crate::doctor::judge::{Finding, Status};
use crate::error::{Failure, Outcome};
use crate::out::Out;
use crate::words::Format;

pub fn run(args: &Doctor, settings: &Settings) -> Outcome {
    let pool_bytes = settings.up.pool_bytes.0;
    let facts = gather::facts(args.pool.as_deref(), args.verbs, pool_bytes);
    let findings = judge::judge(&facts);
    let mut out = Out::new();
    if settings.output.format == Format::Json {
        out.document(&print::Document::new(&facts, &findings))?;
    } else {
        out.bytes(print::text(&findings).as_bytes())?;
    }
    out.flush()?;
    outcome(&findings)
}

/// Fails when something that was asked for does not work.
fn outcome(findings: &[Finding]) -> Outcome {
    let failed = findings.iter().filter(|finding| finding.status == Status::Fail);
    let names: Vec<&str> = failed.map(|finding| finding.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Failure::failed("this machine cannot do what was asked", names.join(", ")))
}
