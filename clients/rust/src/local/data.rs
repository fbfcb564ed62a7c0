//! The directories in which brokers keep replicas.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::LocalError;

/// Makes a data directory for each broker, and their names stay: control writes there too. They are
/// for this user alone, or for its group too.
pub(super) fn make_data_directories(
    data: &Path,
    brokers: usize,
    for_group: bool,
) -> Result<(), LocalError> {
    let mut make = DirBuilder::new();
    make.recursive(true).mode(if for_group { 0o770 } else { 0o700 });
    let all = (0..brokers).map(|number| data.join(format!("broker-{number}")));
    let sync = |path: &Path| std::fs::File::open(path).and_then(|directory| directory.sync_all());
    let failed = |path: &Path, error: std::io::Error| {
        let (path, why) = (path.to_owned(), error.to_string());
        LocalError::Data { path, why }
    };
    for path in all {
        make.create(&path).map_err(|error| failed(&path, error))?;
    }
    sync(data).map_err(|error| failed(data, error))
}

/// The data directories of brokers below `data`, by number: also those of more brokers than there
/// are now, since what they kept is only there.
pub(super) fn data_directories(data: &Path) -> Vec<PathBuf> {
    let number = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?;
        let number = name.strip_prefix("broker-")?.parse::<usize>().ok()?;
        (name == format!("broker-{number}") && path.is_dir()).then_some(number)
    };
    // One that cannot be listed is said by whoever is to use it.
    let entries = std::fs::read_dir(data).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        entries.map(|entry| entry.path()).filter_map(|path| Some((number(&path)?, path))).collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}
