//! From the files to a block of frames, gaps and batches, as the subscriber's socket takes them.

use landfall_layout::batch::BatchPreamble;
use landfall_layout::frame::{Delivery, FRAME_BYTES, Frame, GapReason};
use landfall_layout::order::OrderEntry;
use landfall_layout::replica::Body;
use landfall_replica::merge::Wanted;
use landfall_replica::{Merge, Resumed, Skips, Unheard};

use super::{Missing, Place};

/// Bytes after which a block is not made longer.
const CHUNK_BYTES: usize = 512 << 10;
/// Entries of a block: holes that follow each other make it no longer.
const ENTRIES_MAX: usize = 8192;

/// A block, and where it leaves the subscriber.
#[derive(Debug)]
pub struct Chunk {
    /// Frames, each with its batch behind it.
    pub bytes: Vec<u8>,
    /// Where it goes on.
    pub place: Place,
    /// Batches in it.
    pub batches: u64,
    /// Bytes of them.
    pub batch_bytes: u64,
    /// Positions that readers are told they miss.
    pub missed: u64,
    /// The gap at its end, if there is one.
    gap: Option<Gap>,
    /// What did not hold.
    pub faults: Vec<String>,
    /// It ends before what may be where nobody answers: that is neither read nor called missing.
    pub is_blind: bool,
}

/// A gap that the last frame of a block tells of.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// Byte of the block that its frame begins at.
    at: usize,
    reason: GapReason,
    /// Its first position.
    from: u64,
}

/// Why a log may have nothing somewhere.
pub struct Reasons<'a> {
    /// What it passed over when pools were lost.
    pub skips: &'a Skips,
    /// What may say more of that, and could not be read.
    pub unread: &'a [Unheard],
    /// Where its files are, if bounds let go of the oldest. Otherwise they keep everything.
    pub bounded: Option<&'a Wanted>,
}

impl Reasons<'_> {
    /// Log index below which retention may have taken what is in no file that can be read.
    /// `is_lost`: everybody's files say that there is nothing, or one's that it had some of it.
    fn retired_below(&self, is_lost: bool) -> u64 {
        let bounded = self.bounded.filter(|_| !is_lost);
        bounded.map_or(0, Wanted::retired_below)
    }
}

/// Reads on from `place` until the block is long enough, or log index `until`, from which on
/// memory has everything. What no file has up to there is left to the reading of memory, which
/// measures it by the first position that it finds.
pub fn read(merge: &mut Merge, log: u8, place: Place, until: u64, reasons: &Reasons<'_>) -> Chunk {
    let mut chunk = Chunk {
        bytes: Vec::new(),
        place,
        batches: 0,
        batch_bytes: 0,
        missed: 0,
        gap: None,
        faults: Vec::new(),
        is_blind: false,
    };
    merge.look_again();
    let mut missing = place.missing().unwrap_or_else(|| Missing::new(&place));
    for _ in 0..ENTRIES_MAX {
        if chunk.bytes.len() >= CHUNK_BYTES {
            break;
        }
        let (picked, known) = merge.next(chunk.place.next, until, &mut chunk.faults);
        let next = picked.and_then(|picked| first_position(merge.record(picked)?.body));
        if (picked.is_none() || next.is_some())
            && chunk.is_in_doubt(merge, (next, until), known, reasons)
        {
            break;
        }
        missing.is_known &= known;
        missing.is_torn |= merge.torn().is_some();
        chunk.place.missing = Some(missing);
        let from = (missing.from, missing.is_lost());
        let Some(picked) = picked else {
            chunk.place.next = chunk.place.next.max(until);
            // Memory begins behind what the log passed over last, and knows of that alone.
            if let Some(last) = reasons.skips.ranges().last() {
                chunk.jump_over(log, last.to_position, from, reasons);
                let from = match missing.position == chunk.place.position {
                    true => missing.from,
                    false => missing.from.max(last.to_index),
                };
                let position = chunk.place.position;
                chunk.place.missing = Some(Missing { from, position, ..missing });
            }
            break;
        };
        chunk.place.next = picked.index + 1;
        let record = merge.record(picked);
        match record.map(|record| record.body) {
            Some(Body::Batch { entry, preamble, payload }) => {
                chunk.jump_over(log, entry.first_position, from, reasons);
                chunk.add(log, picked.index, &entry, (&preamble, payload));
            }
            Some(Body::Hole { entry, reason: why }) => {
                chunk.jump_over(log, entry.first_position, from, reasons);
                chunk.jump(log, entry.end_position(), why);
            }
            Some(Body::Frontier(_)) | None => continue,
        }
        chunk.place.missing = None;
        missing = Missing::new(&chunk.place);
    }
    chunk
}

