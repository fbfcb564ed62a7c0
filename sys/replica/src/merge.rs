//! The replicas of all brokers of a topic, put together again in the order of the log.
//!
//! Each broker's batches are in files of their own, and there may be several copies of them. A
//! copy is read as long as it has everything; what it lacks is looked for in the others.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::frame::GapReason;
use landfall_layout::replica::{Body, NO_FILE, Record, ReplicaHeader};

use crate::ask::{Silent, ask, ask_all};
use crate::choice::{Choice, choose};
use crate::copy::{CopyReader, Says};
use crate::landed::Landed;
use crate::lives::{Begins, Row, Skips};
use crate::names::{data_of, is_directory, list_source, source_directory, topic_directory};
use crate::topic::TopicFile;
use crate::unheard::Unheard;
use crate::walk::Walk;
use crate::{away, short};

/// Which replicas are to be read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Data directories that can be read here.
    pub data: Vec<PathBuf>,
    /// The topic's name.
    pub name: String,
    /// When it was created.
    pub created_ns: u64,
    /// Brokers whose batches are in the log.
    pub sources: Vec<BrokerId>,
    /// Other brokers' too, where there are files of theirs: they landed in another life of the pool
    /// and have not landed since.
    pub is_shared: bool,
    /// Brokers that stood in for a home of the topic's copies, as its pool says. None: nobody asked
    /// it, and each may have.
    pub stood_in: Option<Vec<BrokerId>>,
}

impl Wanted {
    /// What a log passed over when pools were lost, as the topic's directories say, and which of
    /// them the system did not let say it.
    pub fn skips(&self, log: usize) -> (Skips, Vec<Unheard>) {
        let (mut skips, mut unread) = (Skips::default(), Vec::new());
        let said = ask_all(self.data.iter().map(|data| {
            let topic = topic_directory(data, &self.name, self.created_ns);
            (data, move || short::during(|| TopicFile::read(&topic)))
        }));
        for (data, said) in self.data.iter().zip(said) {
            let Ok((file, refused)) = said else { continue };
            unread.extend(refused.map(|refused| Unheard::whole(data, refused)));
            file.iter().for_each(|file| skips.join(&file.skips_of(log)));
        }
        (skips, unread)
    }

    /// Log index below which bounds may have let go of files, see [`Begins`]. A copy's last file
    /// counts by where it begins: who asks knows before whether copies have what it asks about.
    pub fn retired_below(&self) -> u64 {
        let first = |copy: CopyReader| {
            let directory = copy.directory().to_owned();
            let first = ask(data_of(copy.directory()), move || first_header(&directory));
            Some((copy, first.ok()??))
        };
        let firsts: Vec<_> = self.copies().into_iter().filter_map(first).collect();
        let mut begins = Begins::default();
        for (copy, header) in &firsts {
            let others = firsts.iter().filter(|(other, _)| other.source() == copy.source());
            let cuts = others.map(|(_, header)| Row::first(header, u64::MAX));
            let cuts = cuts.filter(|row| row.is_cut);
            let cut = cuts.map(|row| row.start).max().unwrap_or_default();
            if header.first_index >= cut {
                begins.add(copy.source(), Row::first(header, u64::MAX));
                continue;
            }
            let directory = copy.directory().to_owned();
            let row = ask(data_of(copy.directory()), move || row_beyond(&directory, cut));
            if let Ok(Some(row)) = row {
                begins.add(copy.source(), row);
            }
        }
        begins.retired_below()
    }

    /// A reader for each copy that may be there, those of one broker beside each other. Directories
    /// that do not answer, or are refused, have none.
    pub fn copies(&self) -> Vec<CopyReader> {
        self.look().0
    }

    /// The same, and which directories those are.
    pub(crate) fn look(&self) -> (Vec<CopyReader>, Vec<Unheard>) {
        self.look_in(&self.data)
    }

