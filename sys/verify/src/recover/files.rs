//! Mending replica files: headers that do not hold, and ends that a crash left. Nothing that holds
//! is taken out of a file, and nothing is done about damage: another copy, or the pool, has what
//! was there, and a broker copies it when it starts.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use landfall_layout::replica::LOG_UNKNOWN;
use landfall_replica::mend::{settle_and_cut, sync_directory, write_header};
use landfall_replica::names::{SourceListing, cut_from, list_cuts};
use landfall_replica::{FileError, FileSurvey};

use crate::hold::hold_directory;
use crate::replicas::{self, Kept};

/// What was done to a directory of replicas.
#[derive(Debug)]
pub struct FilesRecovered {
    /// What was done, or would be.
    pub done: Vec<String>,
    /// What is there now.
    pub kept: Kept,
}

/// Writes headers again, puts back what earlier programs cut off, and cuts off ends that a crash
/// left. To be run as often as one likes: there is nothing to do the second time.
pub fn files(path: &Path, dry_run: bool) -> Result<FilesRecovered, FileError> {
    let directories = replicas::directories(path)?;
    let held: Result<Vec<_>, _> =
        directories.iter().filter(|_| !dry_run).map(|at| hold_directory(at)).collect();
    let _held = held?;
    let mut done = Vec::new();
    for group in replicas::find(path, &mut Kept::default())? {
        for source in &group.sources {
            let files: Vec<&Path> = source.files.iter().map(|(_, path)| path.as_path()).collect();
            if let Some(last) = files.last() {
                put_back(source, last, dry_run, &mut done)?;
            }
            for file in &files {
                header(file, dry_run, &mut done)?;
            }
            cut(&files, dry_run, &mut done)?;
        }
    }
    Ok(FilesRecovered { done, kept: replicas::look(path)? })
}

/// Writes a header again that does not hold, where all of it is known.
fn header(path: &Path, dry_run: bool, done: &mut Vec<String>) -> Result<(), FileError> {
    // What cannot be read is said by the look that follows.
    let Ok(survey) = FileSurvey::take(path) else { return Ok(()) };
    let Some(why) = survey.header_fault.filter(|_| survey.header.log != LOG_UNKNOWN) else {
        return Ok(());
    };
    if !dry_run {
        write_header(path, &survey.header)?;
    }
    done.push(format!("{}: {why}; header written again, records not touched", path.display()));
    Ok(())
}

/// Puts back what an earlier program cut off the end of a source's last file, where the file still
/// ends there: what holds of it is read again then.
fn put_back(
    source: &SourceListing,
    last: &Path,
    dry_run: bool,
    done: &mut Vec<String>,
) -> Result<(), FileError> {
    for (_, cut) in list_cuts(&source.path)? {
        let Some((file, at)) = cut_from(&cut) else { continue };
        let ends_there = fs::metadata(&file).is_ok_and(|metadata| metadata.len() == at);
        if file != last || !ends_there {
            continue;
        }
        if !dry_run {
            append(&cut, &file)?;
            fs::remove_file(&cut).map_err(FileError::io("remove", &cut))?;
            sync_directory(&source.path)?;
        }
        done.push(format!("{}: put back at the end of {}", cut.display(), file.display()));
        break;
    }
    Ok(())
}

fn append(cut: &Path, file: &PathBuf) -> Result<(), FileError> {
    let mut from = fs::File::open(cut).map_err(FileError::io("open", cut))?;
    let to = OpenOptions::new().append(true).open(file);
    let mut to = to.map_err(FileError::io("open", file))?;
    io::copy(&mut from, &mut to).map_err(FileError::io("write", file))?;
    to.sync_all().map_err(FileError::io("sync", file))
}

/// Cuts off the end of a row of files, if it is as a crash leaves it. A last one that never had a
/// record goes, and then the one before it is the last.
fn cut(files: &[&Path], dry_run: bool, done: &mut Vec<String>) -> Result<(), FileError> {
    for last in files.iter().rev() {
        match FileSurvey::take(last) {
            Ok(FileSurvey { tail: Some(tail), .. }) if tail.is_unfinished() => {
                if dry_run {
                    done.push(format!("{}: {tail}; they would be cut off", last.display()));
                } else if let Some((_, cut)) = settle_and_cut(last)? {
                    done.extend(cut.map(|cut| cut.to_string()));
                }
                break;
            }
            Ok(_) => break,
            Err(FileError::Header { .. }) if !dry_run => match settle_and_cut(last) {
                Ok(None) => done.push(format!("{}: removed, it had no record", last.display())),
                // Said again, and better, by the look that follows.
                Ok(Some(_)) | Err(FileError::Header { .. }) => break,
                Err(error) => return Err(error),
            },
            Err(FileError::Header { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
