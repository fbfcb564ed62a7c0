//! `landfall recover`: mending what follows from the rest, and saying what is lost.

use std::path::Path;

use landfall_pool::Pool;
use landfall_verify::{Findings, Severity, hold, recover};

use crate::args::verify::Recover;
use crate::config::Settings;
use crate::error::{Failure, Outcome};
use crate::out::Out;
use crate::verify::print::{Document, Looked, text};
use crate::verify::{all_read, something, unchecked};
use crate::words::Format;

/// What was done, and what is there now.
struct Recovered {
    done: Vec<String>,
    looked: Looked,
    left: Findings,
}

pub fn run(args: &Recover, settings: &Settings) -> Outcome {
    let path = &args.path;
    let json = args.json || settings.output.format == Format::Json;
    let recovered = match path.is_dir() {
        true => files(path, args.dry_run)?,
        false => pool(path, args.dry_run)?,
    };
    let Recovered { done, looked, left } = &recovered;
    let mut out = Out::new();
    if json {
        out.document(&Document::new(path, looked, left).done(done))?;
    } else {
        let word = if args.dry_run { "would mend" } else { "mended" };
        for line in done {
            out.line(format_args!("{word:10}  {line}"))?;
        }
        if !done.is_empty() {
            out.line("")?;
        }
        out.bytes(text(looked, left).as_bytes())?;
    }
    out.flush()?;
    all_read(path, left)?;
    match left.count(Severity::Error) {
        0 => Ok(()),
        errors => {
            let what = format!("{} is not whole", path.display());
            Err(Failure::failed(what, format!("{errors} of what is wrong cannot be mended here")))
        }
    }
}

fn files(path: &Path, dry_run: bool) -> Outcome<Recovered> {
    something(path)?;
    let recovered = recover::files(path, dry_run).map_err(|error| unchecked(path, error))?;
    let kept = recovered.kept;
    let looked = Looked::Files { tally: kept.tally, topics: kept.topics };
    Ok(Recovered { done: recovered.done, looked, left: kept.findings })
}

fn pool(path: &Path, dry_run: bool) -> Outcome<Recovered> {
    let pool = match dry_run {
        true => Pool::attach_read_only(path),
        false => Pool::attach(path),
    }
    .map_err(|error| unchecked(path, error))?;
    let _hold = hold(&pool, path).map_err(|error| {
        Failure::usage(format!("{} is not recovered", path.display()), error)
            .next("landfall verify, which looks at a pool that is at work")
    })?;
    let recovered = recover::pool(&pool, dry_run);
    let looked = Looked::Pool { tally: recovered.tally, moving: false, looks: 1 };
    Ok(Recovered { done: recovered.done, looked, left: recovered.left })
}
