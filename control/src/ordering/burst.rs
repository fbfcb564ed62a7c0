//! One burst of one topic: the fast path of the order.

use std::collections::VecDeque;

use landfall_layout::counters::{Counter, Stage};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::OrderEntry;
use landfall_layout::session::SessionState;
use landfall_layout::topic::Order;

use landfall_pool::Pool;
use landfall_pool::counters::Counters;
use landfall_pool::log::LogSegment;

use super::{SequencerThread, Work};
use crate::messages::FromSequencer;
use crate::segments::LastEntries;
use crate::sequencer::{Fencing, SessionView, TopicSequencer, Verdict};
use landfall_pool::clock::wall_ns;

/// Slots taken from one ring before it is the next one's turn.
pub(super) const SLOTS_PER_RING: usize = 128;

impl Work {
    /// Entries that there is room for.
    fn room(&self) -> u64 {
        room(&self.log, &self.spares, &self.sequencer)
    }
}

fn room(log: &LogSegment, spares: &VecDeque<LogSegment>, sequencer: &TopicSequencer) -> u64 {
    let last = spares.back().unwrap_or(log);
    (last.base + last.capacity).saturating_sub(sequencer.frontier().entries)
}

/// Where a topic's entries go.
struct Sink<'a> {
    pool: &'a Pool,
    last_entries: &'a LastEntries,
    counters: &'a Counters,
    epoch: u64,
    /// The wall clock, once there was something to write.
    wall_ns: u64,
    log: &'a mut LogSegment,
    spares: &'a mut VecDeque<LogSegment>,
    done: &'a mut Done,
}

impl Sink<'_> {
    fn room(&self, sequencer: &TopicSequencer) -> u64 {
        room(self.log, self.spares, sequencer)
    }

    /// Before the first entry. False: another control leads, and nothing may be written.
    #[inline]
    fn begin(&mut self) -> bool {
        if self.wall_ns == 0 {
            self.done.overtaken = self.pool.is_overtaken(self.epoch);
            self.wall_ns = wall_ns();
        }
        !self.done.overtaken
    }

    #[inline]
    fn write(&mut self, entry: &OrderEntry) {
        let at = entry.commit - 1;
        while !self.log.holds(at) {
            // There is room, so there is a next segment.
            let Some(next) = self.spares.pop_front() else { return };
            *self.log = next;
        }
        self.log.write(self.pool, at, entry);
        self.done.entries += 1;
        if entry.is_hole() {
            self.done.holes += 1;
            return;
        }
        self.last_entries.note(entry.segment, at);
        let waited_ns = self.wall_ns.saturating_sub(entry.landed_ns);
        self.counters.latency(self.pool, Stage::LandedToOrdered, waited_ns);
        self.done.messages += u64::from(entry.count);
    }
}

/// What a burst has done.
#[derive(Default)]
struct Done {
    slots: u64,
    entries: u64,
    /// Entries among them that hold nothing.
    holes: u64,
    messages: u64,
    duplicates: u64,
    dropped: u64,
    /// The log has no room for what may come out of the next slot.
    starved: bool,
    /// Another control leads.
    overtaken: bool,
}

impl SequencerThread {
    /// Takes what the rings of one topic show, and publishes what follows from it. Whether there
    /// was anything; `None` when another control leads.
    #[inline]
    pub(super) fn burst(&mut self, i: usize, clock_ns: u64, tick: bool) -> Option<bool> {
        let done = self.scan(i);
        if done.overtaken {
            self.shared.depose(self.pool.highest_epoch());
            return None;
        }
        let work = &mut self.works[i];
        let fenced = &mut self.fenced;
        work.sequencer.drain_trespassers(|fencing| fenced.push(fencing));
        if !work.over.is_empty() {
            let (was_empty, sequencer) = (done.slots == 0 && !done.starved, &mut work.sequencer);
            let known = work.over.extract_if(.., |over| over.is_known(was_empty, done.starved));
            fenced.extend(known.filter_map(|over| over.fence(sequencer)));
        }
        if tick && work.sequencer.deadline_ns().is_some_and(|at| at <= clock_ns) {
            let fenced = &mut self.fenced;
            work.sequencer.tick(clock_ns, |fencing| fenced.push(fencing));
        }
        if done.slots > 0 || done.entries > 0 || !self.fenced.is_empty() {
            if done.entries > 0 {
                let frontier = work.sequencer.frontier();
                self.pool.say_written(work.topic, frontier.entries, frontier.bytes);
            }
            if !self.pool.leads(self.epoch) {
                self.shared.depose(self.pool.highest_epoch());
                return None;
            }
        }
        if done.entries > 0 {
            let frontier = work.sequencer.frontier();
            let line = frontier.line(work.topic.0, wall_ns());
            self.pool.advance_frontier(work.topic, SEQUENCED_LOG, &line);
            self.moved = true;
        }
        if done.slots > 0 || done.entries > 0 {
            // Also where nothing was ordered: a broker knows a duplicate by its session's line,
            // which may be behind what a control before this one ordered.
            let (pool, is_stream) = (&self.pool, work.order == Order::Stream);
            work.sequencer.drain_touched(|session| {
                let SessionView { index, next_seq, known_from, .. } = session;
                let floor = session.floor_word();
                match is_stream {
                    true => pool.set_session_window(index, next_seq, floor, known_from),
                    false => pool.set_session_next(index, next_seq),
                }
            });
        }
        if !self.fenced.is_empty() {
            self.write_fences(i);
        }
        self.release(i);
        if !self.works[i].wishes.is_empty() {
            self.grant_wishes(i, clock_ns);
        }
        self.ask_for_room(i, done.starved, tick);
        self.count(&done);
        Some(done.slots > 0 || done.entries > 0)
    }

