//! Topics deleted: brokers let go, the sequencer forgets, everything goes back.

use std::sync::mpsc::{Receiver, TryRecvError};

use landfall_layout::command::Command;
use landfall_layout::counters::Counter;
use landfall_layout::doubt::DoubtLine;
use landfall_layout::limits::{DOUBT_LINES, LOGS_PER_TOPIC};
use landfall_layout::order::ChainLine;
use landfall_layout::topic::TopicState;
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::clock::wall_ns;

use super::Keeper;
use super::topics::being_deleted;
use crate::answers::Problem;
use crate::messages::{Reply, ToSequencer};

/// A topic on its way out.
#[derive(Debug)]
pub struct Deletion {
    /// The topic.
    pub topic: TopicId,
    /// Brokers that have not let go, a bit each.
    pub waiting: u32,
    /// Subscribers of brokers that died may be reading it until then, by control's own clock.
    pub not_before_ns: u64,
    /// Where the sequencer is with it.
    sequencer: Step,
    /// Its name and age, where it has copies on disk.
    grave: Option<(String, u64)>,
    /// What could not be said in data directories, once they have been written to.
    buried: Option<Receiver<Vec<String>>>,
    /// Who waits for the answer; nobody after a change of control.
    reply: Option<Reply<Result<(), Problem>>>,
    /// When whoever waits is told for whom the deletion waits, by control's own clock.
    tell_ns: u64,
}

/// A deletion that takes longer than this is answered all the same: nothing more is to be done for
/// it, and a client that is stopped may hold it up for as long as it likes.
const ANSWER_NS: u64 = 10_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    NotAsked,
    Burying,
    Asked,
    Done,
}

impl Keeper {
    pub(super) fn delete_topic(&mut self, name: &str, reply: Reply<Result<(), Problem>>) {
        let found = match self.topic_named(name) {
            Some(topic) if topic.is_live() => Ok(topic.id),
            Some(_) => Err(being_deleted(name)),
            None => Err(Problem::missing(format!("there is no topic {name:?}"))),
        };
        match found {
            Ok(id) => self.begin_deletion(id, Some(reply)),
            Err(problem) => self.answer(reply, Err(problem)),
        }
    }

    /// Goes on with the deletions that the control before this one had begun.
    pub(super) fn delete_again(&mut self) {
        let begun: Vec<TopicId> =
            self.topics.iter().flatten().filter(|t| !t.is_live()).map(|t| t.id).collect();
        for id in begun {
            self.begin_deletion(id, None);
        }
    }

    fn begin_deletion(&mut self, id: TopicId, reply: Option<Reply<Result<(), Problem>>>) {
        // Tables that others read say it at once. Who asked has no answer of a deposed leader.
        if !self.still_leads() {
            return;
        }
        let Some(topic) = self.topic_mut(id) else { return };
        topic.entry.state = TopicState::Deleting as u8;
        if reply.is_some() {
            // What control only found half written was deleted by nobody.
            topic.entry.deleted_ns = wall_ns().max(1);
        }
        let entry = topic.entry;
        self.pool.set_topic(&entry);
        self.wanted.retain(|wanted| wanted.topic != id);
        let waiting = self.acting();
        for broker in BrokerId::all().filter(|id| waiting >> id.index() & 1 == 1) {
            self.send(broker, Command::DropTopic { topic: id });
        }
        let (sequencer, not_before_ns) = (Step::NotAsked, self.grace_ns());
        let tell_ns = self.clock_ns().saturating_add(ANSWER_NS);
        let has_copies = entry.disk_replicas() > 0;
        let grave = has_copies.then(|| (entry.name().to_owned(), entry.created_ns));
        let buried = None;
        self.deletions.push(Deletion {
            topic: id,
            waiting,
            not_before_ns,
            sequencer,
            grave,
            buried,
            reply,
            tell_ns,
        });
    }

    /// A broker touches a topic no more.
    pub(super) fn topic_released(&mut self, broker: BrokerId, topic: TopicId) {
        if let Some(deletion) = self.deletions.iter_mut().find(|d| d.topic == topic) {
            deletion.waiting &= !(1 << broker.index());
        }
    }

    /// The sequencer touches a topic no more.
    pub(super) fn sequencer_dropped(&mut self, topic: TopicId) {
        if let Some(deletion) = self.deletions.iter_mut().find(|d| d.topic == topic) {
            deletion.sequencer = Step::Done;
        }
    }

