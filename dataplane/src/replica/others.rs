//! Batches that the pool has no more whole, in other brokers' replicas of the same source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use landfall_layout::BrokerId;
use landfall_layout::batch::BatchPreamble;
use landfall_layout::frame::GapReason;
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::{Body, Record};
use landfall_layout::topic::TopicEntry;
use landfall_pool::stderr;
use landfall_replica::ask::ask_all;
use landfall_replica::merge::Wanted;
use landfall_replica::names::{list_source, source_directory, topic_directory};
use landfall_replica::{Merge, Numbers, Skips, TopicFile, Unkept, Walk};

/// How often a directory is asked again that does not answer.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks at what the system refuses: some seconds. An error that lasts longer may last for ever,
/// and nothing more of any copy would become durable.
const REFUSED_LOOKS: u32 = 50;

/// Bytes of other sources' records that are read at once, and what one without its payload counts.
const AT_ONCE_BYTES: u64 = 16 << 20;
const RECORD_BYTES: u64 = 128;

/// An entry of a log, and why nothing is there, should it be a hole.
pub type Kept = (OrderEntry, GapReason);

/// The other copies of what one broker landed, as far as this host can read them.
#[derive(Default)]
pub struct Others {
    wanted: Option<Wanted>,
    /// Opened for the first batch that did not hold. What was not written is asked for again.
    merge: Option<Merge>,
    /// The topic's directories that can be read here, this broker's own first.
    topics: Vec<PathBuf>,
    /// Files of the log's other sources in those, this broker's own directory among them.
    other_sources: Option<Wanted>,
}

/// Where the first file of a copy begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    pub index: u64,
    /// Entries of the copy before it.
    pub ordinal: u64,
    /// It says that the copy had something before it.
    pub is_behind: bool,
    /// Who wrote it.
    pub broker: u8,
    /// Number of the data directory that it is in. 0: nobody asked.
    pub disk: u64,
}

impl Others {
    /// Those in `data`, beside the copy in `own`.
    pub fn new(own: &Path, data: &[PathBuf], entry: &TopicEntry, source: BrokerId) -> Self {
        let (name, created_ns) = (entry.name().to_owned(), entry.created_ns);
        let all = std::iter::once(own).chain(data.iter().map(PathBuf::as_path));
        let topics = all.map(|data| topic_directory(data, &name, created_ns)).collect();
        let sources = vec![source];
        let all = std::iter::once(own.to_owned()).chain(data.iter().cloned()).collect();
        let (data, is_shared, stood_in) = (data.to_vec(), false, None);
        let wanted = Wanted { data, name, created_ns, sources, is_shared, stood_in };
        let others = BrokerId::all().filter(|other| *other != source).collect();
        let other_sources = Some(Wanted { data: all, sources: others, ..wanted.clone() });
        let wanted = (!wanted.data.is_empty()).then_some(wanted);
        Self { wanted, merge: None, topics, other_sources }
    }

    /// The same copies, read anew.
    #[cold]
    pub fn again(&self) -> Self {
        let (wanted, topics) = (self.wanted.clone(), self.topics.clone());
        Self { wanted, merge: None, topics, other_sources: self.other_sources.clone() }
    }

    /// What the topic's directories that can be read say of it, this broker's own first.
    #[cold]
    pub fn said(&self) -> Vec<TopicFile> {
        Self::said_in(&self.topics)
    }

    /// The same of other directories than this broker's own.
    #[cold]
    pub fn said_elsewhere(&self) -> Vec<TopicFile> {
        Self::said_in(self.topics.get(1..).unwrap_or_default())
    }

    fn said_in(topics: &[PathBuf]) -> Vec<TopicFile> {
        let said = ask_all(topics.iter().map(|topic| {
            let place = topic.clone();
            (data_of_topic(topic), move || TopicFile::read(&place))
        }));
        said.into_iter().filter_map(|said| said.ok()?.ok()).collect()
    }

    /// What a log passed over when pools were lost, as those say.
    #[cold]
    pub fn skips(&self, log: usize) -> Skips {
        let mut skips = Skips::default();
        for file in self.said() {
            skips.join(&file.skips_of(log));
        }
        skips
    }

    /// What was in pools alone that are gone, as those say.
    #[cold]
    pub fn unkept(&self) -> BTreeSet<Unkept> {
        self.said().into_iter().flat_map(|file| file.places.unkept).collect()
    }

