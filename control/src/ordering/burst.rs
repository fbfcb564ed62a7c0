//! One burst of one topic: the fast path of the order.

use landfall_layout::counters::{Counter, Stage};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::OrderEntry;
use landfall_layout::session::SessionState;
use landfall_pool::Memory;

use super::{SequencerThread, Work};
use crate::clock::now_ns;
use crate::messages::FromSequencer;
use crate::sequencer::Verdict;

/// Slots taken from one ring before it is the next one's turn.
const SLOTS_PER_RING: usize = 128;

impl Work {
    /// Entries that there is room for.
    fn room(&self) -> u64 {
        let last = self.spares.back().unwrap_or(&self.log);
        (last.base + last.capacity).saturating_sub(self.sequencer.frontier().entries)
    }
}

/// What a burst has done.
#[derive(Default)]
struct Done {
    slots: u64,
    entries: u64,
    messages: u64,
    duplicates: u64,
    dropped: u64,
    /// The log has no room for what may come out of the next slot.
    starved: bool,
}

impl SequencerThread {
    /// Takes what the rings of one topic show, and publishes what follows from it. Whether there
    /// was anything; `None` when another control leads.
    #[inline]
    pub(super) fn burst(&mut self, i: usize, clock_ns: u64, tick: bool) -> Option<bool> {
        let done = self.scan(i, clock_ns);
        let work = &mut self.works[i];
        if tick && work.sequencer.deadline_ns().is_some_and(|at| at <= clock_ns) {
            let fenced = &mut self.fenced;
            work.sequencer.tick(clock_ns, |fencing| fenced.push(fencing));
        }
        if done.slots > 0 || !self.fenced.is_empty() {
            // Entries were written back one by one; what makes them count comes after all of them.
            if self.pool.flushes() {
                self.pool.after_write_back();
            }
            let epoch = self.pool.epoch_number();
            if epoch != self.epoch {
                self.depose(epoch);
                return None;
            }
        }
        if done.entries > 0 {
            let frontier = work.sequencer.frontier();
            let line = frontier.line(work.topic.0, now_ns());
            self.pool.advance_frontier(work.topic, SEQUENCED_LOG, &line);
            let pool = &self.pool;
            work.sequencer.drain_touched(|session| {
                pool.set_session_next(session.index, session.next_seq);
            });
            self.moved = true;
        }
        if !self.fenced.is_empty() {
            self.write_fences(i);
        }
        self.release(i);
        self.ask_for_room(i, done.starved, tick);
        self.count(&done);
        Some(done.slots > 0)
    }

    /// Offers what is committed, writing entries as they come out.
    #[inline]
    fn scan(&mut self, i: usize, clock_ns: u64) -> Done {
        let mut done = Done::default();
        let pool = &*self.pool;
        let last_entries = &self.shared.last_entries;
        let counters = &self.counters;
        let work = &mut self.works[i];
        let mut wall_ns = 0;
        for r in 0..work.rings.len() {
            let (broker, reader) = (work.rings[r].broker, work.rings[r].reader);
            for _ in 0..SLOTS_PER_RING {
                let index = work.sequencer.scan_index(broker);
                let Some(slot) = reader.peek(pool, index) else { break };
                // One slot lets in at most itself and everything held.
                if work.room() <= work.sequencer.held() as u64 {
                    done.starved = true;
                    break;
                }
                if wall_ns == 0 {
                    wall_ns = now_ns();
                }
                let Work { sequencer, log, spares, .. } = work;
                let write = |entry: OrderEntry| {
                    let at = entry.commit - 1;
                    while !log.holds(at) {
                        // There is room, so there is a next segment.
                        let Some(next) = spares.pop_front() else { return };
                        *log = next;
                    }
                    log.write(pool, at, &entry);
                    last_entries.note(entry.segment, at);
                    let waited_ns = wall_ns.saturating_sub(entry.landed_ns);
                    counters.latency(pool, Stage::LandedToOrdered, waited_ns);
                    done.entries += 1;
                    done.messages += u64::from(entry.count);
                };
                match sequencer.offer(broker, &slot, clock_ns, write) {
                    Verdict::Busy => break,
                    Verdict::Duplicate => done.duplicates += 1,
                    Verdict::Fenced => done.dropped += 1,
                    Verdict::Ordered | Verdict::Held | Verdict::Padding => {}
                }
                done.slots += 1;
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
        let wanted = (work.sequencer.held() as u64 + 1).max(least);
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
            let session = self.fenced[at].session;
            let Some(line) = self.sessions.set_state(session.index, SessionState::Fenced) else {
                continue;
            };
            let line = line.line(session.next_seq);
            self.pool.set_session(session.index, &line);
            self.counters.add(&self.pool, Counter::Fenced, 1);
            self.tell_keeper(FromSequencer::Fenced {
                topic,
                client: session.client,
                epoch: session.standing.epoch,
                next_seq: session.next_seq,
            });
        }
        self.fenced.clear();
        self.moved = true;
    }

    fn count(&mut self, done: &Done) {
        if done.slots == 0 {
            return;
        }
        let add = |counter, amount| {
            if amount > 0 {
                self.counters.add(&self.pool, counter, amount);
            }
        };
        add(Counter::BatchesOrdered, done.entries);
        add(Counter::MessagesOrdered, done.messages);
        add(Counter::Duplicates, done.duplicates);
        add(Counter::Refused, done.dropped);
        let held = self.works.iter().map(|work| work.sequencer.held() as u64).sum();
        self.counters.set(&self.pool, Counter::Held, held);
    }

    #[cold]
    fn depose(&self, epoch: u64) {
        use std::sync::atomic::Ordering;
        // Relaxed: a number on its own.
        self.shared.deposed_by.store(epoch, Ordering::Relaxed);
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}
