//! `landfall verify`: what is wrong with a pool or with replicas, and where.

pub mod print;

use std::path::Path;

use landfall_verify::replicas;
use landfall_verify::{Findings, Report, Severity, Silent, watched};

use crate::args::verify::Verify;
use crate::config::Settings;
use crate::error::{Failure, Outcome};
use crate::out::Out;
use crate::verify::print::{Document, Looked};
use crate::words::Format;

pub fn run(args: &Verify, settings: &Settings) -> Outcome {
    let path = &args.path;
    let json = args.json || settings.output.format == Format::Json;
    let (looked, findings) = match files(path)? {
        Some(files) => files,
        None => pool(path)?,
    };
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

/// None: it is no directory.
fn files(path: &Path) -> Outcome<Option<(Looked, Findings)>> {
    let whole = path.to_owned();
    let look = move || {
        if !whole.is_dir() {
            return Ok(None);
        }
        something(&whole)?;
        replicas::look(&whole).map(Some).map_err(|error| unchecked(&whole, error))
    };
    let tell = |silent: &Silent| {
        crate::out::note(format_args!("landfall: {silent}; the others are looked at"))
    };
    let (kept, silent) = watched(path, look, tell).map_err(|silent| unchecked(path, silent))?;
    let Some(mut kept) = kept? else { return Ok(None) };
    silent.iter().for_each(|silent| replicas::hangs(silent, &mut kept));
    Ok(Some((Looked::Files { tally: kept.tally, topics: kept.topics }, kept.findings)))
}

/// That nothing was found says something only where there was something to look at.
pub fn something(path: &Path) -> Outcome {
    replicas::nothing(path).map_or(Ok(()), |why| Err(unchecked(path, why)))
}

/// That something could not be read, if nothing else is wrong.
pub fn all_read(path: &Path, findings: &Findings) -> Outcome {
    match findings.unread() {
        0 => Ok(()),
        unread if unread < findings.count(Severity::Error) => Ok(()),
        1 => Err(unchecked(path, "1 file in it could not be read")),
        unread => Err(unchecked(path, format!("{unread} files in it could not be read"))),
    }
}

/// Fails when a promise is broken.
pub fn outcome(path: &Path, findings: &Findings) -> Outcome {
    all_read(path, findings)?;
    let errors = match findings.count(Severity::Error) {
        0 => return Ok(()),
        1 => "1 error".to_owned(),
        errors => format!("{errors} errors"),
    };
    let hangs = findings.kept().iter().filter(|finding| finding.check == replicas::HANGS).count();
    let what = match hangs as u64 == findings.count(Severity::Error) {
        true => "was not looked at as a whole",
        false => "is damaged",
    };
    Err(Failure::failed(format!("{} {what}", path.display()), errors))
}
