//! One replica: it follows a log and appends what one broker landed to its files.

mod beginning;
mod doubt;
mod event;
mod hole;
mod known;
mod lack;
mod lost;
mod place;
mod row;
mod shown;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use landfall_layout::frame::GapReason;
use landfall_layout::order::FrontierLine;
use landfall_layout::replica::{ReplicaLine, ReplicaState, TAIL_UNKNOWN};
use landfall_layout::topic::{Durability, TopicEntry};
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_pool::copies::CopyLine;
use landfall_pool::disk::Disk;
use landfall_pool::log::{Found, LogReader};
use landfall_replica::FileError;
use landfall_replica::holes::Hole;
use landfall_replica::names::topic_directory;

use super::begin::{Begin, Filled, Seam, fill, lacking, template};
use super::duties::{Duty, Lag, Odometer, log_of};
use super::files::Files;
use super::group::{Buffers, Group};
use super::keep::{self, Bounds};
use super::others::Others;
use super::row::Row;
use super::said::{Keeper, began_at, followed, say_part, write_topic};
use super::spoilt::SpoiltBatch;
use doubt::Doubts;
pub use event::Event;
use lack::OpenLack;
use row::row_of;

/// Bytes of batches that are written together, about, and behind a sync that is under way.
const GROUP_BYTES: u64 = 8 << 20;
/// Log entries followed at once: those of other brokers cost no room.
const ENTRIES_MAX: u64 = 1 << 16;
/// With durability `window`: synced after this many bytes, or this long after the first of them.
const WINDOW_BYTES: u64 = 64 << 20;
const WINDOW_NS: u64 = 250_000_000;
/// What the system had none left of is tried again this often.
const RETRY_NS: u64 = 250_000_000;
/// For a file that lost its name.
const ESTALE: u32 = 116;
/// For files that say what the pool contradicts.
const EUCLEAN: u32 = 117;

/// Whether an error says that the system has none left of what comes back: room on the disk or in
/// the quota, descriptors of this process or of all, memory. Nothing was lost by asking.
pub fn is_short(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let number = error.raw_os_error().map(Errno::from_raw);
    let short = [Errno::ENOSPC, Errno::EDQUOT, Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM];
    number.is_some_and(|number| short.contains(&number))
}

/// A replica that this broker keeps.
pub struct Replica {
    pub topic: TopicId,
    pub duty: Duty,
    me: BrokerId,
    name: String,
    created_ns: u64,
    durability: Durability,
    bounds: Bounds,
    /// When its files were last looked at for that.
    looked_ns: u64,
    ages: keep::Ages,
    log: usize,
    reader: LogReader,
    /// Log index that is looked at next.
    next: u64,
    /// What the line's `tail` says once all that is written is stable.
    tail: u64,
    odometer: Odometer,
    files: Files,
    line: ReplicaLine,
    /// Where that is in the pool.
    at: CopyLine,
    /// What the line in the pool says.
    shown: ReplicaLine,
    pending: Option<Pending>,
    /// Entries up to this index, exclusive, are missing: the next file begins anew.
    anew: bool,
    /// Where that file begins, if it is to be begun though nothing lands.
    seam: Option<u64>,
    /// Where memory began when the copy was opened, if nobody had kept it in this pool before.
    unkept_to: Option<u64>,
    /// Bytes written that no sync covers, and since when there are some.
    unsynced_bytes: u64,
    unsynced_since_ns: u64,
    /// What the sync that is under way covers, or the one that failed was to cover.
    syncing: Option<Covered>,
    /// What the last sync covered, while the system does not say whether the file has its name.
    unnamed: Option<Covered>,
    /// When a full disk is tried again; 0: it is not known to be full.
    retry_at_ns: u64,
    cut_bytes: u64,
    /// Other copies of what the source landed.
    others: Others,
    /// What other copies have, or may have, from the log's beginning on is not in its files.
    lacks: bool,
    /// What may be missing, as far as is known.
    doubts: Doubts,
    /// Log index below which others have all, while it is filled up to there; else 0.
    owes: u64,
    /// Places where its files go on anew and something may be missing in front.
    seams: Vec<Seam>,
    /// Its line had more entries than its files when these were opened.
    is_older: bool,
    /// Behind the source's last entry that disks had when the topic came back. 0: it is not known.
    wanted: u64,
    /// What it has to have before its directory lacks nothing of its source any more.
    open_lack: Option<OpenLack>,
    /// Words of its directory on what it lacks that are not struck yet.
    holes: Vec<Hole>,
    /// Its files that were there at the start, but for the last one.
    row: Row,
}

