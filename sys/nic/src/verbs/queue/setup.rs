//! Making a queue, moving its queue pair through its states, and taking it apart.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rdma_sys::Verbs;
use rdma_sys::types::{
    IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE, IBV_QP_ACCESS_FLAGS, IBV_QP_STATE,
    IBV_QPS_ERR, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QPT_RC, IBV_WR_RDMA_WRITE,
    ibv_comp_channel, ibv_cq, ibv_qp, ibv_qp_attr, ibv_qp_init_attr,
};

use super::post::PIECES_MOST;
use super::{ANSWER_TIMEOUT_EXPONENT, Depths, Posted, Queue, RETRIES, What};
use crate::verbs::cm::Connection;
use crate::verbs::device::{Device, mtu_bytes, mtu_within};
use crate::verbs::error::NicError;
use crate::verbs::memory::Domain;

/// The code of the time that a sender waits when no receive is there: 0.64 ms.
const NOT_READY_WAIT: u8 = 12;
/// It then tries again for ever: whoever owes receives is held to it by the layer above.
pub(crate) const NOT_READY_RETRIES: u8 = 7;

/// Work requests in a send queue, at most. More than any device takes: it keeps the memory for them
/// within reason before a device is asked.
const SENDS_MOST: u32 = 1 << 20;

/// READs under way and answered, for the two directions of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Reads {
    /// Answered by this side at once.
    pub(crate) answered: u8,
    /// Issued by this side at once.
    pub(crate) issued: u8,
}

/// Frees what was made of a queue if not all of it could be made.
struct Parts {
    verbs: &'static Verbs,
    channel: Option<NonNull<ibv_comp_channel>>,
    completions: Option<NonNull<ibv_cq>>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        // SAFETY: each was made by its counterpart, nothing uses it, and it is freed once.
        unsafe {
            if let Some(completions) = self.completions {
                self.verbs.ibv_destroy_cq(completions.as_ptr());
            }
            if let Some(channel) = self.channel {
                self.verbs.ibv_destroy_comp_channel(channel.as_ptr());
            }
        }
    }
}

impl Queue {
    /// A queue for a connection that is being made. Its queue pair is in INIT.
    pub(crate) fn new(
        domain: &Domain,
        depths: Depths<'_>,
        connection: Connection,
    ) -> Result<Self, NicError> {
        let device = domain.device();
        let verbs = device.verbs();
        let port_mtu = mtu_bytes(device.port(connection.port())?.active_mtu);
        let object = |what: &str| format!("{what} on {}", device.name());
        if !(1..=SENDS_MOST).contains(&depths.send) {
            let why = "a queue needs room for one work request to send, and for 2^20 at most";
            return Err(NicError::refused("ibv_create_qp", object("a queue pair"), why));
        }
        if depths.shared_receive.is_some_and(|s| !Arc::ptr_eq(s.domain().device(), device)) {
            let why = "the shared receive queue is of another device";
            return Err(NicError::refused("ibv_create_qp", object("a queue pair"), why));
        }
        let mut parts = Parts { verbs, channel: None, completions: None };
        // SAFETY: the device is open.
        let channel = NonNull::new(unsafe { verbs.ibv_create_comp_channel(device.context()) })
            .ok_or_else(|| NicError::last("ibv_create_comp_channel", object("a channel")))?;
        parts.channel = Some(channel);
        // SAFETY: the channel was just made and is open.
        never_block(unsafe { BorrowedFd::borrow_raw(channel.as_ref().fd) })
            .map_err(|error| NicError::new("fcntl", object("a completion channel"), error))?;
        let shared = depths.shared_receive.map_or(0, |shared| shared.depth());
        let receives = if depths.shared_receive.is_some() { shared } else { depths.receive };
        let entries = depths.send.saturating_add(receives).max(1);
        // SAFETY: the device is open and the channel is its own.
        let completions = unsafe {
            let count = i32::try_from(entries).unwrap_or(i32::MAX);
            verbs.ibv_create_cq(device.context(), count, ptr::null_mut(), channel.as_ptr(), 0)
        };
        let completions = NonNull::new(completions).ok_or_else(|| {
            NicError::last("ibv_create_cq", object(&format!("{entries} completions")))
        })?;
        parts.completions = Some(completions);
        let (pair, inline_bytes) = create_pair(domain, &depths, completions)?;
        (parts.channel, parts.completions) = (None, None);
        let mut queue = Self {
            pair,
            completions,
            channel,
            windows: Vec::new(),
            posted: (0..depths.send.next_power_of_two())
                .map(|_| Posted { id: 0, what: What::Unknown, keeps: None })
                .collect(),
            depth: depths.send,
            next: 0,
            done: 0,
            receives: 0,
            receives_most: if depths.shared_receive.is_some() { 0 } else { depths.receive },
            inline_bytes,
            mtu: 0,
            port_mtu,
            in_order: writes_in_order(verbs, pair),
            stopped: false,
            failed: false,
            trouble: None,
            shared_receive: depths.shared_receive.cloned(),
            connection,
            domain: domain.clone(),
        };
        queue.enter_init()?;
        Ok(queue)
    }

