//! What moves a publisher: receipts in, filled batches out, and waiting for either.

use std::time::Duration;

use landfall_layout::batch::{PREAMBLE_BYTES, crc32c};
use landfall_layout::frame::{Ack, Frame, Reached, Receipt as ReceiptFrame, Refusal};
use landfall_layout::limits::STREAM_WINDOW;
use landfall_layout::topic::Order;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::batch::{Filler, Spot};
use super::link::{Carrier, Incoming};
use super::receipts::{BatchReceipt, LANES, Outcome};
use super::session::{Bytes, Filled};
use super::{Dealt, Publisher};
use crate::error::{Error, Stalled};
use crate::wait::Patience;
use landfall_pool::clock::{coarse_ns, wall_ns};
use landfall_pool::idle::{Idle, Waiter};

/// Time between two looks at whether the broker of a busy memory connection is still there.
const ALIVE_EVERY_NS: u64 = 50_000_000;
/// Batches under way over verbs that keep the NIC busy while their publisher sleeps and wakes.
const IN_FLIGHT_MANY: u32 = 8;
/// Batches, and bytes, that go the same way in a row in order `strong`.
const RUN_BATCHES: u32 = 64;
const RUN_BYTES: u64 = 256 << 10;
/// Longest sleep: a safety net under the bells, not a clock.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Why the publisher cannot simply go on.
pub(crate) enum Trouble {
    /// The connections are lost; others may be had.
    Lost(Error),
    /// The session's epoch is over.
    Fenced,
    /// Nothing will help.
    Fatal(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Connection { .. } | Error::Unreachable { .. } | Error::Timeout { .. } => {
                Self::Lost(error)
            }
            Error::Refused { why: Refusal::Busy | Refusal::NoControl, .. } => Self::Lost(error),
            other => Self::Fatal(other),
        }
    }
}

impl Publisher {
    /// Whole batch or not: no more messages for the open batches of this lane and those above.
    pub(super) fn close_through(&mut self, lane: usize) {
        for lane in 0..=lane {
            self.close_lane(lane);
        }
    }

    fn close_lane(&mut self, lane: usize) {
        let Some(open) = self.lanes[lane].open.take() else { return };
        let payload_bytes = open.payload_bytes as u32;
        let (payload_crc, bytes, extent, link) = match open.filler {
            Filler::Streamed(streamed) => self.placed(streamed.finish(), payload_bytes),
            Filler::Extent(mut filler) => {
                let placed = filler.finish();
                self.lanes[lane].spare_filler = Some(filler);
                self.placed(placed, payload_bytes)
            }
            Filler::Buffer(buffer) => {
                let crc = crc32c(&buffer[PREAMBLE_BYTES as usize..]);
                (crc, Bytes::Buffer(self.fit(buffer)), 0, 0)
            }
            Filler::Slab(filler) => {
                let (crc, slot) = filler.finish();
                (crc, Bytes::Slab(slot), 0, 0)
            }
        };
        let position = self.positions.take_own(open.count as u16);
        let filled = Filled {
            lane: lane as u8,
            number: open.number,
            count: open.count as u16,
            payload_bytes,
            payload_crc,
            bytes,
            link,
            extent,
            position,
        };
        self.waiting_bytes += filled.batch_bytes();
        self.lanes[lane].filled.push_back(filled);
    }

    /// Notes that a whole payload lies in an extent.
    fn placed(&mut self, (crc, spot): (u32, Spot), payload_bytes: u32) -> (u32, Bytes, u32, usize) {
        if let Some(Carrier::Memory(memory)) =
            self.links.get_mut(spot.link).map(|link| &mut link.carrier)
        {
            memory.filled(spot.extent, PREAMBLE_BYTES + payload_bytes);
        }
        (crc, Bytes::Extent(spot.location), spot.extent, spot.link)
    }

    /// A buffer that is mostly empty is exchanged for one that fits, so that the memory bound is
    /// about bytes that are there.
    fn fit(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        if buffer.len() >= buffer.capacity() / 4 {
            return buffer;
        }
        let fitting = buffer.as_slice().to_vec();
        self.recycle(buffer);
        fitting
    }

