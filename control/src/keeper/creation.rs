//! Topics with copies on disk are answered for once a disk has them.
//!
//! A pool that is lost takes its topic table along. So whoever creates such a topic hears that it
//! is there when its homes have said so: what the topic is stands on stable storage then, in the
//! directory of each, and a start from disk misses none of them. One whose disk is slow is not
//! waited for as long as the first.

use landfall_layout::{BrokerId, TopicId};

use super::Keeper;
use super::skips::has_passed;
use crate::answers::{Problem, Topic as TopicAnswer};
use crate::life::Life;
use crate::messages::Reply;

/// How long a disk is waited for, nanoseconds: many times what one takes that is well.
const DISK_NS: u64 = 5_000_000_000;
/// How long the other homes are waited for when one has it on disk, nanoseconds.
const OTHERS_NS: u64 = 2_000_000_000;

/// A topic that not all disks have yet that are to have it, as far as is known.
#[derive(Debug)]
pub struct Creation {
    topic: TopicAnswer,
    reply: Reply<Result<TopicAnswer, Problem>>,
    /// When whoever waits is told which disks have it, by control's own clock.
    until_ns: u64,
    /// Its homes that have not said it, a bit each.
    waits: u32,
    is_said: bool,
}

impl Keeper {
    /// Answers for a new topic when its homes that live have it on disk.
    pub(super) fn await_disk(
        &mut self,
        topic: TopicAnswer,
        reply: Reply<Result<TopicAnswer, Problem>>,
    ) {
        let until_ns = self.clock_ns().saturating_add(DISK_NS);
        let homes = self.live_topic(TopicId(topic.id)).map_or(0, |it| it.entry.replica_brokers);
        let homes = BrokerId::all().take(homes.into());
        let waits = homes.fold(0, |mask, id| mask | 1 << id.index());
        self.creations.push(Creation { topic, reply, until_ns, waits, is_said: false });
    }

    /// One of the topic's homes has it on disk.
    pub(super) fn topic_said(&mut self, broker: BrokerId, topic: TopicId) {
        let others_ns = self.clock_ns().saturating_add(OTHERS_NS);
        if let Some(of) = self.creations.iter_mut().find(|of| of.topic.id == topic.0) {
            of.waits &= !(1 << broker.index());
            of.is_said = true;
            of.until_ns = of.until_ns.min(others_ns);
        }
        if let Some(live) = self.live_topic(topic)
            && has_passed(&self.pool, topic)
        {
            let (name, created_ns) = (live.entry.name().to_owned(), live.entry.created_ns);
            self.skips.tell(self.graves.data(), &name, created_ns);
        }
    }

    /// Homes that live, of those in `waits`.
    fn awaited(&self, waits: u32) -> bool {
        let is_live = |id: &BrokerId| self.brokers[id.index()].life == Life::Live;
        BrokerId::all().filter(is_live).any(|id| waits >> id.index() & 1 == 1)
    }

    /// Answers for topics that all disks have or that not all took in time, and for those that were
    /// deleted meanwhile.
    pub(super) fn finish_creations(&mut self, clock_ns: u64) {
        let is_over = |keeper: &Self, of: &Creation| {
            of.until_ns <= clock_ns
                || of.is_said && !keeper.awaited(of.waits)
                || keeper.live_topic(TopicId(of.topic.id)).is_none()
        };
        while let Some(at) = self.creations.iter().position(|of| is_over(self, of)) {
            let Creation { topic, reply, is_said, .. } = self.creations.swap_remove(at);
            let is_live = self.live_topic(TopicId(topic.id)).is_some();
            if is_live && is_said {
                self.answer(reply, Ok(topic));
                continue;
            }
            let problem = match is_live {
                true => self.on_no_disk(&topic.name, TopicId(topic.id)),
                false => super::topics::being_deleted(&topic.name),
            };
            if is_live {
                self.note(&problem.message);
            }
            self.answer(reply, Err(problem));
        }
    }

    fn on_no_disk(&self, name: &str, id: TopicId) -> Problem {
        let homes = self.live_topic(id).map_or(0, |topic| topic.entry.replica_brokers);
        let homes: Vec<String> = BrokerId::all()
            .take(homes.into())
            .map(|id| match self.brokers[id.index()].life {
                Life::Live => id.to_string(),
                _ => format!("{id} (not live)"),
            })
            .collect();
        Problem::full(
            "not_on_disk",
            format!(
                "topic {name} is made and can be used, and is on no disk yet: of its homes, \
                 broker {}, none has written within {} s what it is, and it is gone if the pool \
                 is lost before one has; see landfall errors, and landfall topic describe {name} \
                 once their disks take writes",
                homes.join(", "),
                DISK_NS / 1_000_000_000
            ),
        )
    }
}