    fn enter_init(&mut self) -> Result<(), NicError> {
        let (mut attributes, mut mask) = self.connection.pair_attributes(IBV_QPS_INIT)?;
        // What the other side may do is decided by keys; the pair lets both kinds through.
        attributes.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
        mask |= IBV_QP_ACCESS_FLAGS as i32;
        self.modify(&mut attributes, mask, "INIT")
    }

    /// Connects the queue pair, once the connection knows the other side's.
    ///
    /// Both sides come to the same MTU: the least of both ports' and of the path's. `reads` is
    /// what this side answers with; without it the connection's own numbers hold.
    pub(crate) fn enter_ready(
        &mut self,
        mtu_most: u32,
        reads: Option<Reads>,
    ) -> Result<(), NicError> {
        let (mut attributes, mask) = self.connection.pair_attributes(IBV_QPS_RTR)?;
        let path = mtu_bytes(attributes.path_mtu);
        attributes.path_mtu = mtu_within(path.min(self.port_mtu).min(mtu_most));
        attributes.min_rnr_timer = NOT_READY_WAIT;
        if let Some(reads) = reads {
            attributes.max_dest_rd_atomic = reads.answered;
        }
        self.modify(&mut attributes, mask, "RTR")?;
        self.mtu = mtu_bytes(attributes.path_mtu);
        let (mut attributes, mask) = self.connection.pair_attributes(IBV_QPS_RTS)?;
        attributes.timeout = ANSWER_TIMEOUT_EXPONENT;
        attributes.retry_cnt = RETRIES;
        attributes.rnr_retry = NOT_READY_RETRIES;
        if let Some(reads) = reads {
            attributes.max_rd_atomic = reads.issued;
        }
        self.modify(&mut attributes, mask, "RTS")
    }

    fn modify(
        &mut self,
        attributes: &mut ibv_qp_attr,
        mask: i32,
        state: &str,
    ) -> Result<(), NicError> {
        let verbs = self.domain.device().verbs();
        // SAFETY: the queue pair is live and the attributes are whole.
        match unsafe { verbs.ibv_modify_qp(self.pair.as_ptr(), attributes, mask) } {
            0 => Ok(()),
            number => {
                let object = format!("{} to {state} with mask {mask:#x}", self.describe());
                Err(NicError::number("ibv_modify_qp", object, number))
            }
        }
    }

    pub(super) fn describe(&self) -> String {
        format!("queue pair {} on {} to {}", self.number(), self.domain.device_name(), self.peer())
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Ends the connection: the NIC takes no further packet from the other side, and everything
    /// posted completes as flushed. No event of it comes any more. A second call does nothing.
    ///
    /// Soft-RoCE may still be copying a packet that it took before. Dropping the queue waits for
    /// that too.
    pub fn stop(&mut self) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        // SAFETY: the structure holds integers and arrays of them, for which zeros are values.
        let mut attributes: ibv_qp_attr = unsafe { std::mem::zeroed() };
        attributes.qp_state = IBV_QPS_ERR;
        // A pair that is broken already refuses nothing worse than this; there is no one to tell.
        let _ = self.modify(&mut attributes, IBV_QP_STATE as i32, "ERR");
        self.connection.disconnect();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.stop();
        // Windows first, those that were worn out included: see the module's documentation.
        self.windows.clear();
        for posted in &mut self.posted {
            posted.keeps = None;
        }
        let verbs = self.domain.device().verbs();
        self.take_bells();
        // SAFETY: each was made by its counterpart, is freed once, and in the order of their use.
        // Every bell that was taken has been acknowledged, which is what destroying waits for.
        unsafe {
            verbs.ibv_destroy_qp(self.pair.as_ptr());
            verbs.ibv_destroy_cq(self.completions.as_ptr());
            verbs.ibv_destroy_comp_channel(self.channel.as_ptr());
        }
        self.shared_receive = None;
    }
}