/// First position of a batch or hole.
fn first_position(body: Body<'_>) -> Option<u64> {
    match body {
        Body::Batch { entry, .. } | Body::Hole { entry, .. } => Some(entry.first_position),
        Body::Frontier(_) => None,
    }
}

impl Chunk {
    /// Whether what no file has, up to position `next` or else to log index `until`, may be where
    /// nobody answers, or nothing can be read now. `is_known`: everybody's files say that there is
    /// nothing. At `next` may be a batch that does not hold where it could be read.
    fn is_in_doubt(
        &mut self,
        merge: &Merge,
        (next, until): (Option<u64>, u64),
        is_known: bool,
        reasons: &Reasons<'_>,
    ) -> bool {
        let is_spoilt = merge.is_spoilt();
        if is_known && !is_spoilt {
            return false;
        }
        let is_passed = |next: u64| {
            let from = Resumed { index: self.place.next, position: self.place.position };
            let parts = reasons.skips.reasons(from, next, 0);
            parts.iter().all(|(_, reason)| *reason == GapReason::Skipped)
        };
        let is_missing = match next {
            Some(next) => is_spoilt || self.place.position < next && !is_passed(next),
            None => !reasons.skips.has_passed(self.place.next, until),
        };
        let silent = if is_missing { merge.silent_or(reasons.unread) } else { None };
        if let Some(silent) = &silent {
            self.faults.push(format!("readers wait for batches that may be there: {silent}"));
        }
        self.is_blind = silent.is_some();
        self.is_blind
    }

    /// Tells of positions up to `to` that are in no file, each with its reason: entries from a log
    /// index on, and whether retention did not take them.
    fn jump_over(&mut self, log: u8, to: u64, (from, is_lost): (u64, bool), reasons: &Reasons<'_>) {
        if self.place.position < to {
            let from = Resumed { index: from, position: self.place.position };
            let below = reasons.retired_below(is_lost);
            for (end, reason) in reasons.skips.reasons(from, to, below) {
                self.jump(log, end, reason);
            }
        }
    }

    /// Tells of positions up to `to` that nothing is at: gaps of one reason that follow each other
    /// in one frame.
    fn jump(&mut self, log: u8, to: u64, reason: GapReason) {
        let Some(missed) = to.checked_sub(self.place.position).filter(|missed| *missed > 0) else {
            return;
        };
        let gap = match self.gap.filter(|gap| gap.reason == reason) {
            Some(gap) => gap,
            None => Gap { at: self.bytes.len(), reason, from: self.place.position },
        };
        self.bytes.truncate(gap.at);
        let frame = Frame::Gap { log, reason, missed: to - gap.from, resume: to };
        self.bytes.extend_from_slice(&frame.encode(0));
        self.gap = Some(gap);
        // Of what was passed over nobody knows of a message.
        self.missed += if reason == GapReason::Skipped { 0 } else { missed };
        self.place.position = to;
    }

