//! The segments of the pool: what each is for, given out and taken back by control alone.
//!
//! Every change goes to the segment's header first; this table and the bitmap in it are copies
//! that a new control reads back from the headers.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use landfall_layout::segment::{OWNER_CONTROL, SegmentHeader, SegmentKind, SegmentState, What};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::{Memory, Pool};

use crate::bitmap::Bitmap;

/// For each segment, 1 + the log index of the last entry that names it; 0: none does.
///
/// Writer: the sequencer, before it gives the slot back; the keeper only resets it, before it
/// grants the segment. Reader: the keeper, after it saw that all the segment's slots are consumed.
#[derive(Debug)]
pub struct LastEntries(Vec<AtomicU64>);

impl LastEntries {
    /// Nothing is known of `segments` segments.
    pub fn new(segments: u32) -> Self {
        Self((0..segments).map(|_| AtomicU64::new(0)).collect())
    }

    /// Notes that entry `index` names `segment`.
    #[inline]
    pub fn note(&self, segment: u32, index: u64) {
        if let Some(word) = self.0.get(segment as usize) {
            // Relaxed: the release store of the ring's consumed index follows and covers it.
            word.store(index + 1, Ordering::Relaxed);
        }
    }

    /// Forgets a segment that begins a new use.
    pub fn reset(&self, segment: u32) {
        if let Some(word) = self.0.get(segment as usize) {
            // Relaxed: the grant, which is released later, is what makes anyone note it again.
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Index of the last entry that names `segment`.
    pub fn last(&self, segment: u32) -> Option<u64> {
        // Relaxed: the acquire load of the ring's consumed index came before.
        self.0.get(segment as usize)?.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// One segment's present use, as control keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// What it is for.
    pub what: What,
    /// Which use it is.
    pub generation: u64,
    /// Order log: index of its first entry.
    pub base_index: u64,
    /// Ring or log index below which all its batches are, once it is sealed.
    pub through: u64,
    /// Not to be reused before this boot time, nanoseconds.
    pub kept_until_ns: u64,
    /// What retention has found out about a sealed payload segment.
    pub settled: Option<Settled>,
}

/// What is known of a payload segment once every batch in it was ordered or dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settled {
    /// The last entry that names it.
    pub last: Option<u64>,
    /// Position after that entry's last message.
    pub end_position: u64,
    /// Bytes of its log up to and with that entry; 0 where the topic sets no bound on them.
    pub end_bytes: u64,
    /// When that batch landed, wall clock, nanoseconds.
    pub landed_ns: u64,
    /// How long ago that was when this was found out, nanoseconds.
    pub landed_age_ns: u64,
    /// When that was, boot time, nanoseconds.
    pub settled_ns: u64,
}

impl Settled {
    /// How long ago the last batch landed, nanoseconds. From when it was found out on, time counts
    /// as it passes: a wall clock that is set makes no batch older or younger.
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        self.landed_age_ns.saturating_add(now_ns.saturating_sub(self.settled_ns))
    }
}

/// Why a segment is withheld. Several reasons may hold of one, and each ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// Its broker's process was given up and is not known to be gone.
    Ghost,
    /// Publishers over memory of a process of its broker that is gone may write into it.
    Writers,
    /// Its broker's present process named it: clients of its may write into it.
    Named,
    /// Its broker's present process has not said to this leader whether anybody may.
    Unsaid,
}

impl Reason {
    /// Every one, in order.
    pub const ALL: [Self; 4] = [Self::Ghost, Self::Writers, Self::Named, Self::Unsaid];
}

/// What a segment is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// Kind, owner, log and topic; the state is where it starts.
    pub what: What,
    /// Order log: index of its first entry.
    pub base_index: u64,
    /// Order log: the segment before it in the chain.
    pub previous: Option<SegmentId>,
}

/// The table.
pub struct Segments {
    pool: Arc<Pool>,
    uses: Vec<Use>,
    bitmap: Bitmap,
    next_generation: u64,
    epoch: u64,
    /// Segments into which a leader that was deposed may still write, by number.
    suspects: Vec<bool>,
    /// Some broker may still follow the tables of the leader before, and read what is in use there.
    unfollowed: bool,
    /// Brokers whose host may have lines of their segments in its caches that it did not write
    /// back, a bit each.
    stranded: u32,
    /// Segments into which somebody may still write who is not waited for, with each reason why.
    withheld: BTreeSet<(SegmentId, Reason)>,
    /// Segments that were given back and wait for one of these.
    waiting: Vec<SegmentId>,
    /// Those that nothing keeps, in flush mode, and that are still to be written back.
    returning: VecDeque<SegmentId>,
    /// Segments with a page that cannot be read, by number. They are never given out again.
    lost: Vec<bool>,
    lost_count: u32,
    /// Free ones that turned out to be lost when they were to be given out.
    found_lost: Vec<SegmentId>,
}

