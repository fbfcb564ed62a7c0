//! Counters and distinct errors in the pool, for whoever looks, even when the process is stuck.

use std::borrow::Cow;
use std::ops::Range;

use landfall_layout::counters::{Counter, ErrorEntry, Stage, bucket};
use landfall_layout::geometry::CONTROL_BLOCK;
use landfall_layout::limits::ERRORS_MAX;

use crate::map::uncounted;
use crate::memory::Memory;
use crate::pool::Pool;

/// A process's counters. Plain adds to its own words: nobody else writes them.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    at: u64,
}

impl Counters {
    /// The counters of block `block`: a broker's number, or control's.
    pub fn new(pool: &Pool, block: usize) -> Self {
        Self { at: pool.geometry().counters(block) }
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(&self, pool: &Pool, counter: Counter, amount: u64) {
        self.add_at(pool, counter as usize, amount);
    }

    /// Sets a counter that is a level, such as batches held.
    #[inline]
    pub fn set(&self, pool: &Pool, counter: Counter, value: u64) {
        uncounted(|| pool.store(self.at + 8 * counter as u64, value));
    }

    /// Raises a counter that is the greatest of some values.
    #[inline]
    pub fn raise(&self, pool: &Pool, counter: Counter, value: u64) {
        if value > self.get(pool, counter) {
            self.set(pool, counter, value);
        }
    }

    /// A counter's value.
    #[inline]
    pub fn get(&self, pool: &Pool, counter: Counter) -> u64 {
        pool.load_relaxed(self.at + 8 * counter as u64)
    }

    /// Adds a latency to a stage's histogram.
    #[inline]
    pub fn latency(&self, pool: &Pool, stage: Stage, ns: u64) {
        let first = stage.first_counter();
        self.add_at(pool, first, 1);
        self.add_at(pool, first + 1, ns);
        self.add_at(pool, first + 2 + bucket(ns), 1);
    }

    /// Word `index` of the block.
    pub fn word(&self, pool: &Pool, index: usize) -> u64 {
        pool.load_relaxed(self.at + 8 * index as u64)
    }

    #[inline]
    fn add_at(&self, pool: &Pool, index: usize, amount: u64) {
        let at = self.at + 8 * index as u64;
        uncounted(|| pool.store(at, pool.load_relaxed(at).wrapping_add(amount)));
    }
}

/// Entries at the end that are for what clients cause: as many as somebody likes.
const OF_CLIENTS: usize = ERRORS_MAX / 4;
/// Those for the rest.
const OF_SYSTEM: Range<usize> = 0..ERRORS_MAX - OF_CLIENTS;

/// A process's distinct errors, and what else it has to say.
#[derive(Clone, Copy, Debug)]
pub struct ErrorLog {
    at: u64,
}

impl ErrorLog {
    /// The errors of block `block`: a broker's number, or control's.
    pub fn new(pool: &Pool, block: usize) -> Self {
        Self { at: pool.geometry().errors(block) }
    }

    /// Notes an error: the same sentence again only counts. When there is no room for another
    /// sentence, the one not seen for longest makes place. One that is longer than an entry takes
    /// two: it ends with what to do.
    pub fn note(&self, pool: &Pool, now_ns: u64, text: &str) {
        parts(text).iter().for_each(|part| self.keep(pool, now_ns, part, 0, OF_SYSTEM));
    }

    /// The same of what a client caused: it makes place for nothing but its like.
    pub fn note_client(&self, pool: &Pool, now_ns: u64, text: &str) {
        let room = OF_SYSTEM.end..ERRORS_MAX;
        parts(text).iter().for_each(|part| self.keep(pool, now_ns, part, 0, room.clone()));
    }

    /// The same of what is as it should be: a note among errors that is none.
    pub fn tell(&self, pool: &Pool, now_ns: u64, text: &str) {
        let note = ErrorEntry::NOTE;
        parts(text).iter().for_each(|part| self.keep(pool, now_ns, part, note, OF_SYSTEM));
    }

    fn keep(&self, pool: &Pool, now_ns: u64, text: &str, level: u32, room: Range<usize>) {
        let entries: Vec<ErrorEntry> = self.entries(pool);
        let is_same = |i: &usize| {
            let entry = &entries[*i];
            entry.count > 0 && (entry.text(), entry.level) == (text, level)
        };
        let same = room.clone().find(is_same);
        let place = same.unwrap_or_else(|| {
            let unused = room.clone().find(|i| entries[*i].count == 0);
            // Notes make place for errors, and never the other way round.
            let by_age = |i: &usize| (!entries[*i].is_note(), entries[*i].last_ns);
            unused.or_else(|| room.min_by_key(by_age)).unwrap_or_default()
        });
        let at = self.at + place as u64 * ErrorEntry::BYTES;
        if same.is_some() {
            pool.store(at + 16, now_ns);
            pool.store_release(at, entries[place].count + 1);
        } else {
            let mut entry = ErrorEntry {
                count: 1,
                first_ns: now_ns,
                last_ns: now_ns,
                text_bytes: text.len() as u32,
                level,
                text: [0; 224],
            };
            entry.text[..text.len()].copy_from_slice(text.as_bytes());
            pool.store_release(at, 0);
            pool.store_words(at + 8, &entry.to_words()[1..]);
            pool.store_release(at, 1);
        }
        pool.publish(at, ErrorEntry::BYTES);
    }

    /// Control's sentences of the leader before this one, so that they outlive it. Who was deposed
    /// may be writing one of them: only that one can be torn.
    pub fn take_over(&self, pool: &Pool, from: usize) {
        let source = Self { at: pool.geometry_of(from).errors(CONTROL_BLOCK) };
        for (number, entry) in source.entries(pool).iter().enumerate() {
            let at = self.at + number as u64 * ErrorEntry::BYTES;
            // Nothing is decided by what is read here.
            uncounted(|| {
                pool.store_release(at, 0);
                pool.store_words(at + 8, &entry.to_words()[1..]);
                pool.store_release(at, entry.count);
            });
            pool.publish(at, ErrorEntry::BYTES);
        }
    }

    /// All entries, unused ones with a count of 0.
    pub fn entries(&self, pool: &Pool) -> Vec<ErrorEntry> {
        (0..ERRORS_MAX as u64)
            .map(|i| {
                let at = self.at + i * ErrorEntry::BYTES;
                pool.refresh(at, ErrorEntry::BYTES);
                ErrorEntry::from_words(pool.load_words(at))
            })
            .collect()
    }
}

/// What says that a sentence goes on in another entry, and that it began in one.
const CUT: &str = " ...";
const REST: &str = "... ";
/// Bytes of the longest sentence that is kept whole.
const TEXT_BYTES: usize = size_of::<ErrorEntry>() - std::mem::offset_of!(ErrorEntry, text);

/// The sentence, or its beginning and its rest. Of one that is too long for two entries the middle
/// is in neither.
fn parts(text: &str) -> Vec<Cow<'_, str>> {
    if text.len() <= TEXT_BYTES {
        return vec![text.into()];
    }
    let mut end = TEXT_BYTES - CUT.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Between words, but for one that is very long.
    let word = text[..end].rfind(' ').filter(|at| *at > end / 2);
    let end = word.unwrap_or(end);
    let mut start = end.max(text.len() - (TEXT_BYTES - REST.len()));
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let rest = text[start..].trim_start();
    vec![format!("{}{CUT}", &text[..end]).into(), format!("{REST}{rest}").into()]
}
