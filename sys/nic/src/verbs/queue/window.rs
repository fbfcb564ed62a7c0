//! Windows of type 2: a key for a part of a region, which lasts from a bind to an invalidation.

use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::inlines::{ibv_alloc_mw, ibv_dealloc_mw, ibv_inc_rkey};
use rdma_sys::types::{
    IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE, IBV_MW_TYPE_2, IBV_WR_BIND_MW,
    IBV_WR_LOCAL_INV, ibv_mw, ibv_mw_bind_info,
};

use super::post::empty_request;
use super::{Full, How, Kept, Queue, Rights, What};
use crate::verbs::cm::PeerId;
use crate::verbs::error::NicError;
use crate::verbs::memory::{Domain, Region, RegionInner};

/// Binds that a window has distinct keys for: the low byte of the key counts them. The next one
/// takes a fresh window, so that a key does not come back.
const BINDS_MOST: u8 = 255;

/// A window of a [`Queue`], which owns what is behind it.
///
/// Its key lets the other side of this queue, and nobody else, reach what it is bound to, from the
/// time that [`Queue::bind`] has completed until [`Queue::invalidate`] has.
#[derive(Debug)]
pub struct Window {
    queue: PeerId,
    index: usize,
    key: u32,
}

impl Window {
    /// The key of the last bind. Before the first one nothing answers to it.
    pub fn remote_key(&self) -> u32 {
        self.key
    }
}

/// A window as the device has it.
pub(super) struct MemoryWindow {
    raw: NonNull<ibv_mw>,
    /// Kept so that the window is freed first.
    _domain: Domain,
}

impl MemoryWindow {
    fn new(domain: &Domain) -> Result<Self, NicError> {
        // SAFETY: the domain is live.
        let raw = unsafe { ibv_alloc_mw(domain.raw(), IBV_MW_TYPE_2) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, _domain: domain.clone() }),
            None => Err(NicError::last(
                "ibv_alloc_mw",
                format!("a window of type 2 on {}", domain.device_name()),
            )),
        }
    }

    fn key(&self) -> u32 {
        // SAFETY: the window is live.
        unsafe { self.raw.as_ref().rkey }
    }
}

impl Drop for MemoryWindow {
    fn drop(&mut self) {
        // SAFETY: the window came from `ibv_alloc_mw` and is freed once. A device that refuses
        // frees it with its context.
        unsafe { ibv_dealloc_mw(self.raw.as_ptr()) };
    }
}

/// A window of a queue.
pub(super) struct Slot {
    window: MemoryWindow,
    key: u32,
    binds: u8,
    /// What it is bound to: a device refuses to forget a region with windows.
    region: Option<Arc<RegionInner>>,
}

impl Queue {
    /// A new window, bound to nothing. It lasts as long as the queue.
    pub fn window(&mut self) -> Result<Window, NicError> {
        let window = MemoryWindow::new(&self.domain)?;
        let key = window.key();
        self.windows.push(Slot { window, key, binds: 0, region: None });
        Ok(Window { queue: self.id(), index: self.windows.len() - 1, key })
    }

