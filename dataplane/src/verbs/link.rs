//! One client's queue pair, and what is on its way through it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;

use landfall_layout::frame::FRAME_BYTES;
use landfall_layout::limits::LINE_BYTES;
use landfall_layout::verbs::{Arrived, Knock, RECEIVES, Said, UnknownImmediate};
use landfall_nic::{
    Access, Completion, Failure, How, Local, NicError, Queue, Region, Remote, What,
};
use landfall_pool::clock::boot_ns;
use landfall_pool::map::{Backing, memfd};
use landfall_pool::{Mapping, Memory};

use super::gate::Doors;
use super::ring::{ClientRing, Spot};
use super::side::Side;

/// Lines of the memory that frames are sent from.
const STAGING_LINES: u64 = 2048;
/// Completions taken at a time.
const BURST: usize = 32;
/// Send queue: deliveries or frames under way, binds, reads.
pub const SENDS: u32 = 256;
/// Receives are posted again when so many were used.
const REPOST_AT: u32 = 64;

/// What a work request was for; with a number, it is the request's id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Lines or a delivery: the number is that of staging lines used up to and with it.
    Lines(u64),
    /// A memory window of this slot was bound.
    Bound(u8),
    /// A memory window of this slot was invalidated.
    Invalidated(u8),
    /// A pull's read.
    Read,
}

impl Work {
    fn id(self) -> u64 {
        match self {
            Self::Lines(end) => end << 8 | 4,
            Self::Bound(slot) => u64::from(slot) << 8 | 1,
            Self::Invalidated(slot) => u64::from(slot) << 8 | 2,
            Self::Read => 3,
        }
    }

    fn of(id: u64) -> Self {
        match id & 0xff {
            4 => Self::Lines(id >> 8),
            1 => Self::Bound((id >> 8) as u8),
            2 => Self::Invalidated((id >> 8) as u8),
            _ => Self::Read,
        }
    }

    /// How such work is posted: always signalled, so that its end is known.
    pub fn how(self) -> How {
        How { id: self.id(), signalled: true, inline: false, fence: false }
    }
}

/// Why a queue pair is no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The client touched what was not its own.
    Access,
    /// Something else; the client is gone, most likely.
    Failed(Failure),
}

/// The queue pair and everything that belongs to it.
pub struct Link {
    pub queue: Queue,
    pub side: Rc<Side>,
    pub knock: Knock,
    pub ring: ClientRing,
    pub doors: Doors,
    staging: Region,
    lines: Arc<Mapping>,
    staged: u64,
    freed: u64,
    /// Immediates in the order in which they came, with the bytes that came with each.
    inbox: VecDeque<(Result<Said, UnknownImmediate>, u32)>,
    /// Receives used and not posted again.
    used: u32,
    /// Segments that deliveries under way are read from, with the staging number of each.
    pub delivering: VecDeque<(u64, u32)>,
    /// Slots whose windows were invalidated, a bit each.
    pub invalidated: u32,
    /// Reads that have completed.
    pub reads: u32,
    pub lost: Option<Lost>,
    /// Immediates that came, and when the last of them was taken.
    heard: u64,
    pub heard_ns: u64,
    pub said_ns: u64,
    /// Signs of life sent since the client was last heard.
    pub beats: u32,
}

/// Memory that frames are sent from, made before the connection is accepted.
pub struct Staging {
    lines: Arc<Mapping>,
    region: Region,
}

impl Staging {
    pub fn new(side: &Side, knock: &Knock) -> Result<Self, String> {
        let bytes = STAGING_LINES * LINE_BYTES;
        let memory = memfd("landfall-staging", bytes)
            .and_then(|fd| Mapping::new(fd, bytes, Backing::Shmem, true))
            .map_err(|error| error.to_string())?;
        let lines = Arc::new(memory);
        let access =
            Access { local_write: true, remote_read: false, remote_write: false, windows: false };
        let domain = side.domain(knock.grant);
        let region = Region::of_mapping(domain, &lines, 0, bytes, access)
            .map_err(|error| error.to_string())?;
        Ok(Self { lines, region })
    }
}

