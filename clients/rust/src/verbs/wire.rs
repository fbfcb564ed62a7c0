//! The queue pair of a client: immediates and batches out, lines in, and whether it lives.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use landfall_layout::limits::{SESSION_LEASE_NS, VERBS_BEAT_NS};
use landfall_layout::verbs::{Arrived, Said};
use landfall_nic::{Completion, Failure, How, Local, Queue, Region, Remote, What};

use super::ring::Ring;
use crate::error::Error;
use landfall_pool::clock::coarse_ns;

/// Work requests that a client's send queue holds.
pub(crate) const SEND_DEPTH: u32 = 256;
/// One in so many is signalled even in mid-burst: the queue is never full of unsignalled ones.
const SIGNAL_EVERY: u32 = SEND_DEPTH / 4;
/// Receives that are posted again at once.
const RECEIVES_AT_ONCE: u32 = 64;
/// A broker that wrote nothing for this long is lost: it writes at least every second.
const SILENCE_NS: u64 = SESSION_LEASE_NS / 2;
/// Completions taken at once.
const COMPLETIONS: usize = 16;

/// Bytes of registered memory that go with an immediate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Source {
    /// Which of the wire's regions.
    pub(crate) region: usize,
    /// Bytes from the start of its memory.
    pub(crate) at: u64,
    pub(crate) bytes: u32,
}

/// One RDMA write with an immediate, not posted yet.
#[derive(Clone, Copy, Debug)]
struct Post {
    immediate: u32,
    /// `None`: a write of no bytes.
    data: Option<(Source, Remote)>,
}

/// The connection.
pub(crate) struct Wire {
    pub(crate) broker: u8,
    // Fields are dropped in this order: the queue pair goes first, so that no NIC touches memory
    // that is being given back.
    queue: Queue,
    /// Memory that this side sends from, by number.
    regions: Vec<Option<Region>>,
    /// Memory that READs land in.
    landing: Option<Region>,
    _ring: Region,
    pub(crate) ring: Ring,
    waiting: VecDeque<Post>,
    /// Work requests posted, and how many of them are known to have completed.
    posted: u64,
    completed: u64,
    unsignalled: u32,
    /// Receives that completed and were not posted again.
    spent: u32,
    heard_ns: u64,
    /// Something came since the last look at this.
    pub(crate) has_heard: bool,
    said_ns: u64,
    trouble: Option<io::Error>,
}

impl Wire {
    pub(crate) fn new(broker: u8, queue: Queue, ring: Ring, region: Region) -> Self {
        let now = coarse_ns();
        Self {
            broker,
            queue,
            regions: Vec::new(),
            landing: None,
            _ring: region,
            ring,
            waiting: VecDeque::with_capacity(SEND_DEPTH as usize),
            posted: 0,
            completed: 0,
            unsignalled: 0,
            spent: 0,
            heard_ns: now,
            has_heard: false,
            said_ns: now,
            trouble: None,
        }
    }

    /// Takes memory to send from. Returns its number.
    pub(crate) fn add_region(&mut self, region: Region) -> usize {
        if let Some(free) = self.regions.iter().position(Option::is_none) {
            self.regions[free] = Some(region);
            return free;
        }
        self.regions.push(Some(region));
        self.regions.len() - 1
    }

    /// Lets go of memory that nothing under way is sent from.
    pub(crate) fn remove_region(&mut self, number: usize) {
        if let Some(region) = self.regions.get_mut(number) {
            *region = None;
        }
    }

    /// Takes the memory that READs land in.
    pub(crate) fn set_landing(&mut self, region: Region) {
        self.landing = Some(region);
    }

    /// Says something at the next flush.
    pub(crate) fn say(&mut self, said: Said) {
        match said.encode() {
            Some(immediate) => self.waiting.push_back(Post { immediate, data: None }),
            None => self.fail(io::Error::other(format!("{said:?} does not fit an immediate"))),
        }
    }

