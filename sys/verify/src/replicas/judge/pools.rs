//! What is, or was, in a pool alone: no file is missing that has it.

use landfall_replica::Unkept;

use super::Known;
use crate::replicas::Missing;
use crate::replicas::find::Group;

/// What only pools have, or had, of a log.
#[derive(Debug, Default)]
pub struct Pools {
    /// Those are gone.
    pub lost: Vec<Unkept>,
    /// This one stands still, as far as directories know.
    pub here: Vec<Unkept>,
}

impl Pools {
    /// What a topic's directories say of it.
    pub fn of(group: &Group, log: usize) -> Self {
        let lost = group.unkept.iter().filter(|it| it.log == log).copied().collect();
        let here = group.in_pool.iter().filter(|it| it.log == log).copied().collect();
        Self { lost, here }
    }

    /// Log indexes at which something of it begins or ends.
    pub fn ends(&self) -> impl Iterator<Item = u64> {
        self.lost.iter().chain(&self.here).flat_map(|it| [it.index, it.to_index])
    }
}

impl Known<'_> {
    /// Why there is no entry at an index that no file ever had: it was landed by a broker of which
    /// only a pool had anything there, since all others have all that they landed, or landed
    /// nothing that is known of. None: it may have been in a file.
    pub(super) fn in_no_file(&self, index: u64) -> Option<Missing> {
        let among = |all: &[Unkept], writer: u8| {
            all.iter().any(|it| it.source == writer && it.contains(index))
        };
        let of = |writer: u8| self.sources.iter().filter(move |it| it.kept.source == writer);
        let has = |writer: &u8| {
            of(*writer).any(|it| it.kept.covers.iter().any(|covers| covers.contains(&index)))
        };
        let is_silent = |writer: u8| {
            of(writer).next().is_none() && self.homes.get(&writer).is_some_and(|at| *at <= index)
        };
        // Brokers that joined later have no copies of their own.
        let joined = self.pools.lost.iter().chain(&self.pools.here).map(|it| it.source);
        let may_be_of: Vec<u8> =
            self.writers.iter().copied().chain(joined).filter(|writer| !has(writer)).collect();
        let is_lost = |writer: u8| among(&self.pools.lost, writer);
        let is_in_pools = |writer: u8| is_lost(writer) || among(&self.pools.here, writer);
        if !may_be_of.iter().all(|writer| is_in_pools(*writer) || is_silent(*writer)) {
            return None;
        }
        let mut its = may_be_of.into_iter().filter(|writer| is_in_pools(*writer)).peekable();
        its.peek()?;
        Some(if its.any(is_lost) { Missing::Past } else { Missing::Memory })
    }
}