impl Link {
    pub fn new(
        queue: Queue,
        doors: Doors,
        side: Rc<Side>,
        knock: Knock,
        staging: Staging,
        now_ns: u64,
    ) -> Self {
        Self {
            queue,
            doors,
            side,
            ring: ClientRing::new(knock.ring_lines),
            knock,
            staging: staging.region,
            lines: staging.lines,
            staged: 0,
            freed: 0,
            inbox: VecDeque::with_capacity(RECEIVES as usize),
            used: 0,
            delivering: VecDeque::with_capacity(SENDS as usize),
            invalidated: 0,
            reads: 0,
            lost: None,
            heard: 0,
            heard_ns: now_ns,
            said_ns: now_ns,
            beats: 0,
        }
    }

    /// Takes completions; how many there were.
    #[inline]
    pub fn poll(&mut self) -> usize {
        let mut burst = [Completion::EMPTY; BURST];
        let count = self.queue.poll(&mut burst);
        let heard = self.heard;
        for completion in &burst[..count] {
            self.completed(completion);
        }
        if self.heard != heard {
            self.heard_ns = boot_ns();
        }
        count
    }

    #[inline]
    fn completed(&mut self, completion: &Completion) {
        if let Some(failure) = completion.failure {
            return self.failed(completion, failure);
        }
        if let What::Received { immediate, bytes } = completion.what {
            self.heard += 1;
            // Without an immediate nothing was said: a client of ours never sends that.
            let said = immediate.map_or(Err(UnknownImmediate(0)), Said::decode);
            if let Ok(Said::Taken { lines }) = said {
                self.used += 1;
                self.beats = 0;
                if let Err(lie) = self.ring.took(lines, immediate.unwrap_or(0)) {
                    self.inbox.push_back((Err(lie), 0));
                }
                return;
            }
            self.inbox.push_back((said, bytes));
            return;
        }
        match Work::of(completion.id) {
            Work::Lines(end) => {
                self.freed = end;
                while self.delivering.front().is_some_and(|(number, _)| *number <= end) {
                    self.delivering.pop_front();
                }
            }
            Work::Bound(_) => {}
            Work::Invalidated(slot) => self.invalidated |= 1 << slot,
            Work::Read => self.reads += 1,
        }
    }

    /// The first failure says what happened; those behind it are only flushed.
    #[cold]
    fn failed(&mut self, completion: &Completion, failure: Failure) {
        if self.lost.is_some() {
            return;
        }
        // This side's receives end by themselves only when the NIC refused what the client did.
        let received = matches!(completion.what, What::Received { .. });
        let refused = failure.is_remote_access() || failure.is_flush();
        let lost = if received && refused { Lost::Access } else { Lost::Failed(failure) };
        self.lost = Some(lost);
    }

    /// The next thing the client said, with the bytes it came with.
    #[inline]
    pub fn next_said(&mut self) -> Option<(Result<Said, UnknownImmediate>, u32)> {
        let next = self.inbox.pop_front();
        self.used += u32::from(next.is_some());
        next
    }