    fn add(
        &mut self,
        log: u8,
        index: u64,
        entry: &OrderEntry,
        (preamble, payload): (&BatchPreamble, &[u8]),
    ) {
        let delivery = Frame::Delivery(Delivery {
            log,
            broker: entry.broker,
            count: entry.count,
            bytes: entry.bytes,
            index,
            first_position: entry.first_position,
            landed_ns: entry.landed_ns,
            checksum: entry.checksum,
        });
        self.bytes.reserve(FRAME_BYTES + entry.bytes as usize);
        self.bytes.extend_from_slice(&delivery.encode(0));
        self.bytes.extend_from_slice(&preamble.to_bytes());
        self.bytes.extend_from_slice(payload);
        self.gap = None;
        self.batches += 1;
        self.batch_bytes += u64::from(entry.bytes);
        self.place.position = entry.end_position();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use landfall_layout::BrokerId;
    use landfall_layout::order::ENTRY_HOLE;
    use landfall_pool::disk::plain::Plain;
    use landfall_replica::Skipped;

    use super::*;
    use crate::replica::Data;
    use crate::replica::rig::{CREATED_NS, Source};
    use landfall_pool::clock::boot_ns;

    /// A directory, removed at the test's end.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A replica of a log of batches (three positions each) and holes (as many as it says).
    fn replica(name: &str, entries: &[Option<u16>]) -> (Scratch, u64) {
        let path = std::env::temp_dir().join(format!("chunk-{name}-{}", std::process::id()));
        let scratch = Scratch(path);
        let mut source = Source::new(crate::rig::pool(), 0);
        for count in entries {
            let entry = match count {
                Some(count) => {
                    OrderEntry { count: *count, flags: ENTRY_HOLE, ..OrderEntry::default() }
                }
                None => source.place(&[7; 100], true),
            };
            source.append(&entry);
        }
        source.publish();
        let mut worker = source.worker(Data::new(&scratch.0), Box::new(Plain), 1).unwrap();
        worker.look_at_table(boot_ns());
        while worker.round(boot_ns()) {}
        (scratch, source.frontier.entries)
    }

    fn wanted(scratch: &Scratch) -> Wanted {
        Wanted {
            data: vec![scratch.0.clone()],
            name: "t".to_owned(),
            created_ns: CREATED_NS,
            sources: vec![BrokerId::new(0).unwrap()],
            is_shared: false,
            stood_in: Some(Vec::new()),
        }
    }

    fn merge(scratch: &Scratch) -> Merge {
        Merge::new(&wanted(scratch))
    }

    /// Reasons where files keep everything.
    fn lost(skips: &Skips) -> Reasons<'_> {
        Reasons { skips, unread: &[], bounded: None }
    }

    /// The frames of a block: first positions of batches, and gaps.
    fn frames(chunk: &Chunk) -> Vec<Result<u64, (GapReason, u64, u64)>> {
        let mut rest = &chunk.bytes[..];
        let mut frames = Vec::new();
        while let Some((head, behind)) = rest.split_first_chunk::<FRAME_BYTES>() {
            rest = behind;
            match Frame::decode(*head).unwrap().0 {
                Frame::Delivery(delivery) => {
                    rest = &rest[delivery.bytes as usize..];
                    frames.push(Ok(delivery.first_position));
                }
                Frame::Gap { reason, missed, resume, .. } => {
                    frames.push(Err((reason, missed, resume)));
                }
                other => panic!("{other:?}"),
            }
        }
        frames
    }

    #[test]
    fn holes_that_follow_each_other_are_one_gap_with_memorys_reason() {
        let entries = [Some(4), Some(2), None, None, Some(1), None, Some(5), Some(5)];
        let (scratch, end) = replica("holes", &entries);
        let why = GapReason::Unwritten;
        let start = Place::new(0, 0);
        let chunk = read(&mut merge(&scratch), 0, start, end, &lost(&Skips::default()));
        let want = [Err((why, 6, 6)), Ok(6), Ok(9), Err((why, 1, 13)), Ok(13), Err((why, 10, 26))];
        assert_eq!(frames(&chunk), want);
        assert_eq!((chunk.missed, chunk.batches, chunk.place.position), (17, 3, 26));
        assert_eq!((chunk.place.next, chunk.faults.len()), (end, 0));
        // Only what is below the bound: memory tells of the rest.
        let chunk = read(&mut merge(&scratch), 0, start, 7, &lost(&Skips::default()));
        assert_eq!(frames(&chunk).last(), Some(&Err((why, 5, 21))));
    }

    #[test]
    fn what_no_file_has_is_no_hole() {
        let (scratch, end) = replica("lost", &[None, Some(2), None]);
        // As if three positions before the first batch were in no file.
        let start = Place::new(1, 0);
        let chunk = read(&mut merge(&scratch), 0, start, end, &lost(&Skips::default()));
        let (lost, hole) = ((GapReason::Lost, 3, 3), (GapReason::Unwritten, 2, 5));
        assert_eq!(frames(&chunk), [Err(lost), Err(hole), Ok(5)]);
    }