    /// The same in these data directories.
    fn look_in(&self, data: &[PathBuf]) -> (Vec<CopyReader>, Vec<Unheard>) {
        let is_wanted = |source: &BrokerId| self.is_shared || self.sources.contains(source);
        let looks = data.iter().map(|data| {
            let topic = topic_directory(data, &self.name, self.created_ns);
            let of = |source| (source, source_directory(&topic, source));
            let all: Vec<_> = BrokerId::all().filter(is_wanted).map(of).collect();
            let path = data.clone();
            let there = move || {
                let (there, refused) = short::during(|| {
                    away::note(&path);
                    let is_there = |(_, path): &(_, PathBuf)| is_directory(path).unwrap_or(false);
                    all.into_iter().filter(is_there).collect()
                });
                // The whole of it is looked at again.
                refused.map_or(Ok(there), |refused| Err(Silent { path, ..refused }))
            };
            (data, there)
        });
        type There = Vec<(BrokerId, PathBuf)>;
        let found: Vec<Result<Result<There, Silent>, Silent>> = ask_all(looks);
        let (mut copies, mut unheard) = (Vec::new(), Vec::new());
        let reader = |(source, path)| CopyReader::new(source, self.created_ns, path);
        for (data, there) in data.iter().zip(found) {
            match there.and_then(|there| there) {
                Ok(there) => copies.extend(there.into_iter().map(reader)),
                Err(silent) => unheard.push(Unheard::whole(data, silent)),
            }
        }
        copies.sort_by_key(CopyReader::source);
        (copies, unheard)
    }
}

/// What the first file of a copy says whose header can be read.
pub(crate) fn first_header(source: &Path) -> Option<ReplicaHeader> {
    let files = list_source(source, &mut Vec::new()).ok()?;
    files.iter().find_map(|(_, path)| Some(*Walk::open(path).ok()?.header()))
}

/// The first row of a copy that has files at or behind log index `cut`.
fn row_beyond(source: &Path, cut: u64) -> Option<Row> {
    let files = list_source(source, &mut Vec::new()).ok()?;
    let header = |(_, path): &(u64, PathBuf)| Some(*Walk::open(path).ok()?.header());
    let (before, behind) = files.split_at(files.partition_point(|(first, _)| *first < cut));
    let mut oldest = behind.iter().find_map(header)?;
    for header in before.iter().rev().filter_map(header) {
        if oldest.previous_index == NO_FILE {
            break;
        }
        oldest = header;
    }
    Some(Row::later(&oldest, u64::MAX))
}

/// A batch or hole that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Picked {
    copy: usize,
    /// Its log index.
    pub index: u64,
}

/// A copy in a data directory.
struct Copy {
    source: BrokerId,
    directory: PathBuf,
    /// None: its directory did not answer when it was asked last.
    reader: Option<CopyReader>,
    /// What was not read since the last look: the reader has passed over what may be there.
    refused: Option<Silent>,
}

impl Copy {
    fn of(reader: CopyReader, names_lost: bool) -> Self {
        let (source, directory) = (reader.source(), reader.directory().to_owned());
        let reader = if names_lost { reader.naming_lost() } else { reader };
        Self { source, directory, reader: Some(reader), refused: None }
    }

    /// The same copy, read from its beginning.
    fn anew(&self, (created_ns, names_lost): (u64, bool)) -> Self {
        let reader = CopyReader::new(self.source, created_ns, self.directory.clone());
        Self::of(reader, names_lost)
    }

