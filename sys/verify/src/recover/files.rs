//! Mending replica files: headers that do not hold, and ends that a crash left. Nothing that holds
//! is taken out of a file, and nothing is done about damage: another copy, or the pool, has what
//! was there, and a broker copies it when it starts.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use landfall_layout::replica::LOG_UNKNOWN;
use landfall_replica::mend::{is_unfinished, settle_and_cut, sync_directory, write_header};
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
    // No broker is at work where the locks are held: an error there is one at once.
    let mut kept = if dry_run { replicas::look(path)? } else { replicas::look_at_rest(path)? };
    if dry_run {
        // What would be mended is not left.
        kept.findings.leave_out(replicas::HEADER);
    }
    Ok(FilesRecovered { done, kept })
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
            Err(FileError::Header { .. }) if is_unfinished(last)? => {
                done.push(format!("{}: it would be removed, it has no record", last.display()));
            }
            // What cannot be read is said by the look that follows.
            Err(_) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use landfall_layout::BrokerId;
    use landfall_layout::replica::{NO_FILE, ReplicaHeader};
    use landfall_layout::topic::{Order, TopicEntry};
    use landfall_replica::TopicFile;
    use landfall_replica::mend::create_directory;
    use landfall_replica::names::{replica_file, source_directory, topic_directory};

    use super::*;
    use crate::finding::Severity;

    /// A data directory with a file that has a header and no record, gone with this value.
    struct Scratch(PathBuf, PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let data = std::env::temp_dir().join(format!("recover-{name}-{}", std::process::id()));
            let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
            (entry.name[0], entry.name_bytes, entry.created_ns) = (b't', 1, 7);
            (entry.order, entry.replicas, entry.replica_brokers) = (Order::None.raw(), 2, 1);
            let topic = topic_directory(&data, "t", 7);
            let directory = source_directory(&topic, BrokerId::new(0).unwrap());
            create_directory(&directory).unwrap();
            TopicFile::of(&entry, "pool", 1).unwrap().write(&topic).unwrap();
            let mut header = ReplicaHeader::from_bytes([0; ReplicaHeader::BYTES as usize]);
            (header.created_ns, header.previous_index) = (7, NO_FILE);
            (header.name[0], header.name_bytes) = (b't', 1);
            let path = replica_file(&directory, 0);
            fs::write(&path, header.seal().page()).unwrap();
            Self(data, path)
        }

        /// Errors that are left, and what is done about the file.
        fn recover(&self, dry_run: bool) -> (u64, usize) {
            let recovered = files(&self.0, dry_run).unwrap();
            (recovered.kept.findings.count(Severity::Error), recovered.done.len())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_would_be_mended_is_mended_and_is_no_other_version() {
        let scratch = Scratch::new("header");
        let mut bytes = fs::read(&scratch.1).unwrap();
        bytes[9] ^= 0x41;
        fs::write(&scratch.1, &bytes).unwrap();
        let found = replicas::look(&scratch.0).unwrap().findings;
        let [finding] = found.kept() else { panic!("{found:?}") };
        assert!(finding.found.contains("header claims checksum"), "{}", finding.found);
        assert!(finding.mend.contains("landfall recover does too"), "{}", finding.mend);
        assert_eq!(scratch.recover(true), (0, 1));
        assert_eq!(fs::read(&scratch.1).unwrap(), bytes, "a dry run changes nothing");
        assert_eq!(scratch.recover(false), (0, 1));
        assert_eq!(scratch.recover(true), (0, 0));
    }

    #[test]
    fn a_log_of_which_nothing_is_left_is_an_error_where_all_directories_are_looked_at() {
        let scratch = Scratch::new("nothing");
        let topic = topic_directory(&scratch.0, "t", 7);
        let mut file = TopicFile::read(&topic).unwrap();
        let at = landfall_replica::Resumed { index: 9, position: 27 };
        file.reached.insert(0, at);
        file.write(&topic).unwrap();
        fs::remove_file(&scratch.1).unwrap();
        let errors = |path: &Path| {
            let kept = replicas::look(path).unwrap();
            let gaps: u64 = kept.topics[0].logs[0].gaps.iter().map(|gap| gap.entries.end).sum();
            (kept.findings.count(Severity::Error), gaps)
        };
        assert_eq!(errors(&scratch.0), (0, 9), "another broker's directory may have it");
        let system = scratch.0.with_extension("system");
        create_directory(&system).unwrap();
        fs::rename(&scratch.0, system.join("broker-0")).unwrap();
        let found = errors(&system);
        fs::remove_dir_all(&system).unwrap();
        assert_eq!(found, (1, 9));
    }

    #[test]
    fn a_cut_file_that_had_entries_is_an_error() {
        let scratch = Scratch::new("had");
        let topic = topic_directory(&scratch.0, "t", 7);
        fs::write(&scratch.1, []).unwrap();
        let errors = || replicas::look(&scratch.0).unwrap().findings.count(Severity::Error);
        assert_eq!(errors(), 0, "its broker may have died there");
        let entries = [(0, 5)].into();
        let log =
            landfall_replica::EndedLog { index: 9, position: 27, entries, ..Default::default() };
        let ended = Some(landfall_replica::Ended { logs: [(0, log)].into() });
        let file = TopicFile::read(&topic).unwrap();
        TopicFile { ended, ..file }.write(&topic).unwrap();
        assert_eq!(errors(), 1);
    }

    /// What comes behind a lost pool begins a file anew, and looks like the beginning of a copy.
    #[test]
    fn a_file_that_says_that_entries_stood_before_it_wants_them() {
        let scratch = Scratch::new("wants");
        let topic = topic_directory(&scratch.0, "t", 7);
        let mut header = *landfall_replica::Walk::open(&scratch.1).unwrap().header();
        (header.first_index, header.first_ordinal) = (90, 5);
        let later = replica_file(scratch.1.parent().unwrap(), 90);
        fs::write(&later, header.seal().page()).unwrap();
        let found = || replicas::look(&scratch.0).unwrap().findings;
        let said = "5 entries of broker 0 stood before it, between log indexes 0 and 90";
        assert!(found().kept()[0].found.contains(said), "{:?}", found());
        fs::remove_file(&scratch.1).unwrap();
        assert!(found().kept()[0].found.contains(said), "{:?}", found());
        // Bounds let go of files from the front.
        let file = TopicFile::read(&topic).unwrap();
        TopicFile { disk_bytes: 1, ..file }.write(&topic).unwrap();
        assert_eq!(found().count(Severity::Error), 0);
    }

    #[test]
    fn what_is_there_counts_and_not_what_a_file_says_of_those_before_it() {
        let scratch = Scratch::new("counts");
        let topic = topic_directory(&scratch.0, "t", 7);
        let mut header = *landfall_replica::Walk::open(&scratch.1).unwrap().header();
        (header.first_index, header.first_ordinal) = (90, 5);
        fs::remove_file(&scratch.1).unwrap();
        fs::write(replica_file(scratch.1.parent().unwrap(), 90), header.seal().page()).unwrap();
        let entries = [(0, 5)].into();
        let log =
            landfall_replica::EndedLog { index: 90, position: 27, entries, ..Default::default() };
        let ended = Some(landfall_replica::Ended { logs: [(0, log)].into() });
        let file = TopicFile::read(&topic).unwrap();
        TopicFile { ended, ..file }.write(&topic).unwrap();
        let system = scratch.0.with_extension("system");
        create_directory(&system).unwrap();
        fs::rename(&scratch.0, system.join("broker-0")).unwrap();
        let found = replicas::look(&system).unwrap().findings;
        fs::remove_dir_all(&system).unwrap();
        let said = "had 5 entries on disk when the log ended in good order, and the fullest of its \
                    copies here has 0";
        assert!(found.kept().iter().any(|one| one.found.contains(said)), "{found:?}");
    }

    #[test]
    fn a_file_that_would_be_removed_is_removed() {
        let scratch = Scratch::new("empty");
        fs::write(&scratch.1, []).unwrap();
        assert_eq!(scratch.recover(true).1, 1);
        assert!(scratch.1.exists());
        assert_eq!(scratch.recover(false).1, 1);
        assert!(!scratch.1.exists());
    }
}
