//! A verbs client that does as it is told, also what a NIC has to refuse.

use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall::api::Topic;
use landfall_layout::TopicId;
use landfall_layout::batch::BatchPreamble;
use landfall_layout::frame::{Ack, FRAME_BYTES, Frame, From, Receipt, Welcome};
use landfall_layout::verbs::{
    Arrived, FRAME_RING_LINES, GrantMode, Greeting, Intent, Knock, RECEIVES, Rejection, Said,
};
use landfall_nic::{
    Access, Completion, Depths, Dialing, Failure as Broken, How, Local, Queue, Refused, Region,
    Remote, What,
};
use landfall_pool::map::{Backing, memfd};
use landfall_pool::{Mapping, Memory};

use crate::raw::Batch;
use crate::rig::patience;
use crate::{Failure, Site};

/// Bytes of the memory that batches are sent from.
const ARENA_BYTES: u64 = 1 << 20;

/// What knocking came to.
pub enum Knocked {
    /// In.
    In(Box<RawVerbs>),
    /// The broker's frame and sentence; no frame when it said nothing.
    Out(Option<Frame>, String),
}

/// A connection over verbs.
pub struct RawVerbs {
    /// The queue pair.
    pub queue: Queue,
    /// What it was told.
    pub welcome: Welcome,
    /// Its client id.
    pub client: u64,
    ring: Arc<Mapping>,
    _ring_region: Region,
    arena: Arc<Mapping>,
    arena_region: Region,
    taken: u64,
    frames: std::collections::VecDeque<(Frame, String)>,
    done: std::collections::VecDeque<Completion>,
}

/// Room that the broker opened.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Its slot.
    pub slot: u8,
    /// Its remote address.
    pub at: u64,
    /// Its remote key.
    pub key: u32,
    /// Bytes.
    pub bytes: u32,
}

fn memory(bytes: u64) -> Result<Arc<Mapping>, Failure> {
    let fd = memfd("raw-verbs", bytes).map_err(|error| Failure::new(error.to_string()))?;
    let mapping = Mapping::new(fd, bytes, Backing::Shmem, true);
    Ok(Arc::new(mapping.map_err(|error| Failure::new(error.to_string()))?))
}

/// Knocks at broker 0 for a publisher of `client`; `change` may spoil the knock.
pub fn knock(
    site: &Site,
    topic: &Topic,
    client: u64,
    change: impl FnOnce(&mut Knock),
) -> Result<Knocked, Failure> {
    let token = site.client.token(&topic.name, 0)?;
    let number = token.number().ok_or_else(|| Failure::new("the token is no number"))?;
    knock_with(&token.verbs, topic, client, number, |knock| {
        change(knock);
        knock.to_bytes().to_vec()
    })
}

/// Knocks at an address with a token; `spell` makes the private data.
pub fn knock_with(
    address: &str,
    topic: &Topic,
    client: u64,
    token: u128,
    spell: impl FnOnce(&mut Knock) -> Vec<u8>,
) -> Result<Knocked, Failure> {
    let deadline = Instant::now() + patience();
    let failed = |error: landfall_nic::NicError| Failure::new(error.to_string());
    let address = address.parse().map_err(|_| Failure::new(format!("{address} is no address")))?;
    let dialing = Dialing::resolve(address, deadline).map_err(failed)?;
    let domain = dialing.domain().map_err(failed)?;
    let ring = memory(u64::from(FRAME_RING_LINES) * 64)?;
    let writable =
        Access { local_write: true, remote_read: false, remote_write: true, windows: false };
    let ring_region =
        Region::of_mapping(&domain, &ring, 0, ring.bytes(), writable).map_err(failed)?;
    let arena = memory(ARENA_BYTES)?;
    let readable =
        Access { local_write: true, remote_read: true, remote_write: false, windows: false };
    let arena_region =
        Region::of_mapping(&domain, &arena, 0, ARENA_BYTES, readable).map_err(failed)?;
    let mut knock = Knock {
        intent: Intent::Publish,
        ack: Ack::Ordered,
        grant: GrantMode::Window,
        client,
        session_epoch: 0,
        life: 0,
        comes_back: false,
        from: From::Earliest,
        topic: TopicId(topic.id),
        token,
        ring_key: ring_region.remote_key(),
        ring_lines: FRAME_RING_LINES,
        arena_key: arena_region.remote_key(),
        mtu: dialing.port_mtu(),
    };
    let private = spell(&mut knock);
    let depths = Depths { send: 64, receive: RECEIVES, inline: 0, reads: 4, shared_receive: None };
    let mtu = |accepted: &[u8]| Greeting::from_bytes(accepted).map_or(1024, |g| g.mtu);
    let receives = |queue: &mut Queue| {
        queue.receive(RECEIVES).expect("a fresh queue takes as many receives as it was made for");
        Ok(())
    };
    match dialing.connect(&domain, depths, &private, receives, mtu, deadline) {
        Ok((queue, accepted)) => {
            let greeting = Greeting::from_bytes(&accepted)
                .ok_or_else(|| Failure::new("an acceptance without a greeting"))?;
            let (Frame::Welcome(welcome), _) = Frame::decode(greeting.welcome)? else {
                return Err(Failure::new("a greeting without a welcome"));
            };
            Ok(Knocked::In(Box::new(RawVerbs {
                queue,
                welcome,
                client,
                ring,
                _ring_region: ring_region,
                arena,
                arena_region,
                taken: 0,
                frames: Default::default(),
                done: Default::default(),
            })))
        }
        Err(Refused::Rejected(private)) => Ok(match Rejection::from_bytes(&private) {
            Some(Rejection { frame, sentence }) => Knocked::Out(Some(frame), sentence),
            None => Knocked::Out(None, String::new()),
        }),
        Err(Refused::Failed(error)) => Err(Failure::new(error.to_string())),
    }
}