    /// Where the files of the other copy begin that goes back furthest.
    #[cold]
    pub fn beginning(&self) -> Option<Beginning> {
        self.beginnings().into_iter().min_by_key(|begin| begin.index)
    }

    /// Where the files of each other copy begin.
    #[cold]
    pub fn beginnings(&self) -> Vec<Beginning> {
        let source = self.wanted.as_ref().and_then(|wanted| wanted.sources.first().copied());
        let Some(source) = source else { return Vec::new() };
        let begins = ask_all(self.topics.iter().skip(1).map(|topic| {
            let place = source_directory(topic, source);
            let data = data_of_topic(topic).to_owned();
            let look = move || {
                let disk = Numbers::read(&data).map_or(0, |numbers| numbers.id);
                Some(Beginning { disk, ..beginning_of(&place)? })
            };
            (data_of_topic(topic), look)
        }));
        begins.into_iter().filter_map(|begin| begin.ok()?).collect()
    }

    /// Bytes of the files of another copy that reach behind log index `index`: of the one that has
    /// most, if one begins before that.
    #[cold]
    pub fn bytes_behind(&self, index: u64) -> Option<u64> {
        let source = self.wanted.as_ref().and_then(|wanted| wanted.sources.first().copied())?;
        let all = ask_all(self.topics.iter().skip(1).map(|topic| {
            let place = source_directory(topic, source);
            (data_of_topic(topic), move || bytes_behind(&place, index))
        }));
        all.into_iter().filter_map(|bytes| bytes.ok()?).max()
    }

    /// The next entry from log index `index` on and below `until` that another copy has, and
    /// whether it is known that there is nothing before it, or up to `until`. Nothing, where no
    /// other copy can be read.
    #[cold]
    pub fn next(&mut self, index: u64, until: u64) -> Option<(Option<Record<'_>>, bool)> {
        let wanted = self.wanted.as_ref()?;
        if self.merge.as_ref().is_none_or(Merge::is_empty) {
            self.merge = Some(Merge::new(wanted));
        }
        let merge = self.merge.as_mut()?;
        merge.look_again();
        let (picked, is_known) = merge.next(index, until, &mut Vec::new());
        Some((picked.and_then(|picked| merge.record(picked)), is_known))
    }

    /// Up to where each log index from `from` on and below `to` has an entry of another source, as
    /// files that can be read say, and whether that is all that they say: no more than some bytes
    /// are read at once.
    #[cold]
    pub fn of_other_sources(&self, from: u64, to: u64) -> (u64, bool) {
        let Some(wanted) = &self.other_sources else { return (from, true) };
        let (mut merge, mut index, mut bytes) = (Merge::new(wanted), from, 0);
        while index < to {
            if bytes >= AT_ONCE_BYTES {
                return (index, false);
            }
            let found = merge.next(index, to, &mut Vec::new()).0;
            let Some(picked) = found.filter(|picked| picked.index == index) else { break };
            let entry = merge.record(picked).map(|record| record.body);
            bytes += match entry {
                Some(Body::Batch { payload, .. }) => payload.len() as u64,
                _ => 0,
            } + RECORD_BYTES;
            index += 1;
        }
        (index, true)
    }

    /// What stands in these indexes of the log, from the first on and as far as the copies are
    /// known to have left nothing out.
    pub fn entries(&self, indexes: std::ops::Range<u64>) -> Vec<(u64, Kept)> {
        let mut found = Vec::new();
        let Some(wanted) = self.wanted.as_ref().filter(|_| !indexes.is_empty()) else {
            return found;
        };
        let mut merge = Merge::new(wanted);
        let mut waits = Waits::default();
        while merge.next(indexes.start, indexes.end, &mut Vec::new()).0.is_none()
            && waits.for_answer(&merge)
        {
            merge.look_again();
        }
        let mut want = indexes.start;
        while let (Some(picked), true) = merge.next(want, indexes.end, &mut Vec::new()) {
            match merge.record(picked).map(|record| record.body) {
                Some(Body::Batch { entry, .. }) => {
                    found.push((picked.index, (entry, GapReason::Unwritten)));
                }
                Some(Body::Hole { entry, reason }) => found.push((picked.index, (entry, reason))),
                Some(Body::Frontier(_)) | None => {}
            }
            want = picked.index + 1;
        }
        found
    }