    /// Goes to the first batch or hole at or above `want`, in its directory's thread. The reader is
    /// that thread's until it comes back.
    fn seek(&mut self, want: u64, until: u64, faults: &mut Vec<String>) -> Option<Says> {
        if let Some(says) = self.reader.as_ref()?.known(want) {
            return Some(says);
        }
        let mut reader = self.reader.take()?;
        let data = data_of(&self.directory);
        let path = data.to_owned();
        let (asked, refused) = short::during(|| {
            ask(data, move || {
                let mut faults = Vec::new();
                let says = reader.seek(want, until, &mut faults);
                if says.next.is_none() || says.known_from > want {
                    away::note(&path);
                }
                (reader, says, faults)
            })
        });
        self.refused = self.refused.take().or(refused);
        let (reader, says, found) = asked.ok()?;
        self.reader = Some(reader);
        faults.extend(found);
        Some(says)
    }
}

/// A log read from replicas. It goes forward; for what lies behind it, files are opened anew.
pub struct Merge {
    wanted: Wanted,
    /// Log index that was asked for last: readers have passed over what lies before it.
    asked: u64,
    sources: Vec<BrokerId>,
    copies: Vec<Copy>,
    /// Directories that did not say yet what they have.
    unheard: Vec<Unheard>,
    /// See [`Merge::naming_lost`].
    names_lost: bool,
    /// For each copy: it is the one of its broker that is read first.
    is_first: Vec<bool>,
    says: Vec<Says>,
    said_by: Vec<usize>,
    torn: Option<u64>,
    /// Brokers of which something may be missing before what was found last.
    open: Vec<BrokerId>,
    /// Broker of what was found last, where its batch does not hold.
    spoilt: Option<BrokerId>,
    /// Who keeps what, by those who answered when it was asked first since the last look.
    landed: OnceCell<Landed>,
    /// It was looked which copies there are since the last look.
    has_looked: bool,
}

impl Merge {
    /// Begins to read, for who shows what is there: see [`CopyReader::naming_lost`].
    pub fn naming_lost(wanted: &Wanted) -> Self {
        Self::of(wanted, true)
    }

    /// Begins to read.
    pub fn new(wanted: &Wanted) -> Self {
        Self::of(wanted, false)
    }

    fn of(wanted: &Wanted, names_lost: bool) -> Self {
        let (copies, unheard) = wanted.look();
        let mut merge = Self {
            wanted: wanted.clone(),
            asked: 0,
            sources: wanted.sources.clone(),
            copies: Vec::new(),
            unheard,
            names_lost,
            is_first: Vec::new(),
            says: Vec::with_capacity(copies.len()),
            said_by: Vec::with_capacity(copies.len()),
            torn: None,
            open: BrokerId::all().collect(),
            spoilt: None,
            landed: OnceCell::new(),
            has_looked: true,
        };
        merge.add(copies);
        merge
    }

    /// Reads these copies too, but for those that are read.
    fn add(&mut self, copies: Vec<CopyReader>) {
        let is_new =
            |reader: &CopyReader| self.copies.iter().all(|it| it.directory != reader.directory());
        let new: Vec<CopyReader> = copies.into_iter().filter(is_new).collect();
        self.copies.extend(new.into_iter().map(|reader| Copy::of(reader, self.names_lost)));
        self.copies.sort_by_key(|copy| copy.source);
        self.sources.extend(self.copies.iter().map(|copy| copy.source));
        self.sources.sort_unstable();
        self.sources.dedup();
        let is_new = |i: usize| i == 0 || self.copies[i - 1].source != self.copies[i].source;
        self.is_first = (0..self.copies.len()).map(is_new).collect();
    }

    /// Whether there is a replica to read.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// A directory that does not answer, or what could not be read since the last look, where what
    /// was not found before what was found last, or in its place, may be.
    pub fn silent(&self) -> Option<Silent> {
        self.silent_or(&[])
    }

    /// The same, or one of `others` of which that is true.
    pub fn silent_or(&self, others: &[Unheard]) -> Option<Silent> {
        let of = |copy: &Copy| match copy.reader {
            None => Some(Silent::new(data_of(&copy.directory).to_owned())),
            Some(_) => copy.refused.clone(),
        };
        let of = |copy| of(copy).filter(|_| self.is_open(copy.source));
        let whole = |all: &[Unheard]| {
            let mut all = all.iter().filter(|it| self.may_be_in(it, |source| self.is_open(source)));
            all.next().map(|it| it.silent.clone())
        };
        let silent = whole(&self.unheard).or_else(|| self.copies.iter().find_map(of));
        silent.or_else(|| whole(others))
    }

