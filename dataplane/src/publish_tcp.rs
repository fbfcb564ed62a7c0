//! Publishers over sockets: the preamble into scratch, the payload straight to its final place.

use std::io;
use std::os::fd::AsRawFd;

use landfall_layout::batch::{BATCH_MAGIC, BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::counters::Counter;
use landfall_layout::frame::{FRAME_MAGIC, Frame, Refusal};
use landfall_pool::Memory;
use landfall_pool::map::is_poison;
use nix::sys::socket::{MsgFlags, recv};

use crate::claim::Claim;
use crate::conn::Socket;
use crate::conns::Token;
use crate::env::Env;
use crate::halves::{Begun, Half};
use crate::land::{Fault, NotLanded, Placed, Session, Wait, has_room, judge, land};
use crate::topics::Topic;

/// Batches and payload bytes taken from one connection in one turn, so that others get theirs.
const BATCHES_PER_TURN: u32 = 32;
const BYTES_PER_TURN: usize = 1 << 20;
/// Bytes received to be thrown away, at a time.
pub const SCRATCH_BYTES: usize = 64 << 10;

const HEAD: usize = PREAMBLE_BYTES as usize;

/// How far the connection's next batch has come.
#[derive(Debug)]
pub enum Reading {
    /// Its first bytes: a preamble, or a frame.
    Head { bytes: [u8; HEAD], have: usize },
    /// Its preamble is good and it has no place yet.
    Wanting { preamble: BatchPreamble },
    /// Its payload is arriving at its final place.
    Filling { preamble: BatchPreamble, claim: Claim, received: u32, half: Option<Half> },
    /// Its session is over: the payload is thrown away.
    Skipping { left: u32, of: u32 },
    /// The publisher said goodbye: what still comes means nothing.
    Over,
}

/// What stopped the reading.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The socket has no more at this moment.
    Dry,
    /// The turn's share is used up.
    Share,
    /// Nothing can land now.
    Wait(Wait),
    /// The session's epoch is over. Reading goes on, and throws away.
    Fenced { epoch: u32, next_seq: u64 },
    /// The publisher wants positions. Reading goes on.
    Reserve { request: u32, count: u32, whole: bool },
    /// The publisher said goodbye.
    Bye,
    /// After its goodbye the publisher closed its side: it may still be reading.
    Silent,
    /// The connection ended; in the middle of a batch if so.
    Ended { in_batch: bool },
    /// What came cannot be accepted.
    Refuse(Refusal, String),
}

/// Who publishes.
pub struct From<'a> {
    pub socket: &'a mut Socket,
    pub session: &'a mut Session,
    pub owner: Token,
    pub fenced: bool,
    /// Batches it may still land before it has to wait for receipts.
    pub allowance: u32,
    /// Bytes it has brought.
    pub brought: &'a mut u64,
}

impl Reading {
    pub fn new() -> Self {
        Self::Head { bytes: [0; HEAD], have: 0 }
    }

    fn skip(preamble: &BatchPreamble) -> Self {
        let bytes = preamble.payload_bytes;
        Self::Skipping { left: bytes, of: bytes }
    }

    /// What has come of something that was begun and is not whole, or waits for its turn.
    pub fn begun(&self) -> Option<Begun> {
        let place = None;
        match self {
            Self::Head { have: have @ 1.., .. } => {
                Some(Begun { have: *have as u32, of: PREAMBLE_BYTES, place })
            }
            Self::Filling { preamble, claim, received, half: Some(_) } => {
                let (have, of) = (PREAMBLE_BYTES + received, preamble.batch_bytes() as u32);
                Some(Begun { have, of, place: Some((claim.segment, claim.bytes)) })
            }
            Self::Skipping { left: left @ 1.., of } => {
                Some(Begun { have: PREAMBLE_BYTES + of - left, of: PREAMBLE_BYTES + of, place })
            }
            _ => None,
        }
    }

    /// Bytes that the batch needs which has no place yet.
    pub fn wants(&self) -> u64 {
        match self {
            Self::Wanting { preamble } => preamble.batch_bytes(),
            _ => 0,
        }
    }

    /// Gives up the claim of a batch that will not be whole. Only this broker writes there, so that
    /// its room is used again where nothing lies behind it.
    pub fn abandon(&mut self, env: &Env, topic: &mut Topic) {
        if let Self::Filling { claim, .. } = std::mem::replace(self, Self::Over) {
            let from = claim.offset;
            topic.stock.give_back(env, claim, from);
        }
    }

