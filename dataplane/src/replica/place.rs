//! In which directory this broker keeps a topic: it says so there and in others' directories, with
//! what it had in another one before. A cold start asks for the directory that was said last.

use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::TopicId;
use landfall_layout::limits::LINE_BYTES;
use landfall_layout::topic::TopicEntry;
use landfall_pool::clock::wall_ns;
use landfall_pool::{Memory, Pool};
use landfall_replica::ask::ask_all;
use landfall_replica::names::topic_directory;
use landfall_replica::there::{FORGOTTEN, Kept, Lack, Places, UNCOUNTED};
use landfall_replica::{EndedLog, TopicFile, numbers};

use super::duties::log_of;
use super::said::{lacks, moved_on, tell_others};

/// What is known of the directory of this broker before it says anything.
pub struct Place {
    me: BrokerId,
    /// Its number; 0: it has none, and cannot be given one.
    disk: u64,
    /// What others' directories say, as far as they answer.
    said: Vec<TopicFile>,
}

impl Place {
    /// Looks at the topic's directory `topic` and at those of others.
    #[cold]
    pub fn look(me: BrokerId, topic: &Path, entry: &TopicEntry, others: &[PathBuf]) -> Self {
        let data = topic.ancestors().nth(2);
        let disk = data.and_then(|data| numbers::number(data).ok()).unwrap_or_default();
        // Together: several that hang, one after the other, would be taken for this broker's own.
        let said = ask_all(others.iter().map(|data| {
            let topic = topic_directory(data, entry.name(), entry.created_ns);
            (data, move || TopicFile::read(&topic))
        }));
        Self { me, disk, said: said.into_iter().filter_map(|said| said.ok()?.ok()).collect() }
    }

    /// Says in `places`, of the topic's directory here, that this broker keeps it here; and what it
    /// had elsewhere, if it did not keep it here last or the directory `is_new`.
    #[cold]
    pub fn keep(&self, pool: &Pool, entry: &TopicEntry, places: &mut Places, is_new: bool) {
        let me = self.me.raw();
        self.said.iter().for_each(|file| places.join_disks(&file.places));
        let last = places.disks.get(&me).copied();
        // Somebody else's, which this broker never said that it keeps.
        let is_anothers = places.disks.values().any(|kept| kept.disk == self.disk);
        let has_moved = match last {
            Some(kept) => kept.disk != FORGOTTEN && (is_new || kept.disk != self.disk),
            None => is_anothers,
        };
        // Where nothing can be read and the log began before, others may say another one.
        let can_tell = last.is_some() || !self.said.is_empty() || moved_on(pool, entry).is_empty();
        // The same one without what it had does not have it either.
        let disk = last.map(|kept| kept.disk).filter(|disk| *disk != self.disk).unwrap_or_default();
        if is_new || self.disk != 0 && has_moved {
            let known = lacks(pool, entry, self.me).into_iter();
            places.lacks.extend(known.map(|lack| Lack { disk, ..lack }));
        }
        if self.disk != 0 && has_moved {
            self.lack_uncounted(pool, entry, places, disk);
        }
        if self.disk != 0 && can_tell {
            let (life, requests) = (entry.life, requests_taken(pool, self.me));
            places.say(me, Kept { life, requests, said_ns: wall_ns(), disk: self.disk });
        }
    }

