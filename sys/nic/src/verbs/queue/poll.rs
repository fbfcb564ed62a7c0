//! Polling: the fast path in.

use std::mem::MaybeUninit;
use std::ptr;

use rdma_sys::inlines::{ibv_poll_cq, ibv_req_notify_cq};
use rdma_sys::types::{IBV_WC_SUCCESS, IBV_WC_WITH_IMM, ibv_wc};

use super::post::RECEIVE;
use super::{Completion, Failure, Queue, What};
use crate::verbs::error::NicError;

/// Completions that are taken from the device in one call.
const BURST: usize = 16;

impl Queue {
    /// Takes completions, and tells how many there were.
    ///
    /// Those of sends come in the order of posting, and each also stands for the ones before it
    /// that asked for none: their slots are free again.
    pub fn poll(&mut self, into: &mut [Completion]) -> usize {
        let mut filled = 0;
        while filled < into.len() {
            // Zeros, since providers leave fields alone that mean nothing for an operation or a
            // status (ibv_poll_cq(3)): each of them has a value all the same.
            let mut taken = [const { MaybeUninit::<ibv_wc>::zeroed() }; BURST];
            let most = BURST.min(into.len() - filled);
            // SAFETY: the completion queue is live and there is room for `most`.
            let count = unsafe {
                ibv_poll_cq(self.completions.as_ptr(), most as i32, taken.as_mut_ptr().cast())
            };
            let Ok(count) = usize::try_from(count) else {
                self.failed = true;
                break;
            };
            for slot in &taken[..count.min(most)] {
                // SAFETY: zeros are a value of every field (integers, and a union of two), and the
                // device stores integers over them.
                into[filled] = self.complete(unsafe { slot.assume_init_ref() });
                filled += 1;
            }
            if count < most {
                break;
            }
        }
        filled
    }

    fn complete(&mut self, wc: &ibv_wc) -> Completion {
        let failure = (wc.status != IBV_WC_SUCCESS)
            .then_some(Failure { status: wc.status, vendor: wc.vendor_err });
        // The pair is in its error state: whatever is posted from now on would be flushed.
        self.failed |= failure.is_some();
        if wc.wr_id & RECEIVE != 0 {
            self.receives = self.receives.saturating_sub(1);
            return Completion { id: 0, what: received(wc, failure.is_some()), failure };
        }
        if wc.wr_id < self.done || wc.wr_id >= self.next {
            return Completion { id: wc.wr_id, what: What::Unknown, failure };
        }
        self.done = wc.wr_id + 1;
        let posted = &self.posted[self.place(wc.wr_id)];
        Completion { id: posted.id, what: posted.what, failure }
    }

    /// Asks for a bell at the next completion. Poll once more after it, before waiting: what came
    /// in between rings no bell.
    pub fn arm(&mut self) -> Result<(), NicError> {
        // SAFETY: the completion queue is live.
        match unsafe { ibv_req_notify_cq(self.completions.as_ptr(), 0) } {
            0 => Ok(()),
            number => Err(NicError::number("ibv_req_notify_cq", self.describe(), number)),
        }
    }

    /// Takes the bells that have rung, and tells whether there was one. Never blocks.
    pub fn take_bells(&mut self) -> bool {
        let verbs = self.domain.device().verbs();
        let mut rang = 0;
        let (mut cq, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the channel is open and does not block; it has no other completion queue.
        while unsafe { verbs.ibv_get_cq_event(self.channel.as_ptr(), &mut cq, &mut context) } == 0 {
            rang += 1;
        }
        if rang > 0 {
            // SAFETY: as many events were taken. Destroying the queue waits for this.
            unsafe { verbs.ibv_ack_cq_events(self.completions.as_ptr(), rang) };
        }
        rang > 0
    }
}

fn received(wc: &ibv_wc, failed: bool) -> What {
    if failed {
        return What::Received { immediate: None, bytes: 0 };
    }
    // SAFETY: both members of the union are integers of one size.
    let number = u32::from_be(unsafe { wc.__bindgen_anon_1.imm_data });
    let immediate = (wc.wc_flags & IBV_WC_WITH_IMM != 0).then_some(number);
    What::Received { immediate, bytes: wc.byte_len }
}