    /// The batch that `entry`, which stands at `index` of its log, names. What does not hold in a
    /// file is passed over there.
    #[cold]
    pub fn batch(&mut self, index: u64, entry: &OrderEntry) -> Option<(BatchPreamble, Vec<u8>)> {
        let wanted = self.wanted.as_ref()?;
        // A copy that was begun since the last time is of use too.
        if self.merge.as_ref().is_none_or(Merge::is_empty) {
            self.merge = Some(Merge::new(wanted));
        }
        let merge = self.merge.as_mut()?;
        let mut waits = Waits::default();
        let picked = loop {
            merge.look_again();
            let (picked, _) = merge.next(index, index + 1, &mut Vec::new());
            if picked.is_some() || !waits.for_answer(merge) {
                break picked;
            }
        };
        let Body::Batch { entry: copied, preamble, payload } = merge.record(picked?)?.body else {
            return None;
        };
        let name = |entry: &OrderEntry| {
            (entry.client, entry.batch_seq, entry.session_epoch, entry.count, entry.bytes)
        };
        (name(&copied) == name(entry)).then(|| (preamble, payload.to_vec()))
    }
}

/// The data directory that a topic's is in.
fn data_of_topic(topic: &Path) -> &Path {
    topic.ancestors().nth(2).unwrap_or(topic)
}

/// Waiting for directories that do not answer: what they may have is not called lost.
#[derive(Default)]
struct Waits {
    is_said: bool,
    /// Looks that were refused.
    refused: u32,
}

impl Waits {
    /// Waits a little, where some directory does not answer, or for a moment cannot be read.
    /// Whether it did.
    fn for_answer(&mut self, merge: &Merge) -> bool {
        let Some(silent) = merge.silent() else { return false };
        if !std::mem::replace(&mut self.is_said, true) {
            stderr::note(format_args!(
                "replicas wait for a batch that is nowhere else and may be there: {silent}"
            ));
        }
        self.refused += u32::from(silent.may_last());
        std::thread::sleep(LOOK_EVERY);
        self.refused < REFUSED_LOOKS
    }
}

/// Where the first file of a copy begins, of those whose header can be read.
#[cold]
pub fn beginning_of(directory: &Path) -> Option<Beginning> {
    let files = list_source(directory, &mut Vec::new()).ok()?;
    let header = files.iter().find_map(|(_, path)| Some(*Walk::open(path).ok()?.header()))?;
    let (index, ordinal) = (header.first_index, header.first_ordinal);
    let is_behind = header.is_behind();
    Some(Beginning { index, ordinal, is_behind, broker: header.broker, disk: 0 })
}

/// Bytes of the files of a directory that reach behind log index `index`, if the first one begins
/// before that.
fn bytes_behind(directory: &Path, index: u64) -> Option<u64> {
    let files = list_source(directory, &mut Vec::new()).ok()?;
    let behind = files.partition_point(|(first_index, _)| *first_index < index).checked_sub(1)?;
    Some(files[behind..].iter().filter_map(|(_, path)| Some(path.metadata().ok()?.len())).sum())
}

#[cfg(test)]
mod tests {
    use std::fs::{OpenOptions, remove_dir_all};
    use std::os::fd::{AsFd, AsRawFd};

    use landfall_layout::SegmentId;
    use landfall_layout::order::ENTRY_HOLE;
    use landfall_layout::replica::{ReplicaLine, ReplicaState};
    use landfall_pool::disk::faulty::{Faults, Faulty};
    use landfall_pool::disk::plain::Plain;
    use landfall_replica::FileSurvey;
    use landfall_replica::names::{replica_file, source_directory, topic_directory};

    use super::*;
    use crate::replica::Data;
    use crate::replica::rig::Source;
    use crate::replica::thread::Worker;
    use landfall_pool::clock::boot_ns;

    /// Two directories, gone with this value.
    struct Two([PathBuf; 2]);

    impl Two {
        fn new(name: &str) -> Self {
            let number = std::process::id();
            let path = |which| format!("landfall-others-{name}-{which}-{number}");
            Self(["mine", "theirs"].map(|which| std::env::temp_dir().join(path(which))))
        }

        /// Where a replica is kept that also knows of the other.
        fn data(&self, which: usize) -> Data {
            Data { others: vec![self.0[1 - which].clone()], ..Data::new(&self.0[which]) }
        }
    }

