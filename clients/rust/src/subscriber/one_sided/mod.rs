//! Reading log and payload out of the pool with RDMA READs: the broker opens segments and does
//! nothing else.
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | what is read next, and what is made of it |
//! | [`log`] | one log: entries, and the chain of segments they are in |
//! | [`slots`] | segments that the broker opened |
//! | [`space`] | room for payloads on their way |

mod log;
mod machine;
mod slots;
mod space;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::frame::{Frame, From, LogPlace};
use landfall_layout::verbs::Said;
use landfall_nic::Remote;
use landfall_pool::Mapping;
use landfall_pool::idle::Idle;

use self::machine::{Front, Machine, READS_MAX, Read, Tables, landing_bytes};
use self::slots::Granted;
use super::places::Places;
use super::verbs::Pushed;
use super::{Place, Step, Wanted, check_batch, check_entry, frames};
use crate::error::Error;
use crate::verbs::dial::Dialed;
use crate::verbs::ring::{copy_out, lines_of, shared_memory};
use crate::verbs::wire::Wire;
use landfall_pool::clock::{boot_ns, coarse_ns};

/// Time between two looks at whether the broker is there.
const ALIVE_EVERY_NS: u64 = 250_000_000;
/// Shortest and longest pause between two looks that find nothing new, for a reader that backs off.
const PAUSE_LEAST_NS: u64 = 20_000;
const PAUSE_MOST_NS: u64 = 1_000_000;
/// A log that does not go on for this long and so many bursts is broken. Both: a caller that
/// pauses makes no bursts, and the lines of a log are a moment apart.
const STUCK_NS: u64 = 5_000_000_000;
const STUCK_BURSTS: u32 = 200;
/// The slot of an answer that no segment was opened.
const NO_SLOT: u32 = u32::MAX;

/// Memory for READs to land in, of about `bytes` bytes: at least two of the largest batches fit.
pub(crate) fn landing(bytes: u64, batch_bytes_max: u32) -> Result<Arc<Mapping>, Error> {
    let payload = bytes.max(2 * u64::from(batch_bytes_max).next_multiple_of(64));
    shared_memory("landfall-landing", landing_bytes(payload))
        .map_err(|error| Error::Setting { setting: "ring_bytes", why: error.to_string() })
}

/// The connection.
pub(crate) struct OneSided {
    wire: Wire,
    machine: Machine,
    memory: Arc<Mapping>,
    /// The last work request of each burst under way.
    bursts: std::collections::VecDeque<u64>,
    reads: Vec<Read>,
    say: Vec<Said>,
    /// The batch that is shown, preamble first.
    batch: Vec<u8>,
    wanted: Wanted,
    looked_ns: u64,
    pauses: Pauses,
    /// When it last got on, how far it had got, and bursts since.
    got_on: (u64, u64, u32),
    ended: Option<Error>,
    /// The broker is to say where it begins. What lines say that are read before then is later.
    awaits_ends: bool,
}

impl OneSided {
    /// A reader on a connection with this memory to land in.
    pub(crate) fn new(
        dialed: Dialed,
        (sequenced, from): (bool, From),
        landing: Option<&Arc<Mapping>>,
        idle: Idle,
    ) -> Result<Self, Error> {
        let Dialed { wire, greeting, welcome, .. } = dialed;
        let broker = wire.broker;
        let logs = landfall_layout::limits::LOGS_PER_TOPIC as u32;
        let Some(landing) = landing.filter(|_| greeting.logs == logs) else {
            let what = format!("has {} logs a topic; this program knows {logs}", greeting.logs);
            return Err(Error::Unexpected { broker, what });
        };
        let tables = Tables {
            topic: welcome.topic,
            sequenced,
            lines: Remote { at: greeting.tables_at, key: greeting.tables_key },
            frontiers: Remote { at: greeting.frontiers_at, key: greeting.frontiers_key },
            headers: Remote { at: greeting.headers_at, key: greeting.headers_key },
            batch_bytes_max: welcome.batch_bytes_max,
            capacity: u64::MAX,
        };
        let now = coarse_ns();
        Ok(Self {
            wire,
            machine: Machine::new(tables, from, Arc::clone(landing)),
            memory: Arc::clone(landing),
            bursts: std::collections::VecDeque::new(),
            reads: Vec::with_capacity(READS_MAX),
            say: Vec::new(),
            batch: Vec::new(),
            wanted: Wanted { topic: welcome.topic, batch_bytes_max: welcome.batch_bytes_max },
            looked_ns: now,
            pauses: Pauses { backs_off: idle == Idle::Backoff, pause_ns: 0, until_ns: 0 },
            got_on: (now, 0, 0),
            ended: None,
            awaits_ends: !sequenced && from == From::Latest,
        })
    }

