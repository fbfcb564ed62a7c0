//! Receives that many queues of a domain take from.

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rdma_sys::inlines::ibv_post_srq_recv;
use rdma_sys::types::{IBV_SRQ_LIMIT, ibv_srq, ibv_srq_attr, ibv_srq_init_attr};

use crate::verbs::error::NicError;
use crate::verbs::memory::Domain;
use crate::verbs::queue::{EMPTY_RECEIVE, Full, link};

/// Receives that are chained into one call.
const CHAIN: usize = 32;

/// A shared receive queue. Clones are the same queue.
#[derive(Clone)]
pub struct Srq(Arc<Inner>);

struct Inner {
    raw: NonNull<ibv_srq>,
    depth: u32,
    /// Receives posted and not yet reported as taken by [`Srq::taken`].
    posted: AtomicU32,
    domain: Domain,
}

// SAFETY: verbs may be called from any thread at once.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Srq {
    /// A shared receive queue with room for `depth` receives.
    pub fn new(domain: &Domain, depth: u32) -> Result<Self, NicError> {
        // SAFETY: the structure holds integers and a raw pointer, for which zeros are values.
        let mut attributes: ibv_srq_init_attr = unsafe { std::mem::zeroed() };
        attributes.attr.max_wr = depth;
        attributes.attr.max_sge = 1;
        let verbs = domain.device().verbs();
        // SAFETY: the domain is live and the attributes are whole.
        let raw = unsafe { verbs.ibv_create_srq(domain.raw(), &mut attributes) };
        let Some(raw) = NonNull::new(raw) else {
            let object = format!("{depth} shared receives on {}", domain.device_name());
            return Err(NicError::last("ibv_create_srq", object));
        };
        let posted = AtomicU32::new(0);
        Ok(Self(Arc::new(Inner { raw, depth, posted, domain: domain.clone() })))
    }

    /// Receives that it has room for.
    pub fn depth(&self) -> u32 {
        self.0.depth
    }

    /// The domain it was made on. Queues that take from it are of the same device.
    pub fn domain(&self) -> &Domain {
        &self.0.domain
    }

    /// Posts receives without memory, all of them or none.
    pub fn receive(&self, count: u32) -> Result<(), Full> {
        let room = |posted: u32| posted.checked_add(count).filter(|sum| *sum <= self.0.depth);
        // A count, which orders nothing else.
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.posted.fetch_update(set, fetch, room).map_err(|_| Full)?;
        let mut left = count as usize;
        while left > 0 {
            let mut chain = [EMPTY_RECEIVE; CHAIN];
            let length = left.min(CHAIN);
            link(&mut chain[..length]);
            let mut bad = ptr::null_mut();
            // SAFETY: the queue is live, and the list is well formed and outlives the call.
            let result = unsafe { ibv_post_srq_recv(self.raw(), chain.as_mut_ptr(), &mut bad) };
            if result != 0 {
                return Err(Full);
            }
            left -= length;
        }
        Ok(())
    }

    /// Says that `count` receives were polled from the queues that share this, so that there is
    /// room for as many.
    pub fn taken(&self, count: u32) {
        let less = |posted: u32| Some(posted.saturating_sub(count));
        // A count, which orders nothing else; the closure never declines.
        let _ = self.0.posted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Has the device raise its event once fewer than `receives` are left. One time only: after
    /// the event it is armed anew.
    pub fn arm_limit(&self, receives: u32) -> Result<(), NicError> {
        let mut attributes = ibv_srq_attr { max_wr: 0, max_sge: 0, srq_limit: receives };
        let verbs = self.0.domain.device().verbs();
        // SAFETY: the queue is live and the attribute that the mask names is set.
        match unsafe { verbs.ibv_modify_srq(self.raw(), &mut attributes, IBV_SRQ_LIMIT as i32) } {
            0 => Ok(()),
            number => {
                let object = format!("a limit of {receives} of {} shared receives", self.0.depth);
                Err(NicError::number("ibv_modify_srq", object, number))
            }
        }
    }

    /// The limit that is armed: 0 once the event was raised.
    pub fn limit(&self) -> Result<u32, NicError> {
        let mut attributes = ibv_srq_attr { max_wr: 0, max_sge: 0, srq_limit: 0 };
        let verbs = self.0.domain.device().verbs();
        // SAFETY: the queue is live and the attributes may be written.
        match unsafe { verbs.ibv_query_srq(self.raw(), &mut attributes) } {
            0 => Ok(attributes.srq_limit),
            number => {
                let object = format!("{} shared receives", self.0.depth);
                Err(NicError::number("ibv_query_srq", object, number))
            }
        }
    }

    pub(crate) fn raw(&self) -> *mut ibv_srq {
        self.0.raw.as_ptr()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: queues that take from here hold it, so none is left; it is freed once.
        unsafe { self.domain.device().verbs().ibv_destroy_srq(self.raw.as_ptr()) };
    }
}
