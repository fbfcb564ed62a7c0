//! Memory as hosts without common caches see it: each line is a list of versions.
//!
//! ```text
//! versions   0 ......... kept ......... latest      a snapshot of the line after each store
//! low[h]     oldest version that host h may still see; it only grows
//! kept       newest version that is in the memory for certain: it was written back and fenced,
//!            or another host has seen it
//! ```
//!
//! The host that wrote last sees the latest version. Every other host sees any version from its
//! `low` on: that one choice covers each eviction, prefetch and stale hit there could be. Nothing
//! else happens by itself.
//!
//! An invalidation counts from when it is made and not from the fence behind it: until the fence a
//! line that was dropped may be fetched again ahead of time, as old as the memory had it then.

use landfall_layout::limits::LINE_BYTES;

use crate::lines::{Line, Lines, NO_HOST, WORDS, Words};
use crate::{HOSTS_MAX, HostId};

/// What no protocol may do to such memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A host stored to a line of which another host's stores may still be in that one's cache.
    TwoWriters {
        /// Offset of the line.
        line: u64,
        /// The host with stores of its own.
        first: HostId,
        /// The host that stored.
        second: HostId,
    },
    /// A host wrote back an old copy of a line over another host's stores.
    LostUpdate {
        /// Offset of the line.
        line: u64,
        /// The host that wrote back.
        host: HostId,
        /// Words in which newer values were lost, one bit each.
        words: u8,
    },
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TwoWriters { line, first, second } => write!(
                f,
                "two writers of line {line:#x}: host {} stored while stores of host {} were not \
                 written back",
                second.0, first.0
            ),
            Self::LostUpdate { line, host, words } => write!(
                f,
                "lost update on line {line:#x}: host {} wrote an old copy back over newer words \
                 {words:#010b}",
                host.0
            ),
        }
    }
}

/// How a NIC's writes reach the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dma {
    /// Into the cache of the host it is plugged into (DDIO on).
    IntoCache,
    /// Past the caches (DDIO off); copies in its own host's cache are dropped.
    IntoMemory,
}

/// A line on its way from or to the memory, until a fence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moving {
    line: u32,
    version: u32,
    out: bool,
}

impl Moving {
    #[inline]
    pub(crate) fn is_out(self) -> bool {
        self.out
    }
}

/// The memory of one run. Versions are kept from run to run as allocations only.
pub struct World {
    lines: Lines,
    /// Lines where hardware keeps the hosts coherent, as offsets from..to.
    coherent: Option<(u64, u64)>,
}

/// What a look at a word found.
pub(crate) struct Shown {
    pub value: u64,
    pub stale: bool,
}

impl World {
    /// Empty memory: zeros everywhere.
    pub fn new() -> Self {
        Self { lines: Lines::new(), coherent: None }
    }

    /// Makes hardware keep the lines in `from..to` coherent between hosts (back-invalidation).
    pub fn keep_coherent(&mut self, from: u64, to: u64) {
        self.coherent = Some((from, to));
    }

    /// Forgets everything that was stored since the image was made.
    pub fn reset(&mut self) {
        self.lines.next_run();
    }

    /// Sets a word of the image that every run starts from.
    pub fn set_image(&mut self, at: u64, value: u64) {
        let (line, word) = place(at);
        self.lines.of(line).image[word] = value;
    }

    /// A word of the image.
    pub fn image(&self, at: u64) -> u64 {
        let (line, word) = place(at);
        self.lines.image(line, word)
    }

    fn is_coherent(&self, line: u64) -> bool {
        let at = line * LINE_BYTES;
        self.coherent.is_some_and(|(from, to)| (from..to).contains(&at))
    }

