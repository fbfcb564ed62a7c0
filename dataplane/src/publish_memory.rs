//! Publishers that write the pool themselves: extents granted, batches in them checked and landed.

use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::frame::{Frame, Refusal};
use landfall_layout::limits::LINE_BYTES;
use landfall_pool::Memory;

use crate::claim::{Claim, lines_up, pad};
use crate::conn::Channel;
use crate::conns::Token;
use crate::env::Env;
use crate::land::{Fault, NotLanded, Placed, Session, Wait, land};
use crate::publish_tcp::{Stop, refusal};
use crate::topics::Topic;

/// Extents a publisher may hold at a time: the one it writes, the next, and some that end.
const EXTENTS_MAX: usize = 8;
/// Smallest extent when the pool has room.
const EXTENT_BYTES_LEAST: u32 = 256 << 10;
/// Frames taken from one channel in one turn, so that others get theirs.
const FRAMES_PER_TURN: u32 = 64;

#[derive(Debug)]
struct Extent {
    number: u32,
    /// Nothing once every byte was used: the segment need not wait for the publisher's word.
    claim: Option<Claim>,
    /// First byte that no batch was written to.
    next: u32,
}

/// A memory publisher's extents.
#[derive(Debug)]
pub struct Extents {
    open: Vec<Extent>,
    next_number: u32,
    /// Size of the next extent.
    wish: u32,
    /// A frame that has to wait for room.
    pending: Option<Frame>,
}

/// Who publishes.
pub struct From<'a> {
    pub session: &'a mut Session,
    pub owner: Token,
    pub fenced: bool,
    /// Batches it may still land before it has to wait for receipts.
    pub allowance: u32,
}

impl Extents {
    pub fn new() -> Self {
        Self { open: Vec::with_capacity(EXTENTS_MAX), next_number: 1, wish: 0, pending: None }
    }

    /// Ends every extent. `polite`: the publisher promised to write nothing more.
    pub fn end(&mut self, env: &Env, topic: &mut Topic, polite: bool) {
        self.pending = None;
        for extent in self.open.drain(..).rev() {
            let Some(claim) = extent.claim else { continue };
            if polite {
                topic.stock.give_back(env, claim, extent.next);
            } else {
                topic.stock.abandon(env, claim, extent.next);
            }
        }
    }

    /// Takes frames until something stops it. Says how many frames were taken and how many
    /// batches landed.
    pub fn read_on(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        mut from: From<'_>,
        channel: &mut Channel,
    ) -> (u32, u32, Stop) {
        let (mut taken, mut landed) = (0, 0);
        loop {
            if landed >= from.allowance {
                return (taken, landed, Stop::Wait(Wait::InFlight));
            }
            let frame = match self.pending.take() {
                Some(frame) => frame,
                None if taken >= FRAMES_PER_TURN => return (taken, landed, Stop::Share),
                None => match channel.take() {
                    None => return (taken, landed, Stop::Dry),
                    Some(Ok(frame)) => frame,
                    Some(Err(error)) => {
                        let stop = Stop::Refuse(Refusal::Malformed, error.to_string());
                        return (taken, landed, stop);
                    }
                },
            };
            taken += 1;
            let step = match frame {
                Frame::Written { extent, offset, bytes, batch_seq } => {
                    let written = Written { extent, offset, bytes, batch_seq };
                    let outcome = self.written(env, topic, &mut from, written);
                    landed += u32::from(outcome == Ok(true));
                    outcome.map(|_| ())
                }
                Frame::ExtentWanted { bytes } => {
                    self.wanted(env, topic, bytes).map(|frame| channel.push(frame.to_line()))
                }
                Frame::ExtentDone { extent } => self.done(env, topic, extent),
                Frame::Bye => Err(Stop::Bye),
                other => Err(Stop::Refuse(
                    Refusal::Malformed,
                    format!("a memory publisher does not send {other:?}"),
                )),
            };
            match step {
                Ok(()) => {}
                Err(Stop::Wait(wait)) => {
                    self.pending = Some(frame);
                    return (taken - 1, landed, Stop::Wait(wait));
                }
                Err(Stop::Fenced { .. }) if from.fenced => {}
                Err(stop) => return (taken, landed, stop),
            }
        }
    }

    fn find(&mut self, number: u32) -> Result<&mut Extent, Stop> {
        self.open.iter_mut().find(|extent| extent.number == number).ok_or_else(|| {
            let text = format!("extent {number} is not one this connection holds");
            Stop::Refuse(Refusal::BadBatch, text)
        })
    }

