//! Whether a broker ever landed anything in a topic, as far as directories that answer can say it:
//! where others do not answer, its batches may be there and nowhere else.

use std::collections::BTreeSet;

use landfall_layout::BrokerId;

use crate::ask::ask;
use crate::merge::Wanted;
use crate::names::{list_topic, topic_directory};
use crate::numbers::Numbers;
use crate::there::{FORGOTTEN, Places};
use crate::topic::TopicFile;

/// A directory of the topic that answers.
struct Directory {
    own: TopicFile,
    numbers: Numbers,
    /// Brokers of whose batches it has files.
    sources: BTreeSet<u8>,
}

impl Directory {
    /// Whether broker `home` keeps the topic here, by the last word of all.
    fn is_of(&self, home: u8, places: &Places) -> bool {
        match places.disks.get(&home).map(|kept| kept.disk) {
            Some(disk) => disk != FORGOTTEN && disk == self.numbers.id,
            None => self.numbers.keepers().contains(&home),
        }
    }

    /// Whether it never had anything of `source`, was there from the topic's beginning on, and says
    /// of no other directory that had.
    fn never_had(&self, home: u8, source: u8) -> bool {
        let mut lacks = self.own.places.lacks.iter();
        let lacks_some = lacks.any(|lack| (lack.keeper, lack.source) == (home, source));
        self.own.made_at.is_empty() && !lacks_some && !self.sources.contains(&source)
    }
}

/// What the directories of a topic say that answer.
pub(crate) struct Landed {
    directories: Vec<Directory>,
    places: Places,
}

impl Landed {
    /// Asks each of them.
    pub fn look(wanted: &Wanted) -> Self {
        let (mut directories, mut places) = (Vec::new(), Places::default());
        for data in &wanted.data {
            let (path, name, created_ns) = (data.clone(), wanted.name.clone(), wanted.created_ns);
            let look = move || {
                let topic = topic_directory(&path, &name, created_ns);
                let listed = list_topic(&topic, &mut Vec::new()).ok()?.into_iter();
                let sources = listed.filter(|it| !it.files.is_empty());
                let sources = sources.map(|it| it.source.raw()).collect();
                let (own, numbers) = (TopicFile::read(&topic).ok()?, Numbers::read(&path).ok()?);
                Some(Directory { own, numbers, sources })
            };
            let Ok(Some(directory)) = ask(data, look) else { continue };
            places.join(&directory.own.places);
            directories.push(directory);
        }
        Self { directories, places }
    }

    /// Whether `source` is known to have landed nothing: the home of a copy that nobody else kept
    /// a part of has none.
    pub fn has_nothing_of(&self, source: BrokerId) -> bool {
        let source = source.raw();
        let Some(any) = self.directories.first() else { return false };
        let (homes, copies) = (u16::from(any.own.replica_brokers), any.own.replicas.max(1) - 1);
        let is_parted = self.places.parts.iter().any(|part| part.source == source);
        let mut its = (0..copies).filter(|_| homes > 0 && !is_parted);
        its.any(|copy| {
            let home = ((u16::from(source) + u16::from(copy)) % homes) as u8;
            let mut all = self.directories.iter();
            all.any(|it| it.is_of(home, &self.places) && it.never_had(home, source))
        })
    }
}
