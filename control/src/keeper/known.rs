//! Which numbers are brokers of this pool: one that has nothing in it can be forgotten.

use landfall_layout::BrokerId;
use landfall_layout::pool::BrokerState;
use landfall_pool::clock::boot_ns;
use landfall_pool::lock::Byte;

use super::{Broker, Keeper};
use crate::answers::Problem;
use crate::life::Life;

impl Keeper {
    /// The brokers of this pool. The highest numbers are none any more once they left in good order
    /// and nothing is on them: whoever takes them next begins anew. One below others stays, as the
    /// homes of copies are numbered without a hole.
    pub(super) fn known_brokers(&self) -> impl Iterator<Item = &Broker> {
        let is_known = |broker: &Broker| match broker.life {
            Life::Never => false,
            Life::Gone { cleanly: true } => self.what_is_on(broker.id).is_some(),
            _ => true,
        };
        let end = self.brokers.iter().rposition(is_known).map_or(0, |last| last + 1);
        self.brokers[..end].iter().filter(|broker| broker.life != Life::Never)
    }

    /// Why a number cannot be forgotten, none if nothing is on it.
    fn what_is_on(&self, id: BrokerId) -> Option<String> {
        for topic in self.topics.iter().flatten() {
            let (entry, name) = (&topic.entry, topic.entry.name());
            let copies = entry.disk_replicas();
            if copies > 0 && id.index() < usize::from(entry.replica_brokers) {
                return Some(format!(
                    "topic {name} has its copies at brokers 0 to {}",
                    entry.replica_brokers - 1
                ));
            }
            let has_log = topic.logs.contains_key(&id.index())
                || self.pool.frontier(topic.id, id.index()).entries > 0;
            let is_kept = |copy| self.pool.replica(topic.id, id, copy).incarnation != 0;
            if self.pool.ring(topic.id, id).is_some() || has_log || (0..copies).any(is_kept) {
                return Some(format!("it landed batches of topic {name}"));
            }
            let stands_in = |source: BrokerId| {
                let keepers = self.pool.keepers(topic.id, source);
                let is_it = |copy| keepers.stand_in(copy).is_some_and(|it| it.broker == id);
                (0..copies).any(is_it)
            };
            if copies > 0 && BrokerId::all().any(stands_in) {
                return Some(format!("it keeps copies of topic {name} in place of another"));
            }
        }
        let owned = self.segments.all().filter(|(_, used)| used.what.owner == id.raw()).count();
        let broker = &self.brokers[id.index()];
        if owned > 0 || broker.has_writers || broker.ghost != 0 {
            return Some(format!(
                "{owned} segments of the pool are its, or clients of it may still write into some"
            ));
        }
        None
    }

    /// Makes the number of a dead broker as if that had left in good order.
    pub(super) fn forget_broker(&mut self, number: u8) -> Result<(), Problem> {
        let Some(id) = BrokerId::new(number.into()) else {
            let most = BrokerId::all().count() - 1;
            return Err(Problem::bad(format!("there is no broker {number}: the last is {most}")));
        };
        let held = |why: String| Err(Problem::conflict("held", format!("broker {id} {why}")));
        self.look_at_brokers();
        let line = self.pool.broker(id);
        match self.brokers[id.index()].life {
            Life::Never => {
                return Err(Problem::missing(format!("nobody ever was broker {id} of this pool")));
            }
            Life::Live | Life::Frozen => {
                return held(format!("is process {}, which is there: stop it", line.pid));
            }
            Life::Silent => {
                return held(format!(
                    "is on host {:#018x}, where its process {} may be there: start it there, or \
                     elsewhere with --host-is-down when that host is down, and stop it in good \
                     order",
                    line.host, line.pid
                ));
            }
            Life::Gone { .. } => {}
        }
        if let Some(why) = self.what_is_on(id) {
            return held(format!(
                "cannot be forgotten: {why}; start it again, or delete the topic"
            ));
        }
        if self.brokers[id.index()].life == (Life::Gone { cleanly: true }) {
            return Ok(());
        }
        if self.clock_ns() < self.brokers[id.index()].grace_ns {
            return held(
                "died just now, and its subscribers may still be reading: ask again in some seconds"
                    .to_owned(),
            );
        }
        // Whoever holds this is the broker, and writes its line.
        let taken = |error| Problem::full("lock", format!("lock the number {id}: {error}"));
        let locks = self.ballot.locks();
        if !locks.take(Byte::Broker(id)).map_err(taken)? {
            return held("is being started".to_owned());
        }
        let epoch_seen = self.pool.broker(id).epoch_seen;
        if self.pool.leads(self.epoch) {
            self.pool.beat_broker(id, boot_ns(), epoch_seen, BrokerState::Absent.raw());
        }
        locks.give_back(Byte::Broker(id)).map_err(taken)?;
        self.look_at_brokers();
        self.tell(&format!("broker {id}, which died, is forgotten: nothing was on it"));
        Ok(())
    }
}