    /// Another broker's files may have it, on a disk that hangs.
    #[test]
    fn what_may_be_where_nobody_answers_is_waited_for_and_not_called_lost() {
        let (scratch, end) = replica("blind", &[None, None]);
        let hangs = std::env::temp_dir().join(format!("chunk-hangs-{}", std::process::id()));
        let other = Scratch(hangs);
        let topic = landfall_replica::names::topic_directory(&other.0, "t", CREATED_NS);
        let source = landfall_replica::names::source_directory(&topic, BrokerId::new(1).unwrap());
        std::fs::create_dir_all(&source).unwrap();
        let path = landfall_replica::names::replica_file(&source, 0);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut wanted = wanted(&scratch);
        wanted.data.push(other.0.clone());
        wanted.sources.push(BrokerId::new(1).unwrap());
        let (mut merge, skips) = (Merge::new(&wanted), Skips::default());
        // Three positions before the second batch are in no file that can be read.
        let start = Place::new(1, 0);
        let chunk = read(&mut merge, 0, start, end, &lost(&skips));
        assert_eq!((chunk.is_blind, chunk.bytes.len(), chunk.place), (true, 0, start));
        assert_eq!(chunk.faults.len(), 1, "{:?}", chunk.faults);
        // What follows without a gap is read all the same.
        let start = Place::new(1, 3);
        let chunk = read(&mut merge, 0, start, end, &lost(&skips));
        assert_eq!((frames(&chunk), chunk.place.next), (vec![Ok(3)], end));
    }