    /// Reads and lands until something stops it. Also says how many batches landed.
    pub fn read_on(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        from: From<'_>,
        scratch: &mut [u8],
    ) -> (u32, Stop) {
        let mut landed = 0;
        let mut bytes_left = BYTES_PER_TURN;
        loop {
            if landed >= BATCHES_PER_TURN || bytes_left == 0 {
                return (landed, Stop::Share);
            }
            let step = match self {
                Self::Head { bytes, have } => {
                    if landed >= from.allowance {
                        return (landed, Stop::Wait(Wait::InFlight));
                    }
                    read_head(from.socket, bytes, have, from.brought)
                        .and_then(|bytes| self.open(env, topic, &from, bytes))
                }
                Self::Wanting { preamble } => {
                    let preamble = *preamble;
                    self.place(env, topic, preamble, &from, scratch)
                }
                Self::Filling { preamble, received, .. } if *received == preamble.payload_bytes => {
                    let outcome = self.finish(env, topic, from.session, from.owner);
                    landed += u32::from(outcome.is_ok());
                    outcome
                }
                Self::Filling { preamble, claim, received, half } => {
                    let left = (preamble.payload_bytes - *received) as usize;
                    let offset = claim.offset + PREAMBLE_BYTES + *received;
                    receive(env, from.socket, claim.segment, offset, left.min(bytes_left)).map(
                        |got| {
                            *received += got as u32;
                            bytes_left -= got;
                            *from.brought += got as u64;
                            if *received == preamble.payload_bytes {
                                *half = None;
                            }
                        },
                    )
                }
                Self::Skipping { left: 0, .. } => {
                    *self = Self::new();
                    Ok(())
                }
                Self::Skipping { left, .. } => {
                    let most = scratch.len().min(*left as usize).min(bytes_left);
                    taken(from.socket.recv(&mut scratch[..most]), true).map(|got| {
                        *left -= got as u32;
                        bytes_left -= got;
                        *from.brought += got as u64;
                    })
                }
                Self::Over => match taken(from.socket.recv(scratch), false) {
                    Err(Stop::Ended { .. }) => Err(Stop::Silent),
                    other => other.map(|got| bytes_left = bytes_left.saturating_sub(got)),
                },
            };
            match step {
                Ok(()) => {}
                // It was told already.
                Err(Stop::Fenced { .. }) if from.fenced => {}
                Err(stop) => return (landed, stop),
            }
        }
    }

    /// Looks at 64 bytes that begin a batch or are a frame.
    fn open(
        &mut self,
        env: &Env,
        topic: &Topic,
        from: &From<'_>,
        bytes: [u8; HEAD],
    ) -> Result<(), Stop> {
        let preamble = BatchPreamble::from_bytes(bytes);
        if preamble.magic == FRAME_MAGIC {
            return Err(frame(bytes));
        }
        if from.fenced {
            let known = preamble.check(env.pool.geometry().batch_bytes_max());
            return match known {
                Ok(()) => {
                    *self = Self::skip(&preamble);
                    Ok(())
                }
                Err(error) => Err(refusal(env, &Fault::Batch(error))),
            };
        }
        match judge(env, topic, from.session, &preamble) {
            Ok(()) => {
                *self = Self::Wanting { preamble };
                Ok(())
            }
            Err(Fault::Fenced { epoch, next_seq }) => {
                *self = Self::skip(&preamble);
                Err(Stop::Fenced { epoch, next_seq })
            }
            Err(fault) => Err(refusal(env, &fault)),
        }
    }

    /// Claims room and puts the preamble there.
    fn place(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        preamble: BatchPreamble,
        from: &From<'_>,
        scratch: &mut [u8],
    ) -> Result<(), Stop> {
        has_room(env, topic).map_err(Stop::Wait)?;
        let bytes = preamble.batch_bytes() as u32;
        if !env.halves.takes(bytes.into(), *from.brought)
            && !is_here(from.socket, preamble.payload_bytes, scratch)
        {
            return Err(Stop::Wait(Wait::Halves));
        }
        let claim = topic.stock.claim(env, bytes, bytes).ok_or(Stop::Wait(Wait::Segment))?;
        if let Some(at) = env.pool.at(claim.segment, claim.offset, PREAMBLE_BYTES) {
            env.pool.store_words(at, &preamble.to_words());
        }
        let half = Some(env.halves.begin(bytes.into()));
        *self = Self::Filling { preamble, claim, received: 0, half };
        Ok(())
    }