    impl Drop for Two {
        fn drop(&mut self) {
            self.0.iter().for_each(|path| drop(remove_dir_all(path)));
        }
    }

    /// Batches of a page each, in the pool and in the log.
    fn source(batches: usize) -> Source {
        let mut source = Source::new(crate::rig::pool(), 0);
        for _ in 0..batches {
            let entry = source.place(&[7; 4096 - 64], true);
            source.append(&entry);
        }
        source.publish();
        source
    }

    fn line(source: &Source) -> ReplicaLine {
        source.pool.replica(source.topic, BrokerId::new(0).unwrap(), 0)
    }

    fn work(worker: &mut Worker) {
        worker.look_at_table(boot_ns());
        for _ in 0..5 {
            worker.round(boot_ns());
        }
    }

    /// Memory fails from a batch on: the pool ends there.
    fn lose(source: &Source, batches: u64) {
        let path = format!("/proc/self/fd/{}", source.pool.fd().as_fd().as_raw_fd());
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let at = source.pool.geometry().segment(SegmentId(2)).unwrap();
        file.set_len(at + batches * 4096).unwrap();
    }

    #[test]
    fn what_memory_has_lost_comes_from_another_replica() {
        let two = Two::new("copied");
        let source = source(6);
        work(&mut source.worker(two.data(1), Box::new(Plain), 1).unwrap());
        let mut worker = source.worker(two.data(0), Box::new(Plain), 2).unwrap();
        lose(&source, 2);
        work(&mut worker);
        let line = line(&source);
        assert_eq!((line.durable, line.entries, line.state()), (6, 6, ReplicaState::Well));
        two.are_alike(6);
    }

    /// Every entry of one is in the other, as it is there.
    impl Two {
        fn are_alike(&self, entries: u64) {
            let wanted = |which: usize| Wanted {
                data: vec![self.0[which].clone()],
                name: "t".to_owned(),
                created_ns: crate::replica::rig::CREATED_NS,
                sources: vec![BrokerId::new(0).unwrap()],
                is_shared: false,
                stood_in: None,
            };
            let (mut mine, mut theirs) = (Merge::new(&wanted(0)), Merge::new(&wanted(1)));
            for index in 0..entries {
                let pick = |merge: &mut Merge| merge.next(index, index + 1, &mut Vec::new()).0;
                let (a, b) = (pick(&mut mine).unwrap(), pick(&mut theirs).unwrap());
                assert_eq!(mine.record(a).unwrap().body, theirs.record(b).unwrap().body);
            }
        }
    }