/// A group on its way to the file, and where the replica stands once it is there.
struct Pending {
    group: Group,
    odometer: Odometer,
    /// Log index behind its last entry.
    tail: u64,
}

/// What a sync covers: how far everything was written when it began.
struct Covered {
    index: u64,
    ordinal: u64,
    tail: u64,
}

impl Replica {
    /// Opens the replica's files, verifies how they end, and begins its line with what is there.
    pub fn open(
        pool: &Pool,
        data: &Path,
        entry: &TopicEntry,
        duty: Duty,
        keeper: Keeper,
        others: &[PathBuf],
    ) -> Result<(Self, Vec<Event>), FileError> {
        let topic = TopicId(entry.id);
        let directory = topic_directory(data, entry.name(), entry.created_ns);
        let began = write_topic(pool, keeper.me, &directory, entry, others)?;
        let log = log_of(entry, duty.source);
        let template = template(pool, entry, duty, log, keeper);
        let (files, opened) = Files::open(&directory, template, keeper.file_bytes)?;
        let mut events: Vec<Event> = opened.faults(&files).into_iter().map(Event::Note).collect();
        let at = pool.copy_line(topic, duty.source, duty.replica, duty.stand_in);
        let before = pool.copy_state(at);
        let elsewhere = pool.durable_elsewhere(topic, duty.source, duty.replica, at);
        let oldest = pool.oldest(topic, log);
        // Where nothing followed of the source, the line went further than the files say.
        let had_none = before.entries == 0 && files.ordinal == 0 && duty.stand_in.is_some();
        let has_all = before.tail <= opened.covers || had_none;
        let followed = followed(&before, elsewhere, oldest);
        let covers = if has_all { opened.covers.max(followed) } else { opened.covers };
        let is_whole = opened.cut.is_none() && opened.damage.is_empty() && opened.aside.is_empty();
        let has = (is_whole && duty.stand_in.is_none()).then_some((opened.covers, files.ordinal));
        let covers = covers.max(began_at(began, duty, log, has));
        let resumes = before.incarnation != 0;
        let begin = match duty.stand_in {
            None => Begin::At { index: covers, anew: false },
            // Nothing leaves memory that the keepers have not got together.
            Some(_) => Begin::of(files.directory(), covers, elsewhere.max(oldest), resumes)?,
        };
        if duty.stand_in.is_some() && resumes && oldest > covers.max(elsewhere) {
            events.push(Event::Note(lacking(&directory, covers.max(elsewhere), oldest)));
        }
        let Begin::At { index: covers, anew } = begin else {
            return Err(begin.refusal(files.directory()));
        };
        if duty.stand_in.is_some() {
            say_part((&directory, others), entry, keeper.me, duty, covers)?;
        }
        let (row, said) = row_of(&files, (data, others), (entry, duty), keeper.file_bytes);
        let is_first = (before.incarnation == 0 || before.tail == TAIL_UNKNOWN) && elsewhere == 0;
        // Where a stand-in begins, or leaves something out, is in none of its files yet. Of what
        // lies before that its line says nothing.
        let is_bare = duty.stand_in.is_some() && files.current.is_none();
        let tail = if anew || is_bare { covers } else { opened.covers };
        let mut replica = Self {
            topic,
            duty,
            at,
            me: keeper.me,
            name: entry.name().to_owned(),
            created_ns: entry.created_ns,
            durability: entry.durability(),
            bounds: Bounds::of(entry),
            looked_ns: keeper.now_ns,
            ages: keep::Ages::default(),
            log,
            reader: LogReader::new(topic, log),
            next: covers,
            tail,
            odometer: Odometer::default(),
            line: ReplicaLine {
                durable: covers,
                written: covers,
                bytes: if before.bytes > 0 { before.bytes } else { opened.bytes },
                tail,
                topic: at.key,
                state: ReplicaState::Well.raw(),
                errno: 0,
                incarnation: keeper.incarnation,
                entries: files.ordinal,
            },
            shown: ReplicaLine::default(),
            row,
            files,
            pending: None,
            anew,
            seam: Some(covers).filter(|_| opened.is_beheaded && !anew),
            unkept_to: is_first.then_some(oldest),
            unsynced_bytes: 0,
            unsynced_since_ns: 0,
            syncing: None,
            unnamed: None,
            retry_at_ns: 0,
            others: Others::new(data, others, entry, duty.source),
            cut_bytes: opened.damaged_bytes(),
            owes: 0,
            lacks: false,
            doubts: Doubts::default(),
            seams: Vec::new(),
            is_older: false,
            wanted: if duty.stand_in.is_none() { pool.tail_on_disk(topic, duty.source) } else { 0 },
            open_lack: None,
            holes: Vec::new(),
        };
        events.extend(said.into_iter().map(|said| replica.told(said)));
        let frontier = pool.frontier(topic, log);
        if covers > frontier.entries {
            let text = format!(
                "its files reach log index {covers} and the log only {}: they are of another \
                 life of this topic; move {} away",
                frontier.entries,
                directory.display()
            );
            (replica.line.durable, replica.line.written) = (0, 0);
            events.push(replica.fail(EUCLEAN, &text));
        } else {
            events.extend(replica.repair(pool, &opened.damage)?);
            let wanted = Some(before.tail).filter(|tail| !has_all && *tail != TAIL_UNKNOWN);
            events.extend(wanted.map(|wanted| replica.older((wanted, opened.covers), &before)));
            events.extend(replica.short_of_disks(opened.covers));
            events.extend(replica.say_fewer(&directory, &before));
            // What another kept meanwhile is looked for first, in its files.
            replica.show_row();
            let is_new = is_first && replica.files.current.is_none() && opened.aside.is_empty();
            events.extend(replica.begin(pool, entry, (oldest, is_new)));
            events.extend(replica.look_for_lack(&directory));
            events.extend(replica.look_for_holes(pool, &directory));
            replica.odometer = Odometer::at(&frontier, replica.ahead(pool, &frontier));
            replica.owe(pool, oldest);
        }
        pool.start_copy(at, &replica.line);
        replica.shown = replica.line;
        Ok((replica, events))
    }