const UNUSED: Use = Use {
    what: What::FREE,
    generation: 0,
    base_index: 0,
    through: 0,
    kept_until_ns: 0,
    settled: None,
};

impl Segments {
    /// Reads every header. A header that says no known use keeps its segment from being given
    /// out, and comes back as a sentence.
    pub fn read(pool: Arc<Pool>, epoch: u64) -> (Self, Vec<String>) {
        let segments = pool.geometry().segments();
        let mut bitmap = Bitmap::new(segments);
        let mut strange = Vec::new();
        let mut next_generation = 1;
        let mut lost = vec![false; segments as usize];
        let uses = (0..segments)
            .map(|segment| {
                let Some(header) = pool.segment_header(SegmentId(segment)) else { return UNUSED };
                next_generation = next_generation.max(header.generation.wrapping_add(1));
                if header.lost_ns != 0 {
                    lost[segment as usize] = true;
                    bitmap.mark(segment);
                }
                let what = What::unpack(header.what).unwrap_or_else(|error| {
                    bitmap.mark(segment);
                    strange.push(format!("segment {segment} is left alone: its {error}"));
                    What::FREE
                });
                if what.kind != SegmentKind::Free {
                    bitmap.mark(segment);
                }
                Use { what, generation: header.generation, base_index: header.base_index, ..UNUSED }
            })
            .collect();
        let table = Self {
            pool,
            uses,
            bitmap,
            next_generation,
            epoch,
            suspects: Vec::new(),
            unfollowed: false,
            stranded: 0,
            withheld: BTreeSet::new(),
            waiting: Vec::new(),
            returning: VecDeque::new(),
            lost_count: lost.iter().filter(|lost| **lost).count() as u32,
            lost,
            found_lost: Vec::new(),
        };
        (table, strange)
    }

    /// Leaders before may still be running, of which the latest had `epoch`: what they may have
    /// begun to write into, their order logs, rings they were making and segments of brokers that
    /// are gone, is not used again until [`clear`](Self::clear). What a later leader gave out, they
    /// know nothing of. What waited for one of them under the last leader is not free in its
    /// tables, and waits on here.
    pub fn suspect(&mut self, epoch: u64) {
        let (pool, segments) = (&self.pool, (0..).map(SegmentId));
        let is_theirs =
            |segment| pool.segment_header(segment).is_none_or(|header| header.epoch <= epoch);
        let may_write = |used: &Use| match used.what.kind {
            SegmentKind::Free => false,
            SegmentKind::Ring => true,
            SegmentKind::OrderLog => used.what.owner == OWNER_CONTROL,
            SegmentKind::Payload => used.what.state != SegmentState::Open,
        };
        let uses = self.uses.iter().zip(segments);
        self.suspects = uses.map(|(used, id)| may_write(used) && is_theirs(id)).collect();
    }

    /// Whether something waits for leaders before to be gone.
    pub fn suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Whether one of them may write into a segment.
    pub fn is_suspect(&self, segment: SegmentId) -> bool {
        self.suspects.get(segment.0 as usize).is_some_and(|suspect| *suspect)
    }

    /// They are gone.
    pub fn clear(&mut self) {
        self.suspects.clear();
        self.free_waiting();
    }

    /// Nothing is used again until every broker follows this leader.
    pub fn await_followers(&mut self) {
        self.unfollowed = true;
    }

    /// Whether brokers are waited for.
    pub fn awaits_followers(&self) -> bool {
        self.unfollowed
    }

    /// Every broker follows this leader.
    pub fn followed(&mut self) {
        self.unfollowed = false;
        self.free_waiting();
    }

    /// These brokers were killed on other hosts, a bit each: segments of theirs are not used again
    /// until they are back, and have written back what their hosts had of them.
    pub fn strand(&mut self, brokers: u32) {
        let fewer = self.stranded & !brokers != 0;
        self.stranded = brokers;
        if fewer {
            self.free_waiting();
        }
    }