/// A queue pair in RESET, and the bytes that its work requests can carry in themselves.
fn create_pair(
    domain: &Domain,
    depths: &Depths<'_>,
    completions: NonNull<ibv_cq>,
) -> Result<(NonNull<ibv_qp>, u32), NicError> {
    let mut inline = depths.inline;
    loop {
        // SAFETY: the structure holds integers and raw pointers, for which zeros are values.
        let mut attributes: ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        attributes.qp_type = IBV_QPT_RC;
        attributes.send_cq = completions.as_ptr();
        attributes.recv_cq = completions.as_ptr();
        attributes.cap.max_send_wr = depths.send;
        attributes.cap.max_send_sge = PIECES_MOST as u32;
        attributes.cap.max_inline_data = inline;
        match depths.shared_receive {
            Some(shared) => attributes.srq = shared.raw(),
            None => {
                attributes.cap.max_recv_wr = depths.receive.max(1);
                attributes.cap.max_recv_sge = 1;
            }
        }
        // SAFETY: domain, completion queue and shared receive queue are live and of one device.
        let raw = unsafe { domain.device().verbs().ibv_create_qp(domain.raw(), &mut attributes) };
        if let Some(pair) = NonNull::new(raw) {
            return Ok((pair, attributes.cap.max_inline_data));
        }
        let error = std::io::Error::last_os_error();
        if inline == 0 {
            let object = format!(
                "a queue pair of {} sends and {} receives on {}",
                depths.send,
                depths.receive,
                domain.device_name()
            );
            return Err(NicError::new("ibv_create_qp", object, error));
        }
        // Devices bound this without a way to ask for the bound, so less is tried.
        inline /= 2;
    }
}

/// Whether the device says that a WRITE's bytes become visible in order. Older libraries cannot
/// be asked; then nothing is promised.
pub(crate) fn writes_in_order(verbs: &Verbs, pair: NonNull<ibv_qp>) -> bool {
    match &verbs.ibv_query_qp_data_in_order {
        // SAFETY: the queue pair is live.
        Ok(ask) => unsafe { ask(pair.as_ptr(), IBV_WR_RDMA_WRITE, 0) == 1 },
        Err(_) => false,
    }
}

/// Asks a device that is not connected to anything, with a queue pair that is thrown away: `None`
/// if the library cannot be asked or the device makes no such pair.
pub(crate) fn device_writes_in_order(device: &Device) -> Option<bool> {
    let verbs = device.verbs();
    verbs.ibv_query_qp_data_in_order.as_ref().ok()?;
    // SAFETY: the device is open; each object is made for the next and freed once, in reverse.
    unsafe {
        let domain = NonNull::new(verbs.ibv_alloc_pd(device.context()))?;
        let cq = verbs.ibv_create_cq(device.context(), 1, ptr::null_mut(), ptr::null_mut(), 0);
        let mut answer = None;
        if !cq.is_null() {
            let mut attributes: ibv_qp_init_attr = std::mem::zeroed();
            attributes.qp_type = IBV_QPT_RC;
            (attributes.send_cq, attributes.recv_cq) = (cq, cq);
            attributes.cap.max_send_wr = 1;
            attributes.cap.max_send_sge = 1;
            attributes.cap.max_recv_wr = 1;
            attributes.cap.max_recv_sge = 1;
            if let Some(pair) = NonNull::new(verbs.ibv_create_qp(domain.as_ptr(), &mut attributes))
            {
                answer = Some(writes_in_order(verbs, pair));
                verbs.ibv_destroy_qp(pair.as_ptr());
            }
            verbs.ibv_destroy_cq(cq);
        }
        verbs.ibv_dealloc_pd(domain.as_ptr());
        answer
    }
}

/// Makes reads of a descriptor return at once.
pub(crate) fn never_block(fd: impl AsFd) -> std::io::Result<()> {
    let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFL)?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags))?;
    Ok(())
}
