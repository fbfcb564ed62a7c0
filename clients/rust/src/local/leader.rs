//! Whether a control leads that is not the system's own.

use std::path::Path;

use landfall_pool::Pool;
use landfall_pool::lock::{Byte, Locks};

/// The process that leads the pool at `path` on this host, if one does that is not `mine`: a
/// control that somebody started beside the system, as a standby, and that took over. Where nothing
/// can be found out there is none.
pub(super) fn other_leader(path: &Path, mine: Option<u32>) -> Option<u64> {
    let pool = Pool::attach_read_only(path).ok()?;
    let (slot, _) = pool.serving()?;
    let locks = Locks::open(&pool).ok()?;
    let pid = pool.leader_line(slot).pid;
    let leads = locks.is_taken(Byte::Leader(slot)).unwrap_or_default();
    (leads && mine.map(u64::from) != Some(pid)).then_some(pid)
}