    /// Whether something of a broker may be missing before what was found last, or in its place.
    fn is_open(&self, source: BrokerId) -> bool {
        self.open.contains(&source) || self.spoilt == Some(source) || self.is_alone(source)
    }

    /// Whether a broker may have landed something of which nobody who answers has any file.
    fn is_alone(&self, source: BrokerId) -> bool {
        let is_wanted = self.wanted.is_shared && !self.sources.contains(&source);
        is_wanted && !self.landed().has_nothing_of(source)
    }

    /// Whether a data directory may have some of what those landed of whom `is_asked` says yes.
    fn may_be_in(&self, it: &Unheard, is_asked: impl Fn(BrokerId) -> bool) -> bool {
        let mut all = BrokerId::all();
        all.any(|source| is_asked(source) && self.landed().may_be_in(&it.data, source))
    }

    fn landed(&self) -> &Landed {
        self.landed.get_or_init(|| Landed::look(&self.wanted))
    }

    /// Whether what was found last is a batch that does not hold.
    pub fn is_spoilt(&self) -> bool {
        self.spoilt.is_some()
    }

    /// Who stood in for a home meanwhile, see [`Wanted::stood_in`].
    pub fn hear_of(&mut self, stood_in: &[BrokerId]) {
        self.wanted.stood_in = Some(stood_in.to_vec());
        self.landed.take();
    }

    /// The files may have grown since the last look, and directories may answer again.
    pub fn look_again(&mut self) {
        self.landed.take();
        self.has_looked = false;
        let how = (self.wanted.created_ns, self.names_lost);
        for copy in &mut self.copies {
            if copy.refused.is_some() || copy.reader.is_none() {
                *copy = copy.anew(how);
            }
            copy.reader.iter_mut().for_each(CopyReader::look_again);
        }
        let unheard = std::mem::take(&mut self.unheard);
        if !unheard.is_empty() {
            let unheard: Vec<PathBuf> = unheard.into_iter().map(|it| it.data).collect();
            let (copies, unheard) = self.wanted.look_in(&unheard);
            self.unheard = unheard;
            self.add(copies);
        }
    }

    /// The next batch or hole from log index `want` on and below `until`, all of which was written
    /// before this was asked. The second value says whether what lies in between, or up to `until`,
    /// is known to be nowhere. What does not hold is named in `faults`. Who could not keep what was
    /// found, as on a full disk, asks for it again: a lower index than the last time costs a look
    /// through each file that it is in, from its beginning.
    pub fn next(
        &mut self,
        want: u64,
        until: u64,
        faults: &mut Vec<String>,
    ) -> (Option<Picked>, bool) {
        if want < self.asked {
            self.go_back();
        }
        self.asked = want;
        let mut choice = self.choose(want, until, faults);
        let found = choice.next.filter(|(_, index)| *index == want);
        let is_whole = found.is_some_and(|(i, _)| !self.says[i].is_lost);
        // What is missing may be in a copy that was begun since. In a log that brokers share, also
        // where all that are known say that there is nothing.
        let is_sure = choice.open.is_empty() && found.is_none() && !self.wanted.is_shared;
        if !is_whole && !is_sure && self.finds_more(want) {
            choice = self.choose(want, until, faults);
        }
        self.torn = choice.torn;
        let is_next = choice.next.is_some_and(|(_, index)| index == want);
        let picked = choice.next.map(|(i, index)| Picked { copy: self.said_by[i], index });
        if let Some(picked) = picked {
            self.prefer(picked.copy);
        }
        let is_known = choice.open.is_empty();
        self.open = choice.open;
        self.spoilt = picked.and_then(|picked| self.spoilt_in(picked));
        let is_alone = |it: &Unheard| self.may_be_in(it, |source| self.is_alone(source));
        (picked, is_known && (is_next || !self.unheard.iter().any(is_alone)))
    }

