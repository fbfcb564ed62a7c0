//! Whether a broker ever landed anything in a topic, and who keeps it, as far as directories that
//! answer can say it: where others do not answer, its batches may be there and nowhere else.

use std::collections::BTreeSet;
use std::path::Path;

use landfall_layout::BrokerId;

use crate::ask::ask;
use crate::away;
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
        let lacks_some = lacks.any(|lack| (lack.keeper, lack.source) == (home, source))
            || self.own.holes.iter().any(|hole| hole.source == source);
        self.own.made_at.is_empty() && !lacks_some && !self.sources.contains(&source)
    }
}

/// What the directories of a topic say that answer.
pub(crate) struct Landed {
    directories: Vec<Directory>,
    places: Places,
    /// See [`Wanted::stood_in`].
    stood_in: Option<Vec<BrokerId>>,
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
        Self { directories, places, stood_in: wanted.stood_in.clone() }
    }

    /// Whether `source` is known to have landed nothing: the home of a copy that nobody else kept
    /// a part of has none.
    pub fn has_nothing_of(&self, source: BrokerId) -> bool {
        if self.parts(source).next().is_some() {
            return false;
        }
        self.homes(source).any(|home| {
            let mut all = self.directories.iter();
            all.any(|it| it.is_of(home, &self.places) && it.never_had(home, source.raw()))
        })
    }

    /// Whether some of what `source` landed may be in a data directory that does not answer, or is
    /// refused: in that of a home of its copies, or of who stood in for one. One that never said to
    /// this process whose it is may be anybody's, and so may each where nobody says who keeps what.
    pub fn may_be_in(&self, data: &Path, source: BrokerId) -> bool {
        let (Some(said), Some(stood_in)) = (away::last_said(data), &self.stood_in) else {
            return true;
        };
        let had = said.brokers();
        let is_here = |keeper: u8| {
            let kept = self.places.disks.get(&keeper).map(|kept| kept.disk);
            had.contains(&keeper) || kept.is_some_and(|disk| disk != FORGOTTEN && disk == said.id)
        };
        let stood_in = stood_in.iter().map(|broker| broker.raw());
        let mut all = self.homes(source).chain(self.parts(source)).chain(stood_in);
        self.directories.is_empty() || all.any(is_here)
    }

    /// The homes of the copies of what `source` landed.
    fn homes(&self, source: BrokerId) -> impl Iterator<Item = u8> {
        let rule = |any: &Directory| (u16::from(any.own.replica_brokers), any.own.replicas.max(1));
        let (homes, copies) = self.directories.first().map_or((0, 1), rule);
        let all = (0..copies - 1).filter(move |_| homes > 0);
        all.map(move |copy| ((source.index() as u16 + u16::from(copy)) % homes) as u8)
    }

    /// Who kept a part of them in place of a home.
    fn parts(&self, source: BrokerId) -> impl Iterator<Item = u8> {
        let of = self.places.parts.iter().filter(move |part| part.source == source.raw());
        of.map(|part| part.keeper)
    }
}
