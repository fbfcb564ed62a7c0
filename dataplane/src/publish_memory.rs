//! Publishers that write the pool themselves: extents granted, batches in them checked and landed.

use landfall_layout::frame::{Frame, Refusal};

use crate::conn::Channel;
use crate::env::Env;
use crate::extents::{Extent, From, Wish, Written};
use crate::land::Wait;
use crate::publish_tcp::Stop;
use crate::segments::Granted;
use crate::topics::Topic;
use crate::unused::Open;

/// Extents a publisher may hold at a time: the one it writes, the next, and some that end.
const EXTENTS_MAX: usize = 8;
/// Frames taken from one channel in one turn, so that others get theirs.
const FRAMES_PER_TURN: u32 = 64;

/// A memory publisher's extents.
#[derive(Debug)]
pub struct Extents {
    open: Vec<Extent>,
    /// Numbers of extents that are full and that the publisher has not said it is done with.
    full: Vec<u32>,
    next_number: u32,
    wish: Wish,
    /// A frame that has to wait for room.
    pending: Option<Frame>,
}

impl Extents {
    pub fn new() -> Self {
        Self {
            open: Vec::with_capacity(EXTENTS_MAX),
            full: Vec::with_capacity(EXTENTS_MAX),
            next_number: 1,
            wish: Wish::default(),
            pending: None,
        }
    }

    /// Segments of the extents that are open.
    pub fn granted(&self) -> impl Iterator<Item = Granted> {
        self.open.iter().map(|extent| Granted {
            segment: extent.claim.segment,
            generation: extent.claim.generation,
        })
    }

    /// What is open of them.
    pub fn open(&self) -> Open {
        let extents = self.open.iter();
        extents.fold(Open::default(), |open, of| open.with(of.left(), of.is_untouched()))
    }

    /// Ends every extent. `polite`: the publisher promised to write nothing more.
    pub fn end(&mut self, env: &Env, topic: &mut Topic, polite: bool) {
        self.pending = None;
        for extent in self.open.drain(..).rev() {
            if polite {
                topic.stock.give_back(env, extent.claim, extent.next);
            } else {
                topic.stock.abandon(env, extent.claim, extent.next);
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
                    let written = Written { offset, bytes, batch_seq: Some(batch_seq) };
                    let outcome = self.written(env, topic, &mut from, extent, written);
                    landed += u32::from(outcome.is_ok());
                    outcome
                }
                Frame::ExtentWanted { bytes } => {
                    let standing = from.check_standing(env, topic.id);
                    let frame = standing.and_then(|()| self.wanted(env, topic, bytes));
                    frame.map(|frame| channel.push(frame.to_line()))
                }
                Frame::ExtentDone { extent } => self.done(env, topic, extent),
                Frame::Reserve { request, count, whole } => {
                    Err(Stop::Reserve { request, count, whole })
                }
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

    fn find(&self, number: u32) -> Result<usize, Stop> {
        self.open.iter().position(|extent| extent.number == number).ok_or_else(|| {
            let text = format!("extent {number} is not one this connection holds");
            Stop::Refuse(Refusal::BadBatch, text)
        })
    }

    /// A batch lies in an extent. One that is full is over: its segment need not wait for the
    /// publisher's word.
    #[inline]
    fn written(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        from: &mut From<'_>,
        number: u32,
        written: Written,
    ) -> Result<(), Stop> {
        let i = self.find(number)?;
        let outcome = self.open[i].land(env, topic, from, written);
        if self.open[i].is_full() {
            let extent = self.open.remove(i);
            self.full.push(extent.number);
            self.wish.filled(env, extent.claim.bytes);
            topic.stock.done(extent.claim);
        }
        outcome
    }

    /// Grants an extent for batches of up to `bytes` bytes.
    #[cold]
    fn wanted(&mut self, env: &Env, topic: &mut Topic, bytes: u32) -> Result<Frame, Stop> {
        let held = self.open.len() + self.full.len();
        if held >= EXTENTS_MAX {
            let text = format!(
                "{held} extents are open and at most {EXTENTS_MAX} are possible; say ExtentDone \
                 first"
            );
            return Err(Stop::Refuse(Refusal::NotServed, text));
        }
        let has_room = self.open.iter().any(Extent::is_untouched);
        let claim = self.wish.claim(env, &mut topic.stock, bytes, has_room)?;
        let claim = claim.ok_or(Stop::Wait(Wait::Segment))?;
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1).max(1);
        let frame = Frame::Extent {
            extent: number,
            segment: claim.segment,
            generation: claim.generation,
            offset: claim.offset,
            bytes: claim.bytes,
            key: 0,
            at: 0,
        };
        self.open.push(Extent { number, next: claim.offset, claim });
        Ok(frame)
    }

    /// The publisher writes nothing more into an extent.
    #[cold]
    fn done(&mut self, env: &Env, topic: &mut Topic, number: u32) -> Result<(), Stop> {
        if let Some(i) = self.full.iter().position(|full| *full == number) {
            self.full.swap_remove(i);
            return Ok(());
        }
        let i = self.find(number)?;
        let extent = self.open.remove(i);
        if !extent.is_untouched() {
            self.wish.filled(env, extent.claim.bytes);
        }
        topic.stock.give_back(env, extent.claim, extent.next);
        Ok(())
    }
}