    /// Bytes of the log's batches from here to the frontier.
    fn ahead(&mut self, pool: &Pool, frontier: &FrontierLine) -> u64 {
        let entries = self.next.max(pool.oldest(self.topic, self.log))..frontier.entries;
        let bytes = entries.map(|index| match self.reader.entry(pool, index) {
            Found::Entry(entry) => u64::from(entry.bytes),
            Found::Lapped { .. } | Found::Gone => 0,
        });
        bytes.sum()
    }

    /// What the log has that can be written now, if there is something.
    fn ready(&self, pool: &Pool, now_ns: u64) -> Option<FrontierLine> {
        if self.state() == ReplicaState::Failed || now_ns < self.retry_at_ns {
            return None;
        }
        // A file is left once all of it is stable, and the disk may not fall behind for ever.
        let rolls = self.anew || self.files.is_full();
        if self.is_unsure() && (rolls || self.is_behind()) {
            return None;
        }
        let frontier = pool.frontier(self.topic, self.log);
        (self.next < frontier.entries || self.seam.is_some()).then_some(frontier)
    }

    /// Whether there is something to gather.
    pub fn is_ready(&self, pool: &Pool, now_ns: u64) -> bool {
        self.ready(pool, now_ns).is_some()
    }

    /// Whether as much is written and not synced as may be behind a sync that is under way.
    pub fn is_behind(&self) -> bool {
        self.unsynced_bytes
            >= match self.durability {
                Durability::Sync => GROUP_BYTES,
                Durability::Window => WINDOW_BYTES,
            }
    }

