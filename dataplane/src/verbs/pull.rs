//! Pull: the broker's NIC reads batches out of a publisher's memory, where they lie whole.
//!
//! The preamble comes first, into memory of the broker's own, and is judged there; then the payload
//! is read into its final place. READs of one queue pair complete in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::counters::Counter;
use landfall_layout::limits::{IN_FLIGHT_BATCHES_MAX, LINE_BYTES};
use landfall_nic::{Access, Local, Region, Remote};
use landfall_pool::map::{Backing, memfd};
use landfall_pool::{Mapping, Memory};

use super::link::{Link, Work};
use super::side::Side;
use crate::claim::Claim;
use crate::env::Env;
use crate::extents::From;
use crate::land::Wait;
use crate::land::{Fault, NotLanded, Placed, has_room, judge, land};
use crate::publish_tcp::{Stop, refusal};
use crate::topics::Topic;
use crate::unused::Open;

/// Preambles that may be on their way at a time.
const HEADS: u64 = 64;
/// Batches that may be announced and not landed. What is announced beyond it is not taken from the
/// queue, and gets no receive back.
const ANNOUNCED_MAX: usize = IN_FLIGHT_BATCHES_MAX as usize;
/// Bytes that may lie in their places, or be on their way there, and not be landed: more than a
/// link of 400 Gb/s brings in 300 us. One batch always may.
const PULLED_MAX: u64 = 16 << 20;

#[derive(Debug)]
enum Stage {
    /// Announced.
    New,
    /// Its preamble is on its way.
    Head,
    /// Its preamble is here.
    Known(BatchPreamble),
    /// Its payload is on its way to its place.
    Body(BatchPreamble, Claim),
    /// All of it is in its place.
    Whole(BatchPreamble, Claim),
    /// Its session is over: nothing of it is read.
    Dropped,
}

#[derive(Debug)]
struct Pull {
    line: u32,
    stage: Stage,
}

/// A publisher's batches that were announced and have not landed.
pub struct Pulls {
    heads: Arc<Mapping>,
    region: Region,
    pulls: VecDeque<Pull>,
    /// Number of the first of them.
    base: u64,
    /// Numbers of those whose reads are on their way, in the order of posting.
    posted: VecDeque<u64>,
    /// Bytes of claims.
    pulled: u64,
}