    /// Writes `from` to `to` and says something with it, at the next flush. Returns the number of
    /// the work request.
    #[inline]
    pub(crate) fn write(&mut self, said: Said, from: Source, to: Remote) -> u64 {
        match said.encode() {
            Some(immediate) => {
                self.waiting.push_back(Post { immediate, data: Some((from, to)) });
            }
            None => self.fail(io::Error::other(format!("{said:?} does not fit an immediate"))),
        }
        self.posted + self.waiting.len() as u64
    }

    /// Work requests that wait for room in the queue.
    #[inline]
    pub(crate) fn backlog(&self) -> usize {
        self.waiting.len()
    }

    /// Work requests that can be posted now.
    pub(crate) fn send_room(&self) -> u32 {
        self.queue.send_room()
    }

    /// The number of the last work request that is known to have completed; all before it have.
    #[inline]
    pub(crate) fn completed(&self) -> u64 {
        self.completed
    }

    /// Whether everything that was said and written has completed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.completed == self.posted
    }

    /// Posts what waits, as far as there is room. The last of the burst is signalled.
    pub(crate) fn flush(&mut self) {
        let mut posted = false;
        while let Some(post) = self.waiting.front().copied() {
            let last = self.waiting.len() == 1 || self.queue.send_room() <= 1;
            let signalled = last || self.unsignalled + 1 >= SIGNAL_EVERY;
            let id = self.posted + 1;
            let how = How { id, signalled, inline: false, fence: false };
            let done = match post.data {
                None => {
                    let nowhere = Remote { at: 0, key: 0 };
                    self.queue.write(&[], nowhere, Some(post.immediate), how)
                }
                Some((from, to)) => {
                    let Some(Some(region)) = self.regions.get(from.region) else {
                        self.fail(io::Error::other("a batch lies in memory that is gone"));
                        return;
                    };
                    let inline = from.bytes <= self.queue.inline_bytes();
                    let how = How { inline, ..how };
                    let local = Local { region, at: from.at, bytes: from.bytes };
                    self.queue.write(&[local], to, Some(post.immediate), how)
                }
            };
            if done.is_err() {
                // Full until completions are taken; a queue pair in error says so by them too.
                break;
            }
            self.posted = id;
            self.unsignalled = if signalled { 0 } else { self.unsignalled + 1 };
            self.waiting.pop_front();
            posted = true;
        }
        if posted {
            self.said_ns = coarse_ns();
        }
    }

    /// Reads `bytes` bytes from `from` into the landing memory at `at`. Returns the number of the
    /// work request; `None`: no room now.
    pub(crate) fn read(
        &mut self,
        (at, bytes): (u64, u32),
        from: Remote,
        (signalled, fence): (bool, bool),
    ) -> Option<u64> {
        // What was said comes first: a segment is asked for before it is read.
        if !self.waiting.is_empty() || self.queue.send_room() == 0 {
            return None;
        }
        let region = self.landing.as_ref()?;
        let id = self.posted + 1;
        let how = How { id, signalled, inline: false, fence };
        self.queue.read(&[Local { region, at, bytes }], from, how).ok()?;
        self.posted = id;
        self.unsignalled = if signalled { 0 } else { self.unsignalled + 1 };
        Some(id)
    }

    /// Takes completions: lines that arrived, work requests that are done. Whether any came.
    pub(crate) fn pump(&mut self) -> bool {
        let mut completions = [Completion::EMPTY; COMPLETIONS];
        let (mut came, spent) = (false, self.spent);
        loop {
            let count = self.queue.poll(&mut completions);
            for completion in &completions[..count] {
                self.take(completion);
            }
            came |= count > 0;
            if count < COMPLETIONS {
                break;
            }
        }
        if self.spent > spent {
            // Only what the broker said counts: its NIC answers even when it is stuck.
            self.heard_ns = coarse_ns();
            self.has_heard = true;
            if self.spent >= RECEIVES_AT_ONCE {
                self.post_receives();
            }
        }
        came
    }

    #[inline]
    fn take(&mut self, completion: &Completion) {
        if let Some(failure) = &completion.failure {
            self.failed(failure);
            return;
        }
        match completion.what {
            What::Received { immediate, .. } => {
                self.spent += 1;
                let arrived = Arrived::decode(immediate.unwrap_or(0));
                if let Err(overrun) = self.ring.cursor.arrived(arrived) {
                    self.fail(io::Error::other(format!("it {overrun}")));
                }
            }
            _ => self.completed = self.completed.max(completion.id),
        }
    }

    #[cold]
    fn failed(&mut self, failure: &Failure) {
        let text = if failure.is_remote_access() {
            format!(
                "{failure}: the broker revoked this connection's right to its memory, or it was \
                 left without it"
            )
        } else if failure.is_retry_exceeded() {
            format!("{failure}: the broker's NIC does not answer")
        } else if failure.is_flush() {
            "the connection has ended".to_owned()
        } else {
            failure.to_string()
        };
        // The first failure tells why; those behind it are only flushed.
        self.fail(io::Error::other(text));
    }

    #[cold]
    fn fail(&mut self, why: io::Error) {
        self.trouble.get_or_insert(why);
    }

    fn post_receives(&mut self) {
        if self.spent > 0 && self.queue.receive(self.spent).is_ok() {
            self.spent = 0;
        }
    }

    /// Tells the broker what was read of the ring, when that is due, or when nothing was said for a
    /// second.
    #[inline]
    pub(crate) fn say_taken(&mut self, now_ns: u64) {
        if self.ring.cursor.is_due() || now_ns.saturating_sub(self.said_ns) >= VERBS_BEAT_NS {
            self.say_taken_now();
        }
    }

    fn say_taken_now(&mut self) {
        if self.waiting.len() >= SEND_DEPTH as usize {
            return;
        }
        // First the receives, then the lines: an arrival never finds the one without the other.
        self.post_receives();
        let taken = self.ring.cursor.say();
        self.say(Said::Taken { lines: taken as u32 });
        self.flush();
    }

    /// Looks whether the connection still stands, after completions were taken.
    pub(crate) fn check_alive(&mut self, now_ns: u64) {
        if self.trouble.is_some() {
            return;
        }
        if self.queue.ended() {
            // What came before the end is in the completion queue.
            self.pump();
            self.fail(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended the connection"));
        } else if now_ns.saturating_sub(self.heard_ns) > SILENCE_NS {
            let text = format!("nothing came for {} s", SILENCE_NS / 1_000_000_000);
            self.fail(io::Error::new(io::ErrorKind::TimedOut, text));
        }
    }

    /// Why the connection is lost, if it is.
    pub(crate) fn lost(&mut self, doing: &'static str) -> Option<Error> {
        let source = self.trouble.take()?;
        Some(Error::Connection { broker: self.broker, doing, source })
    }

    /// Whether it is known to be lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.trouble.is_some()
    }

    /// Makes the descriptor tell of the next completion. Whether the caller may sleep: nothing
    /// has come meanwhile.
    pub(crate) fn arm(&mut self) -> bool {
        if let Err(error) = self.queue.arm() {
            self.fail(io::Error::other(error.to_string()));
            return false;
        }
        !self.pump() && self.trouble.is_none()
    }

    /// After a sleep.
    pub(crate) fn disarm(&mut self) {
        self.queue.take_bells();
    }

    /// Waits until everything that was said has reached the broker, or for `longest`.
    pub(crate) fn drain(&mut self, longest: Duration) {
        let deadline = Instant::now() + longest;
        while !self.is_quiet() && self.trouble.is_none() && Instant::now() < deadline {
            self.flush();
            if !self.pump() {
                std::thread::yield_now();
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

const _: () = assert!(SILENCE_NS > 3 * VERBS_BEAT_NS, "a late sign of life is not a death");
