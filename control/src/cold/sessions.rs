//! Sessions of publishers: what was ordered of them may not be ordered again.

use std::collections::BTreeMap;

use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_pool::Pool;

use super::ColdError;
use super::read::LastOf;

/// The sessions of all topics.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Whether sequences are checked in its topic, when it published last, its topic, its client,
    /// and how far it was.
    all: Vec<(bool, u64, u32, u64, LastOf)>,
}

impl Sessions {
    /// Adds a topic's.
    pub fn add(&mut self, topic: &TopicEntry, sessions: &BTreeMap<u64, LastOf>) {
        let is_checked = matches!(topic.order(), Some(Order::Strong | Order::Stream));
        let of = |(client, last): (&u64, &LastOf)| {
            (is_checked, last.landed_ns, topic.id, *client, *last)
        };
        self.all.extend(sessions.iter().map(of));
    }

    /// Gives each a line, those first in whose topics sequences are checked, the latest first:
    /// there an unknown publisher's batches would be ordered again. In other orders a batch may
    /// come twice anyway.
    pub fn restore(
        mut self,
        pool: &Pool,
        now_ns: u64,
        notes: &mut Vec<String>,
    ) -> Result<(), ColdError> {
        self.all.sort_unstable_by_key(|(checked, landed_ns, topic, client, _)| {
            (std::cmp::Reverse((*checked, *landed_ns)), *topic, *client)
        });
        let have = pool.geometry().sessions();
        let need = self.all.iter().filter(|(is_checked, ..)| *is_checked).count();
        if need > have as usize {
            return Err(ColdError::Sessions { need, have });
        }
        let all = self.all.len();
        if all > have as usize {
            notes.push(format!(
                "of {all} publishers' sessions on disk {have} are known again: those of order \
                 strong and stream, and the latest of the others"
            ));
        }
        for (number, (_, _, topic, client, last)) in (0..have).zip(self.all) {
            let standing = Standing { epoch: last.epoch, state: SessionState::Closed };
            let line = SessionLine {
                standing: standing.pack(),
                client,
                next_seq: last.seq.saturating_add(1),
                topic,
                opened_ns: now_ns,
                ..SessionLine::default()
            };
            pool.set_session(number, &line);
        }
        Ok(())
    }
}
