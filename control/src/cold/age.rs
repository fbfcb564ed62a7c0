//! Which of a topic's directories are older than others. Pure.
//!
//! A directory may come back from a copy that was made while the pool stood still, and say where
//! logs ended that went on since. Each time they go on, all directories get a higher number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landfall_replica::{Ended, EndedLog, Resumed};

/// What a topic's directory says of its age.
#[derive(Clone, Debug)]
pub struct Said {
    /// The directory.
    pub path: PathBuf,
    /// How often the topic went on, as far as it knows; 0: it knows nothing.
    pub life: u64,
    /// Where the logs ended in good order.
    pub ended: Option<Ended>,
    /// Where they had ended so when its pool began.
    pub began: Option<Ended>,
    /// What copies had at earlier ends.
    pub had: Option<Ended>,
}

/// The most that a directory knows.
pub fn latest(said: &[Said]) -> u64 {
    said.iter().map(|said| said.life).max().unwrap_or_default()
}

/// Whether others are later than a directory.
pub fn is_older(path: &Path, said: &[Said]) -> bool {
    let latest = latest(said);
    said.iter().any(|said| said.path == path && is_before(said, latest))
}

/// One that knows nothing and claims nothing is one that was made a while ago.
fn is_before(said: &Said, latest: u64) -> bool {
    said.life < latest && (said.life > 0 || said.ended.is_some())
}

/// Names the directories that others are later than, a sentence each.
pub fn older(name: &str, said: &[Said]) -> Vec<String> {
    let latest = latest(said);
    let is_older = |said: &&Said| is_before(said, latest);
    let sentence = |said: &Said| {
        format!(
            "topic {name}: {} is older than another directory of the topic: its topic.json knows \
             of {} times that the topic went on, and that of the other of {latest}; what it says \
             of where logs ended does not count",
            said.path.display(),
            said.life
        )
    };
    said.iter().filter(is_older).map(sentence).collect()
}

/// Where the logs ended in good order, if they did not go on since as far as any directory knows.
///
/// Of the latest, one that names no end has not heard of it, as when control died while it said so.
/// One that knows nothing has to say the same end: it may have been made after the logs went on.
pub fn end(said: &[Said]) -> Option<Ended> {
    let latest = latest(said);
    let counts = |said: &&Said| said.life == latest || said.life == 0;
    let mut end: Option<&Ended> = None;
    for said in said.iter().filter(counts) {
        match (&said.ended, end) {
            (None, _) if said.life == 0 => return None,
            (None, _) => {}
            (Some(ended), Some(other)) if places(ended) != places(other) => return None,
            (Some(ended), _) => end = Some(ended),
        }
    }
    end.cloned()
}

/// How far each log was at least: a log that went on behind an end was there.
pub fn passed(said: &[Said]) -> impl Iterator<Item = (usize, Resumed)> {
    let ends = said.iter().filter_map(|said| said.ended.as_ref());
    ends.flat_map(|ended| &ended.logs)
        .map(|(log, ended)| (*log, Resumed { index: ended.index, position: ended.position }))
}

/// What the copies of each log had when it ended in good order last, as far as the latest
/// directories know, and of whom that end does not count, at the end before. It stays on disk,
/// whatever came after.
pub fn had(said: &[Said]) -> Vec<(usize, EndedLog)> {
    let latest = latest(said);
    let said = said.iter().filter(|said| said.life == latest);
    let ends =
        said.flat_map(|said| [said.ended.as_ref().or(said.began.as_ref()), said.had.as_ref()]);
    let ends: Vec<_> = ends.flatten().flat_map(|ended| &ended.logs).collect();
    let last = |(log, end): &(&usize, &EndedLog)| {
        let is_later = |other: &&(&usize, &EndedLog)| other.0 == *log && other.1.index > end.index;
        let later: Vec<_> = ends.iter().filter(is_later).collect();
        let mut end = (*end).clone();
        end.entries.retain(|source, _| later.iter().all(|it| !it.1.entries.contains_key(source)));
        (**log, end)
    };
    ends.iter().map(last).collect()
}

fn places(ended: &Ended) -> BTreeMap<usize, (u64, u64)> {
    ended.logs.iter().map(|(log, ended)| (*log, (ended.index, ended.position))).collect()
}

#[cfg(test)]
mod tests {
    use landfall_replica::EndedLog;

    use super::*;

