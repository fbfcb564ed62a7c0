//! Where the brokers' own logs of a topic end: where a reader begins that wants what comes.

use landfall_layout::TopicId;
use landfall_layout::frame::LogPlace;
use landfall_layout::limits::BROKERS_MAX;

use crate::log::{Found, LogReader};
use crate::memory::Memory;
use crate::pool::Pool;

/// Looks at a log that moves meanwhile. Each one more is a log that landed, or that retention went
/// through to its end, between two loads.
const LOOKS_MAX: u32 = 16;

/// The end of each own log of `topic` that has anything. A log that is not named has nothing at all
/// yet: it begins at index and position 0.
pub fn ends(pool: &Pool<impl Memory>, topic: TopicId) -> Vec<LogPlace> {
    (0..BROKERS_MAX).filter_map(|log| end(pool, topic, log)).collect()
}

/// The position is that of the last entry, and not what the frontier line says: that moves before
/// the entries that it is about count, and who took it would take the next batch for an old one.
fn end(pool: &Pool<impl Memory>, topic: TopicId, log: usize) -> Option<LogPlace> {
    let mut reader = LogReader::new(topic, log);
    let place = |next, position| Some(LogPlace { log: log as u8, next, position });
    for _ in 0..LOOKS_MAX {
        let next = pool.frontier(topic, log).entries;
        let last = next.checked_sub(1)?;
        match reader.entry(pool, last) {
            Found::Entry(entry) => return place(next, entry.end_position()),
            Found::Lapped { .. } | Found::Gone => {}
        }
        // Nothing is left of it, and the chain says where it goes on. That is about this end only
        // if the log has not moved since.
        let chain = pool.chain(topic, log)?;
        if chain.oldest_index == next && pool.frontier(topic, log).entries == next {
            return place(next, chain.oldest_position);
        }
    }
    // Whoever reads from the oldest that is left misses nothing.
    pool.chain(topic, log).and_then(|chain| place(chain.oldest_index, chain.oldest_position))
}
