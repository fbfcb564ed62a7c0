//! A broker allocates nothing while batches land over verbs, whatever their size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use landfall_dataplane::rig::VerbsRig;

thread_local! {
    /// Allocations of this thread: the test harness has threads of its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // Fails only while the thread ends, when nobody counts any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to `System` with its arguments unchanged, so this allocator keeps
// whatever contract `System` keeps; counting neither allocates (a `const` thread local without a
// destructor) nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: `block` came from `System`, as all blocks of this allocator do; the rest is
        // the caller's contract.
        unsafe { System.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `System`, as all blocks of this allocator do.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn landing_over_verbs_allocates_nothing() {
    for bytes in [4096, 64 << 10] {
        let mut rig = VerbsRig::new(bytes);
        // The extent is full several times over in here: whatever grows has grown.
        for _ in 0..100 {
            rig.burst(16);
        }
        let before = ALLOCATIONS.with(Cell::get);
        for _ in 0..100 {
            rig.burst(16);
        }
        let made = ALLOCATIONS.with(Cell::get) - before;
        assert_eq!(made, 0, "{made} allocations for 1600 batches of {bytes} bytes");
    }
}