    /// Directories by life and the index at which the log ended.
    fn all(said: &[(u64, Option<u64>)]) -> Vec<Said> {
        let log = |index| EndedLog { index, position: 10 * index, ..EndedLog::default() };
        let one = |(number, (life, at)): (usize, &(u64, Option<u64>))| Said {
            path: format!("broker-{number}").into(),
            life: *life,
            ended: at.map(|index| Ended { logs: [(32, log(index))].into() }),
            began: Some(Ended { logs: [(32, log(1))].into() }),
            had: None,
        };
        said.iter().enumerate().map(one).collect()
    }

    fn end_of(said: &[(u64, Option<u64>)]) -> Option<u64> {
        end(&all(said)).map(|ended| ended.logs[&32].index)
    }

    #[test]
    fn an_end_counts_where_the_latest_directories_say_it() {
        assert_eq!(end_of(&[(2, Some(60)), (2, Some(60))]), Some(60));
        assert_eq!(end_of(&[(2, Some(60)), (2, None)]), Some(60), "control died while it said so");
        assert_eq!(end_of(&[(1, Some(60)), (2, None)]), None, "it was taken back");
        assert_eq!(end_of(&[(2, None), (1, Some(60))]), None);
        assert_eq!(end_of(&[(1, Some(60)), (3, Some(90))]), Some(90), "the later end");
        assert_eq!(end_of(&[(2, Some(60)), (2, Some(90))]), None, "two of one time");
        assert_eq!(end_of(&[]), None);
    }

    #[test]
    fn a_directory_that_knows_nothing_of_its_age_has_to_say_the_same() {
        assert_eq!(end_of(&[(0, Some(60)), (0, Some(60))]), Some(60), "an earlier program");
        assert_eq!(end_of(&[(0, Some(60)), (0, None)]), None);
        assert_eq!(end_of(&[(1, Some(60)), (0, Some(60))]), Some(60));
        assert_eq!(end_of(&[(1, Some(60)), (0, None)]), None);
        assert_eq!(end_of(&[(1, Some(60)), (0, Some(50))]), None);
    }

    #[test]
    fn an_end_that_does_not_count_is_still_one_that_the_log_passed() {
        let passed = |said: &[(u64, Option<u64>)]| -> Vec<u64> {
            passed(&all(said)).map(|(_, place)| place.index).collect()
        };
        assert_eq!(passed(&[(1, Some(60)), (0, None)]), [60]);
        assert_eq!(passed(&[(1, Some(60)), (2, None), (2, Some(90))]), [60, 90]);
        let had = |said: &[(u64, Option<u64>)]| -> Vec<u64> {
            had(&all(said)).into_iter().map(|(_, log)| log.index).collect()
        };
        assert_eq!(had(&[(1, Some(60)), (0, None)]), [60], "an older copy knows nothing of it");
        assert_eq!(had(&[(1, Some(60)), (2, None)]), [1], "what it had when its pool began");
    }

    #[test]
    fn of_each_broker_the_last_end_counts_that_names_it() {
        let end = |index, entries: &[(u8, u64)]| {
            let entries = entries.iter().copied().collect();
            let log = EndedLog { index, entries, ..EndedLog::default() };
            Some(Ended { logs: [(32, log)].into() })
        };
        let counts = |said: Said| -> Vec<Vec<(u8, u64)>> {
            had(&[said]).into_iter().map(|(_, log)| log.entries.into_iter().collect()).collect()
        };
        let said = Said { path: "broker-0".into(), life: 1, ended: None, began: None, had: None };
        let both = end(40, &[(0, 9), (1, 7)]);
        assert_eq!(counts(Said { had: both.clone(), ..said.clone() }), [vec![(0, 9), (1, 7)]]);
        // A disk was replaced since, and had less when the log ended again.
        let later = Said { ended: end(60, &[(0, 3)]), had: both.clone(), ..said.clone() };
        assert_eq!(counts(later), [vec![(0, 3)], vec![(1, 7)]]);
        let earlier = Said { began: end(20, &[(0, 3), (2, 1)]), had: both, ..said };
        assert_eq!(counts(earlier), [vec![(2, 1)], vec![(0, 9), (1, 7)]]);
    }

    #[test]
    fn the_older_one_is_named() {
        let notes = older("t", &all(&[(1, Some(60)), (3, None), (0, None), (0, Some(60))]));
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].contains("broker-0 is older") && notes[0].contains("of the other of 3"));
        assert!(notes[1].contains("broker-3 is older"));
        assert!(older("t", &all(&[(0, None), (0, Some(60))])).is_empty());
    }
}