    /// A broker that is out of descriptors for a while.
    #[test]
    fn what_is_in_a_file_that_was_not_opened_is_waited_for_and_not_called_lost() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (scratch, end) = replica("short", &[None, None]);
        let (mut merge, skips) = (merge(&scratch), Skips::default());
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let start = Place::new(0, 0);
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        let chunk = read(&mut merge, 0, start, end, &lost(&skips));
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert_eq!((chunk.is_blind, chunk.bytes.len(), chunk.place), (true, 0, start));
        let chunk = read(&mut merge, 0, start, end, &lost(&skips));
        assert_eq!((frames(&chunk), chunk.place.next), (vec![Ok(0), Ok(3)], end));
    }

    /// Memory, which says the rest, knows only what was passed over last.
    #[test]
    fn what_was_passed_over_at_a_log_s_end_is_not_lost() {
        let (scratch, end) = replica("ends", &[None]);
        let mut skips = Skips::default();
        skips.add(Skipped { index: 1, to_index: 3, position: 3, to_position: 10 });
        skips.add_positions((14, 20));
        let start = Place::new(0, 0);
        let chunk = read(&mut merge(&scratch), 0, start, end + 7, &lost(&skips));
        let (lost, skipped) = (GapReason::Lost, GapReason::Skipped);
        let told = [Ok(0), Err((skipped, 7, 10)), Err((lost, 4, 14)), Err((skipped, 6, 20))];
        assert_eq!((frames(&chunk), chunk.missed), (told.to_vec(), 4));
    }

    /// A record does not hold any more, and there is no other copy.
    #[test]
    fn what_damage_took_is_lost_and_was_not_taken_by_retention() {
        let (scratch, end) = replica("damaged", &[None, None, None]);
        let topic = landfall_replica::names::topic_directory(&scratch.0, "t", CREATED_NS);
        let source = landfall_replica::names::source_directory(&topic, BrokerId::new(0).unwrap());
        let path = landfall_replica::names::replica_file(&source, 0);
        let whole = std::fs::read(&path).unwrap();
        let (wanted, skips) = (wanted(&scratch), Skips::default());
        // Bounds let go of whole files, and this one is the first. In its payload, or its head.
        for (byte, bounded) in [200, 10].iter().flat_map(|at| [(at, None), (at, Some(&wanted))]) {
            let mut bytes = whole.clone();
            bytes[4096 + byte] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let start = Place::new(0, 0);
            let reasons = Reasons { skips: &skips, unread: &[], bounded };
            let chunk = read(&mut merge(&scratch), 0, start, end, &reasons);
            assert_eq!(frames(&chunk), [Err((GapReason::Lost, 3, 3)), Ok(3), Ok(6)]);
        }
    }

    /// A log of six batches of three positions, each in a file of its own.
    fn row(name: &str) -> (Scratch, Vec<PathBuf>) {
        let path = std::env::temp_dir().join(format!("chunk-{name}-{}", std::process::id()));
        let scratch = Scratch(path);
        let mut source = Source::new(crate::rig::pool(), 0);
        let data = Data { file_bytes: 1, ..Data::new(&scratch.0) };
        let mut worker = None;
        for _ in 0..6 {
            let entry = source.place(&[7; 100], true);
            source.append(&entry);
            source.publish();
            let worker = worker
                .get_or_insert_with(|| source.worker(data.clone(), Box::new(Plain), 1).unwrap());
            worker.look_at_table(boot_ns());
            while worker.round(boot_ns()) {}
        }
        let topic = landfall_replica::names::topic_directory(&scratch.0, "t", CREATED_NS);
        let source = landfall_replica::names::source_directory(&topic, BrokerId::new(0).unwrap());
        let files = landfall_replica::names::list_source(&source, &mut Vec::new()).unwrap();
        assert_eq!(files.len(), 6);
        (scratch, files.into_iter().map(|(_, path)| path).collect())
    }

    /// A disk or a host that answers with an error for a moment, or rights that are taken away.
    #[test]
    fn what_cannot_be_read_for_a_moment_is_waited_for_and_not_called_lost() {
        let (scratch, files) = row("refused");
        let (skips, all) = (Skips::default(), [0, 3, 6, 9, 12, 15].map(Ok));
        let source = files[0].parent().unwrap();
        let mut places: Vec<_> = files.iter().map(PathBuf::as_path).collect();
        places.extend([source, source.parent().unwrap(), &scratch.0]);
        for (at, path) in places.into_iter().enumerate() {
            // A file, or what it lies in.
            let readable = if at < files.len() { at } else { 0 };
            let kept = path.with_extension("kept");
            std::fs::rename(path, &kept).unwrap();
            std::os::unix::fs::symlink(path, path).unwrap();
            let mut merge = merge(&scratch);
            let mut read = |place| read(&mut merge, 0, place, 6, &lost(&skips));
            let first = read(Place::new(0, 0));
            assert_eq!((frames(&first), first.is_blind), (all[..readable].to_vec(), true), "{at}");
            let told = first.faults.last().unwrap();
            assert!(told.contains("may be there") && told.contains("os error 40"), "{told}");
            std::fs::remove_file(path).unwrap();
            std::fs::rename(&kept, path).unwrap();
            let rest = read(first.place);
            assert_eq!((frames(&rest), rest.is_blind), (all[readable..].to_vec(), false), "{at}");
        }
    }

    /// A mount point that lost its disk looks like a directory without files.
    #[test]
    fn what_is_on_a_disk_that_went_away_is_waited_for_and_not_called_lost() {
        let (scratch, _files) = row("unmounted");
        let skips = Skips::default();
        landfall_replica::numbers::name(&scratch.0, BrokerId::new(0).unwrap(), "p").unwrap();
        let kept = Scratch(scratch.0.with_extension("kept"));
        for is_open in [false, true] {
            let mut merge = merge(&scratch);
            let mut read = |place, until| read(&mut merge, 0, place, until, &lost(&skips));
            let begun = if is_open { read(Place::new(0, 0), 1).place } else { Place::new(0, 0) };
            std::fs::rename(&scratch.0, &kept.0).unwrap();
            std::fs::create_dir(&scratch.0).unwrap();
            let none = read(begun, 6);
            // The next one's file was open.
            let had = [Ok(3)][..usize::from(is_open)].to_vec();
            assert_eq!((frames(&none), none.is_blind), (had, true), "{is_open}");
            assert!(none.faults.last().unwrap().contains("mount its disk again"));
            std::fs::remove_dir(&scratch.0).unwrap();
            std::fs::rename(&kept.0, &scratch.0).unwrap();
            assert_eq!(frames(&read(none.place, 6)).last(), Some(&Ok(15)), "{is_open}");
        }
    }

    /// No file has anything up to where memory began, and memory has moved on since.
    #[test]
    fn what_retention_took_while_it_was_read_is_not_lost_though_a_block_ends_in_it() {
        let (scratch, files) = row("overtaken");
        let (wanted, skips) = (wanted(&scratch), Skips::default());
        let (mut merge, bounded) = (merge(&scratch), Some(&wanted));
        let mut read = |place, until| {
            read(&mut merge, 0, place, until, &Reasons { skips: &skips, unread: &[], bounded })
        };
        let first = read(Place::new(0, 0), 1);
        assert_eq!(frames(&first), [Ok(0)]);
        // The second file is open by now.
        files[..3].iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let none = read(first.place, 3);
        assert_eq!((frames(&none), none.place.next, none.place.position), (vec![Ok(3)], 3, 6));
        assert!(!none.place.missing().unwrap().is_lost(), "nor is it, if memory tells of it");
        let rest = read(none.place, 6);
        let gap = (GapReason::Retention, 3, 9);
        assert_eq!(frames(&rest), [Err(gap), Ok(9), Ok(12), Ok(15)]);
        assert_eq!(rest.faults, Vec::<String>::new());
    }

    /// The same, of what a disk lost.
    #[test]
    fn what_was_lost_where_a_block_ends_was_not_taken_by_retention() {
        let (scratch, files) = row("lost-at-the-end");
        let (wanted, skips) = (wanted(&scratch), Skips::default());
        let (mut merge, bounded) = (merge(&scratch), Some(&wanted));
        let mut read = |place, until| {
            read(&mut merge, 0, place, until, &Reasons { skips: &skips, unread: &[], bounded })
        };
        std::fs::write(&files[1], [7; 9000]).unwrap();
        let first = read(Place::new(0, 0), 2);
        assert_eq!((frames(&first), first.place.next), (vec![Ok(0)], 2));
        assert!(first.place.missing().unwrap().is_lost(), "memory says so too");
        files[..2].iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let rest = read(first.place, 6);
        assert_eq!(frames(&rest)[..2], [Err((GapReason::Lost, 3, 6)), Ok(6)]);
    }

    /// A file without a header is one that was begun a moment ago, if no other is behind it.
    #[test]
    fn what_lies_behind_a_file_of_zeros_is_read() {
        for (which, bytes) in [(1, 9000), (1, 0), (0, 4096), (5, 4096)] {
            let (scratch, files) = row(&format!("zeros-{which}-{bytes}"));
            std::fs::write(&files[which], vec![0; bytes]).unwrap();
            let skips = Skips::default();
            let chunk = read(&mut merge(&scratch), 0, Place::new(0, 0), 6, &lost(&skips));
            let of = |i: usize| match i == which {
                true => Err((GapReason::Lost, 3, 3 * i as u64 + 3)),
                false => Ok(3 * i as u64),
            };
            let all: Vec<_> = (0..6).map(of).collect();
            assert_eq!(frames(&chunk), all[..6 - usize::from(which == 5)], "{which}");
        }
    }

    #[test]
    fn what_was_passed_over_between_two_lives_is_told_apart_from_what_was_lost() {
        let (scratch, end) = replica("lives", &[None, None]);
        // The second batch is at position 3: the gap before it, as if it were at 30, in parts.
        let mut skips = Skips::default();
        skips.add(Skipped { index: 0, to_index: 1, position: 1, to_position: 3 });
        let start = Place::new(1, 0);
        let chunk = read(&mut merge(&scratch), 0, start, end, &lost(&skips));
        let parts = [Err((GapReason::Lost, 1, 1)), Err((GapReason::Skipped, 2, 3))];
        assert_eq!(frames(&chunk), [&parts[..], &[Ok(3)]].concat());
        assert_eq!(chunk.missed, 1, "nobody knows of a message at what was passed over");
    }

    #[test]
    fn a_block_of_holes_ends_too() {
        let (scratch, end) = replica("many", &[Some(1); ENTRIES_MAX + 10]);
        let mut merge = merge(&scratch);
        let chunk = read(&mut merge, 0, Place::new(0, 0), end, &lost(&Skips::default()));
        assert_eq!((chunk.place.next, chunk.place.position), (8192, 8192));
        let rest = read(&mut merge, 0, chunk.place, end, &lost(&Skips::default()));
        assert_eq!(frames(&rest), [Err((GapReason::Unwritten, 10, 8202))]);
    }
}