    /// Looks, once between two looks, which copies there are, and anew into those that left
    /// something out from `want` on: what a copy lacks is written into it where another one has it.
    /// Whether there may be more than before.
    fn finds_more(&mut self, want: u64) -> bool {
        if std::mem::replace(&mut self.has_looked, true) {
            return false;
        }
        let how = (self.wanted.created_ns, self.names_lost);
        let before = self.copies.len();
        let lacks = |says: &Says| says.is_lost || says.known_from > want;
        let lacking = self.says.iter().zip(&self.said_by).filter(|(says, _)| lacks(says));
        let lacking: Vec<usize> = lacking.map(|(_, at)| *at).collect();
        for at in &lacking {
            let copy = &mut self.copies[*at];
            *copy = Copy { refused: copy.refused.take(), ..copy.anew(how) };
        }
        let (copies, unheard) = self.wanted.look();
        self.unheard = unheard;
        self.add(copies);
        !lacking.is_empty() || self.copies.len() > before
    }

    /// Asks each broker's copies.
    fn choose(&mut self, want: u64, until: u64, faults: &mut Vec<String>) -> Choice {
        self.says.clear();
        self.said_by.clear();
        let mut start = 0;
        while start < self.copies.len() {
            let source = self.copies[start].source;
            let rest = self.copies[start..].iter();
            let end = start + rest.take_while(|copy| copy.source == source).count();
            self.ask(start..end, want, until, faults);
            start = end;
        }
        choose(want, until, &self.says, &self.sources)
    }

    /// Reads from the beginning whatever answers; what does not is asked at the next look.
    fn go_back(&mut self) {
        let how = (self.wanted.created_ns, self.names_lost);
        for copy in self.copies.iter_mut().filter(|copy| copy.reader.is_some()) {
            *copy = Copy { refused: copy.refused.take(), ..copy.anew(how) };
        }
    }

    /// Broker of a batch that does not hold.
    fn spoilt_in(&self, picked: Picked) -> Option<BrokerId> {
        let Body::Hole { reason, .. } = self.record(picked)?.body else { return None };
        let is_spoilt = matches!(reason, GapReason::Corrupt | GapReason::Lost);
        is_spoilt.then(|| self.copies[picked.copy].source)
    }

    /// Asks the copies of one broker, up to the first that left nothing out.
    fn ask(
        &mut self,
        copies: std::ops::Range<usize>,
        want: u64,
        until: u64,
        faults: &mut Vec<String>,
    ) {
        let first = copies.clone().find(|i| self.is_first[*i]).unwrap_or(copies.start);
        let others = copies.filter(|i| *i != first);
        for i in std::iter::once(first).chain(others) {
            let Some(says) = self.copies[i].seek(want, until, faults) else { continue };
            self.says.push(says);
            self.said_by.push(i);
            if says.known_from <= want && says.next.is_some() && !says.is_lost {
                return;
            }
        }
    }

    fn prefer(&mut self, copy: usize) {
        if self.is_first[copy] {
            return;
        }
        let source = self.copies[copy].source;
        for (i, other) in self.copies.iter().enumerate() {
            if other.source == source {
                self.is_first[i] = i == copy;
            }
        }
    }

    /// Where what a copy had and lost begins, see [`Choice::torn`], of what lay before what was
    /// found last.
    pub fn torn(&self) -> Option<u64> {
        self.torn
    }

    /// The batch or hole that was found last.
    pub fn record(&self, picked: Picked) -> Option<Record<'_>> {
        self.copies.get(picked.copy)?.reader.as_ref()?.record()
    }
}