    /// A batch lies in an extent: whether it landed.
    #[inline]
    fn written(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        from: &mut From<'_>,
        written: Written,
    ) -> Result<bool, Stop> {
        let extent = self.find(written.extent)?;
        let placed = written.locate(env, extent)?;
        let end = written.offset + lines_up(written.bytes).unwrap_or(written.bytes);
        let outcome = land(env, topic, from.session, from.owner, &placed);
        if let Err(NotLanded::Later(wait)) = outcome {
            return Err(Stop::Wait(wait));
        }
        if written.offset > extent.next {
            pad(env, placed.segment, extent.next, written.offset - extent.next);
        }
        if outcome.is_err() {
            // Its bytes look like a batch and no log names them.
            pad(env, placed.segment, written.offset, end - written.offset);
        }
        extent.next = end;
        if extent.claim.as_ref().is_some_and(|claim| claim.end() == end)
            && let Some(claim) = extent.claim.take()
        {
            topic.stock.done(claim);
        }
        match outcome {
            Ok(()) => Ok(true),
            Err(NotLanded::Later(wait)) => Err(Stop::Wait(wait)),
            Err(NotLanded::Fault(Fault::Fenced { epoch, next_seq })) => {
                Err(Stop::Fenced { epoch, next_seq })
            }
            Err(NotLanded::Fault(fault)) => Err(refusal(env, &fault)),
        }
    }

    /// Grants an extent for batches of up to `bytes` bytes.
    #[cold]
    fn wanted(&mut self, env: &Env, topic: &mut Topic, bytes: u32) -> Result<Frame, Stop> {
        let most = env.pool.geometry().batch_bytes_max();
        if bytes < PREAMBLE_BYTES || bytes > most {
            let text = format!("an extent for batches of {bytes} bytes; say 64 to {most}");
            return Err(Stop::Refuse(Refusal::BadBatch, text));
        }
        if self.open.len() >= EXTENTS_MAX {
            let text = format!(
                "{} extents are open and at most {EXTENTS_MAX} are possible; say ExtentDone first",
                self.open.len()
            );
            return Err(Stop::Refuse(Refusal::NotServed, text));
        }
        let least = bytes.saturating_mul(4).max(EXTENT_BYTES_LEAST);
        let wish = self.wish.max(least);
        let claim = topic.stock.claim(env, bytes, wish).ok_or(Stop::Wait(Wait::Segment))?;
        self.wish = wish.saturating_mul(2).min(env.pool.geometry().segment_bytes() as u32);
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1).max(1);
        let frame = Frame::Extent {
            extent: number,
            segment: claim.segment,
            generation: claim.generation,
            offset: claim.offset,
            bytes: claim.bytes,
        };
        self.open.push(Extent { number, next: claim.offset, claim: Some(claim) });
        Ok(frame)
    }

    /// The publisher writes nothing more into an extent.
    #[cold]
    fn done(&mut self, env: &Env, topic: &mut Topic, number: u32) -> Result<(), Stop> {
        self.find(number)?;
        let Some(i) = self.open.iter().position(|extent| extent.number == number) else {
            return Ok(());
        };
        let extent = self.open.remove(i);
        if let Some(claim) = extent.claim {
            topic.stock.give_back(env, claim, extent.next);
        }
        Ok(())
    }
}

/// What a `Written` frame says.
#[derive(Clone, Copy, Debug)]
struct Written {
    extent: u32,
    offset: u32,
    bytes: u32,
    batch_seq: u64,
}

impl Written {
    /// The batch, if it lies in the extent behind everything before it and is what was announced.
    #[inline]
    fn locate(self, env: &Env, extent: &Extent) -> Result<Placed, Stop> {
        let Self { offset, bytes, .. } = self;
        let inside = extent.claim.as_ref().filter(|claim| {
            offset.is_multiple_of(LINE_BYTES as u32)
                && offset >= extent.next
                && bytes >= PREAMBLE_BYTES
                && u64::from(offset) + u64::from(bytes) <= u64::from(claim.end())
        });
        let at = inside.and_then(|claim| env.pool.at(claim.segment, offset, bytes));
        let (Some(claim), Some(at)) = (inside, at) else { return Err(self.outside(extent)) };
        // Loaded once: the publisher can still change its words, and must not after the checks.
        let preamble = BatchPreamble::from_words(env.pool.load_words(at));
        if preamble.batch_bytes() != u64::from(bytes) || preamble.batch_seq != self.batch_seq {
            return Err(Stop::Refuse(
                Refusal::BadBatch,
                format!(
                    "batch at {offset} was announced with {bytes} bytes and sequence {}; its \
                     preamble says {} and {}",
                    self.batch_seq,
                    preamble.batch_bytes(),
                    preamble.batch_seq
                ),
            ));
        }
        Ok(Placed { preamble, segment: claim.segment, generation: claim.generation, offset })
    }

    #[cold]
    fn outside(self, extent: &Extent) -> Stop {
        let end = extent.claim.as_ref().map_or(extent.next, Claim::end);
        Stop::Refuse(
            Refusal::BadBatch,
            format!(
                "{} bytes at {} are not in what is left of extent {}, {} to {end}; offsets are \
                 multiples of {LINE_BYTES}",
                self.bytes, self.offset, self.extent, extent.next
            ),
        )
    }
}