    /// Offers what is committed, writing entries as they come out.
    #[inline]
    fn scan(&mut self, i: usize) -> Done {
        let mut done = Done::default();
        let pool = &*self.pool;
        let work = &mut self.works[i];
        let Work { sequencer, rings, log, spares, .. } = work;
        let (last_entries, counters) = (&self.shared.last_entries, &self.counters);
        let (epoch, done_of) = (self.epoch, &mut done);
        let mut sink =
            Sink { pool, last_entries, counters, epoch, wall_ns: 0, log, spares, done: done_of };
        for ring in rings.iter() {
            let (broker, reader) = (ring.broker, ring.reader);
            for _ in 0..SLOTS_PER_RING {
                let index = sequencer.scan_index(broker);
                let Some(slot) = reader.peek(pool, index) else { break };
                // One slot lets in at most itself, everything held and every hole.
                if sink.room(sequencer) <= sequencer.ready_most() as u64 {
                    sink.done.starved = true;
                    break;
                }
                if !sink.begin() {
                    return done;
                }
                match sequencer.offer(broker, &slot, |entry| sink.write(&entry)) {
                    Verdict::Busy => break,
                    Verdict::Duplicate => sink.done.duplicates += 1,
                    Verdict::Fenced => sink.done.dropped += 1,
                    Verdict::Ordered | Verdict::Held | Verdict::Padding => {}
                }
                sink.done.slots += 1;
            }
        }
        if sequencer.has_holes() {
            if sink.room(sequencer) < sequencer.ready_most() as u64 {
                sink.done.starved = true;
            } else if sink.begin() {
                sequencer.fill_holes(|entry| sink.write(&entry));
            }
        }
        done
    }

    /// Tells brokers which slots they may use again, after the session lines that explain what
    /// became of them.
    fn release(&mut self, i: usize) {
        let pool = &*self.pool;
        let Work { sequencer, rings, .. } = &mut self.works[i];
        for ring in rings {
            let consumed = sequencer.consumed(ring.broker);
            if consumed != ring.told {
                ring.reader.release(pool, consumed);
                ring.told = consumed;
                self.moved = true;
            }
        }
    }

    /// Asks the keeper for log segments before there is need, and again and again when there is.
    fn ask_for_room(&mut self, i: usize, starved: bool, tick: bool) {
        let work = &mut self.works[i];
        let least = work.log.capacity / 2;
        let room = work.room();
        if room >= least && !starved {
            return;
        }
        let end = work.sequencer.frontier().entries + room;
        let wanted = (work.sequencer.ready_most() as u64 + 1).max(least);
        if work.asked == end + 1 && !(starved && tick) {
            return;
        }
        work.asked = end + 1;
        let topic = work.topic;
        self.tell_keeper(FromSequencer::LogWanted { topic, room: wanted });
    }

    #[cold]
    fn write_fences(&mut self, i: usize) {
        let topic = self.works[i].topic;
        for at in 0..self.fenced.len() {
            let Fencing { session, cause, .. } = self.fenced[at];
            let Some(line) = self.sessions.set_state(session.index, SessionState::Fenced) else {
                continue;
            };
            let line = line.line(Some(session));
            self.pool.set_session(session.index, &line);
            self.counters.add(&self.pool, Counter::Fenced, 1);
            self.tell_keeper(FromSequencer::Fenced { topic, client: session.client, cause });
        }
        self.fenced.clear();
        self.moved = true;
    }

    fn count(&mut self, done: &Done) {
        if done.slots == 0 && done.entries == 0 {
            return;
        }
        let add = |counter, amount| {
            if amount > 0 {
                self.counters.add(&self.pool, counter, amount);
            }
        };
        add(Counter::BatchesOrdered, done.entries - done.holes);
        add(Counter::MessagesOrdered, done.messages);
        add(Counter::Duplicates, done.duplicates);
        add(Counter::Refused, done.dropped);
        self.recount = true;
    }
}
