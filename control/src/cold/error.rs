//! Why topics cannot be brought back.

use std::fmt;
use std::path::PathBuf;

use landfall_layout::limits::TOPICS_MAX;
use landfall_replica::FileError;
use landfall_replica::end::Behind;
use landfall_replica::names::{TOPIC_COPY, TOPIC_FILE};
use landfall_replica::there::Absent;

use super::fewer::Fewer;

/// Why topics cannot be brought back. Nothing was served, and no file changed that would matter.
#[derive(Debug)]
#[non_exhaustive]
pub enum ColdError {
    /// A data directory that was named cannot be read.
    Directory {
        /// What went wrong, with its path.
        error: FileError,
    },
    /// A process that is not of this pool has a data directory.
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody is just taking a data directory, and does not end that.
    Busy {
        /// The directory.
        path: PathBuf,
        /// The process that does it, if the system says so.
        process: Option<u32>,
    },
    /// Another pool took a topic up while this control read its files.
    Elsewhere {
        /// The topic's directory.
        path: PathBuf,
    },
    /// A topic went on in another pool since this one had it.
    WentOn {
        /// The topic.
        name: String,
        /// One of its directories.
        path: PathBuf,
        /// That pool, by its number.
        pool: String,
        /// None of the topic's directories is this pool's any more.
        is_whole: bool,
    },
    /// No directory has a topic, and another pool was served there since.
    GoneSince {
        /// The topic.
        name: String,
        /// A data directory that was this pool's.
        path: PathBuf,
        /// The pool that was served there last, by its number.
        pool: String,
    },
    /// The pool is older than one of its own directories.
    Behind(Behind),
    /// Another control claimed a higher epoch while this one brought topics back.
    Overtaken {
        /// That epoch.
        epoch: u64,
    },
    /// A file is of another version of this program.
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        why: String,
    },
    /// The system refused to read a file: nobody knows what it has.
    Refused {
        /// What went wrong, with its path.
        error: FileError,
    },
    /// No directory says what a topic is.
    Topic {
        /// What went wrong in one of them, with its path.
        error: FileError,
    },
    /// A topic hides another one of its name, which nothing says was deleted.
    Hidden {
        /// Their name.
        name: String,
        /// A directory of the one that was made first.
        earlier: PathBuf,
        /// A directory of the other.
        later: PathBuf,
    },
    /// There are more topics than a pool has.
    Topics {
        /// One that has no place.
        name: String,
    },
    /// There are more sessions whose batches may not be ordered twice than the pool has lines.
    Sessions {
        /// Sessions on disk.
        need: usize,
        /// Lines of the pool.
        have: u32,
    },
    /// Of what a broker landed no keeper's directory was named.
    Missing {
        /// The topic.
        name: String,
        /// What it is, and who keeps it.
        absent: Absent,
        /// Directories of which it is not known whose they are, and why.
        unknown: Vec<String>,
    },
    /// Files have not what they had, and a home of another copy is not here.
    Damaged {
        /// The topic.
        name: String,
        /// The broker that landed it.
        source: u8,
        /// Brokers that keep other copies.
        keepers: Vec<u8>,
        /// Log indexes between which something is missing, where that is known.
        missing: Option<(u64, u64)>,
    },
    /// Of what a broker landed every copy that was named has less than was on disk.
    Fewer {
        /// The topic.
        name: String,
        /// What is missing.
        fewer: Fewer,
        /// The homes of the copies.
        keepers: Vec<u8>,
    },
    /// Two files have other messages at the same positions.
    Twice {
        /// The topic.
        name: String,
        /// The first such position.
        position: u64,
        /// One file.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// None of a topic's directories could be told where its logs go on.
    Untold {
        /// The topic.
        name: String,
        /// What went wrong in the last of them, with its path.
        error: FileError,
    },
    /// The pool was stopped in good order, and not all directories that say so were named.
    Ended {
        /// Topic directories that say so.
        said: u64,
        /// Those that were found.
        found: u64,
        /// Why others that are there say nothing.
        silent: Vec<FileError>,
    },
    /// A directory says where a log ended, and that could not be taken back.
    Unsaid {
        /// What went wrong, with its path.
        error: FileError,
    },
}