    /// Binds a window to `bytes` bytes at `at` of a region that was registered for windows, and
    /// tells the fresh key.
    ///
    /// The key works once the bind has completed; work requests posted later on this queue reach
    /// the other side after that. A bound window has to be invalidated first. If it was not room
    /// that was missing, [`take_trouble`](Self::take_trouble) says what.
    #[allow(clippy::too_many_arguments, reason = "what a bind names, each of another type but two")]
    pub fn bind(
        &mut self,
        window: &mut Window,
        region: &Region,
        at: u64,
        bytes: u64,
        rights: Rights,
        how: How,
    ) -> Result<u32, Full> {
        let index = self.check(window);
        assert!(self.windows[index].region.is_none(), "a bound window is invalidated first");
        assert!(region.inner().is_of(&self.domain), "a window is bound within its queue's domain");
        if self.send_room() == 0 {
            return Err(Full);
        }
        let region = self.region_to_bind(region, at, bytes)?;
        let worn = self.renew_if_worn(index)?;
        let flag = |given: bool, bit: u32| if given { bit } else { 0 };
        let slot = &mut self.windows[index];
        let key = ibv_inc_rkey(slot.key);
        let raw = slot.window.raw.as_ptr();
        let mut request = empty_request(IBV_WR_BIND_MW);
        // What SAFETY would say of a union holds: this is the member that a bind has.
        request.__bindgen_anon_2.bind_mw.mw = raw;
        request.__bindgen_anon_2.bind_mw.rkey = key;
        request.__bindgen_anon_2.bind_mw.bind_info = ibv_mw_bind_info {
            mr: region.raw(),
            addr: at,
            length: bytes,
            mw_access_flags: flag(rights.read, IBV_ACCESS_REMOTE_READ)
                | flag(rights.write, IBV_ACCESS_REMOTE_WRITE),
        };
        // SAFETY: the window and the region are live; the region is kept while it is bound.
        unsafe { self.post(&mut request, What::Bind, how, worn.map(Kept::Window)) }?;
        // SAFETY: the window is live and this queue's alone. The provider finds it by its present
        // key in the next work request, and not every one writes the key down by itself.
        unsafe { (*raw).rkey = key };
        let slot = &mut self.windows[index];
        slot.key = key;
        slot.binds += 1;
        slot.region = Some(region);
        window.key = key;
        Ok(key)
    }

    /// Takes the key back: once this has completed, the NIC refuses it. (Soft-RoCE may still be
    /// copying a packet that it took before.)
    ///
    /// Of a window that is not bound there is nothing to take back, and this would fail in the
    /// NIC, so that nothing is posted and no completion comes.
    pub fn invalidate(&mut self, window: &mut Window, how: How) -> Result<(), Full> {
        let index = self.check(window);
        let slot = &mut self.windows[index];
        let Some(region) = slot.region.take() else { return Ok(()) };
        let mut request = empty_request(IBV_WR_LOCAL_INV);
        request.__bindgen_anon_1.invalidate_rkey = slot.key;
        let kept = Some(Kept::Region(Arc::clone(&region)));
        // SAFETY: an invalidation names a key only; the region is kept until it has completed.
        let result = unsafe { self.post(&mut request, What::Invalidate, how, kept) };
        if result.is_err() {
            self.windows[index].region = Some(region);
        }
        result
    }

    /// Whether the window is bound, or was told to be.
    pub fn is_bound(&self, window: &Window) -> bool {
        self.windows[self.check(window)].region.is_some()
    }

    /// The region that a window over these bytes is bound to: the one given, or one that ends
    /// where the window does if the device looks at the region's ends only.
    fn region_to_bind(
        &mut self,
        region: &Region,
        at: u64,
        bytes: u64,
    ) -> Result<Arc<RegionInner>, Full> {
        let whole = (at, bytes) == (region.at(), region.bytes());
        if whole || self.domain.device().bounds_windows() {
            return Ok(Arc::clone(region.inner()));
        }
        match region.inner().part(at, bytes) {
            Ok(part) => Ok(Arc::clone(part.inner())),
            Err(error) => {
                self.trouble = Some(error);
                Err(Full)
            }
        }
    }

    fn check(&self, window: &Window) -> usize {
        assert_eq!(window.queue, self.id(), "a window is used on the queue that made it");
        window.index
    }

    /// Gives a window that has used up its keys something fresh behind it, and returns the old one,
    /// which the device may still be invalidating.
    fn renew_if_worn(&mut self, index: usize) -> Result<Option<MemoryWindow>, Full> {
        if self.windows[index].binds < BINDS_MOST {
            return Ok(None);
        }
        match MemoryWindow::new(&self.domain) {
            Ok(fresh) => {
                let slot = &mut self.windows[index];
                (slot.key, slot.binds) = (fresh.key(), 0);
                Ok(Some(std::mem::replace(&mut slot.window, fresh)))
            }
            Err(error) => {
                self.trouble = Some(error);
                Err(Full)
            }
        }
    }
}
