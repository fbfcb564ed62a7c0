//! Who leads, and how the next leader takes over from one that may still be running.
//!
//! Nothing a leader writes is written by anybody else: each has a slot of its own, with all the
//! tables that control writes. A control takes over in four steps.
//!
//! 1. *Claim*: it writes a higher epoch into the line of a slot whose last leader is gone, and
//!    only then reads anything.
//! 2. *Copy*: it copies the tables of the leader that serves into its own.
//! 3. *Seal*: each sequenced log ends where the old leader said that it had written to, and goes
//!    on in a segment of its own.
//! 4. *Serve*: one word makes its tables the ones that everybody follows.
//!
//! A leader shows nothing to anyone before it has looked for a higher epoch once more: it writes,
//! lets a fence pass, looks, and only then moves a frontier or puts a command into a ring
//! ([`Pool::leads`]). Together with step 1 this is Dekker's algorithm: either the old leader sees
//! the new epoch and shows nothing, or the new one sees what was written. What an old leader that
//! was stopped in between shows later is therefore part of what was copied and sealed, and it shows
//! it in its own slot, where nobody looks any more.

use landfall_layout::TopicId;
use landfall_layout::limits::{LEADERS_MAX, LINE_BYTES, SEQUENCED_LOG, TOPICS_MAX};
use landfall_layout::order::FrontierLine;
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::topic::TopicEntry;

use crate::lines::store_keyed;
use crate::log::{Found, LogReader};
use crate::memory::Memory;
use crate::pool::Pool;

/// Words copied between two flushes of what was copied.
const COPIED_AT_ONCE: u64 = 4096;

/// Looks at a line that a leader may still move. Who was deposed moves it once more at most, by two
/// words before it looks for a higher epoch and by four after.
const COPIES_MAX: u32 = 16;

/// A log that cannot be sealed where its leader said that it had written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsealable {
    /// The entry that is not there.
    pub index: u64,
    /// Entries that the old leader said it had written.
    pub written: u64,
}

impl std::fmt::Display for Unsealable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { index, written } = self;
        write!(f, "entry {index} is not there, although entries below {written} were written")
    }
}

impl std::error::Error for Unsealable {}

/// A leader slot whose line says what nobody can have stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedTerm {
    /// The slot.
    pub slot: usize,
    /// Offset of its line.
    pub at: u64,
    /// The line's first word.
    pub word: u64,
}

impl std::fmt::Display for DamagedTerm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { slot, at, word } = self;
        write!(
            f,
            "the line of leader slot {slot} (byte {at:#x}) is damaged: its word {word:#018x} is no \
             term, so that nobody knows which tables are the latest. Nothing is read from them and \
             nothing is removed. landfall verify says what else is damaged; to go on, stop \
             everything, keep a copy of the pool, remove it, and start control on a new one with \
             --restore"
        )
    }
}

impl std::error::Error for DamagedTerm {}

/// A leader among those whose lines begin at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderPlace {
    /// Offset of the line of the leader in slot 0.
    pub lines_at: u64,
    /// Its slot.
    pub slot: usize,
}

impl LeaderPlace {
    /// Whether nobody has claimed an epoch above its own.
    pub fn leads(&self, memory: &impl Memory) -> bool {
        let terms = terms(memory, self.lines_at).map(Option::unwrap_or_default);
        let own = terms.get(self.slot).map_or(0, |term| term.epoch);
        terms.iter().all(|term| term.epoch <= own)
    }
}

/// What each leader's line says; `None` where it does not hold.
fn terms(memory: &impl Memory, lines_at: u64) -> [Option<Term>; LEADERS_MAX] {
    memory.refresh(lines_at, LEADERS_MAX as u64 * LINE_BYTES);
    // EDGE term, acquire half. Pairs with `claim` and `serve`: whoever sees that a leader
    // serves sees its tables.
    std::array::from_fn(|slot| Term::unpack(memory.load(lines_at + slot as u64 * LINE_BYTES)))
}

