//! A batch that memory has no more as its broker landed it: from another copy, or lost.
//!
//! It stops nobody. Where no copy is found its positions are written as a hole of reason `Corrupt`,
//! and the replica's lost line names it before the replica's line moves past it: the broker that
//! landed it then tells its publisher so, instead of calling it durable.

use landfall_layout::order::OrderEntry;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;

use super::duties::Duty;
use super::group::{Group, Spoilt};
use super::one::Event;
use super::others::Others;
use crate::env::Unfaithful;

/// The batch, and who met it.
pub struct SpoiltBatch<'a> {
    pub pool: &'a Pool,
    /// Who keeps the replica.
    pub me: BrokerId,
    /// The replica, in words.
    pub replica: String,
    pub why: Spoilt,
    pub index: u64,
    pub entry: OrderEntry,
}

impl SpoiltBatch<'_> {
    /// Puts into the group what can be had of it.
    #[cold]
    pub fn settle(
        &self,
        (topic, duty): (TopicId, Duty),
        others: &mut Others,
        group: &mut Group,
    ) -> Vec<Event> {
        let Self { pool, me, replica, why, index, entry } = self;
        let segment = entry.segment;
        let mut events = Vec::new();
        // Memory that failed is nobody's doing.
        if !pool.is_lost(segment) {
            events.push(Event::Unfaithful(Unfaithful::of(topic, entry)));
        }
        if let Some(copied) = others.batch(*index, entry) {
            group.add_copy(*index, entry, &copied);
            events.push(Event::Repaired(format!(
                "{replica}: batches in segment {segment} do not hold in memory any more and were \
                 copied from another replica"
            )));
            return events;
        }
        // Said before anything says that the replica has come past it.
        pool.note_lost(topic, *me, (duty.source, *index));
        group.add_lost(*index, entry);
        let (client, epoch) = (entry.client, entry.session_epoch);
        // One sentence for a session, or a thousand batches would crowd out other errors.
        let what = match why {
            Spoilt::Place => "are named at places that the pool has not",
            Spoilt::Batch(_) | Spoilt::Other => "do not hold in memory",
        };
        events.push(Event::Lost(format!(
            "{replica}: batches of client {client:#x}, session epoch {epoch}, {what}, and no copy \
             of them was found: they are lost, and what comes behind them is not"
        )));
        events
    }
}
