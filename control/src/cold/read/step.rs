//! One step through a replica's file.

use landfall_layout::order::OrderEntry;
use landfall_layout::replica::Body;
use landfall_replica::walk::Sight;
use landfall_replica::{FileError, Resumed, Walk};

/// What the next bytes of a file say.
pub(super) enum Step {
    /// A batch or a hole at that index, with its publisher's own number; or, without one, a batch
    /// that does not hold, whose record's head does.
    Entry(u64, OrderEntry, Option<u32>),
    /// How far the log was.
    Frontier(Resumed),
    /// They do not hold.
    Nothing,
}

/// Goes on in a file; `None` at its end. The end that a crash left says nothing of its last batch.
pub(super) fn step(walk: &mut Walk) -> Result<Option<Step>, FileError> {
    let broken = match walk.look()? {
        Sight::End => return Ok(None),
        Sight::Broken(broken) => broken,
        Sight::Record => {
            return Ok(walk.current().map(|record| match record.body {
                Body::Batch { entry, preamble, .. } => {
                    Step::Entry(record.header.index, entry, Some(preamble.life))
                }
                Body::Hole { entry, .. } => Step::Entry(record.header.index, entry, Some(0)),
                Body::Frontier(line) => {
                    Step::Frontier(Resumed { index: line.entries, position: line.position })
                }
            }));
        }
    };
    let named = walk.named(&broken);
    let damage = walk.measure(&broken)?;
    Ok(Some(match named.filter(|_| damage.behind.is_some()) {
        Some((header, entry, damage)) => {
            walk.pass(damage);
            Step::Entry(header.index, entry, None)
        }
        None => {
            walk.pass(damage);
            Step::Nothing
        }
    }))
}