impl<M: Memory> Pool<M> {
    /// The line of the leader that has or had a slot.
    pub fn leader_line(&self, slot: usize) -> LeaderLine {
        LeaderLine::from_words(crate::lines::load_keyed(self, self.geometry().leader_line(slot), 0))
    }

    /// What each line claims. One that does not hold claims nothing: a leader that leads is not
    /// deposed by damage.
    fn terms(&self) -> [Term; LEADERS_MAX] {
        terms(self, self.geometry().leader_line(0)).map(Option::unwrap_or_default)
    }

    /// A line that does not hold, if there is one.
    pub fn damaged_term(&self) -> Option<DamagedTerm> {
        let terms = terms(self, self.geometry().leader_line(0));
        let slot = terms.iter().position(Option::is_none)?;
        let at = self.geometry().leader_line(slot);
        Some(DamagedTerm { slot, at, word: self.load_relaxed(at) })
    }

    /// The leader whose tables are followed.
    pub fn leader_place(&self) -> LeaderPlace {
        let geometry = self.geometry();
        LeaderPlace { lines_at: geometry.leader_line(0), slot: geometry.leader_slot() }
    }

    /// The slot and epoch of the leader that serves, if there ever was one. Where a line does not
    /// hold it may be that leader's: then nobody is known to serve, since the tables of one before
    /// it would be taken for the latest.
    pub fn serving(&self) -> Option<(usize, u64)> {
        let mut latest = None;
        for (slot, term) in terms(self, self.geometry().leader_line(0)).into_iter().enumerate() {
            let term = term?;
            if term.serves && latest.is_none_or(|(_, epoch)| term.epoch >= epoch) {
                latest = Some((slot, term.epoch));
            }
        }
        latest
    }

    /// Turns to the tables of the latest leader whose line holds, whatever the others say; its
    /// epoch. For who looks at a damaged pool and follows nobody.
    pub fn follow_what_holds(&self) -> u64 {
        let terms = self.terms().into_iter().enumerate();
        let latest = terms.filter(|(_, term)| term.serves).max_by_key(|(_, term)| term.epoch);
        latest.map_or(0, |(slot, term)| {
            self.turn_to(slot);
            term.epoch
        })
    }

    /// The highest epoch that anybody has claimed; 0: nobody has.
    pub fn highest_epoch(&self) -> u64 {
        self.terms().iter().map(|term| term.epoch).max().unwrap_or_default()
    }

    /// The slot and epoch of the highest claim, whether its leader serves or not yet.
    pub fn highest_claim(&self) -> Option<(usize, u64)> {
        let terms = self.terms().into_iter().map(|term| term.epoch).enumerate();
        terms.max_by_key(|(_, epoch)| *epoch).filter(|(_, epoch)| *epoch > 0)
    }

    /// Looks who serves and follows its tables from here on; the epoch. A leader follows nobody.
    #[inline]
    pub fn follow(&self) -> u64 {
        if self.is_leading() {
            let own = self.load_relaxed(self.geometry().leader_line(self.leader_slot()));
            return Term::unpack(own).map_or(0, |term| term.epoch);
        }
        let Some((slot, epoch)) = self.serving() else { return 0 };
        if slot != self.leader_slot() {
            self.turn_to(slot);
        }
        epoch
    }

    /// The epoch of the leader that serves, which is followed from here on; 0: none ever did.
    pub fn epoch_number(&self) -> u64 {
        self.follow()
    }

    /// Whether nobody has claimed a higher epoch, asked after everything was written that is to
    /// be shown if so.
    #[inline]
    pub fn leads(&self, epoch: u64) -> bool {
        // EDGE epoch-claim, acquire half: a Dekker pair with `claim`.
        self.full_fence();
        self.highest_epoch() <= epoch
    }

    /// Whether somebody is seen to have claimed a higher epoch, asked before anything is written: a
    /// leader that was stopped for long writes nothing. One that is stopped right after this look
    /// does, which [`leads`](Self::leads) and the wait for its end are there for.
    #[inline]
    pub fn is_overtaken(&self, epoch: u64) -> bool {
        self.highest_epoch() > epoch
    }