    /// Those of a broker's segments of which `may_write` says that somebody may write into them are
    /// not used again until the reason ends, by [`release`](Self::release).
    pub fn withhold(
        &mut self,
        broker: BrokerId,
        reason: Reason,
        may_write: impl Fn(&What) -> bool,
    ) {
        let owned = |used: &Use| used.what.owner == broker.raw() && may_write(&used.what);
        let found: Vec<(SegmentId, Reason)> = self
            .all()
            .filter(|(_, used)| owned(used))
            .map(|(segment, _)| (segment, reason))
            .collect();
        self.withheld.extend(found);
    }

    /// The same of one segment that is in use.
    pub fn withhold_one(&mut self, segment: SegmentId, reason: Reason) {
        if self.get(segment).is_some() {
            self.withheld.insert((segment, reason));
        }
    }

    /// A broker says that clients of its may still write into a segment that it had.
    pub fn name(&mut self, broker: BrokerId, segment: SegmentId, generation: u64) {
        if self.is_of(broker, segment, generation) {
            self.withhold_one(segment, Reason::Named);
        }
    }

    /// None of them may any more.
    pub fn unname(&mut self, broker: BrokerId, segment: SegmentId, generation: u64) {
        if self.is_of(broker, segment, generation)
            && self.withheld.remove(&(segment, Reason::Named))
        {
            self.free_waiting();
        }
    }

    fn is_of(&self, broker: BrokerId, segment: SegmentId, generation: u64) -> bool {
        self.get(segment)
            .is_some_and(|used| used.what.owner == broker.raw() && used.generation == generation)
    }

    /// A broker's segments that are withheld for that reason.
    pub fn withheld(&self, broker: BrokerId, reason: Reason) -> Vec<SegmentId> {
        let is_owned = |segment: SegmentId| {
            self.get(segment).is_some_and(|used| used.what.owner == broker.raw())
        };
        self.withheld
            .iter()
            .filter(|(segment, why)| *why == reason && is_owned(*segment))
            .map(|(segment, _)| *segment)
            .collect()
    }

    /// Whether somebody may still write into a segment who is not waited for.
    pub fn is_withheld(&self, segment: SegmentId) -> bool {
        let [first, .., last] = Reason::ALL;
        self.withheld.range((segment, first)..=(segment, last)).next().is_some()
    }

    /// That reason holds of none of a broker's segments any more.
    pub fn release(&mut self, broker: BrokerId, reason: Reason) {
        self.turn(broker, reason, &[]);
    }

    /// Where one reason held, these hold instead.
    pub fn turn(&mut self, broker: BrokerId, from: Reason, into: &[Reason]) {
        for segment in self.withheld(broker, from) {
            self.withheld.remove(&(segment, from));
            self.withheld.extend(into.iter().map(|reason| (segment, *reason)));
        }
        self.free_waiting();
    }

    fn free_waiting(&mut self) {
        for segment in std::mem::take(&mut self.waiting) {
            self.give_back(segment);
        }
    }

    /// Whether a segment was given back and is not free yet.
    pub fn is_waiting(&self, segment: SegmentId) -> bool {
        self.waiting.contains(&segment) || self.returning.contains(&segment)
    }

    /// Writes one segment back that nothing keeps any more, and frees it. Whether there was one:
    /// each takes as long as its lines take, so a turn does no more of them.
    pub fn finish_return(&mut self) -> bool {
        let Some(segment) = self.returning.pop_front() else { return false };
        // A control or a broker that was killed on this host may have left lines in its caches.
        self.pool.write_back_segment(segment);
        self.set_free(segment);
        true
    }

    /// Segments free.
    pub fn free(&self) -> u32 {
        self.bitmap.free()
    }

    /// Segments in all.
    pub fn total(&self) -> u32 {
        self.bitmap.segments()
    }

    /// The present use of a segment, while it has one.
    pub fn get(&self, segment: SegmentId) -> Option<&Use> {
        self.uses.get(segment.0 as usize).filter(|used| used.what.kind != SegmentKind::Free)
    }

    /// The same, to note something.
    pub fn get_mut(&mut self, segment: SegmentId) -> Option<&mut Use> {
        self.uses.get_mut(segment.0 as usize).filter(|used| used.what.kind != SegmentKind::Free)
    }

    /// The present use if it is of that generation.
    pub fn named(&mut self, segment: u32, generation: u64) -> Option<&mut Use> {
        self.get_mut(SegmentId(segment)).filter(|used| used.generation == generation)
    }

    /// Every segment in use, with its use.
    pub fn all(&self) -> impl Iterator<Item = (SegmentId, &Use)> {
        self.uses
            .iter()
            .enumerate()
            .filter(|(_, used)| used.what.kind != SegmentKind::Free)
            .map(|(i, used)| (SegmentId(i as u32), used))
    }