    /// A reader is told that it was lost, and not that nobody ever wrote it.
    #[test]
    fn what_another_copy_calls_lost_is_lost_in_this_one() {
        let two = Two::new("lost-there");
        let source = source(6);
        let mut worker = source.worker(two.data(0), Box::new(Plain), 1).unwrap();
        worker.look_at_table(boot_ns());
        let at = source.pool.geometry().segment(SegmentId(2)).unwrap();
        // Their publisher writes there again.
        (2..6).for_each(|batch| source.pool.write(at + batch * 4096 + 100, &[1]).unwrap());
        work(&mut source.worker(Data::new(&two.0[1]), Box::new(Plain), 1).unwrap());
        source.pool.raise_oldest(source.topic, 0, 6, 18);
        work(&mut worker);
        two.are_alike(6);
        drop(worker);
        let topic = topic_directory(&two.0[0], "t", crate::replica::rig::CREATED_NS);
        let path = replica_file(&source_directory(&topic, BrokerId::new(0).unwrap()), 0);
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 400..].fill(0);
        std::fs::write(&path, bytes).unwrap();
        work(&mut source.worker(two.data(0), Box::new(Plain), 2).unwrap());
        assert!(FileSurvey::take(&path).unwrap().is_whole());
        two.are_alike(6);
    }

    /// The disk of a broker that is there, or was, does not answer.
    #[test]
    fn another_directory_that_hangs_stops_no_replica() {
        let two = Two::new("hangs");
        let mut source = source(6);
        let topic = topic_directory(&two.0[1], "t", crate::replica::rig::CREATED_NS);
        let theirs = source_directory(&topic, BrokerId::new(0).unwrap());
        std::fs::create_dir_all(&theirs).unwrap();
        nix::unistd::mkfifo(&replica_file(&theirs, 0), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (incarnation, entries) in [(1, 6), (2, 7)] {
            if incarnation == 2 {
                let entry = source.place(&[7; 100], true);
                source.append(&entry);
                source.publish();
            }
            work(&mut source.worker(two.data(0), Box::new(Plain), incarnation).unwrap());
            let line = line(&source);
            let at = (line.durable, line.entries, line.state());
            assert_eq!(at, (entries, entries, ReplicaState::Well));
        }
    }

    /// The log has nothing of it any more, the other copy does.
    #[test]
    fn what_damage_took_comes_from_another_replica() {
        let two = Two::new("damaged");
        let source = source(6);
        for which in 0..2 {
            work(&mut source.worker(two.data(which), Box::new(Plain), 1).unwrap());
        }
        source.pool.raise_oldest(source.topic, 0, 6, 18);
        let topic = topic_directory(&two.0[0], "t", crate::replica::rig::CREATED_NS);
        let path = replica_file(&source_directory(&topic, BrokerId::new(0).unwrap()), 0);
        let whole = std::fs::read(&path).unwrap();
        // In the middle, and at the end, where it looks like a crash.
        for spoilt in [5000..14_000, 20_000..whole.len()] {
            let mut bytes = whole.clone();
            bytes[spoilt].fill(0);
            std::fs::write(&path, bytes).unwrap();
            work(&mut source.worker(two.data(0), Box::new(Plain), 2).unwrap());
            let survey = FileSurvey::take(&path).unwrap();
            assert!(survey.is_whole(), "{survey:?}");
            assert_eq!((survey.batches, survey.end.ordinal), (6, 6));
            let line = line(&source);
            assert_eq!((line.durable, line.entries, line.state()), (6, 6, ReplicaState::Well));
        }
    }

    /// The other disk answers with an error, for as long as it is looked at.
    #[test]
    fn what_another_disk_refuses_is_not_waited_for_for_ever() {
        let two = Two::new("refuses");
        let source = source(6);
        let mut worker = source.worker(two.data(0), Box::new(Plain), 1).unwrap();
        lose(&source, 5);
        std::os::unix::fs::symlink(&two.0[1], &two.0[1]).unwrap();
        work(&mut worker);
        std::fs::remove_file(&two.0[1]).unwrap();
        let (line, lost) =
            (line(&source), source.pool.lost(source.topic, BrokerId::new(0).unwrap()));
        assert_eq!((line.durable, line.state(), lost.count), (6, ReplicaState::Well, 1));
    }

    #[test]
    fn what_nobody_has_is_lost_and_is_called_so_before_the_line_passes_it() {
        let two = Two::new("gone");
        let source = source(6);
        let mut worker = source.worker(two.data(0), Box::new(Plain), 1).unwrap();
        lose(&source, 2);
        work(&mut worker);
        let line = line(&source);
        assert_eq!((line.durable, line.state()), (6, ReplicaState::Well));
        let me = BrokerId::new(0).unwrap();
        let lost = source.pool.lost(source.topic, me);
        assert!(lost.count == 4 && (2..6).all(|index| lost.names(me, index)), "{lost:?}");
    }

    #[test]
    fn what_memory_loses_while_a_sync_is_under_way_takes_nothing_from_it() {
        const HOLES: u64 = 2048;
        let two = Two::new("under-way");
        let mut source = Source::new(crate::rig::pool(), 0);
        for _ in 0..HOLES {
            source.append(&OrderEntry { count: 4, flags: ENTRY_HOLE, ..OrderEntry::default() });
        }
        for _ in 0..6 {
            let entry = source.place(&[7; 4096 - 64], true);
            source.append(&entry);
        }
        source.publish();
        let disk = Box::new(Faulty::new(Plain, Faults::default()));
        let mut worker = source.worker(two.data(0), disk, 1).unwrap();
        worker.look_at_table(boot_ns());
        worker.round(boot_ns());
        let at = |line: ReplicaLine| (line.written, line.durable, line.state());
        assert_eq!(at(line(&source)), (HOLES, 0, ReplicaState::Well));
        // The group behind the sync cannot be read from its third batch on.
        lose(&source, 2);
        worker.round(boot_ns());
        while worker.round(boot_ns()) {}
        assert_eq!(at(line(&source)), (HOLES + 6, HOLES + 6, ReplicaState::Well));
    }
}
