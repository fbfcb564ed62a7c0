//! Whether brokers are at work in data directories.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

/// Whether a process has the lock of one of these directories. It is not tried: whoever takes it to
/// see whether he gets it keeps a broker out that starts just then.
pub fn is_at_work<'a>(mut directories: impl Iterator<Item = &'a Path>) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let has_lock = |directory: &'a Path| {
        let Ok(found) = fs::metadata(directory) else { return false };
        let (major, minor) = (major(found.dev()), minor(found.dev()));
        let file = format!("{major:02x}:{minor:02x}:{}", found.ino());
        // number, kind, advisory, write, process, file, start, end (proc_locks(5)).
        locks.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            fields.next() == Some("FLOCK") && fields.nth(3) == Some(&file)
        })
    };
    directories.any(has_lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_at_work_while_its_lock_is_taken() {
        let data = std::env::temp_dir().join(format!("verify-work-{}", std::process::id()));
        fs::create_dir_all(&data).unwrap();
        let is = || is_at_work([data.as_path()].into_iter());
        assert!(!is());
        let lock = fs::File::open(&data).unwrap();
        lock.try_lock().unwrap();
        assert!(is());
        drop(lock);
        assert!(!is());
        fs::remove_dir_all(&data).unwrap();
    }
}