    /// Keeps a full-size buffer for the next batch.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        let kept = self.spare_buffers.len() as u64 * u64::from(self.setup.batch_bytes);
        let room = self.setup.memory_bytes.saturating_sub(self.waiting_bytes);
        if buffer.capacity() >= self.setup.batch_bytes as usize && kept < room {
            self.spare_buffers.push(buffer);
        }
    }

    /// Closes batches that were open for as long as they may be.
    pub(super) fn close_lingering(&mut self) {
        let linger_ns = self.linger_ns;
        let now = self.clock.steady_ns;
        let is_due = |lane: &usize| {
            let open = self.lanes[*lane].open.as_ref();
            open.is_some_and(|open| now.saturating_sub(open.since_ns) >= linger_ns)
        };
        if let Some(lane) = (0..LANES).rev().find(is_due) {
            self.close_through(lane);
        }
    }

    /// Takes what brokers said and sends what can be sent. Never blocks. Returns receipts taken.
    pub(super) fn turn(&mut self) -> Result<usize, Trouble> {
        let receipts = self.take_incoming()?;
        match self.dispatch() {
            Err(Trouble::Lost(error)) => {
                // Why it ended may have come meanwhile, and nobody says it again.
                self.take_incoming()?;
                Err(Trouble::Lost(error))
            }
            dispatched => dispatched.map(|()| receipts),
        }
    }

    fn take_incoming(&mut self) -> Result<usize, Trouble> {
        let now = coarse_ns();
        let look = now.saturating_sub(self.looked_ns) > ALIVE_EVERY_NS;
        if look {
            self.looked_ns = now;
        }
        let mut receipts = 0;
        for i in 0..self.links.len() {
            match &mut self.links[i].carrier {
                Carrier::Memory(memory) => {
                    // What came before the connection ended counts: it is looked at first.
                    if look && let Err(error) = memory.check_alive() {
                        self.ended = Some(error);
                    }
                }
                Carrier::Verbs(verbs) => {
                    if let Some(error) = verbs.receive(now, look) {
                        self.ended = Some(error);
                    }
                }
                Carrier::Tcp(tcp) => {
                    if let Err(error) = tcp.receive() {
                        self.ended = Some(error);
                    }
                }
            }
            loop {
                let (incoming, granted) = self.links[i].next()?;
                self.moves += u64::from(granted);
                match incoming {
                    None => break,
                    Some(Incoming::Refused(error)) => return Err(self.named(error).into()),
                    Some(Incoming::Frame(frame)) => {
                        receipts += usize::from(self.take_frame(i, frame)?);
                    }
                }
            }
            if let Carrier::Verbs(verbs) = &mut self.links[i].carrier {
                verbs.wire.say_taken(now);
            }
            if let Some(error) = self.ended.take()
                && !self.links[i].gone
            {
                return Err(error.into());
            }
            if look {
                self.listen(i, now)?;
            }
        }
        Ok(receipts)
    }

    /// A refusal of the topic that the publisher has is the topic's end.
    pub(super) fn named(&self, error: Error) -> Error {
        match error {
            Error::Refused { why: Refusal::TopicGone | Refusal::NoTopic, .. } => {
                let another_pool = self.route.is_another_pool(&self.pool_uuid);
                Error::TopicGone { topic: self.setup.topic.clone(), another_pool }
            }
            other => other,
        }
    }

    /// One frame. Returns whether it was a receipt for something.
    fn take_frame(&mut self, link: usize, frame: Frame) -> Result<bool, Trouble> {
        match frame {
            Frame::Receipt(receipt) => self.take_receipt(link, receipt),
            Frame::Reserved { request, first, count } => {
                self.take_positions(link, (request, first, count)).map(|()| false)
            }
            Frame::Stalled { why, used, of } => {
                self.stalled = Some(Stalled { why, used, of });
                self.stats.stalls += 1;
                Ok(false)
            }
            Frame::Held(held) => {
                self.held = Some(held);
                Ok(false)
            }
            Frame::Beat => Ok(false),
            // A session of before: its connection is gone, but its words may still be on the way.
            Frame::Fenced { session_epoch, .. } if session_epoch != self.epoch => Ok(false),
            Frame::Fenced { .. } => Err(Trouble::Fenced),
            Frame::Bye => {
                self.links[link].gone = true;
                self.moves += 1;
                if self.closing {
                    return Ok(false);
                }
                let source = std::io::Error::other("it said goodbye");
                let broker = self.links[link].broker;
                Err(Error::Connection { broker, doing: "publishing", source }.into())
            }
            other => {
                let broker = self.links[link].broker;
                let what = format!("sent a publisher {other:?}");
                Err(Error::Unexpected { broker, what }.into())
            }
        }
    }

    fn take_receipt(&mut self, link: usize, receipt: ReceiptFrame) -> Result<bool, Trouble> {
        if receipt.session_epoch != self.epoch {
            return Ok(false);
        }
        let seq = match self.order {
            Order::Token => self.positions.sequence_of(receipt.batch_seq),
            _ => Some(receipt.batch_seq),
        };
        let Some(seq) = seq else { return Ok(false) };
        let known = self.session.get(seq).is_some_and(|batch| batch.filled.link == link);
        let sent = match &self.links[link].carrier {
            Carrier::Memory(_) | Carrier::Verbs(_) => true,
            Carrier::Tcp(tcp) => tcp.is_sent(seq),
        };
        if !known {
            // Receipts may come twice, and one for a batch that was never sent is nothing to us.
            return Ok(false);
        }
        if !sent {
            let broker = self.links[link].broker;
            let what = format!("sent a receipt for batch {seq}, which is not sent yet");
            return Err(Error::Unexpected { broker, what }.into());
        }
        self.links[link].in_flight = self.links[link].in_flight.saturating_sub(1);
        let position = (receipt.reached != Reached::Duplicate).then_some(receipt.position);
        self.settle(seq, receipt.reached, position, receipt.landed_ns);
        Ok(true)
    }

    /// A batch has reached what was asked for.
    pub(super) fn settle(
        &mut self,
        seq: u64,
        reached: Reached,
        first_position: Option<u64>,
        landed_ns: u64,
    ) {
        let Some((filled, sealed_ns)) = self.session.settle(seq) else { return };
        self.moves += 1;
        self.stalled = None;
        self.held = None;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(filled.batch_bytes());
        if let Some(position) = filled.position {
            self.positions.settled(position);
        }
        if !matches!(reached, Reached::Duplicate | Reached::Lost) {
            self.level = Some(reached);
        }
        // What its readers see.
        let batch_seq = filled.position.unwrap_or(seq);
        if reached == Reached::Lost {
            self.spoilt.add(batch_seq, filled.count);
        } else {
            self.acked.batches += 1;
            self.acked.messages += u64::from(filled.count);
            self.acked.bytes += filled.batch_bytes();
        }
        self.lanes[usize::from(filled.lane)].outcomes.record(Outcome {
            number: filled.number,
            batch_seq,
            first_position,
            landed_ns,
            reached,
        });
        if self.setup.ack != Ack::None {
            self.receipts.push(BatchReceipt {
                batch_seq,
                first_position,
                count: filled.count,
                reached,
                landed_ns,
                sealed_ns,
                acked_ns: wall_ns(),
            });
        }
        match filled.bytes {
            Bytes::Buffer(buffer) => self.recycle(buffer),
            Bytes::Slab(slot) => {
                if let Some(Carrier::Verbs(verbs)) =
                    self.links.get_mut(filled.link).map(|link| &mut link.carrier)
                {
                    verbs.release(slot);
                }
            }
            Bytes::Extent(_) | Bytes::Gone => {}
        }
    }

    /// Seals what is filled, as far as the connections take it, and sends it.
    pub(super) fn dispatch(&mut self) -> Result<(), Trouble> {
        if self.links.is_empty() {
            return Ok(());
        }
        if self.order == Order::Token {
            self.dispatch_reserved();
        } else if self.send_again() {
            self.send_new();
        }
        for i in 0..self.links.len() {
            let mut written = std::mem::take(&mut self.written);
            match &mut self.links[i].carrier {
                Carrier::Memory(memory) => memory.flush()?,
                Carrier::Verbs(verbs) => {
                    verbs.flush()?;
                    verbs.take_unwatched(|seq| written.push(seq));
                }
                Carrier::Tcp(tcp) => {
                    let sent = tcp.write(&self.session, |seq| written.push(seq))?;
                    self.moves += sent;
                }
            }
            if self.setup.ack == Ack::None {
                for seq in &written {
                    self.settle(*seq, Reached::Landed, None, 0);
                }
            }
            written.clear();
            self.written = written;
        }
        Ok(())
    }

    /// What a lost connection left without a receipt goes first, in order. Whether all is sent.
    fn send_again(&mut self) -> bool {
        while let Some(seq) = self.session.next_resend() {
            let Some(bytes) = self.session.get(seq).map(|batch| batch.filled.batch_bytes()) else {
                return false;
            };
            let Some(link) = self.pick_link(bytes) else { return false };
            let mut spare = Vec::new();
            let now = wall_ns();
            let identity = self.identity();
            let Some(batch) = self.session.get_mut(seq) else { return false };
            batch.filled.link = link;
            batch.sealed_ns = now;
            let filled = &mut batch.filled;
            let seal = (identity, seq, now);
            if !self.links[link].ship(filled, seal, &mut self.store, &mut spare) {
                return false;
            }
            self.recycle(spare);
            self.session.resent(seq);
            self.stats.resubmitted += 1;
            self.settle_unwatched(link, seq);
        }
        true
    }

    /// Filled batches get their sequence: high before normal before low.
    fn send_new(&mut self) {
        for lane in 0..LANES {
            while let Some(front) = self.lanes[lane].filled.front() {
                // Further behind, nobody would know of the first without a receipt whether it is
                // in the log, should its connection be lost.
                if self.order == Order::Stream && self.session.span() >= STREAM_WINDOW {
                    return;
                }
                let (bound, bytes) = (front.link, front.batch_bytes());
                let link = match front.bytes {
                    Bytes::Extent(_) => Some(bound).filter(|i| self.links[*i].takes()),
                    _ => self.pick_link(bytes),
                };
                let Some(link) = link else { return };
                let (seq, now) = (self.session.next_seq(), wall_ns());
                let (identity, mut spare) = (self.identity(), Vec::new());
                let Some(mut filled) = self.lanes[lane].filled.pop_front() else { return };
                filled.link = link;
                let seal = (identity, seq, now);
                if !self.links[link].ship(&mut filled, seal, &mut self.store, &mut spare) {
                    self.lanes[lane].filled.push_front(filled);
                    return;
                }
                self.recycle(spare);
                self.stats.batches += 1;
                self.stats.messages += u64::from(filled.count);
                self.stats.bytes += filled.batch_bytes();
                self.session.push(filled, now);
                self.settle_unwatched(link, seq);
            }
        }
    }

    /// Without receipts, a batch in the pool is out of our hands once the broker can see it.
    pub(super) fn settle_unwatched(&mut self, link: usize, seq: u64) {
        if self.setup.ack == Ack::None && self.links[link].memory().is_some() {
            self.settle(seq, Reached::Landed, None, 0);
        }
    }

    /// The next connection in turn that takes a batch of so many bytes.
    pub(super) fn pick_link(&mut self, bytes: u64) -> Option<usize> {
        let found = self.find_link()?;
        self.deal(found, bytes);
        Some(found)
    }

    /// Binds a batch to a connection, which may end its turn. In order `strong` a turn is a run of
    /// batches: a batch lands at once behind one that came the same way, and otherwise only when
    /// the sequencer has ordered that one.
    pub(super) fn deal(&mut self, link: usize, bytes: u64) {
        if link != self.next_link {
            self.dealt = Dealt::default();
        }
        self.next_link = link;
        self.dealt.batches += 1;
        self.dealt.bytes += bytes;
        let is_run = self.dealt.batches < RUN_BATCHES && self.dealt.bytes < RUN_BYTES;
        if self.order != Order::Strong || !is_run {
            self.next_link = (link + 1) % self.links.len();
            self.dealt = Dealt::default();
        }
    }

    /// The same, which leaves it its turn.
    pub(super) fn find_link(&self) -> Option<usize> {
        let count = self.links.len();
        (0..count).map(|i| (self.next_link + i) % count).find(|link| self.links[*link].takes())
    }

    /// Moves everything on, reconnecting when its time has come. Returns receipts taken.
    pub(super) fn drive(&mut self) -> Result<usize, Error> {
        self.check_failed()?;
        if self.links.is_empty() && !self.reconnect_if_due()? {
            return Ok(0);
        }
        match self.turn() {
            Ok(receipts) => Ok(receipts),
            Err(trouble) => self.suffer(trouble).map(|()| 0),
        }
    }

    /// Drives until `done` finds something, or nothing moves for the timeout.
    pub(super) fn wait_until<T>(
        &mut self,
        awaited: &str,
        mut done: impl FnMut(&mut Self) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let mut waiter = Waiter::new(self.setup.idle);
        let mut patience = Patience::new(self.setup.timeout);
        let mut moves = self.moves;
        loop {
            self.clock.look();
            self.close_lingering();
            self.drive()?;
            if let Some(found) = done(self)? {
                return Ok(found);
            }
            if moves != self.moves {
                moves = self.moves;
                waiter.reset();
                patience.progress();
            }
            let left = patience.left();
            if left.is_zero() {
                return Err(self.too_long(awaited, patience.waited()));
            }
            if self.has_much_under_way() || waiter.rest() {
                self.park(left.min(SLEEP_MAX));
            }
        }
    }

    /// Whether so many batches are on their way over verbs that it does no harm to sleep at once:
    /// what comes meanwhile is taken together, and where the NIC is software it gets the core.
    fn has_much_under_way(&self) -> bool {
        self.setup.idle == Idle::Backoff
            && self.links.iter().any(|link| {
                matches!(link.carrier, Carrier::Verbs(_)) && link.in_flight >= IN_FLIGHT_MANY
            })
    }

    /// Sleeps until a connection has something, or for `longest`.
    fn park(&mut self, longest: Duration) {
        let mut longest = longest;
        if self.links.is_empty() {
            std::thread::sleep(longest.min(self.until_retry()));
            return;
        }
        if self.lanes.iter().any(|lane| lane.open.is_some()) {
            longest = longest.min(self.setup.linger.max(Duration::from_micros(100)));
        }
        let mut may_sleep = true;
        for link in &mut self.links {
            may_sleep &= match &mut link.carrier {
                Carrier::Memory(memory) => memory.park(true),
                Carrier::Verbs(verbs) => verbs.wire.arm(),
                Carrier::Tcp(_) => true,
            };
        }
        if may_sleep {
            let mut fds: Vec<PollFd<'_>> = self
                .links
                .iter()
                .map(|link| {
                    let writes = matches!(&link.carrier, Carrier::Tcp(tcp) if tcp.wants_write());
                    let write = if writes { PollFlags::POLLOUT } else { PollFlags::empty() };
                    PollFd::new(std::os::fd::AsFd::as_fd(link), PollFlags::POLLIN | write)
                })
                .collect();
            let millis = u16::try_from(longest.as_millis().max(1)).unwrap_or(u16::MAX);
            // A wait that fails or is interrupted only means that we look too early.
            let _ = poll(&mut fds, PollTimeout::from(millis));
        }
        for link in &mut self.links {
            match &mut link.carrier {
                Carrier::Memory(memory) => {
                    memory.park(false);
                }
                Carrier::Verbs(verbs) => verbs.wire.disarm(),
                Carrier::Tcp(_) => {}
            }
        }
        // The bell may have been the connection's end: look at the sockets next.
        self.looked_ns = 0;
    }
}
