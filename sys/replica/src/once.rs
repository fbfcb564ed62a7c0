//! Data directories that are named more than once.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::ask::{SILENT, begin_within};

/// The directories, each once, whatever it is called where it is named again: by another spelling,
/// or a link. One that is not there, or does not answer, is what its name says.
pub fn each_once(data: &[PathBuf]) -> Vec<PathBuf> {
    let look = |path: &PathBuf| {
        let of = path.clone();
        let look = move || fs::metadata(of).ok().map(|data| (data.dev(), data.ino()));
        begin_within(path, SILENT, look)
    };
    let asked: Vec<_> = data.iter().map(look).collect();
    let (mut known, mut names) = (BTreeSet::new(), BTreeSet::new());
    let found = asked.into_iter().map(|asked| asked.wait().ok().flatten()).zip(data);
    let new = found.filter(|(id, path)| match id {
        Some(id) => known.insert(*id),
        None => names.insert((*path).clone()),
    });
    new.map(|(_, path)| path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn one_directory_has_many_names_and_one_that_is_not_there_has_its_own() {
        let folder = std::env::temp_dir().join(format!("landfall-once-{}", std::process::id()));
        let [one, two, link] = ["one", "two", "link"].map(|name| folder.join(name));
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&two).unwrap();
        symlink(&one, &link).unwrap();
        let spelt = folder.join("two/../one/.");
        let (gone, other) = (folder.join("gone"), folder.join("other"));
        let named = [&one, &link, &two, &spelt, &gone, &other, &gone, &one].map(PathBuf::clone);
        assert_eq!(each_once(&named), [one, two, gone, other]);
        fs::remove_dir_all(folder).unwrap();
    }
}