    /// Every segment of a topic.
    pub fn of(&self, topic: TopicId) -> Vec<SegmentId> {
        self.all().filter(|(_, used)| used.what.topic == topic).map(|(id, _)| id).collect()
    }

    /// Gives a free segment a use, if there is one. The header says so when this returns.
    pub fn take(&mut self, purpose: Purpose, now_ns: u64) -> Option<SegmentId> {
        let segment = self.take_whole(now_ns)?;
        let generation = self.next_generation;
        self.next_generation += 1;
        let header = SegmentHeader {
            what: purpose.what.pack(),
            generation,
            epoch: self.epoch,
            previous: purpose.previous.unwrap_or(SegmentId::NONE).0,
            next: SegmentId::NONE.0,
            base_index: purpose.base_index,
            granted_ns: now_ns,
            sealed_ns: 0,
            lost_ns: 0,
        };
        self.pool.give_segment(segment, &header);
        self.uses[segment.0 as usize] =
            Use { what: purpose.what, generation, base_index: purpose.base_index, ..UNUSED };
        // Nothing is written into a segment before a later leader would see that it is in use.
        self.pool.leads(self.epoch).then_some(segment)
    }

    /// A free segment. Where some were lost, the next may be too: it is looked at first, so that
    /// nobody is given one that ends in the middle of a batch.
    fn take_whole(&mut self, now_ns: u64) -> Option<SegmentId> {
        loop {
            let segment = SegmentId(self.bitmap.take()?);
            // What this process met is covered here, and looks whole.
            let none_is = self.lost_count == 0 && self.pool.loss().count() == 0;
            if none_is || (!self.pool.is_lost(segment.0) && self.pool.is_whole(segment)) {
                return Some(segment);
            }
            // It stays taken.
            self.lose(segment, now_ns);
            self.found_lost.push(segment);
        }
    }

    /// Notes that a page of a segment cannot be read: it is given no other use. Whether that is
    /// new, and there is such a segment.
    pub fn lose(&mut self, segment: SegmentId, now_ns: u64) -> bool {
        let Some(lost) = self.lost.get_mut(segment.0 as usize).filter(|lost| !**lost) else {
            return false;
        };
        *lost = true;
        self.lost_count += 1;
        self.bitmap.mark(segment.0);
        self.pool.set_segment_lost(segment, now_ns.max(1));
        true
    }

    /// Segments that are lost.
    pub fn lost(&self) -> u32 {
        self.lost_count
    }

    /// Whether a segment is lost.
    pub fn is_lost(&self, segment: SegmentId) -> bool {
        self.lost.get(segment.0 as usize).is_some_and(|lost| *lost)
    }

    /// Segments that turned out to be lost when they were to be given out, since the last time.
    pub fn take_found_lost(&mut self) -> Vec<SegmentId> {
        std::mem::take(&mut self.found_lost)
    }

    /// Moves a segment on in its use. One that is sealed because its broker has gone was sealed at
    /// `now_ns`; 0: its broker says so.
    pub fn set_state(&mut self, segment: SegmentId, state: SegmentState, now_ns: u64) {
        let Some(used) = self.get_mut(segment) else { return };
        used.what.state = state;
        let what = used.what;
        if state == SegmentState::Sealed {
            self.pool.set_segment_sealed(segment, what, now_ns);
        } else {
            self.pool.set_segment_what(segment, what);
        }
    }

    /// Takes a segment back. Its header keeps the generation, so that no later use repeats it.
    pub fn give_back(&mut self, segment: SegmentId) {
        if self.get(segment).is_none() {
            return;
        }
        let owner = u32::from(self.uses[segment.0 as usize].what.owner);
        let is_stranded = self.stranded.checked_shr(owner).is_some_and(|bits| bits & 1 == 1);
        let is_withheld = self.is_withheld(segment);
        if self.is_suspect(segment) || is_stranded || is_withheld || self.unfollowed {
            if !self.waiting.contains(&segment) {
                self.waiting.push(segment);
            }
            return;
        }
        if self.pool.flushes() && !self.is_lost(segment) {
            if !self.returning.contains(&segment) {
                self.returning.push_back(segment);
            }
            return;
        }
        self.set_free(segment);
    }

    fn set_free(&mut self, segment: SegmentId) {
        self.pool.set_segment_what(segment, What::FREE);
        self.uses[segment.0 as usize].what = What::FREE;
        if !self.is_lost(segment) {
            self.bitmap.give_back(segment.0);
        }
    }
}
