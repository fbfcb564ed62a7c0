//! `landfall verify`: what is wrong with a pool or with replicas, and where.

pub mod print;

use std::path::Path;

use landfall_verify::replicas;
use landfall_verify::{Findings, Report, Severity};

use crate::args::verify::Verify;
use crate::config::Settings;
use crate::error::{Failure, Outcome};
use crate::out::Out;
use crate::verify::print::{Document, Looked};
use crate::words::Format;

pub fn run(args: &Verify, settings: &Settings) -> Outcome {
    let path = &args.path;
    let json = args.json || settings.output.format == Format::Json;
    let (looked, findings) = if path.is_dir() { files(path) } else { pool(path) }?;
    let mut out = Out::new();
    if json {
        out.document(&Document::new(path, &looked, &findings))?;
    } else {
        out.bytes(print::text(&looked, &findings).as_bytes())?;
    }
    out.flush()?;
    outcome(path, &findings)
}

/// It could not be looked at: status 2.
pub fn unchecked(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{} cannot be checked", path.display()), error)
}

fn pool(path: &Path) -> Outcome<(Looked, Findings)> {
    let pool = landfall_verify::read_only(path).map_err(|error| unchecked(path, error))?;
    let Report { findings, tally, moving, looks } = landfall_verify::verify(&pool);
    Ok((Looked::Pool { tally, moving, looks }, findings))
}

fn files(path: &Path) -> Outcome<(Looked, Findings)> {
    something(path)?;
    let kept = replicas::look(path).map_err(|error| unchecked(path, error))?;
    Ok((Looked::Files { tally: kept.tally, topics: kept.topics }, kept.findings))
}

/// That nothing was found says something only where there was something to look at.
pub fn something(path: &Path) -> Outcome {
    replicas::nothing(path).map_or(Ok(()), |why| Err(unchecked(path, why)))
}

/// Fails when a promise is broken.
pub fn outcome(path: &Path, findings: &Findings) -> Outcome {
    let errors = match findings.count(Severity::Error) {
        0 => return Ok(()),
        1 => "1 error".to_owned(),
        errors => format!("{errors} errors"),
    };
    Err(Failure::failed(format!("{} is damaged", path.display()), errors))
}