    /// Whether everything that was there at the start has been shown.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.machine.is_caught_up()
    }

    /// The next thing there is. Never waits.
    pub(crate) fn step(
        &mut self,
        places: &mut Places,
        verify: bool,
    ) -> Result<Step<Pushed>, Error> {
        loop {
            match self.machine.front(places) {
                Front::Batch { log, index, entry, at } => {
                    self.batch.resize(entry.bytes as usize, 0);
                    copy_out(&self.memory, at, &mut self.batch);
                    self.machine.pass();
                    let place = Place::of(log, index, &entry);
                    places.shown(log, index, entry.end_position());
                    self.post();
                    let wanted = self.wanted;
                    let checked = check_batch(&self.batch, &place, wanted, verify);
                    let same = |head| check_entry(&entry, &head).map(|()| head);
                    return match checked.and_then(same) {
                        Ok(preamble) => Ok(Step::Batch(Pushed { place, preamble })),
                        Err(why) => {
                            let (position, count) = (entry.first_position, entry.count);
                            Err(Error::Corrupt { log, index, position, count, why })
                        }
                    };
                }
                Front::Bad { log, index, position, count, why } => {
                    self.machine.pass();
                    places.shown(log, index, position.saturating_add(count.into()));
                    return Err(Error::Corrupt { log, index, position, count, why });
                }
                Front::Gap { log, reason, missed, resume } => {
                    return Ok(Step::Gap { log, reason, missed, resume });
                }
                Front::Nothing => {}
            }
            if self.machine.is_gone {
                return Ok(Step::TopicGone);
            }
            if let Some(error) = self.ended.take() {
                return Err(error);
            }
            match self.receive(places)? {
                Came::Nothing => return Ok(Step::Nothing),
                Came::Something => {}
                Came::TopicGone => return Ok(Step::TopicGone),
                Came::Ends(ends) => {
                    self.awaits_ends = false;
                    return Ok(Step::Ends(ends));
                }
            }
        }
    }

    /// Takes what came, and reads on.
    fn receive(&mut self, places: &mut Places) -> Result<Came, Error> {
        let now = coarse_ns();
        self.wire.pump();
        if now.saturating_sub(self.looked_ns) >= ALIVE_EVERY_NS {
            self.looked_ns = now;
            self.wire.check_alive(now);
        }
        let mut came = Came::Nothing;
        while let Some(step) = self.next_frame(places)? {
            match step {
                Step::TopicGone => return Ok(Came::TopicGone),
                Step::Ends(ends) => return Ok(Came::Ends(ends)),
                _ => came = Came::Something,
            }
        }
        while self.bursts.front().is_some_and(|last| *last <= self.wire.completed()) {
            self.bursts.pop_front();
            self.machine.complete(places, &mut self.say);
            self.pauses.looked(self.machine.is_behind());
            self.check_progress(now)?;
            came = Came::Something;
        }
        self.post();
        self.wire.say_taken(now);
        if let Some(error) = self.wire.lost("reading") {
            self.ended = Some(error);
            came = Came::Something;
        }
        Ok(came)
    }

    /// Plans bursts and posts them, as long as there is something to read.
    fn post(&mut self) {
        if self.awaits_ends {
            return;
        }
        while self.wire.send_room() >= READS_MAX as u32 && self.wire.backlog() == 0 {
            let looks = self.machine.is_behind() || !self.pauses.is_resting();
            let planned = looks && self.machine.plan(&mut self.reads, &mut self.say);
            for said in self.say.drain(..) {
                self.wire.say(said);
            }
            self.wire.flush();
            if !planned {
                return;
            }
            let last = self.reads.len() - 1;
            let mut number = 0;
            for (i, read) in self.reads.iter().enumerate() {
                let how = (i == last, read.fence);
                match self.wire.read((read.into, read.bytes), read.from, how) {
                    Some(id) => number = id,
                    // There was room: the queue pair has failed, and its completions say why.
                    None => number = u64::MAX,
                }
            }
            self.bursts.push_back(number);
        }
    }

    /// Whether the broker said anything since the last look.
    pub(crate) fn has_heard(&mut self) -> bool {
        std::mem::take(&mut self.wire.has_heard)
    }

    /// One frame from the broker. `None`: there is no more.
    fn next_frame(&mut self, places: &mut Places) -> Result<Option<Step<Pushed>>, Error> {
        let broker = self.wire.broker;
        let frame = self.wire.ring.frame();
        let Some((frame, tail)) = frame.map_err(|source| Error::Frame { broker, source })? else {
            return Ok(None);
        };
        let step = match frame {
            Frame::Extent { extent: slot, segment, key, at, bytes, .. } => {
                let granted = Granted { slot, segment, at, key, bytes };
                let taken = self.machine.granted(granted);
                taken.map_err(|what| Error::Unexpected { broker, what })?;
                Step::Nothing
            }
            Frame::ExtentDone { extent: NO_SLOT } => {
                // The lines that are read next say what became of its batches.
                self.machine.slots.refused();
                Step::Nothing
            }
            Frame::ExtentDone { extent: slot } => {
                self.machine.slots.called_in(slot, &mut self.say);
                Step::Nothing
            }
            frame => {
                let tail = self.wire.ring.text(tail);
                frames::step(broker, frame, &tail, places)?.step
            }
        };
        self.wire.ring.cursor.pass(1 + lines_of(tail));
        Ok(Some(step))
    }

    /// A log that never goes on, although it says that there is more, is an error and no wait.
    fn check_progress(&mut self, now: u64) -> Result<(), Error> {
        let (since, progress, bursts) = self.got_on;
        if self.machine.progress != progress || !self.machine.is_behind() {
            self.got_on = (now, self.machine.progress, 0);
            return Ok(());
        }
        self.got_on.2 = bursts + 1;
        if bursts < STUCK_BURSTS || now.saturating_sub(since) < STUCK_NS {
            return Ok(());
        }
        let what = format!(
            "{}, and nothing of it could be read for {} s",
            self.machine.describe(),
            STUCK_NS / 1_000_000_000
        );
        Err(Error::Unexpected { broker: self.wire.broker, what })
    }

    /// The payload of the batch that was found last.
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        self.batch.get(PREAMBLE_BYTES as usize..).unwrap_or_default()
    }

    /// Before a sleep: whether the descriptor will tell of what is being read.
    pub(crate) fn rest(&mut self) -> Rest {
        // Only the lines are under way, and those have just said that there is nothing.
        if !self.machine.is_behind() {
            return Rest::Sleep;
        }
        if self.wire.arm() { Rest::Wait } else { Rest::No }
    }

    /// After a sleep.
    pub(crate) fn disarm(&mut self) {
        self.wire.disarm();
    }
}

/// When to look again after a look that found nothing: READs without end would take the NIC and,
/// where that is software, a core from those who have something to do.
#[derive(Debug)]
struct Pauses {
    backs_off: bool,
    pause_ns: u64,
    until_ns: u64,
}

impl Pauses {
    fn looked(&mut self, found: bool) {
        if found || !self.backs_off {
            (self.pause_ns, self.until_ns) = (0, 0);
        } else {
            self.pause_ns = (2 * self.pause_ns).clamp(PAUSE_LEAST_NS, PAUSE_MOST_NS);
            self.until_ns = boot_ns() + self.pause_ns;
        }
    }

    fn is_resting(&self) -> bool {
        self.until_ns > 0 && boot_ns() < self.until_ns
    }
}

/// How a reader may wait.
pub(crate) enum Rest {
    /// Something has come already.
    No,
    /// On the descriptor.
    Wait,
    /// Nobody will ring.
    Sleep,
}

enum Came {
    Nothing,
    Something,
    Ends(Vec<LogPlace>),
    TopicGone,
}

impl AsFd for OneSided {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}
