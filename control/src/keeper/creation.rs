//! Topics with copies on disk are answered for once a disk has them.
//!
//! A pool that is lost takes its topic table along. So whoever creates such a topic hears that it
//! is there when one of its homes has said so: what the topic is stands on stable storage then.

use landfall_layout::{BrokerId, TopicId};

use super::Keeper;
use super::skips::has_passed;
use crate::answers::{Problem, Topic as TopicAnswer};
use crate::life::Life;
use crate::messages::Reply;

/// How long a disk is waited for, nanoseconds: many times what one takes that is well.
const DISK_NS: u64 = 5_000_000_000;

/// A topic that no disk has yet, as far as is known.
#[derive(Debug)]
pub struct Creation {
    topic: TopicAnswer,
    reply: Reply<Result<TopicAnswer, Problem>>,
    /// When whoever waits is told that no disk has it, by control's own clock.
    until_ns: u64,
}

impl Keeper {
    /// Answers for a new topic when one of its homes has it on disk.
    pub(super) fn await_disk(
        &mut self,
        topic: TopicAnswer,
        reply: Reply<Result<TopicAnswer, Problem>>,
    ) {
        let until_ns = self.clock_ns().saturating_add(DISK_NS);
        self.creations.push(Creation { topic, reply, until_ns });
    }

    /// One of the topic's homes has it on disk.
    pub(super) fn topic_said(&mut self, topic: TopicId) {
        if let Some(at) = self.creations.iter().position(|of| of.topic.id == topic.0) {
            let Creation { topic, reply, .. } = self.creations.swap_remove(at);
            self.answer(reply, Ok(topic));
        }
        if let Some(live) = self.live_topic(topic)
            && has_passed(&self.pool, topic)
        {
            let (name, created_ns) = (live.entry.name().to_owned(), live.entry.created_ns);
            self.skips.tell(self.graves.data(), &name, created_ns);
        }
    }

    /// Answers for topics that no disk took in time, and for those that were deleted meanwhile.
    pub(super) fn finish_creations(&mut self, clock_ns: u64) {
        let is_over = |keeper: &Self, of: &Creation| {
            of.until_ns <= clock_ns || keeper.live_topic(TopicId(of.topic.id)).is_none()
        };
        while let Some(at) = self.creations.iter().position(|of| is_over(self, of)) {
            let Creation { topic, reply, .. } = self.creations.swap_remove(at);
            let is_live = self.live_topic(TopicId(topic.id)).is_some();
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