    /// Log index that is looked at next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Looks at what the log has and makes a group of what belongs here. Whether there is
    /// something to write; without a group, the line may have moved all the same.
    pub fn gather(
        &mut self,
        pool: &Pool,
        disk: &mut dyn Disk,
        buffers: &mut Buffers,
        now_ns: u64,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(frontier) = self.ready(pool, now_ns) else { return events };
        let lacks_below = self.count_lack();
        // Though nothing lands: whoever opens the files next has to know of the hole.
        if self.seam.is_some() && !self.roll(&frontier, disk, now_ns, &mut events) {
            return events;
        }
        let oldest = pool.oldest(self.topic, self.log);
        if self.next < oldest
            && let Filled::Not(next) =
                fill(None, &mut self.others, (self.next, self.wanted), oldest)
        {
            // Before a file is begun that would have nothing in it.
            return self.leave_hole(pool, next);
        }
        let Some(mut group) = self.begin_group(&frontier, disk, buffers, now_ns, &mut events)
        else {
            return events;
        };
        let mut odometer = self.odometer;
        let mut index = self.next;
        let stop = frontier.entries.min(index + ENTRIES_MAX).min(lacks_below);
        while index < stop && !group.is_full(GROUP_BYTES) {
            match self.reader.entry(pool, index) {
                Found::Entry(entry) => {
                    let is_mine = entry.broker == self.duty.source.raw();
                    if is_mine && entry.is_hole() {
                        group.add_hole(index, &entry, GapReason::Unwritten);
                    } else if is_mine && let Err(why) = group.add(pool, index, &entry) {
                        if pool.oldest(self.topic, self.log) > index {
                            // Retention passed it meanwhile: what is there now is another's.
                            break;
                        }
                        let (me, replica) = (self.me, self.to_string());
                        let spoilt = SpoiltBatch { pool, me, replica, why, index, entry };
                        let of = (self.topic, self.duty);
                        events.extend(spoilt.settle(of, &mut self.others, &mut group));
                    }
                    odometer.pass(&entry);
                    index += 1;
                }
                Found::Lapped { oldest } => {
                    match fill(Some(&mut group), &mut self.others, (index, self.wanted), oldest) {
                        Filled::To(next) => index = next,
                        Filled::Not(next) if group.is_empty() => {
                            buffers.give(group.into_buffer());
                            self.next = index;
                            events.extend(self.leave_hole(pool, next));
                            return events;
                        }
                        Filled::Not(_) => break,
                    }
                }
                Found::Gone => break,
            }
        }
        if group.is_empty() {
            buffers.give(group.into_buffer());
            self.next = index;
            self.odometer = odometer;
            self.line.written = index;
            if self.is_synced() {
                self.line.durable = index;
            }
            return events;
        }
        let tail = group.covers;
        group.finish(index, &frontier);
        self.pending = Some(Pending { group, odometer, tail });
        events
    }

    /// The group to be written, and the file.
    pub fn pending(&self) -> Option<(&Group, &File)> {
        Some((&self.pending.as_ref()?.group, &self.files.current.as_ref()?.file))
    }

    /// The group was written, or was not.
    pub fn wrote(
        &mut self,
        result: io::Result<()>,
        buffers: &mut Buffers,
        now_ns: u64,
    ) -> Option<Event> {
        let Pending { group, odometer, tail } = self.pending.take()?;
        let current = self.files.current.as_mut()?;
        match result {
            Ok(()) => {
                current.at = group.end;
                self.files.ordinal = group.ordinal;
                self.next = group.covers;
                self.tail = tail;
                self.odometer = odometer;
                self.line.written = group.covers;
                self.line.bytes += group.bytes;
                self.retry_at_ns = 0;
                if self.unsynced_bytes == 0 {
                    self.unsynced_since_ns = now_ns;
                }
                self.unsynced_bytes += group.file_bytes();
                buffers.give(group.into_buffer());
                None
            }
            Err(error) => {
                // What there is of the group is no record; the next try begins at the same place.
                let cut = current.file.set_len(current.at);
                let path = current.path.display().to_string();
                match (is_short(&error), cut) {
                    (true, Ok(())) => {
                        let text = format!("write {path}: {error}");
                        Some(self.full(errno_of(&error), &text, now_ns))
                    }
                    (true, Err(error)) => {
                        let errno = errno_of(&error);
                        Some(self.fail(errno, &format!("cut {path}: {error}")))
                    }
                    (false, _) => {
                        let errno = errno_of(&error);
                        Some(self.fail(errno, &format!("write {path}: {error}")))
                    }
                }
            }
        }
    }

    /// Whether what is written is to be synced now.
    pub fn is_due(&self, now_ns: u64) -> bool {
        let due = match self.durability {
            Durability::Sync => true,
            Durability::Window => {
                self.is_behind() || now_ns.saturating_sub(self.unsynced_since_ns) >= WINDOW_NS
            }
        };
        due && self.is_unsynced()
    }