    /// Adds what no line of this pool knows of: it lay in the directory before, `disk`, if there
    /// was anything that the log's memory has not got, or does not give to a copy that is not open.
    fn lack_uncounted(&self, pool: &Pool, entry: &TopicEntry, places: &mut Places, disk: u64) {
        let (id, me) = (TopicId(entry.id), self.me.raw());
        let parts = places.parts.iter().filter(|part| part.keeper == me);
        let parted: Vec<u8> = parts.map(|part| part.source).collect();
        let parts_of = |source: BrokerId| places.parts.iter().any(|it| it.source == source.raw());
        // A cold start asks for no others.
        let is_asked =
            |source: &BrokerId| source.raw() < entry.replica_brokers || parts_of(*source);
        let sources: Vec<BrokerId> = BrokerId::all().filter(is_asked).collect();
        for source in sources {
            let log = log_of(entry, source);
            let copies = 0..entry.disk_replicas();
            let mut mine =
                copies.filter(|copy| entry.replica_broker(source, *copy) == Some(self.me));
            let home = mine.next();
            let is_known = home.is_some_and(|copy| pool.replica(id, source, copy).incarnation != 0);
            let is_kept = home.is_some() || parted.contains(&source.raw());
            // What yet another directory had is a word of its own.
            let is_said = places.lacks.iter().any(|lack| {
                (lack.keeper, lack.source, lack.disk, lack.is_torn)
                    == (me, source.raw(), disk, false)
            });
            if !is_kept || is_known && entry.disk_bytes == 0 && entry.disk_ns == 0 || is_said {
                continue;
            }
            // What memory has, a home's copy gets again. A stand-in's does not, and its line may be
            // another copy's by now.
            let is_filled = home.is_some() && pool.oldest(id, log) == 0;
            if is_filled || self.had_nothing(pool, (source, log)) {
                continue;
            }
            // What came since is told by lines. No line of a stand-in tells that all of its part is
            // here; the log does, where it is whole on the disks.
            let below = pool.frontier(id, log).entries;
            places.lacks.insert(Lack {
                keeper: me,
                source: source.raw(),
                entries: UNCOUNTED,
                below,
                disk,
                is_torn: false,
            });
        }
    }

    /// Whether the log ended in good order before this pool, and the source had landed nothing: a
    /// count that is not there says nothing of it.
    fn had_nothing(&self, pool: &Pool, (source, log): (BrokerId, usize)) -> bool {
        let uuid = pool.uuid_text();
        let said = self.said.iter().filter(|file| file.pool_uuid == uuid);
        let mut ends = said.filter_map(|file| file.began.as_ref()?.logs.get(&log)).peekable();
        let had = |end: &EndedLog| end.entries.get(&source.raw()).is_none_or(|had| *had > 0);
        ends.peek().is_some() && !ends.any(had)
    }

    /// Tells others' directories, where one says something else or nothing of it.
    #[cold]
    pub fn tell(&self, topic: &Path, entry: &TopicEntry, others: &[PathBuf]) {
        let me = self.me.raw();
        let own = TopicFile::read(topic).ok().and_then(|own| own.places.disks.get(&me).copied());
        let Some(own) = own else { return };
        if self.said.iter().all(|file| file.places.disks.get(&me) == Some(&own)) {
            return;
        }
        let mut word = Places::default();
        word.disks.insert(me, own);
        tell_others(entry, others, move |topic| word.tell(topic));
    }
}

/// How many requests of all processes of a broker's number control has taken in this pool.
fn requests_taken(pool: &Pool, me: BrokerId) -> u64 {
    let at = pool.geometry().requests_taken(me);
    pool.refresh(at, LINE_BYTES);
    pool.load(at)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use landfall_layout::topic::{Order, TopicState};
    use landfall_replica::names::TOPIC_COPY;
    use nix::sys::stat::Mode;

    use super::*;

    /// One after the other, the first is given up before the second is asked. Eight of them, and
    /// the broker's own disk would count as one that hangs.
    #[test]
    fn others_directories_are_waited_for_together() {
        let name = format!("landfall-place-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        let mut entry = TopicEntry::from_words([0; TopicEntry::WORDS]);
        (entry.id, entry.state) = (TopicId::new(0, 1).0, TopicState::Live as u8);
        (entry.order, entry.name_bytes, entry.name[0]) = (Order::Total.raw(), 1, b't');
        let [own, first, second] = ["own", "first", "second"].map(|data| root.join(data));
        let topic = |data: &Path| topic_directory(data, "t", entry.created_ns);
        for data in [&own, &first, &second] {
            fs::create_dir_all(topic(data)).unwrap();
            let file = TopicFile::of(&entry, "a pool", 0).unwrap();
            file.write(&topic(data)).unwrap();
        }
        // Who opens one for reading waits for who writes.
        let copies = [&first, &second].map(|data| topic(data).join(TOPIC_COPY));
        for copy in &copies {
            fs::remove_file(copy).unwrap();
            nix::unistd::mkfifo(copy, Mode::S_IRWXU).unwrap();
        }
        let me = BrokerId::new(0).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The first answers once the second is being read.
                let second = File::options().write(true).open(&copies[1]).unwrap();
                drop(File::options().write(true).open(&copies[0]).unwrap());
                drop(second);
            });
            let others = [first.clone(), second.clone()];
            assert_eq!(Place::look(me, &topic(&own), &entry, &others).said.len(), 2);
        });
        fs::remove_dir_all(&root).unwrap();
    }
}