    /// Whether something said waits.
    #[inline]
    pub fn has_said(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Posts used receives again, in bursts. A client whose words wait here gets none back.
    #[inline]
    pub fn repost(&mut self) {
        if self.used >= REPOST_AT && self.queue.receive(self.used).is_ok() {
            self.used = 0;
        }
    }

    /// Sends whole lines as far as ring and queue take them; how many lines that were.
    pub fn send_lines(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        let lines = bytes.len() / FRAME_BYTES;
        while sent < lines {
            let free = STAGING_LINES - (self.staged - self.freed);
            let at = self.staged % STAGING_LINES;
            let most = (lines - sent) as u64;
            let most = most.min(free).min(STAGING_LINES - at) as u32;
            let Some(spot) = self.ring.place_some(most) else { return sent };
            let from = sent * FRAME_BYTES;
            let piece = &bytes[from..from + spot.lines as usize * FRAME_BYTES];
            self.stage(at, piece);
            if !self.post(spot, at, u64::from(spot.lines), None) {
                return sent;
            }
            sent += spot.lines as usize;
        }
        sent
    }

    /// Sends a frame and `bytes` bytes of the pool at `at` behind it, as one write. False: there
    /// is no room now.
    pub fn deliver(&mut self, head: &[u8; FRAME_BYTES], segment: u32, at: u64, bytes: u32) -> bool {
        let lines = 1 + bytes.div_ceil(LINE_BYTES as u32);
        if STAGING_LINES == self.staged - self.freed {
            return false;
        }
        let Some(spot) = self.ring.place(lines) else { return false };
        let place = self.staged % STAGING_LINES;
        self.stage(place, head);
        if !self.post(spot, place, 1, Some((at, bytes))) {
            return false;
        }
        self.delivering.push_back((self.staged, segment));
        true
    }

    fn stage(&self, line: u64, bytes: &[u8]) {
        for (i, word) in bytes.chunks_exact(8).enumerate() {
            let mut eight = [0; 8];
            eight.copy_from_slice(word);
            self.lines.store(line * LINE_BYTES + i as u64 * 8, u64::from_le_bytes(eight));
        }
    }

    /// Writes staged lines, and a piece of the pool behind them, into the client's ring.
    fn post(&mut self, spot: Spot, staged_at: u64, staged: u64, more: Option<(u64, u32)>) -> bool {
        let head = Local {
            region: &self.staging,
            at: staged_at * LINE_BYTES,
            bytes: (staged * LINE_BYTES) as u32,
        };
        let inline = more.is_none() && head.bytes <= self.queue.inline_bytes();
        let how = How { inline, ..Work::Lines(self.staged + staged).how() };
        let to = Remote { at: u64::from(spot.line) * LINE_BYTES, key: self.knock.ring_key };
        let said = Arrived { wrapped: spot.wrapped, lines: spot.lines }.encode();
        let posted = match more {
            None => self.queue.write(&[head], to, Some(said), how),
            Some((at, bytes)) => {
                let bytes = bytes.next_multiple_of(LINE_BYTES as u32);
                let body = Local { region: self.side.pool(), at, bytes };
                self.queue.write(&[head, body], to, Some(said), how)
            }
        };
        if posted.is_err() {
            return false;
        }
        self.ring.wrote(spot);
        self.staged += staged;
        true
    }

    /// Says nothing, so that each side's NIC sees that the other one lives.
    pub fn beat(&mut self) {
        let said = Arrived { wrapped: false, lines: 0 }.encode();
        let to = Remote { at: 0, key: self.knock.ring_key };
        let how = Work::Lines(self.staged).how();
        if self.queue.write(&[], to, Some(said), how).is_ok() {
            self.beats += 1;
        }
    }

    /// Whether a delivery that is under way is read from this segment.
    pub fn reads_from(&self, segment: u32) -> bool {
        self.delivering.iter().any(|(_, of)| *of == segment)
    }

    /// Asks to be woken by the next completion.
    pub fn arm(&mut self) -> Result<(), NicError> {
        self.queue.arm()
    }
}

/// Segments that stand open for this client alone are closed with its connection.
impl Drop for Link {
    fn drop(&mut self) {
        self.queue.stop();
        if let Doors::Segments(segments) = &self.doors {
            for at in segments.iter().flatten() {
                self.side.close_segment(*at);
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_known_again_by_its_id() {
        let all = [Work::Lines(1 << 40), Work::Bound(7), Work::Invalidated(15), Work::Read];
        for work in all {
            assert_eq!(Work::of(work.how().id), work);
        }
    }
}
