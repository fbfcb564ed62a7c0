//! The mappings that are watched, in a list that the handler can walk.

use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

use landfall_layout::geometry::Geometry;
use landfall_layout::ids::SegmentId;

use super::handler::install;
use super::{Loss, Part};
use crate::map::Mapping;

/// What the handler has to know of one mapping. Never freed: the handler may be looking at it.
/// Those of mappings that are gone are used again.
pub(super) struct Watch {
    next: AtomicPtr<Watch>,
    taken: AtomicBool,
    /// Address of the mapping; 0: none. Stored last, and taken away first.
    base: AtomicUsize,
    bytes: AtomicU64,
    pub(super) head_bytes: AtomicU64,
    pub(super) segment_bytes: AtomicU64,
    pub(super) segments: AtomicU32,
    /// Offset of segment 0's header, in the tables of the leader that is followed.
    pub(super) headers_at: AtomicU64,
    page_bytes: AtomicU64,
    pub(super) is_writable: AtomicBool,
    pub(super) part: AtomicU8,
    pub(super) loss: AtomicPtr<Loss>,
}

static WATCHES: AtomicPtr<Watch> = AtomicPtr::new(null_mut());

/// A mapping that is watched. It is dropped before its mapping is.
pub(crate) struct Guard(&'static Watch);

impl Guard {
    /// Watches a mapping. `loss` outlives the guard: the pool has both.
    pub(crate) fn new(mapping: &Mapping, geometry: &Geometry, loss: &Arc<Loss>) -> Self {
        install();
        let watch = take_watch();
        // EDGE poison-watch-again, release half. Pairs with `find`: who sees any of what is stored
        // next sees too that the mapping before this one is gone.
        fence(Ordering::Release);
        // Relaxed: the store of `base` releases them all.
        watch.bytes.store(mapping.bytes(), Ordering::Relaxed);
        watch.head_bytes.store(geometry.head_bytes(), Ordering::Relaxed);
        watch.segment_bytes.store(geometry.segment_bytes(), Ordering::Relaxed);
        watch.segments.store(geometry.segments(), Ordering::Relaxed);
        watch.page_bytes.store(mapping.page_bytes(), Ordering::Relaxed);
        watch.is_writable.store(mapping.is_writable(), Ordering::Relaxed);
        watch.part.store(Part::Client as u8, Ordering::Relaxed);
        watch.loss.store(Arc::as_ptr(loss).cast_mut(), Ordering::Relaxed);
        let guard = Self(watch);
        guard.follow(geometry);
        // EDGE poison-watch, release half. Pairs with `find`.
        watch.base.store(mapping.base() as usize, Ordering::Release);
        guard
    }

    /// The headers of this leader's tables say what segments are for.
    pub(crate) fn follow(&self, geometry: &Geometry) {
        let at = geometry.segment_header(SegmentId(0)).unwrap_or_default();
        // Relaxed: an offset only.
        self.0.headers_at.store(at, Ordering::Relaxed);
    }

    pub(crate) fn set_part(&self, part: Part) {
        // Relaxed: a number on its own.
        self.0.part.store(part as u8, Ordering::Relaxed);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nobody touches the mapping any more, so no handler is about to look for it.
        self.0.base.store(0, Ordering::Release);
        self.0.taken.store(false, Ordering::Release);
    }
}

/// A watch that nobody has, or one more of them.
fn take_watch() -> &'static Watch {
    for watch in watches() {
        let taken = watch.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed);
        if taken.is_ok() {
            return watch;
        }
    }
    let watch: &'static Watch = Box::leak(Box::new(Watch {
        next: AtomicPtr::new(null_mut()),
        taken: AtomicBool::new(true),
        base: AtomicUsize::new(0),
        bytes: AtomicU64::new(0),
        head_bytes: AtomicU64::new(0),
        segment_bytes: AtomicU64::new(0),
        segments: AtomicU32::new(0),
        headers_at: AtomicU64::new(0),
        page_bytes: AtomicU64::new(0),
        is_writable: AtomicBool::new(false),
        part: AtomicU8::new(Part::Client as u8),
        loss: AtomicPtr::new(null_mut()),
    }));
    let mut first = WATCHES.load(Ordering::Acquire);
    loop {
        watch.next.store(first, Ordering::Relaxed);
        let ours = std::ptr::from_ref(watch).cast_mut();
        match WATCHES.compare_exchange(first, ours, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return watch,
            Err(now) => first = now,
        }
    }
}

fn watches() -> impl Iterator<Item = &'static Watch> {
    let at = |pointer: *mut Watch| {
        // SAFETY: watches are leaked, so that what the list points to is there for ever, and they
        // are only ever used through shared references.
        unsafe { pointer.as_ref::<'static>() }
    };
    let next = move |watch: &&'static Watch| at(watch.next.load(Ordering::Acquire));
    std::iter::successors(at(WATCHES.load(Ordering::Acquire)), next)
}

/// A page that was met, and of what.
pub(super) struct Met {
    pub(super) watch: &'static Watch,
    pub(super) base: usize,
    /// Offset of the page in the mapping.
    pub(super) page_at: u64,
    pub(super) page_bytes: u64,
}

/// The mapping that has this address.
pub(super) fn find(address: usize) -> Option<Met> {
    for watch in watches() {
        // EDGE poison-watch, acquire half. Pairs with `Guard::new`. The mapping with this address
        // is in use by this very thread, so its watch stands still; others may change meanwhile,
        // which the second look at the base finds out.
        let base = watch.base.load(Ordering::Acquire);
        let bytes = watch.bytes.load(Ordering::Relaxed);
        let page_bytes = watch.page_bytes.load(Ordering::Relaxed);
        // EDGE poison-watch-again, acquire half. Pairs with `Guard::new`.
        fence(Ordering::Acquire);
        if base == 0 || watch.base.load(Ordering::Relaxed) != base {
            continue;
        }
        let at = address.checked_sub(base).map(|at| at as u64).filter(|at| *at < bytes);
        if let Some(at) = at {
            let page_at = at - at % page_bytes.max(1);
            return Some(Met { watch, base, page_at, page_bytes });
        }
    }
    None
}
