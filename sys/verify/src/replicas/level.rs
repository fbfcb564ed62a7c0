//! Directories that are one level off: above all brokers' directories, or inside one of them.

use std::path::{Path, PathBuf};

use landfall_replica::names::list;
use landfall_replica::numbers::{NUMBERS_COPY, NUMBERS_FILE};
use landfall_replica::owner::OWNER_FILE;
use landfall_replica::watch;

use super::directories;
use super::find::{brokers_below, has_topic};

/// Levels below a directory in which brokers' directories are looked for.
const LEVELS: usize = 3;

/// Why what was looked at at `path` says nothing: there is no topic, and no broker ever kept
/// anything there. What to look at instead, where that can be seen.
pub fn nothing(path: &Path) -> Option<String> {
    // What cannot be listed is said by whoever looks.
    let Ok(looked) = directories(path) else { return None };
    let has_topics =
        |data: &PathBuf| list(data).map_or(true, |listing| listing.topics.iter().any(has_topic));
    if looked.iter().any(|data| is_used(data) || has_topics(data)) {
        return None;
    }
    let what = "there is no topic in it, and no broker ever kept anything there";
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let inside = path.ancestors().skip(1).find(|directory| is_used(directory));
    Some(match inside.map(Path::to_owned).or_else(|| below(&path, LEVELS)) {
        Some(meant) => format!("{what}; name {}, which has brokers' files", meant.display()),
        None => format!(
            "{what}; name the data directory of a broker, or the one that has broker-0, broker-1 \
             and so on, and see whether its disk is mounted"
        ),
    })
}

/// The directory above `data` where `data` is a single broker's own: its topics would seem gone to
/// a system that keeps a `broker-N` in it for each broker. One that has these was used so before.
pub fn level_above(data: &Path) -> Option<PathBuf> {
    if !is_used(data) || brokers_below(data).iter().any(|below| is_used(below)) {
        return None;
    }
    let whole = std::fs::canonicalize(data).ok()?;
    whole.parent().map(Path::to_owned)
}

/// The directory right below `data` that has brokers' directories, where `data` itself has none.
pub fn level_below(data: &Path) -> Option<PathBuf> {
    if !brokers_below(data).is_empty() {
        return None;
    }
    let has_brokers = |path: &PathBuf| brokers_below(path).iter().any(|broker| is_used(broker));
    directories_in(data).into_iter().find(has_brokers)
}

/// Whether a broker had its files there.
fn is_used(directory: &Path) -> bool {
    watch::at(directory);
    [NUMBERS_FILE, NUMBERS_COPY, OWNER_FILE].iter().any(|name| directory.join(name).exists())
}

/// What has a broker's directory right in it, at or below `path`.
fn below(path: &Path, levels: usize) -> Option<PathBuf> {
    let found = directories_in(path);
    if found.iter().any(|directory| is_used(directory)) {
        return Some(path.to_owned());
    }
    let next = levels.checked_sub(1)?;
    found.iter().find_map(|directory| below(directory, next))
}

fn directories_in(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| !watch::is_aside(path));
    let is_directory = |path: &PathBuf| {
        watch::at(path);
        path.is_dir()
    };
    let mut found: Vec<_> = paths.filter(is_directory).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_one_level_off_is_told_of() {
        let root = std::env::temp_dir().join(format!("landfall-level-{}", std::process::id()));
        let data = root.join("data");
        let own = data.join("broker-0");
        fs::create_dir_all(own.join("t")).unwrap();
        let text = nothing(&own).unwrap();
        assert!(text.contains("whether its disk is mounted"), "{text}");
        assert!(nothing(&data).is_some() && level_above(&own).is_none(), "nobody was ever there");
        // As /etc has postgresql/15.
        fs::create_dir_all(own.join("t/15/main")).unwrap();
        assert!(nothing(&own).is_some(), "a name and a number make no topic");
        fs::create_dir_all(own.join("t/15/b0")).unwrap();
        assert!(nothing(&own).is_some(), "nor does a source without a file");
        fs::write(own.join("t/15/topic.json.copy"), "").unwrap();
        assert_eq!(nothing(&own), None);
        // What the system refuses to show is not nothing.
        fs::remove_dir_all(own.join("t/15")).unwrap();
        std::os::unix::fs::symlink("loop", own.join("t/loop")).unwrap();
        assert_eq!((nothing(&own), nothing(&data)), (None, None));
        fs::remove_file(own.join("t/loop")).unwrap();
        fs::write(own.join(NUMBERS_FILE), "").unwrap();
        assert_eq!((nothing(&own), nothing(&data)), (None, None));
        let whole = |path: &Path| fs::canonicalize(path).unwrap();
        let high = nothing(&root).unwrap();
        assert!(high.contains(&format!("name {}, which", whole(&data).display())), "{high}");
        let low = nothing(&own.join("t")).unwrap();
        assert!(low.contains(&format!("name {}, which", whole(&own).display())), "{low}");
        assert_eq!((level_above(&own), level_above(&data)), (Some(whole(&data)), None));
        assert_eq!((level_below(&root), level_below(&data)), (Some(data), None));
        assert_eq!(level_below(&root.join("not there")), None);
        // Somebody did so before, and what was kept since is there.
        fs::create_dir_all(own.join("broker-0")).unwrap();
        fs::write(own.join("broker-0").join(OWNER_FILE), "").unwrap();
        assert_eq!(level_above(&own), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
