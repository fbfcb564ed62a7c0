//! What is asked over HTTP: answered a few at a time, between everything that has a lease.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::Keeper;
use crate::messages::Ask;

/// What is taken from the channel at a time.
const ASKS_AT_ONCE: usize = 256;
/// Time after which the rest waits for the next turn, nanoseconds. The longest answer, the list of
/// all topics, takes some milliseconds, and is made once a turn.
const ANSWERS_NS: u64 = 2_000_000;

/// What waits for an answer.
pub(super) struct Asks<T> {
    from: Receiver<T>,
    taken: VecDeque<T>,
}

impl<T> Asks<T> {
    pub fn new(from: Receiver<T>) -> Self {
        Self { from, taken: VecDeque::new() }
    }

    /// Begins a turn: what comes during it waits for the next one.
    fn begin(&mut self) {
        let room = ASKS_AT_ONCE - self.taken.len();
        self.taken.extend(self.from.try_iter().take(room));
    }

    /// The next one of a turn that has taken `spent_ns` so far.
    fn next(&mut self, spent_ns: u64) -> Option<T> {
        (spent_ns < ANSWERS_NS).then(|| self.taken.pop_front()).flatten()
    }
}

impl Keeper {
    /// Answers what is asked, for so long at most. Whether there was something.
    pub(super) fn take_asks(&mut self) -> bool {
        self.asks.begin();
        let began_ns = self.clock_ns();
        let mut busy = false;
        // All of them asked before it is made, so it is new enough for each.
        let mut list = None;
        while let Some(ask) = self.asks.next(self.clock_ns().saturating_sub(began_ns)) {
            busy = true;
            if let Ask::Topics(reply) = ask {
                let list = list.get_or_insert_with(|| Arc::new(self.list_topics()));
                self.answer(reply, Arc::clone(list));
            } else {
                let changes = self.answer_ask(ask);
                list = list.filter(|_| !changes);
            }
        }
        busy
    }

    /// Answers one. Whether it may have changed what the list of topics says.
    fn answer_ask(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Health(reply) => self.answer(reply, self.health()),
            Ask::Cluster(reply) => self.answer(reply, self.cluster()),
            Ask::Topics(reply) => self.answer(reply, Arc::new(self.list_topics())),
            Ask::Topic(name, reply) => self.answer(reply, self.describe_topic(&name)),
            Ask::Token(name, spec, host, reply) => {
                let answer = self.issue_token(&name, spec, host);
                self.answer(reply, answer);
            }
            Ask::Create(spec, reply) => {
                match self.create_topic(&spec) {
                    Ok(topic) if topic.replicas > 1 => self.await_disk(topic, reply),
                    answer => self.answer(reply, answer),
                }
                return true;
            }
            Ask::Delete(name, reply) => {
                self.delete_topic(&name, reply);
                return true;
            }
            Ask::Forget(number, reply) => {
                let answer = self.forget_broker(number);
                self.answer(reply, answer);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_turn_answers_for_so_long_and_what_comes_meanwhile_waits() {
        let (ask, asked) = channel();
        let mut asks = Asks::new(asked);
        (0..1_000).for_each(|at| ask.send(at).unwrap());
        let mut answered = Vec::new();
        for turn in 0.. {
            asks.begin();
            assert!(asks.taken.len() <= ASKS_AT_ONCE);
            ask.send(1_000 + turn).unwrap();
            // Each takes a third of the time that there is.
            let spent = (0..).map(|at| at * ANSWERS_NS / 3);
            let these: Vec<u64> = spent.map_while(|spent| asks.next(spent)).collect();
            assert!(!these.contains(&(1_000 + turn)), "it came in this turn");
            assert!((1..=3).contains(&these.len()));
            answered.extend(these);
            if answered.len() >= 1_000 {
                break;
            }
        }
        assert!(answered.is_sorted(), "nobody is passed by");
    }
}