impl RawVerbs {
    /// A publisher that was let in.
    pub fn open(site: &Site, topic: &Topic, client: u64) -> Result<Self, Failure> {
        match knock(site, topic, client, |_| {})? {
            Knocked::In(raw) => Ok(*raw),
            Knocked::Out(frame, text) => {
                Err(Failure::new(format!("client {client} was not let in: {frame:?} {text}")))
            }
        }
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let mut some = [Completion::EMPTY; 16];
        let count = self.queue.poll(&mut some);
        for completion in &some[..count] {
            match completion.what {
                What::Received { immediate: Some(immediate), .. } => {
                    self.arrived(Arrived::decode(immediate))?;
                    let _ = self.queue.receive(1);
                }
                _ => self.done.push_back(*completion),
            }
        }
        if count == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn arrived(&mut self, arrived: Arrived) -> Result<(), Failure> {
        let lines = u64::from(FRAME_RING_LINES);
        if arrived.wrapped {
            self.taken = self.taken.next_multiple_of(lines);
        }
        let end = self.taken + u64::from(arrived.lines);
        while self.taken < end {
            let mut head = [0; FRAME_BYTES];
            self.line(&mut head);
            let (frame, tail) = Frame::decode(head)?;
            let mut text = Vec::new();
            while text.len() < tail {
                let mut line = [0; FRAME_BYTES];
                self.line(&mut line);
                text.extend_from_slice(&line);
            }
            text.truncate(tail);
            self.frames.push_back((frame, String::from_utf8_lossy(&text).into_owned()));
        }
        Ok(())
    }

    fn line(&mut self, into: &mut [u8; FRAME_BYTES]) {
        let at = self.taken % u64::from(FRAME_RING_LINES) * 64;
        for (i, word) in into.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.ring.load(at + i as u64 * 8).to_le_bytes());
        }
        self.taken += 1;
    }

    /// The next frame that is not a stall; `None` when none came within `wait`, or the queue pair
    /// is over.
    pub fn hear(&mut self, wait: Duration) -> Result<Option<(Frame, String)>, Failure> {
        let deadline = Instant::now() + wait;
        loop {
            match self.frames.pop_front() {
                Some((Frame::Stalled { .. } | Frame::Held(_), _)) => continue,
                Some(frame) => return Ok(Some(frame)),
                None if Instant::now() > deadline || self.queue.is_over() => return Ok(None),
                None => self.turn()?,
            }
        }
    }

    /// The next frame; none is a failure.
    pub fn expect(&mut self) -> Result<(Frame, String), Failure> {
        self.hear(patience())?.ok_or_else(|| Failure::new("a frame was expected and none came"))
    }

    /// The next receipt.
    pub fn receipt(&mut self) -> Result<Receipt, Failure> {
        match self.expect()? {
            (Frame::Receipt(receipt), _) => Ok(receipt),
            other => Err(Failure::new(format!("a receipt was expected, not {other:?}"))),
        }
    }

    /// Says something with a write of no bytes.
    pub fn say(&mut self, said: Said) -> Result<(), Failure> {
        let immediate = said.encode().ok_or_else(|| Failure::new(format!("{said:?}")))?;
        self.say_raw(immediate)
    }

    /// The same with any 32 bits.
    pub fn say_raw(&mut self, immediate: u32) -> Result<(), Failure> {
        let how = How { id: 1, signalled: true, ..How::default() };
        let nowhere = Remote { at: 0, key: 0 };
        let posted = self.queue.write(&[], nowhere, Some(immediate), how);
        posted.map_err(|full| Failure::new(full.to_string()))?;
        self.finish()
    }

    /// Says something; false when the broker takes nothing more from it within `wait`: then this
    /// queue pair is of no more use.
    pub fn try_say(&mut self, said: Said, wait: Duration) -> Result<bool, Failure> {
        let immediate = said.encode().ok_or_else(|| Failure::new(format!("{said:?}")))?;
        let how = How { id: 1, signalled: true, ..How::default() };
        let posted = self.queue.write(&[], Remote { at: 0, key: 0 }, Some(immediate), how);
        posted.map_err(|full| Failure::new(full.to_string()))?;
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline {
            if let Some(completion) = self.done.pop_front() {
                return Ok(completion.failure.is_none());
            }
            self.turn()?;
        }
        Ok(false)
    }

    /// Asks for room.
    pub fn room(&mut self, bytes: u32) -> Result<Room, Failure> {
        self.say(Said::Wanted { lines: bytes / 64 })?;
        match self.expect()? {
            (Frame::Extent { extent, key, at, bytes, .. }, _) => {
                Ok(Room { slot: extent as u8, at, key, bytes })
            }
            other => Err(Failure::new(format!("room was expected, not {other:?}"))),
        }
    }

    /// A batch of one message of this session.
    pub fn batch(&self, seq: u64, message: &[u8]) -> Batch {
        let preamble = BatchPreamble {
            topic: self.welcome.topic.0,
            session_epoch: self.welcome.session_epoch,
            client: self.client,
            batch_seq: seq,
            sealed_ns: 1,
            ..BatchPreamble::default()
        };
        Batch::new(preamble, &[message])
    }

    /// Puts bytes into the memory that is sent from.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        for (i, piece) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.arena.store(at + i as u64 * 8, u64::from_le_bytes(word));
        }
    }

    /// Writes bytes somewhere, with or without an immediate, and waits for the NIC's verdict.
    pub fn write(
        &mut self,
        bytes: &[u8],
        to: Remote,
        said: Option<Said>,
    ) -> Result<Option<Broken>, Failure> {
        self.put(0, bytes);
        let local = Local { region: &self.arena_region, at: 0, bytes: bytes.len() as u32 };
        let how = How { id: 2, signalled: true, ..How::default() };
        let said = said.and_then(Said::encode);
        let posted = self.queue.write(&[local], to, said, how);
        posted.map_err(|full| Failure::new(full.to_string()))?;
        self.verdict()
    }

    /// Reads from somewhere, and waits for the NIC's verdict.
    pub fn read(&mut self, from: Remote, bytes: u32) -> Result<Option<Broken>, Failure> {
        let local = Local { region: &self.arena_region, at: 0, bytes };
        let how = How { id: 3, signalled: true, ..How::default() };
        let posted = self.queue.read(&[local], from, how);
        posted.map_err(|full| Failure::new(full.to_string()))?;
        self.verdict()
    }

    fn verdict(&mut self) -> Result<Option<Broken>, Failure> {
        let deadline = Instant::now() + patience();
        loop {
            if let Some(completion) = self.done.pop_front() {
                return Ok(completion.failure);
            }
            ensure!(Instant::now() < deadline, "the NIC gave no verdict");
            self.turn()?;
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match self.verdict()? {
            None => Ok(()),
            Some(failure) => Err(Failure::new(format!("a write failed: {failure}"))),
        }
    }

    /// Publishes one message into a room, at its first line, and waits for the receipt.
    pub fn publish(&mut self, room: Room, line: u32, seq: u64) -> Result<Receipt, Failure> {
        let message = crate::flow::message(self.client, seq, 100);
        let bytes = self.batch(seq, &message).bytes();
        let to = Remote { at: room.at + u64::from(line) * 64, key: room.key };
        let failure = self.write(&bytes, to, Some(Said::Batch { slot: room.slot, line }))?;
        ensure!(failure.is_none(), "the NIC refused a good batch: {failure:?}");
        self.receipt()
    }
}