    /// Step 1: claims `line`'s epoch for the leader slot `slot`, which is this process's from here
    /// on. Everything of the leaders before is read after this. False: somebody has claimed a
    /// higher one.
    pub fn claim(&self, slot: usize, line: &LeaderLine) -> bool {
        let epoch = Term::unpack(line.term).map_or(0, |term| term.epoch);
        let term = Term { epoch, serves: false }.pack();
        let line = LeaderLine { term, ..*line };
        self.turn_to(slot);
        self.set_leads(true);
        // EDGE term, release half. Pairs with `terms`.
        store_keyed(self, self.geometry().leader_line(slot), &line.to_words(), 0);
        // EDGE epoch-claim, release half: a Dekker pair with `leads`.
        self.full_fence();
        self.highest_epoch() == epoch
    }

    /// Step 2: makes this leader's tables a copy of those in `from`; empty ones without.
    pub fn copy_tables(&self, from: Option<usize>) {
        let (at, bytes) = self.geometry().tables();
        let source = from.map(|slot| self.geometry_of(slot).tables().0);
        for offset in (0..bytes).step_by(8 * COPIED_AT_ONCE as usize) {
            self.copy_words(source.map(|source| source + offset), at + offset, {
                (bytes - offset).min(8 * COPIED_AT_ONCE)
            });
        }
        if let Some(from) = from {
            for slot in 0..TOPICS_MAX {
                self.copy_topic(from, slot);
                self.copy_frontier(from, slot);
            }
            self.copy_sessions(from);
        }
    }

    /// Copies a topic's entry as it was at one moment: a leader that was just deposed may write it
    /// once more while it is copied, and an even version in front of words of before and after
    /// would make a topic of them that never was.
    pub fn copy_topic(&self, from: usize, slot: usize) {
        let (source, at) = (self.geometry_of(from).topic(slot), self.geometry().topic(slot));
        for _ in 0..COPIES_MAX {
            // The version only grows: what is the same twice was there all the while.
            if !self.copy_words(Some(source), at, 8 * TopicEntry::WORDS as u64) {
                return;
            }
        }
    }

    /// Copies the frontier line of the sequenced log in a topic's slot as it was at one moment: a
    /// leader that was just deposed may move it once more while it is read, and words of before
    /// and after do not say how many bytes there are.
    pub fn copy_frontier(&self, from: usize, slot: usize) {
        let source = self.geometry_of(from).frontier(slot, SEQUENCED_LOG);
        let at = self.geometry().frontier(slot, SEQUENCED_LOG);
        for _ in 0..COPIES_MAX {
            // Counts only grow: what is the same twice was there all the while.
            if !self.copy_words(Some(source), at, LINE_BYTES) {
                return;
            }
        }
    }

    /// Copies the session lines once more, after the consumed words: a slot may be consumed
    /// because its session was fenced, and who has the one has to have the other. A broker would
    /// take the batch for a duplicate.
    pub fn copy_sessions(&self, from: usize) {
        let (source, geometry) = (self.geometry_of(from), self.geometry());
        let bytes = u64::from(geometry.sessions()) * LINE_BYTES;
        if let (Some(source), Some(at)) = (source.session(0), geometry.session(0)) {
            self.copy_words(Some(source), at, bytes);
        }
    }

    /// Copies part of another leader's tables to the same place in this one's; zeroes it without.
    /// Whether that changed any word.
    pub fn copy_words(&self, from: Option<u64>, to: u64, bytes: u64) -> bool {
        if let Some(from) = from {
            self.refresh(from, bytes);
        }
        // A leader on another host may have had this slot before.
        self.refresh(to, bytes);
        let mut changed = false;
        for offset in (0..bytes).step_by(8) {
            // EDGE written, acquire half. Pairs with `say_written`.
            let word = from.map_or(0, |from| self.load(from + offset));
            // Most words are zero in both: what is not stored need not be touched.
            if self.load_relaxed(to + offset) != word {
                self.store(to + offset, word);
                changed = true;
            }
        }
        self.publish(to, bytes);
        changed
    }

