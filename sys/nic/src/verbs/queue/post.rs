//! Posting: the fast path out.

use std::ptr;

use rdma_sys::inlines::{ibv_post_recv, ibv_post_send};
use rdma_sys::types::{
    IBV_SEND_FENCE, IBV_SEND_INLINE, IBV_SEND_SIGNALED, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE,
    IBV_WR_RDMA_WRITE_WITH_IMM, ibv_recv_wr, ibv_send_wr, ibv_sge, ibv_wr_opcode,
};

use super::{Full, How, Kept, Local, Posted, Queue, Remote, What};

/// Pieces of this side's memory in one work request.
pub const PIECES_MOST: usize = 2;

/// The bit of a work request's number that says it is a receive.
pub(super) const RECEIVE: u64 = 1 << 63;

/// Receives that are chained into one call.
const CHAIN: usize = 32;

/// A work request with nothing in it but its kind.
pub(super) fn empty_request(opcode: ibv_wr_opcode) -> ibv_send_wr {
    // SAFETY: the structure holds integers and raw pointers, for which zeros are values.
    let mut request: ibv_send_wr = unsafe { std::mem::zeroed() };
    request.opcode = opcode;
    request
}

impl Queue {
    /// Writes at most two pieces to the other side, one behind the other. With `immediate` the
    /// write takes a receive there, whose completion says that all of it has landed.
    ///
    /// Without pieces `to` is not looked at: only the number goes over.
    pub fn write(
        &mut self,
        from: &[Local<'_>],
        to: Remote,
        immediate: Option<u32>,
        how: How,
    ) -> Result<(), Full> {
        let opcode = match immediate {
            Some(_) => IBV_WR_RDMA_WRITE_WITH_IMM,
            None => IBV_WR_RDMA_WRITE,
        };
        let mut request = empty_request(opcode);
        request.__bindgen_anon_1.imm_data = immediate.unwrap_or(0).to_be();
        self.transfer(from, to, &mut request, What::Write, how)
    }

    /// Reads from the other side into at most two pieces. Their regions need
    /// [`local_write`](crate::Access::local_write).
    pub fn read(&mut self, into: &[Local<'_>], from: Remote, how: How) -> Result<(), Full> {
        let mut request = empty_request(IBV_WR_RDMA_READ);
        self.transfer(into, from, &mut request, What::Read, How { inline: false, ..how })
    }

    #[inline]
    fn transfer(
        &mut self,
        here: &[Local<'_>],
        there: Remote,
        request: &mut ibv_send_wr,
        what: What,
        mut how: How,
    ) -> Result<(), Full> {
        assert!(here.len() <= PIECES_MOST, "a work request has at most two pieces");
        let mut pieces = [ibv_sge { addr: 0, length: 0, lkey: 0 }; PIECES_MOST];
        if how.inline {
            how.inline = self.inline_pieces(here, &mut pieces);
        }
        if !how.inline {
            for (piece, local) in pieces.iter_mut().zip(here) {
                let region = local.region.inner();
                *piece = ibv_sge { addr: local.at, length: local.bytes, lkey: region.local_key() };
            }
        }
        request.sg_list = pieces.as_mut_ptr();
        request.num_sge = here.len() as i32;
        request.wr.rdma.remote_addr = there.at;
        request.wr.rdma.rkey = there.key;
        // SAFETY: the pieces outlive the call, which copies them. Inline ones were found to be
        // inside of regions, which keep them mapped; of others the NIC checks key and range, and
        // a region that is dropped before they are done takes its memory from the NIC first.
        unsafe { self.post(request, what, how, None) }
    }

    /// Fills in pieces that the CPU copies. A piece outside of its region is left to the NIC,
    /// which refuses it: then this returns false.
    fn inline_pieces(&self, here: &[Local<'_>], pieces: &mut [ibv_sge; PIECES_MOST]) -> bool {
        let total: u64 = here.iter().map(|local| u64::from(local.bytes)).sum();
        assert!(
            total <= u64::from(self.inline_bytes),
            "{total} bytes were to be sent inline and the queue takes {}",
            self.inline_bytes
        );
        for (piece, local) in pieces.iter_mut().zip(here) {
            let region = local.region.inner();
            let Some(address) = region.address(local.at, local.bytes) else { return false };
            *piece = ibv_sge { addr: address, length: local.bytes, lkey: region.local_key() };
        }
        true
    }

    /// Posts one work request and notes what it is.
    ///
    /// # Safety
    /// What the request points to is good until the call returns, and what it names stays
    /// registered, bound and allocated for as long as the device may use it, `keeps` included.
    #[inline]
    pub(super) unsafe fn post(
        &mut self,
        request: &mut ibv_send_wr,
        what: What,
        how: How,
        keeps: Option<Kept>,
    ) -> Result<(), Full> {
        if self.send_room() == 0 {
            return Err(Full);
        }
        let flag = |given: bool, bit: u32| if given { bit } else { 0 };
        request.wr_id = self.next;
        request.next = ptr::null_mut();
        request.send_flags = flag(how.signalled, IBV_SEND_SIGNALED)
            | flag(how.inline, IBV_SEND_INLINE)
            | flag(how.fence, IBV_SEND_FENCE);
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair is live, the list has one request, and the caller vouches for
        // what it names.
        if unsafe { ibv_post_send(self.pair.as_ptr(), request, &mut bad) } != 0 {
            return Err(Full);
        }
        let place = self.place(self.next);
        self.posted[place] = Posted { id: how.id, what, keeps };
        self.next += 1;
        Ok(())
    }

    /// Posts receives for writes with a number. They hold no memory: such a write names its own.
    ///
    /// Either all of them are posted, or the queue has no room for all and is as before.
    pub fn receive(&mut self, count: u32) -> Result<(), Full> {
        if self.is_over() || count > self.receives_most - self.receives {
            return Err(Full);
        }
        let mut left = count as usize;
        while left > 0 {
            let mut chain = [EMPTY_RECEIVE; CHAIN];
            let length = left.min(CHAIN);
            link(&mut chain[..length]);
            let mut bad = ptr::null_mut();
            // SAFETY: the queue pair is live, and the list is well formed and outlives the call.
            let result = unsafe { ibv_post_recv(self.pair.as_ptr(), chain.as_mut_ptr(), &mut bad) };
            if result != 0 {
                // The device holds fewer than it said. What it took stays posted.
                return Err(Full);
            }
            self.receives += length as u32;
            left -= length;
        }
        Ok(())
    }
}

/// A receive without memory.
pub(crate) const EMPTY_RECEIVE: ibv_recv_wr =
    ibv_recv_wr { wr_id: RECEIVE, next: ptr::null_mut(), sg_list: ptr::null_mut(), num_sge: 0 };

/// Links receives into a list.
pub(crate) fn link(chain: &mut [ibv_recv_wr]) {
    for n in 1..chain.len() {
        let next: *mut ibv_recv_wr = &raw mut chain[n];
        chain[n - 1].next = next;
    }
}