impl fmt::Display for ColdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { error } => write!(
                f,
                "{error}; --restore names the data directory of a broker: name one that is there, \
                 and mount its disk first where that is what is missing; only for a broker that \
                 never kept anything make an empty one"
            ),
            Self::Taken { path } => write!(
                f,
                "{}: a broker or control of another pool, or landfall recover, is at work there; \
                 stop it first, since two systems on one directory lose batches",
                path.display()
            ),
            Self::Busy { path, process } => {
                let who = process.map_or_else(String::new, |id| format!(" (process {id})"));
                write!(
                    f,
                    "{}: another control{who}, of this pool or another, is just taking the \
                     directory and does not get on, as one that is stopped: let it go on, or end \
                     it",
                    path.display()
                )
            }
            Self::Elsewhere { path } => write!(
                f,
                "{}: another pool has taken this topic up since control read its files, and \
                 nothing more is written there; end that system, or this one",
                path.display()
            ),
            Self::WentOn { name, path, pool, is_whole } => {
                let path = path.display();
                write!(
                    f,
                    "topic {name} went on in another pool since this one had it, {pool} ({path}): \
                     what this pool took from here on would be in no log. Start control on that \
                     pool; if that is gone, remove this pool's file, which is older, and start \
                     with --restore: what is durable comes back"
                )?;
                match is_whole {
                    true => Ok(()),
                    false => f.write_str(
                        "; --forget-lost goes on with this pool and without what the other one \
                         has, whose positions are used again",
                    ),
                }
            }
            Self::GoneSince { name, path, pool } => write!(
                f,
                "another pool was served on {} since, {pool}, and no directory has anything of \
                 topic {name} any more: it was deleted there, and this pool is older. Start the \
                 system on that pool; if that is gone, remove this one and start with --restore: \
                 what is durable comes back",
                path.display()
            ),
            Self::Behind(behind) => behind.fmt(f),
            Self::Overtaken { epoch } => {
                write!(f, "epoch {epoch} has begun: another control leads this pool")
            }
            Self::Version { path, why } => write!(
                f,
                "{}: {why}, which this program does not know; start the program that wrote it, or \
                 move the topic's directory away to go on without it",
                path.display()
            ),
            Self::Refused { error } => write!(
                f,
                "{error}; that is no damage, and what the file has is not given up for it: let \
                 control read it (its rights, the limit of open files, free memory, the disk) and \
                 start again; --forget-lost goes on without it, and what only it has is lost"
            ),
            Self::Topic { error } => write!(
                f,
                "{error}; no other directory says what the topic is: put the file back from a \
                 copy, or move the topic's directory away to go on without it"
            ),
            Self::Hidden { name, earlier, later } => write!(
                f,
                "topic {name}: {} is of a topic of that name that was made before the one of {}, \
                 and nothing says that it was deleted: perhaps one of the two disks is another \
                 system's. Mount the right one, or move the directory of the topic that is not \
                 wanted away; --forget-lost goes on with the later one and leaves the other alone",
                earlier.display(),
                later.display()
            ),
            Self::Topics { name } => write!(
                f,
                "there are more topics on disk than the {TOPICS_MAX} that a pool has, {name} among \
                 them; move the directories of some away"
            ),
            Self::Sessions { need, have } => write!(
                f,
                "{need} publishers' sessions are on disk and the pool has {have} lines: without \
                 all of them a batch could be ordered twice; make a new pool with --sessions \
                 {need} or more"
            ),
            Self::Missing { name, absent, unknown } => {
                let Absent { source, keepers, is_part, anew } = absent;
                let keepers: Vec<String> = keepers.iter().map(u8::to_string).collect();
                let what = if *is_part { "a part of what" } else { "what" };
                write!(
                    f,
                    "topic {name}: {what} broker {source} landed is kept by broker {}, and no \
                     directory that --restore names is one of such a broker",
                    keepers.join(" and ")
                )?;
                for path in anew {
                    let path = path.display();
                    write!(f, "; {path} is, and was begun without what the broker had before")?;
                }
                for why in unknown {
                    write!(f, "; {why}, so it is not known whose that directory is")?;
                }
                write!(
                    f,
                    ": mount its disk, or name its data directory; --forget-lost goes on without \
                     it, and what only it has is lost"
                )
            }
            Self::Damaged { name, source, keepers, missing } => {
                let keepers: Vec<String> = keepers.iter().map(u8::to_string).collect();
                match missing {
                    None => write!(
                        f,
                        "topic {name}: files of what broker {source} landed are damaged or gone, \
                         and no other copy that is here has all of that"
                    ),
                    Some((from, to)) => write!(
                        f,
                        "topic {name}: between log indexes {from} and {to} entries were ordered \
                         that are in no file here, and nothing shows that none of them is what \
                         broker {source} landed: files of a copy may be damaged, cut \
                         short or gone, or not have been written before a crash"
                    ),
                }?;
                write!(
                    f,
                    "; broker {} keeps one, and no directory that --restore names is of such a \
                     broker: mount its disk, or name its data directory; --forget-lost goes on \
                     without it, and what only it has is lost",
                    keepers.join(" and ")
                )
            }
            Self::Fewer { name, fewer: Fewer { source, had, has }, keepers } => {
                let keepers: Vec<String> = keepers.iter().map(u8::to_string).collect();
                write!(
                    f,
                    "topic {name}: broker {source} had {had} entries on disk when the log ended in \
                     good order, and the fullest copy here has {}, up to log index {}: the disk of \
                     broker {} is an older copy, or files are gone from it; mount the latest, or \
                     name its data directory; --forget-lost goes on with what is here, and what \
                     only the other has is lost",
                    has.entries,
                    has.covers,
                    keepers.join(" or ")
                )
            }
            Self::Twice { name, position, one, other } => write!(
                f,
                "topic {name}: {} and {} have other messages at position {position}: one of them \
                 was away when the topic went on without it; move the directory of the topic that \
                 holds one of the two files away",
                one.display(),
                other.display()
            ),
            Self::Untold { name, error } => write!(
                f,
                "topic {name}: {error}; none of its directories could be told where its logs go \
                 on, and should this pool be lost, positions would be used twice: let control \
                 write into one of them, or make room there, and start again"
            ),
            Self::Ended { said, found, silent } => {
                write!(
                    f,
                    "this pool was stopped in good order, {said} topic directories say where its \
                     logs ended, and {found} of them are in what --restore names and are this \
                     pool's still: "
                )?;
                for error in silent {
                    write!(
                        f,
                        "one says nothing any more ({error}; its broker makes its {TOPIC_FILE} \
                         anew where that and {TOPIC_COPY} are moved away); "
                    )?;
                }
                f.write_str(
                    "name the data directory of every broker again; where another pool took one \
                     up, go on with that pool; if some are lost for good, or say nothing, start \
                     once with --forget-lost, which goes on with what this pool and the others \
                     have",
                )
            }
            Self::Unsaid { error } => write!(
                f,
                "{error}; it says where a log ended, and has to be changed before the log goes on: \
                 let control write there"
            ),
        }
    }
}

impl std::error::Error for ColdError {}