    /// Step 3: ends the sequenced log of a topic where its last leader said that it had written
    /// to, in this leader's own frontier line, and says how far that is.
    pub fn seal_log(&self, topic: TopicId) -> Result<FrontierLine, Unsealable> {
        let mut line = self.frontier(topic, SEQUENCED_LOG);
        let written = line.written;
        let mut reader = LogReader::new(topic, SEQUENCED_LOG);
        while line.entries < written {
            let Found::Entry(entry) = reader.entry(self, line.entries) else {
                return Err(Unsealable { index: line.entries, written });
            };
            line.entries += 1;
            line.position = entry.end_position();
            // A leader that died between the words of this line left some of them moved already.
            // It says how far it has written after it has moved the line to what it said before,
            // so these are the bytes of what is written, and of no burst behind it.
            line.bytes = line.written_bytes;
            line.at_ns = line.at_ns.max(entry.landed_ns);
        }
        self.advance_frontier(topic, SEQUENCED_LOG, &line);
        Ok(line)
    }

    /// Step 4: everybody follows this leader's tables from here on. False: somebody has claimed a
    /// higher epoch meanwhile, and nothing may be done any more.
    pub fn serve(&self, epoch: u64) -> bool {
        self.after_write_back();
        let at = self.geometry().leader_line(self.leader_slot());
        // EDGE term, release half. Pairs with `terms`.
        self.store_release(at, Term { epoch, serves: true }.pack());
        self.publish(at, LINE_BYTES);
        self.leads(epoch)
    }

    /// Directories of topics that say where logs ended, as the leader said that had a slot. Asked
    /// after a higher epoch was claimed: that leader looks for one before it lets them say so.
    pub fn ended_by(&self, slot: usize) -> u64 {
        let at = self.geometry().leader_line(slot);
        self.refresh(at, LINE_BYTES);
        // EDGE ended, acquire half. Pairs with `say_ended`.
        self.load(at + LeaderLine::ENDED_AT)
    }

    /// Whether somebody waits for a segment that there is none for, as the leader said last.
    pub fn is_short(&self) -> bool {
        let at = self.geometry().leader_line(self.leader_slot());
        self.refresh(at, LINE_BYTES);
        // Relaxed: it orders nothing, and is looked at again.
        self.load(at + LeaderLine::SHORT_AT) != 0
    }

    /// Says whether somebody waits for a segment that there is none for. Only the leader.
    pub fn say_short(&self, is_short: bool) {
        let at = self.geometry().leader_line(self.leader_slot());
        self.store(at + LeaderLine::SHORT_AT, is_short.into());
        self.publish(at, LINE_BYTES);
    }

    /// Says that directories of topics, so many, are about to say where logs ended, and then lets a
    /// full fence pass: who claims a higher epoch finds it.
    pub fn say_ended(&self, directories: u64) {
        let at = self.geometry().leader_line(self.leader_slot());
        // EDGE ended, release half. Pairs with `ended_by`.
        self.store_release(at + LeaderLine::ENDED_AT, directories);
        self.publish(at, LINE_BYTES);
        self.full_fence();
    }

    /// Says how far the sequenced log is written, in entries and bytes of their batches, after the
    /// entries and before [`leads`](Self::leads): the next leader seals it there.
    #[inline]
    pub fn say_written(&self, topic: TopicId, entries: u64, bytes: u64) {
        let at = self.geometry().frontier(topic.slot(), SEQUENCED_LOG);
        if self.flushes() {
            // The entries were only sent on their way; the word may not be there before them.
            self.after_write_back();
        }
        self.store(at + FrontierLine::WRITTEN_BYTES_AT, bytes);
        // EDGE written, release half. Pairs with the acquire loads in `copy_words`: whoever sees
        // the word sees the entries below it.
        self.store_release(at + FrontierLine::WRITTEN_AT, entries);
        self.publish(at, LINE_BYTES);
    }
}