    /// Loads a word. `pick(n)` says which of n values is seen, 0 being the newest.
    #[inline]
    pub(crate) fn load(
        &mut self,
        host: HostId,
        at: u64,
        pick: impl FnOnce(usize) -> usize,
    ) -> Shown {
        let (number, word) = place(at);
        let coherent = self.coherent.is_some() && self.is_coherent(number);
        let line = self.lines.touch(number);
        let latest = line.latest();
        if line.writer == host.0 || coherent || line.low[host.index()] == latest {
            return Shown { value: line.versions[latest as usize][word], stale: false };
        }
        load_any(line, host, word, pick)
    }

    /// Stores a word.
    #[inline]
    pub(crate) fn store(&mut self, host: HostId, at: u64, value: u64) -> Result<(), Violation> {
        let (number, word) = place(at);
        let coherent = self.coherent.is_some() && self.is_coherent(number);
        let line = self.lines.touch(number);
        let latest = line.latest();
        let mut words = line.versions[latest as usize];
        if line.writer != host.0 {
            if coherent {
                line.low[host.index()] = latest;
            }
            words = change_writer(line, host)?;
        }
        line.stale &= !(1 << word);
        if words[word] == value && line.writer == host.0 && line.kept < latest && !coherent {
            // The line is dirty already and stays as it is: nobody could tell the two apart.
            return Ok(());
        }
        words[word] = value;
        line.versions.push(words);
        line.low[host.index()] = latest + 1;
        if coherent {
            line.kept = latest + 1;
            line.low = [latest + 1; HOSTS_MAX];
        }
        Ok(())
    }

    /// A NIC of `host` writes a word.
    pub(crate) fn dma(
        &mut self,
        host: HostId,
        how: Dma,
        at: u64,
        value: u64,
    ) -> Result<(), Violation> {
        // A NIC's write reads nothing from the cache of its host: it fetches the line anew, or
        // writes past the cache.
        let line = self.lines.touch(place(at).0);
        if line.writer != host.0 {
            line.low[host.index()] = line.low[host.index()].max(line.kept);
        }
        self.store(host, at, value)?;
        if how == Dma::IntoMemory {
            let line = self.lines.touch(place(at).0);
            line.kept = line.latest();
        }
        Ok(())
    }

    /// Starts to write a line back; `moving` is what the process has under way.
    #[inline]
    pub(crate) fn write_back(&mut self, host: HostId, at: u64, moving: &mut Vec<Moving>) {
        let line = self.lines.slot(place(at).0);
        let version = self.lines.at(line);
        if version.writer == host.0 && version.kept < version.latest() {
            let version = version.latest();
            moving.push(Moving { line, version, out: true });
        }
    }

    /// Starts to drop a host's copy of a line.
    #[inline]
    pub(crate) fn invalidate(&mut self, host: HostId, at: u64, moving: &mut Vec<Moving>) {
        let line = self.lines.slot(place(at).0);
        let version = self.lines.at(line);
        if version.writer != host.0 && version.low[host.index()] < version.kept {
            moving.push(Moving { line, version: version.kept, out: false });
        }
    }

    /// Waits for what is under way; for lines going out only, if `out_only`.
    #[inline]
    pub(crate) fn fence(
        &mut self,
        host: HostId,
        moving: &mut Vec<Moving>,
        out_only: bool,
    ) -> Result<(), Violation> {
        let mut lost = Ok(());
        moving.retain(|moved| {
            if out_only && !moved.out {
                return true;
            }
            let line = self.lines.at(moved.line);
            // What a crash took away is no longer there to arrive.
            let version = moved.version.min(line.latest());
            if moved.out {
                if line.stale != 0 && version == line.latest() {
                    let at = line.number * LINE_BYTES;
                    lost = Err(Violation::LostUpdate { line: at, host, words: line.stale });
                }
                line.kept = line.kept.max(version);
            } else {
                line.low[host.index()] = line.low[host.index()].max(version);
            }
            false
        });
        lost
    }

    /// A host loses its power: what only its cache had may be gone. Each line keeps one of the
    /// versions from `kept` on, and which is found out when it is next touched.
    pub(crate) fn lose_power(&mut self, host: HostId) {
        for line in self.lines.touched() {
            if line.writer == host.0 {
                line.lost = line.kept < line.latest();
                line.writer = NO_HOST;
            }
            line.low[host.index()] = line.low[host.index()].max(line.kept);
        }
    }