    /// Lands a batch that is whole.
    fn finish(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        session: &mut Session,
        owner: Token,
    ) -> Result<(), Stop> {
        let Self::Filling { preamble, claim, .. } = self else { return Ok(()) };
        let placed = Placed {
            preamble: *preamble,
            segment: claim.segment,
            generation: claim.generation,
            offset: claim.offset,
        };
        match land(env, topic, session, owner, &placed) {
            Ok(()) => {
                if let Self::Filling { claim, .. } = std::mem::replace(self, Self::new()) {
                    topic.stock.done(claim);
                }
                Ok(())
            }
            Err(NotLanded::Later(wait)) => {
                if let (Wait::Turn, Self::Filling { half, .. }) = (wait, self) {
                    // What comes before it is not there: it is no better than half.
                    let bytes = placed.preamble.batch_bytes();
                    half.get_or_insert_with(|| env.halves.begin(bytes));
                }
                Err(Stop::Wait(wait))
            }
            Err(NotLanded::Fault(fault)) => {
                self.abandon(env, topic);
                *self = Self::new();
                match fault {
                    Fault::Fenced { epoch, next_seq } => Err(Stop::Fenced { epoch, next_seq }),
                    fault => Err(refusal(env, &fault)),
                }
            }
        }
    }
}

/// The whole head once it is there.
fn read_head(
    socket: &mut Socket,
    bytes: &mut [u8; HEAD],
    have: &mut usize,
    brought: &mut u64,
) -> Result<[u8; HEAD], Stop> {
    while *have < HEAD {
        let got = taken(socket.recv(&mut bytes[*have..]), *have > 0)?;
        *have += got;
        *brought += got as u64;
    }
    *have = 0;
    Ok(*bytes)
}

/// Whether all of a payload that is no longer than `scratch` waits in the socket: its batch is not
/// half.
#[cold]
fn is_here(socket: &Socket, bytes: u32, scratch: &mut [u8]) -> bool {
    let (Some(fd), Some(into)) = (socket.fd(), scratch.get_mut(..bytes as usize)) else {
        return false;
    };
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(fd.as_raw_fd(), into, flags).is_ok_and(|got| got == bytes as usize)
}

/// Payload bytes from the socket to where they stay.
#[inline]
fn receive(
    env: &Env,
    socket: &Socket,
    segment: u32,
    offset: u32,
    most: usize,
) -> Result<usize, Stop> {
    let Some(at) = env.pool.at(segment, offset, most as u32) else {
        return Err(Stop::Refuse(
            Refusal::BadBatch,
            format!("{most} bytes at {offset} reach past segment {segment}"),
        ));
    };
    let Some(fd) = socket.fd() else { return Err(Stop::Ended { in_batch: true }) };
    let received = env.pool.recv(fd, at, most).inspect_err(|error| {
        if is_poison(error) {
            env.pool.probe(segment, offset, most as u32);
        }
    });
    let got = taken(received, true)?;
    env.count(Counter::BytesReceived, got as u64);
    Ok(got)
}

/// Sorts what a receive call said.
fn taken(outcome: io::Result<usize>, in_batch: bool) -> Result<usize, Stop> {
    match outcome {
        Ok(0) => Err(Stop::Ended { in_batch }),
        Ok(got) => Ok(got),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Err(Stop::Dry),
            io::ErrorKind::Interrupted => Err(Stop::Share),
            _ => Err(Stop::Ended { in_batch }),
        },
    }
}

/// A frame in a publisher's stream.
#[cold]
fn frame(bytes: [u8; HEAD]) -> Stop {
    match Frame::decode(bytes) {
        Ok((Frame::Bye, 0)) => Stop::Bye,
        Ok((Frame::Reserve { request, count, whole }, 0)) => {
            Stop::Reserve { request, count, whole }
        }
        Ok((frame, tail)) => Stop::Refuse(
            Refusal::Malformed,
            format!(
                "a publisher's stream holds batches, Reserve and Bye; found {frame:?} tail {tail}"
            ),
        ),
        Err(error) => Stop::Refuse(Refusal::Malformed, error.to_string()),
    }
}

/// A batch that cannot be accepted, as the connection is told.
#[cold]
pub fn refusal(env: &Env, fault: &Fault) -> Stop {
    use landfall_layout::batch::BatchError;
    if matches!(fault, Fault::Lost { .. }) {
        // No fault of the publisher's: it comes back, and sends again what it has no receipt for.
        return Stop::Ended { in_batch: true };
    }
    if let Fault::Batch(BatchError::HeaderCrc { .. } | BatchError::PayloadCrc { .. }) = fault {
        env.count(Counter::CrcErrors, 1);
    }
    let why = match fault {
        Fault::Batch(BatchError::Version { .. }) => Refusal::Version,
        Fault::Batch(BatchError::Magic { .. }) => Refusal::Malformed,
        _ => Refusal::BadBatch,
    };
    Stop::Refuse(why, fault.to_string())
}

const _: () = assert!(BATCH_MAGIC != FRAME_MAGIC, "the first word tells batches from frames");
