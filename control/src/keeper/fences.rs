//! What is said of clients that were fenced.

use landfall_layout::TopicId;
use landfall_layout::topic::Order;

use super::Keeper;
use crate::sequencer::Cause;

impl Keeper {
    /// Names a client that was fenced. What differs from one time to the next is left out, so that
    /// it takes one line of the list, with how often that was.
    pub(super) fn fenced(&self, topic: TopicId, client: u64, cause: Cause) {
        let known = self.topic(topic);
        let name = known.map_or("?", |topic| topic.entry.name());
        let why = sentence(cause, known.is_some_and(|topic| topic.order == Order::Token));
        self.note_client(&format!("topic {name}: client {client:#x} is fenced: {why}"));
    }
}

/// Why a session was fenced; `reserves`: in order `token`.
fn sentence(cause: Cause, reserves: bool) -> &'static str {
    match cause {
        Cause::Late if reserves => {
            "it did not fill positions that it had reserved within the session lease"
        }
        Cause::Late => "a batch that it sent others behind did not come within the session lease",
        Cause::Trespass if reserves => "it wrote positions that were not its own",
        Cause::Trespass => {
            "it sent a sequence so far back that nobody knows whether it is in the log"
        }
        Cause::Turn => {
            "a batch of it was in a broker's ring before the one that it follows was ordered; it \
             goes on in its next epoch"
        }
        Cause::Rewritten => "a batch of it was changed after it had landed",
        Cause::Closed => "its publisher is done with it",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_cause_has_its_sentence_which_is_the_same_each_time() {
        let causes = [Cause::Late, Cause::Trespass, Cause::Turn, Cause::Rewritten, Cause::Closed];
        let all: BTreeSet<&str> = causes.iter().map(|cause| sentence(*cause, false)).collect();
        assert_eq!(all.len(), causes.len());
        assert!(all.iter().all(|text| !text.contains(|c: char| c.is_ascii_digit())));
        assert_ne!(sentence(Cause::Late, true), sentence(Cause::Late, false));
        assert_ne!(sentence(Cause::Trespass, true), sentence(Cause::Trespass, false));
    }
}