    /// Whether a power loss of `host` would change anything.
    pub(crate) fn has_unwritten(&mut self, host: HostId) -> bool {
        self.lines.touched().any(|line| line.writer == host.0 && line.kept < line.latest())
    }

    /// How many versions of a line that lost its writer there may be, one of which is in memory.
    #[inline]
    pub(crate) fn lost_versions(&mut self, at: u64) -> usize {
        let line = self.lines.touch(place(at).0);
        if line.lost { (line.latest() - line.kept + 1) as usize } else { 1 }
    }

    /// Settles which version of such a line is in the memory: the `age`th, 0 being the newest.
    pub(crate) fn settle(&mut self, at: u64, age: usize) {
        let line = self.lines.touch(place(at).0);
        let version = line.latest() - age as u32;
        line.versions.truncate(version as usize + 1);
        line.kept = version;
        line.low = line.low.map(|low| low.min(version));
        line.lost = false;
        line.stale = 0;
    }

    /// Notes that a process uses a line; the processes with which it has to agree about that.
    pub(crate) fn note(&mut self, at: u64, process: u16, stores: bool) -> u16 {
        let [users, writers] = &mut self.lines.touch(place(at).0).users;
        *users |= process;
        if stores {
            *writers |= process;
            return *users;
        }
        *writers
    }

    /// What a host may see of a line, for messages: its low, kept and latest version.
    pub(crate) fn interval(&mut self, host: HostId, at: u64) -> [u32; 3] {
        let line = self.lines.touch(place(at).0);
        [line.low[host.index()], line.kept, line.latest()]
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// Number of the line and of the word in it.
#[inline]
fn place(at: u64) -> (u64, usize) {
    debug_assert!(at.is_multiple_of(8), "word offset {at}");
    (at / LINE_BYTES, (at / 8 % WORDS as u64) as usize)
}

/// A load where more than one version may be seen.
fn load_any(
    line: &mut Line,
    host: HostId,
    word: usize,
    pick: impl FnOnce(usize) -> usize,
) -> Shown {
    let low = line.low[host.index()];
    let latest = line.latest();
    // Of versions with the same value the oldest stands for all: whatever may follow the others
    // may follow it too. Found from the newest on.
    let mut oldest = [0_u32; CHOICES_MAX];
    let mut count = 0;
    for version in (low..=latest).rev() {
        let value = line.versions[version as usize][word];
        let known =
            oldest[..count].iter().position(|other| line.versions[*other as usize][word] == value);
        match known {
            Some(i) => oldest[i] = version,
            None => {
                assert!(count < CHOICES_MAX, "a word with over {CHOICES_MAX} values to see");
                oldest[count] = version;
                count += 1;
            }
        }
    }
    let choice = if count == 1 { 0 } else { pick(count) };
    let version = oldest[choice];
    line.low[host.index()] = version;
    // What another host sees has been evicted into the memory.
    line.kept = line.kept.max(version);
    Shown { value: line.versions[version as usize][word], stale: choice > 0 }
}

/// Different values of one word that a load may choose from.
const CHOICES_MAX: usize = 64;

/// `host` stores to a line that it did not write last: from its own copy, however old that is.
fn change_writer(line: &mut Line, host: HostId) -> Result<Words, Violation> {
    let latest = line.latest();
    if line.writer != NO_HOST && line.kept < latest {
        return Err(Violation::TwoWriters {
            line: line.number * LINE_BYTES,
            first: HostId(line.writer),
            second: host,
        });
    }
    line.writer = host.0;
    let copy = line.versions[line.low[host.index()] as usize];
    let newest = &line.versions[latest as usize];
    line.stale = 0;
    for word in 0..WORDS {
        if copy[word] != newest[word] {
            line.stale |= 1 << word;
        }
    }
    Ok(copy)
}