impl Pulls {
    pub fn new(side: &Side, link: &Link) -> Result<Self, String> {
        let memory = memfd("landfall-preambles", HEADS * LINE_BYTES)
            .and_then(|fd| Mapping::new(fd, HEADS * LINE_BYTES, Backing::Shmem, true))
            .map_err(|error| error.to_string())?;
        let heads = Arc::new(memory);
        let access =
            Access { local_write: true, remote_read: false, remote_write: false, windows: false };
        let domain = side.domain(link.knock.grant);
        let region = Region::of_mapping(domain, &heads, 0, HEADS * LINE_BYTES, access)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            heads,
            region,
            pulls: VecDeque::new(),
            base: 0,
            posted: VecDeque::new(),
            pulled: 0,
        })
    }

    /// A whole batch lies at a line of the publisher's memory.
    pub fn announced(&mut self, line: u32) {
        self.pulls.push_back(Pull { line, stage: Stage::New });
    }

    /// Whether nothing more may be announced for now.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.pulls.len() >= ANNOUNCED_MAX
    }

    /// What lies in its place, or is on its way there.
    pub fn open(&self) -> Open {
        Open { bytes: self.pulled, untouched: 0 }
    }

    /// Whether something is under way.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.pulls.is_empty()
    }

    /// Moves everything on as far as it goes now. Says how many batches landed.
    pub fn advance(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        from: &mut From<'_>,
        link: &mut Link,
    ) -> (u32, Result<(), Stop>) {
        self.note_reads(link);
        let begun = self.begin(env, topic, from, link);
        let mut landed = 0;
        loop {
            let (preamble, claim) = match self.pulls.front().map(|pull| &pull.stage) {
                Some(Stage::Whole(preamble, claim)) => (preamble, claim),
                Some(Stage::Dropped) => {
                    self.pulls.pop_front();
                    self.base += 1;
                    continue;
                }
                _ => break,
            };
            if landed >= from.allowance {
                return (landed, Err(Stop::Wait(Wait::InFlight)));
            }
            let placed = Placed {
                preamble: *preamble,
                segment: claim.segment,
                generation: claim.generation,
                offset: claim.offset,
            };
            let outcome = land(env, topic, from.session, from.owner, &placed);
            if let Err(NotLanded::Later(wait)) = outcome {
                return (landed, Err(Stop::Wait(wait)));
            }
            let payload = u64::from(preamble.payload_bytes);
            let Some(Pull { stage: Stage::Whole(_, claim), .. }) = self.pulls.pop_front() else {
                break;
            };
            self.base += 1;
            self.pulled -= u64::from(claim.bytes);
            match outcome {
                Ok(()) => {
                    topic.stock.done(claim);
                    env.count(Counter::BytesPulled, payload);
                    landed += 1;
                }
                Err(NotLanded::Later(wait)) => return (landed, Err(Stop::Wait(wait))),
                Err(NotLanded::Fault(fault)) => {
                    let at = claim.offset;
                    topic.stock.abandon(env, claim, at);
                    return (landed, Err(stop_of(env, &fault)));
                }
            }
        }
        (landed, begun)
    }

    /// Sorts completed reads to the batches they were for.
    fn note_reads(&mut self, link: &mut Link) {
        for _ in 0..std::mem::take(&mut link.reads) {
            let Some(number) = self.posted.pop_front() else { return };
            let at = number.wrapping_sub(self.base) as usize;
            let Some(pull) = self.pulls.get_mut(at) else { continue };
            pull.stage = match std::mem::replace(&mut pull.stage, Stage::New) {
                Stage::Head => {
                    let line = number % HEADS * LINE_BYTES;
                    Stage::Known(BatchPreamble::from_words(self.heads.load_words(line)))
                }
                Stage::Body(preamble, claim) => Stage::Whole(preamble, claim),
                other => other,
            };
        }
    }

    /// Posts reads: preambles as they were announced, payloads one behind the other.
    fn begin(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        from: &mut From<'_>,
        link: &mut Link,
    ) -> Result<(), Stop> {
        let mut may_place = true;
        let mut at = 0;
        while at < self.pulls.len().min(HEADS as usize) {
            let number = self.base + at as u64;
            let remote = |offset: u64| Remote {
                at: u64::from(self.pulls[at].line) * LINE_BYTES + offset,
                key: link.knock.arena_key,
            };
            match &self.pulls[at].stage {
                Stage::New => {
                    let line = number % HEADS * LINE_BYTES;
                    let into = Local { region: &self.region, at: line, bytes: PREAMBLE_BYTES };
                    if link.queue.read(&[into], remote(0), Work::Read.how()).is_err() {
                        return Ok(());
                    }
                    self.posted.push_back(number);
                    self.pulls[at].stage = Stage::Head;
                }
                Stage::Known(preamble) if may_place => {
                    let preamble = *preamble;
                    let source = remote(PREAMBLE_BYTES.into());
                    match self.place(env, topic, from, link, at, preamble, source) {
                        Ok(()) => {}
                        Err(Stop::Fenced { .. }) if from.fenced => {}
                        Err(stop) => return Err(stop),
                    }
                }
                Stage::Head | Stage::Known(_) => may_place = false,
                Stage::Body(..) | Stage::Whole(..) | Stage::Dropped => {}
            }
            at += 1;
        }
        Ok(())
    }

    /// Claims room for a batch whose preamble is good and posts the read of its payload.
    #[allow(clippy::too_many_arguments, reason = "what is read, by whom, and where it goes")]
    fn place(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        from: &mut From<'_>,
        link: &mut Link,
        at: usize,
        preamble: BatchPreamble,
        source: Remote,
    ) -> Result<(), Stop> {
        if let Err(fault) = judge(env, topic, from.session, &preamble) {
            self.pulls[at].stage = Stage::Dropped;
            return Err(stop_of(env, &fault));
        }
        has_room(env, topic).map_err(Stop::Wait)?;
        if link.queue.send_room() == 0 {
            return Err(Stop::Wait(Wait::Queue));
        }
        let bytes = preamble.batch_bytes() as u32;
        if self.pulled > 0 && self.pulled + u64::from(bytes) > PULLED_MAX {
            // Until some of it lands.
            return Err(Stop::Wait(Wait::Queue));
        }
        let claim = topic.stock.claim(env, bytes, bytes).ok_or(Stop::Wait(Wait::Segment))?;
        let Some(place) = env.pool.at(claim.segment, claim.offset, bytes) else {
            return Err(Stop::Wait(Wait::Segment));
        };
        env.pool.store_words(place, &preamble.to_words());
        self.pulled += u64::from(claim.bytes);
        if preamble.payload_bytes == 0 {
            self.pulls[at].stage = Stage::Whole(preamble, claim);
            return Ok(());
        }
        let into = Local {
            region: link.side.pool(),
            at: place + u64::from(PREAMBLE_BYTES),
            bytes: preamble.payload_bytes,
        };
        if link.queue.read(&[into], source, Work::Read.how()).is_err() {
            let offset = claim.offset;
            self.pulled -= u64::from(claim.bytes);
            topic.stock.give_back(env, claim, offset);
            return Err(Stop::Wait(Wait::Queue));
        }
        self.posted.push_back(self.base + at as u64);
        self.pulls[at].stage = Stage::Body(preamble, claim);
        Ok(())
    }

    /// The queue pair is no more: what was claimed becomes padding.
    pub fn abandon(&mut self, env: &Env, topic: &mut Topic) {
        for pull in self.pulls.drain(..) {
            if let Stage::Body(_, claim) | Stage::Whole(_, claim) = pull.stage {
                let at = claim.offset;
                topic.stock.abandon(env, claim, at);
            }
        }
    }
}

#[cold]
fn stop_of(env: &Env, fault: &Fault) -> Stop {
    match *fault {
        Fault::Fenced { epoch, next_seq } => Stop::Fenced { epoch, next_seq },
        _ => refusal(env, fault),
    }
}
