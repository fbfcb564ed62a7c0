//! Extents: room that a publisher fills by itself, batch behind batch. What it says it has put
//! there is checked and landed here, whatever carried the bytes.

use landfall_layout::TopicId;
use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES};
use landfall_layout::frame::Refusal;
use landfall_layout::limits::LINE_BYTES;
use landfall_pool::Memory;

use crate::claim::{Claim, lines_up, pad};
use crate::conns::Token;
use crate::env::Env;
use crate::land::{Fault, NotLanded, Placed, Session, land};
use crate::publish_tcp::{Stop, refusal};
use crate::segments::Stock;
use crate::topics::Topic;

/// Smallest extent when the pool has room.
const EXTENT_BYTES_LEAST: u32 = 256 << 10;

/// Who publishes.
pub struct From<'a> {
    pub session: &'a mut Session,
    pub owner: Token,
    pub fenced: bool,
    /// Batches it may still land before it has to wait for receipts.
    pub allowance: u32,
}

impl From<'_> {
    /// Nobody whose session is over is given room.
    ///
    /// # Errors
    ///
    /// [`Stop::Fenced`].
    #[cold]
    pub fn check_standing(&self, env: &Env, topic: TopicId) -> Result<(), Stop> {
        if !self.fenced && self.session.stands(env, topic) {
            return Ok(());
        }
        let next_seq = self.session.next_seq(env, topic);
        Err(Stop::Fenced { epoch: self.session.epoch, next_seq })
    }
}

/// One grant.
#[derive(Debug)]
pub struct Extent {
    pub number: u32,
    pub claim: Claim,
    /// First byte that no batch was written to.
    pub next: u32,
}

/// Where a publisher says that a batch lies.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Bytes from the start of the segment.
    pub offset: u32,
    /// Bytes of preamble and payload.
    pub bytes: u32,
    /// Its sequence, where the publisher said that beside the batch.
    pub batch_seq: Option<u64>,
}

/// How large the next extent is: sizes double whenever one was filled, so that a fast session asks
/// seldom and a slow one ties up little.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish(u32);

impl Wish {
    /// Claims room for batches of up to `bytes` bytes: for several of them, unless there is an
    /// extent already that nothing was put into (`has_room`).
    ///
    /// # Errors
    ///
    /// A size that no batch has; `Ok(None)` is a pool with no segment for it now.
    pub fn claim(
        &mut self,
        env: &Env,
        stock: &mut Stock,
        bytes: u32,
        has_room: bool,
    ) -> Result<Option<Claim>, Stop> {
        let most = env.pool.geometry().batch_bytes_max();
        if bytes < PREAMBLE_BYTES || bytes > most {
            let text = format!("an extent for batches of {bytes} bytes; say 64 to {most}");
            return Err(Stop::Refuse(Refusal::BadBatch, text));
        }
        let batches = if has_room { 1 } else { 4 };
        let least = bytes.saturating_mul(batches).max(EXTENT_BYTES_LEAST);
        Ok(stock.claim(env, bytes, self.0.max(least)))
    }

    /// An extent of that many bytes was filled.
    pub fn filled(&mut self, env: &Env, bytes: u32) {
        let most = env.pool.geometry().segment_bytes() as u32;
        self.0 = self.0.max(bytes.saturating_mul(2).min(most));
    }
}

impl Extent {
    /// Whether nothing has landed in it.
    pub fn is_untouched(&self) -> bool {
        self.next == self.claim.offset
    }

    /// Bytes behind the last batch that landed.
    pub fn left(&self) -> u32 {
        self.claim.end() - self.next
    }

    /// Whether every byte was used.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.next == self.claim.end()
    }

    /// Lands the batch that lies at a place in it.
    ///
    /// # Errors
    ///
    /// [`Stop::Wait`]: nothing has changed, ask again. Anything else: the batch's room is padding.
    #[inline]
    pub fn land(
        &mut self,
        env: &Env,
        topic: &mut Topic,
        from: &mut From<'_>,
        written: Written,
    ) -> Result<(), Stop> {
        let placed = self.locate(env, written)?;
        let end = written.offset + lines_up(written.bytes).unwrap_or(written.bytes);
        let outcome = land(env, topic, from.session, from.owner, &placed);
        if let Err(NotLanded::Later(wait)) = outcome {
            return Err(Stop::Wait(wait));
        }
        if written.offset > self.next {
            pad(env, placed.segment, self.next, written.offset - self.next);
        }
        if outcome.is_err() {
            // Its bytes look like a batch and no log names them.
            pad(env, placed.segment, written.offset, end - written.offset);
        }
        self.next = end;
        match outcome {
            Ok(()) => Ok(()),
            Err(NotLanded::Later(wait)) => Err(Stop::Wait(wait)),
            Err(NotLanded::Fault(Fault::Fenced { epoch, next_seq })) => {
                Err(Stop::Fenced { epoch, next_seq })
            }
            Err(NotLanded::Fault(fault)) => Err(refusal(env, &fault)),
        }
    }

    /// The batch, if it lies in the extent behind everything before it and is what was announced.
    #[inline]
    fn locate(&self, env: &Env, written: Written) -> Result<Placed, Stop> {
        let Written { offset, bytes, batch_seq } = written;
        let is_inside = offset.is_multiple_of(LINE_BYTES as u32)
            && offset >= self.next
            && bytes >= PREAMBLE_BYTES
            && u64::from(offset) + u64::from(bytes) <= u64::from(self.claim.end());
        let at = env.pool.at(self.claim.segment, offset, bytes).filter(|_| is_inside);
        let Some(at) = at else { return Err(self.outside(written)) };
        // Loaded once: the publisher can still change its words, and must not after the checks.
        let preamble = BatchPreamble::from_words(env.pool.load_words(at));
        if env.pool.is_lost(self.claim.segment) {
            // Whether it was zeros that were loaded or the batch, its publisher has it still.
            return Err(Stop::Ended { in_batch: true });
        }
        if preamble.batch_bytes() != u64::from(bytes)
            || batch_seq.is_some_and(|seq| seq != preamble.batch_seq)
        {
            return Err(mismatch(written, &preamble));
        }
        let (segment, generation) = (self.claim.segment, self.claim.generation);
        Ok(Placed { preamble, segment, generation, offset })
    }

    #[cold]
    fn outside(&self, written: Written) -> Stop {
        Stop::Refuse(
            Refusal::BadBatch,
            format!(
                "{} bytes at {} are not in what is left of extent {}, {} to {}; offsets are \
                 multiples of {LINE_BYTES}",
                written.bytes,
                written.offset,
                self.number,
                self.next,
                self.claim.end()
            ),
        )
    }
}

#[cold]
fn mismatch(written: Written, preamble: &BatchPreamble) -> Stop {
    let Written { offset, bytes, batch_seq } = written;
    let seq = batch_seq.map_or_else(String::new, |seq| format!(" and sequence {seq}"));
    Stop::Refuse(
        Refusal::BadBatch,
        format!(
            "batch at {offset} was announced with {bytes} bytes{seq}; its preamble says {} and {}",
            preamble.batch_bytes(),
            preamble.batch_seq
        ),
    )
}
