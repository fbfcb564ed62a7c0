//! The files of one replica: opened, rolled.

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use landfall_layout::BrokerId;
use landfall_layout::order::FrontierLine;
use landfall_layout::replica::{NO_FILE, REPLICA_HEADER_BYTES, ReplicaHeader};
use landfall_pool::disk::{Disk, Writing, sync_all, write_all};
use landfall_replica::FileError;
use landfall_replica::mend::{Cut, create_directory, settle_and_cut, sync_directory};
use landfall_replica::names::{list_source, replica_file, source_directory};

/// The file that records are appended to.
pub struct Current {
    pub file: Arc<File>,
    pub path: PathBuf,
    first_index: u64,
    /// Byte behind its last whole record.
    pub at: u64,
}

/// The files of one replica.
pub struct Files {
    directory: PathBuf,
    /// What every file's header says, but for where it begins.
    template: ReplicaHeader,
    pub current: Option<Current>,
    /// Bytes after which a file is followed by another.
    file_bytes: u64,
    /// Entries that they have: batches and holes.
    pub ordinal: u64,
}

/// What was there when a replica's files were opened.
#[derive(Debug)]
pub struct Opened {
    /// Log index below which they have everything.
    pub covers: u64,
    /// How far the log was ordered when the last of it was committed.
    pub ordered: Option<FrontierLine>,
    /// Bytes of the files, headers included.
    pub bytes: u64,
    /// What did not hold.
    pub cut: Option<Cut>,
}

impl Files {
    /// Opens the files in `topic`'s directory: reads the last one as the disk has it, cuts what
    /// does not hold, and goes on behind it.
    pub fn open(
        topic: &Path,
        template: ReplicaHeader,
        file_bytes: u64,
    ) -> Result<(Self, Opened), FileError> {
        let source = BrokerId::new(usize::from(template.source));
        let source = source.expect("a duty names a broker");
        let directory = source_directory(topic, source);
        create_directory(&directory)?;
        let mut listed = list_source(&directory, &mut Vec::new())?;
        let mut files = Self { directory, template, current: None, file_bytes, ordinal: 0 };
        let mut opened = Opened { covers: 0, ordered: None, bytes: 0, cut: None };
        // A file that was begun and never had a header is gone then, and the one before is last.
        while let Some((first_index, path)) = listed.pop() {
            let Some((survey, cut)) = settle_and_cut(&path)? else { continue };
            files.check(&survey.header, &path)?;
            let file = OpenOptions::new().read(true).write(true).open(&path);
            let file = file.map_err(FileError::io("open", &path))?;
            files.ordinal = survey.end.ordinal;
            opened.covers = survey.end.index;
            opened.ordered = survey.ordered;
            opened.cut = cut;
            opened.bytes = survey.bytes;
            files.current =
                Some(Current { file: file.into(), path, first_index, at: survey.end.at });
            break;
        }
        for (_, path) in listed {
            let metadata = path.metadata().map_err(FileError::io("look at", &path))?;
            opened.bytes += metadata.len();
        }
        Ok((files, opened))
    }

    fn check(&self, header: &ReplicaHeader, path: &Path) -> Result<(), FileError> {
        let of = |header: &ReplicaHeader| (header.created_ns, header.source, header.log);
        if of(header) == of(&self.template) && header.name() == self.template.name() {
            return Ok(());
        }
        Err(FileError::Topic {
            path: path.to_owned(),
            why: format!(
                "it is about broker {} in log {} of topic {} of {}, and lies where those of \
                 broker {} in log {} of topic {} of {} belong; move it away",
                header.source,
                header.log,
                header.name(),
                header.created_ns,
                self.template.source,
                self.template.log,
                self.template.name(),
                self.template.created_ns
            ),
        })
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the next group belongs in another file.
    pub fn is_full(&self) -> bool {
        self.current.as_ref().is_none_or(|current| current.at >= self.file_bytes)
    }

    /// Begins the next file, which has everything from `first_index` on. The one before is on
    /// stable storage: the caller synced it. `anew`: something in between is missing.
    pub fn roll(
        &mut self,
        disk: &mut dyn Disk,
        first_index: u64,
        anew: bool,
        now_ns: u64,
    ) -> Result<(), FileError> {
        let before = self.current.as_ref().filter(|_| !anew);
        let mut header = self.template;
        header.first_index = first_index;
        header.first_ordinal = self.ordinal;
        header.previous_index = before.map_or(NO_FILE, |current| current.first_index);
        header.opened_ns = now_ns;
        let path = replica_file(&self.directory, first_index);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(FileError::io("create", &path))?;
        if let Err(error) = begin(disk, &file, &path, &header) {
            // A file without a header is nothing; if it stays, the next start removes it.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        sync_directory(&self.directory)?;
        let at = REPLICA_HEADER_BYTES;
        self.current = Some(Current { file: file.into(), path, first_index, at });
        Ok(())
    }
}

fn begin(
    disk: &mut dyn Disk,
    file: &File,
    path: &Path,
    header: &ReplicaHeader,
) -> Result<(), FileError> {
    let mut page = [0; REPLICA_HEADER_BYTES as usize];
    page[..ReplicaHeader::BYTES as usize].copy_from_slice(&header.seal().to_bytes());
    let mut writings = [Writing::new(file, 0, vec![IoSlice::new(&page)])];
    write_all(disk, &mut writings);
    let [writing] = writings;
    writing.result.map_err(FileError::io("write", path))?;
    let synced = sync_all(disk, &[file]).pop().unwrap_or(Ok(()));
    synced.map_err(FileError::io("sync", path))
}
