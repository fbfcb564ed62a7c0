//! What a process maps once, however many of its clients attach to it: each would take as many
//! addresses as the pool has bytes, and page tables for what it touches.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::MmapRaw;

use crate::map::{Backing, MapError, Mapping};
use crate::poison::Guard;

/// A file, by its device and its number there; the bytes that are mapped; whether for writing.
type Key = (u64, u64, u64, bool);

struct Mapped {
    key: Key,
    raw: Weak<MmapRaw>,
    guard: Weak<Guard>,
}

/// Everything that was mapped here and may still be.
static MAPPED: Mutex<Vec<Mapped>> = Mutex::new(Vec::new());

/// The mapping that this process has of those bytes of a file, or a new one.
pub(crate) fn mapping(
    file: &File,
    bytes: u64,
    backing: Backing,
    writable: bool,
) -> Result<Mapping, MapError> {
    // A file that cannot be asked is nobody's.
    let Ok(metadata) = file.metadata() else {
        return Mapping::new(file, bytes, backing, writable);
    };
    let key = (metadata.dev(), metadata.ino(), bytes, writable);
    let mut all = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|mapped| mapped.raw.strong_count() > 0);
    let same = all.iter().filter(|mapped| mapped.key == key);
    if let Some(raw) = same.filter_map(|mapped| mapped.raw.upgrade()).next() {
        return Ok(Mapping::again(raw, file, backing, writable));
    }
    let mapping = Mapping::new(file, bytes, backing, writable)?;
    all.push(Mapped { key, raw: Arc::downgrade(mapping.raw()), guard: Weak::new() });
    Ok(mapping)
}

/// Who watches a mapping: one for all of its users, since a handler may be looking at it as long as
/// any of them is there. Each user lets go of it before it lets go of the mapping.
pub(crate) fn guard(mapping: &Mapping, make: impl FnOnce() -> Guard) -> Arc<Guard> {
    let mut all = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let own = all.iter_mut().find(|mapped| std::ptr::eq(mapped.raw.as_ptr(), &**mapping.raw()));
    let Some(mapped) = own else { return Arc::new(make()) };
    if let Some(guard) = mapped.guard.upgrade() {
        return guard;
    }
    let guard = Arc::new(make());
    mapped.guard = Arc::downgrade(&guard);
    guard
}