    /// Whether something is written that no sync covers, and one may.
    pub fn is_unsynced(&self) -> bool {
        self.unsynced_bytes > 0 && self.state() != ReplicaState::Failed
    }

    /// Whether everything that is written is known to be stable.
    fn is_synced(&self) -> bool {
        self.unsynced_bytes == 0 && !self.is_unsure()
    }

    /// Whether something that a sync covers is not known to be stable yet.
    fn is_unsure(&self) -> bool {
        self.syncing.is_some() || self.unnamed.is_some()
    }

    /// The file to be synced: the sync covers what is written by now. `synced` says how it ended,
    /// before the next one begins.
    pub fn begin_sync(&mut self) -> Option<Arc<File>> {
        let file = self.files.current.as_ref()?.file.clone();
        self.unsynced_bytes = 0;
        let (index, ordinal, tail) = (self.line.written, self.files.ordinal, self.tail);
        self.syncing = Some(Covered { index, ordinal, tail });
        Some(file)
    }

    /// The file was synced, or was not. A sync that failed is not tried again: the system may
    /// have forgotten what it did not write, and the next sync would say that all is well.
    pub fn synced(&mut self, result: io::Result<()>) -> Option<Event> {
        if self.state() == ReplicaState::Failed {
            return None;
        }
        let event = self.look_for_file();
        if self.state() == ReplicaState::Failed {
            return event;
        }
        match result {
            Ok(()) => {
                let covered = self.syncing.take()?;
                if event.is_some() {
                    self.unnamed = Some(covered);
                } else {
                    self.is_durable(covered);
                }
                event
            }
            Err(error) => {
                let path = self.files.current.as_ref().map(|current| current.path.display());
                let path = path.map_or_else(String::new, |path| path.to_string());
                let errno = errno_of(&error);
                Some(self.fail(errno, &format!("fdatasync {path}: {error}")))
            }
        }
    }

    /// What a sync covered is stable, under a name that is there.
    fn is_durable(&mut self, covered: Covered) {
        self.line.durable = covered.index;
        self.line.entries = covered.ordinal;
        self.line.tail = covered.tail;
        if self.is_synced() {
            // Others' entries may have been passed meanwhile.
            self.line.durable = self.line.written;
            self.line.tail = self.tail;
        }
        // What was written meanwhile may have met a full disk.
        if self.retry_at_ns == 0 {
            self.is_well();
        }
    }

    /// The next file was not made. Nothing is in it that could be lost, so it is tried again
    /// whatever the system said; not where it is made, or somebody made it, or its directory is
    /// gone.
    fn file_failed(&mut self, error: &FileError, now_ns: u64) -> Event {
        use io::ErrorKind::{AlreadyExists, NotADirectory, NotFound};
        match error {
            FileError::Io { source, .. }
                if !matches!(source.kind(), AlreadyExists | NotADirectory | NotFound) =>
            {
                self.full(error.errno(), &error.to_string(), now_ns)
            }
            _ => self.fail(error.errno(), &error.to_string()),
        }
    }

    fn full(&mut self, errno: u32, text: &str, now_ns: u64) -> Event {
        self.retry_at_ns = now_ns + RETRY_NS;
        self.line.state = ReplicaState::Full.raw();
        self.line.errno = errno;
        let durable = self.line.durable;
        Event::Full(format!("{self}: {text}; it waits at log index {durable} and tries again"))
    }

    fn fail(&mut self, errno: u32, text: &str) -> Event {
        self.line.state = ReplicaState::Failed.raw();
        self.line.errno = errno;
        self.pending = None;
        let durable = self.line.durable;
        Event::Failed(format!(
            "{self}: {text}; it stopped at log index {durable}; mend the cause and start this \
             broker again"
        ))
    }

    pub fn state(&self) -> ReplicaState {
        self.line.state()
    }

    /// The log that it follows.
    pub fn log(&self) -> usize {
        self.log
    }

    /// How far it is behind its log.
    pub fn lag(&self, pool: &Pool) -> Lag {
        self.odometer.lag(self.line.durable, &pool.frontier(self.topic, self.log))
    }

    /// Bytes that did not hold when its files were opened.
    pub fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    pub fn line(&self) -> &ReplicaLine {
        &self.line
    }
}

fn errno_of(error: &io::Error) -> u32 {
    error.raw_os_error().unwrap_or_default().unsigned_abs()
}
