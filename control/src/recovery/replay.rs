//! Reading logs again: what was ordered, of whom, and where the last entry of each segment is.

use std::collections::BTreeMap;

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::OrderEntry;
use landfall_layout::session::{SessionState, Standing};
use landfall_layout::topic::Order;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_pool::log::{Found, LogReader, LogSegment};

use super::{Had, log_numbers};
use crate::keeper::Topic;
use crate::messages::NewTopic;
use crate::ordering::SessionTable;
use crate::segments::LastEntries;
use crate::sequencer::{Frontier, SessionView, TopicSequencer};

/// Calls `each` for every entry of a log that can still be read, in order.
fn walk(pool: &Pool, topic: TopicId, log: usize, mut each: impl FnMut(u64, &OrderEntry)) {
    let end = pool.frontier(topic, log).entries;
    let mut reader = LogReader::new(topic, log);
    let mut index = pool.chain(topic, log).map_or(end, |chain| chain.oldest_index);
    while index < end {
        match reader.entry(pool, index) {
            Found::Entry(entry) => {
                each(index, &entry);
                index += 1;
            }
            Found::Lapped { oldest } => index = oldest.max(index + 1),
            // A hole in the chain: nobody can read these entries, and nothing follows from them.
            Found::Gone => index += 1,
        }
    }
}

/// For each segment that a broker's own logs name, the last entry that names it.
pub(super) fn last_entries(pool: &Pool, topic: TopicId) -> BTreeMap<u32, u64> {
    let mut lasts = BTreeMap::new();
    for log in log_numbers(Order::None) {
        walk(pool, topic, log, |index, entry| {
            lasts.insert(entry.segment, index);
        });
    }
    lasts
}

/// The sequencer of a topic as it was when the last frontier was stored.
pub(super) fn sequencer(
    pool: &Pool,
    topic: &Topic,
    sessions: &SessionTable,
    last_entries: &LastEntries,
    had: &Had,
    log: LogSegment,
) -> NewTopic {
    let id = topic.id;
    let line = pool.frontier(id, SEQUENCED_LOG);
    let mut value =
        TopicSequencer::new(topic.order, topic.entry.session_lease_ns, Frontier::of(&line, 0))
            .expect("only sequenced topics are given here");
    for broker in BrokerId::all() {
        if let Some(ring) = pool.slot_ring(id, broker) {
            // A ring line of impossible size is not read: the broker cannot use it either.
            let _ = value.open_ring(broker, ring.slots as u32, ring.consumed(pool));
        }
    }
    let mut views = Vec::new();
    for (index, session) in sessions.all().filter(|(_, session)| session.topic == id) {
        let line = pool.session(index).unwrap_or_default();
        // A publisher that said goodbye has its receipts; until its line goes to another, what
        // may still be in a ring of it is ordered like before.
        let state = match session.standing.state {
            SessionState::Closed if topic.order != Order::Token => SessionState::Active,
            state => state,
        };
        let standing = Standing { state, ..session.standing };
        let (floor, counted) = match topic.order {
            Order::Stream => line.counted(),
            _ => (line.floor, 0),
        };
        let view = SessionView {
            index,
            client: session.client,
            standing,
            next_seq: line.next_seq,
            floor,
            known_from: line.known_from,
            had: counted as u16,
        };
        value.restore_session(&view);
        views.push(view);
        let had = had.get(&(id, session.client)).into_iter().flatten();
        had.for_each(|seq| value.restore_ordered(index, *seq));
    }
    walk(pool, id, SEQUENCED_LOG, |index, entry| {
        if !entry.is_hole() {
            last_entries.note(entry.segment, index);
        }
        // Entries from before the client had its line say nothing of it: it began at 0 again.
        let session = sessions
            .index_of(id, entry.client)
            .filter(|at| sessions.get(*at).is_some_and(|s| s.opened_at <= index));
        value.replay(session, entry);
    });
    views.iter().for_each(|view| value.forget_uncounted(view));
    // The frontier line is stored in the topic's name only once the log begins; a control that
    // died before that left none.
    let is_new = line.entries == 0 && topic.sequenced().is_some();
    NewTopic { topic: id, order: topic.order, sequencer: value, is_new, log }
}