    /// Moves each deletion on as far as the answers allow.
    pub(super) fn finish_deletions(&mut self) {
        if self.deletions.is_empty() {
            return;
        }
        let clock_ns = self.clock_ns();
        let mut ask = Vec::new();
        let mut done = Vec::new();
        let mut unsaid = Vec::new();
        for (i, deletion) in self.deletions.iter_mut().enumerate() {
            match deletion.sequencer {
                // Brokers that live have removed their files by now: nobody writes beside us.
                Step::NotAsked if deletion.waiting == 0 && deletion.not_before_ns <= clock_ns => {
                    // Directories are nobody's table. The entry said so before this look: either
                    // the next leader copies it, or this one finds its claim.
                    if !self.pool.leads(self.epoch) {
                        break;
                    }
                    let grave = deletion.grave.as_ref();
                    deletion.buried =
                        grave.and_then(|(name, created_ns)| self.graves.bury(name, *created_ns));
                    deletion.sequencer = Step::Burying;
                }
                Step::Burying => {
                    let said = deletion.buried.as_ref().map(Receiver::try_recv);
                    if let Some(Err(TryRecvError::Empty)) = said {
                        continue;
                    }
                    unsaid.extend(said.and_then(Result::ok).into_iter().flatten());
                    deletion.sequencer = Step::Asked;
                    ask.push(deletion.topic);
                }
                Step::Done => done.push(i),
                _ => {}
            }
        }
        self.tell_slow(clock_ns);
        unsaid.iter().for_each(|sentence| self.note(sentence));
        for topic in ask {
            self.tell_sequencer(ToSequencer::DropTopic { topic });
        }
        for i in done.into_iter().rev() {
            let deletion = self.deletions.swap_remove(i);
            self.erase(deletion.topic);
            if let Some(reply) = deletion.reply {
                self.answer(reply, Ok(()));
            }
        }
    }

    /// Says for whom a deletion waits that takes long, once.
    fn tell_slow(&mut self, clock_ns: u64) {
        for i in 0..self.deletions.len() {
            let deletion = &mut self.deletions[i];
            if deletion.tell_ns > clock_ns {
                continue;
            }
            deletion.tell_ns = u64::MAX;
            let (reply, waiting, id) = (deletion.reply.take(), deletion.waiting, deletion.topic);
            let Some(topic) = self.topic(id) else { continue };
            let brokers: Vec<String> = BrokerId::all()
                .filter(|broker| waiting >> broker.index() & 1 == 1)
                .map(|broker| {
                    let line = self.pool.broker(broker);
                    let state = self.brokers[broker.index()].state_name(&line);
                    let why = match state {
                        "frozen" => "which does when it goes on or ends",
                        _ => "whose errors (landfall errors) say for whom it waits",
                    };
                    format!("{broker} ({state}), {why}")
                })
                .collect();
            let what = match brokers.is_empty() {
                true => "readers of a broker that died".to_owned(),
                false => format!("broker {}", brokers.join(", ")),
            };
            let sentence = format!(
                "topic {:?} is being deleted and is served to nobody any more; its segments are \
                 free once these have let go: {what}",
                topic.entry.name()
            );
            self.note(&sentence);
            if let Some(reply) = reply {
                self.answer(reply, Err(Problem::conflict("deleting", sentence)));
            }
        }
    }

    /// Gives back a segment that nothing leads to any more.
    pub(super) fn give_back(&mut self, segment: SegmentId) {
        self.segments.give_back(segment);
        self.count(Counter::SegmentsFreed, 1);
    }

    /// Takes back everything of a topic that nobody touches any more. The entry in the table goes
    /// last, so a crash in between leaves a topic that is being deleted.
    fn erase(&mut self, id: TopicId) {
        if !self.still_leads() {
            return;
        }
        let Some(topic) = self.topics[id.slot()].take() else { return };
        for log in 0..LOGS_PER_TOPIC {
            if self.pool.chain(id, log).is_some() {
                // A reader that still looks finds itself past everything, and the topic gone.
                let line = ChainLine { oldest_index: u64::MAX, ..ChainLine::default() };
                self.pool.set_chain(id, log, &line);
            }
        }
        if topic.order.is_sequenced() {
            // The next topic of the slot may have chains there.
            let none = DoubtLine::default();
            (0..DOUBT_LINES).for_each(|number| self.pool.set_doubt(id, number, &none));
        }
        self.erase_rings(id);
        self.retiring.retain(|retiring| retiring.topic != id);
        self.unpadded.retain(|(segment, _)| {
            self.segments.get(*segment).is_some_and(|used| used.what.topic != id)
        });
        for segment in self.segments.of(id) {
            self.give_back(segment);
        }
        let mut entry = topic.entry;
        entry.state = TopicState::Absent as u8;
        self.pool.set_topic(&entry);
    }
}
