//! Opening what a topic's rules give this broker to keep, and closing what it gave back.

use landfall_layout::replica::{ReplicaLine, ReplicaState};
use landfall_layout::topic::TopicEntry;
use landfall_layout::{BrokerId, TopicId};
use landfall_replica::{FileError, short};

use super::{Broken, REOPEN_NS, Worker};
use crate::replica::Data;
use crate::replica::duties::{Duty, duties, log_of};
use crate::replica::one::{Event, Replica, is_short};
use crate::replica::said::{Keeper, tail_of_shut};
use landfall_layout::counters::Counter;

impl Worker {
    pub(super) fn open_new(&mut self, entry: &TopicEntry, now: u64) {
        let id = TopicId(entry.id);
        let pool = &self.pool;
        let had = match self.looked[id.slot()] == entry.id {
            true => self.had[id.slot()],
            false => 0,
        };
        let lands = |source: &BrokerId| match log_of(entry, *source) == source.index() {
            true => pool.frontier(id, source.index()).entries > 0,
            false => pool.ring(id, *source).is_some() || had >> source.index() & 1 == 1,
        };
        let keepers = |source: BrokerId| pool.keepers(id, source);
        let duties = duties(entry, self.me, BrokerId::all().filter(lands), keepers);
        self.close_given_back(id, &duties);
        for duty in duties {
            let known = |topic: TopicId, other: Duty| topic == id && other == duty;
            if self.replicas.iter().any(|replica| known(replica.topic, replica.duty)) {
                continue;
            }
            if let Some(at) = self.broken.iter().position(|b| known(b.topic, b.duty)) {
                if self.broken[at].retry_at_ns.is_none_or(|retry| retry > now) {
                    continue;
                }
                self.broken.swap_remove(at);
            }
            self.open(entry, duty, now);
        }
    }

    /// Closes what this broker kept in place of others and does not any more. Its files stay: they
    /// may be all there is of what it kept.
    fn close_given_back(&mut self, id: TopicId, duties: &[Duty]) {
        let is_over = |topic: TopicId, duty: &Duty| {
            topic == id && duty.stand_in.is_some() && !duties.contains(duty)
        };
        self.broken.retain(|broken| !is_over(broken.topic, &broken.duty));
        if !self.replicas.iter().any(|replica| is_over(replica.topic, &replica.duty)) {
            return;
        }
        // Places in the list change.
        self.end_syncs(true);
        self.begin_syncs(|replica| is_over(replica.topic, &replica.duty) && replica.is_unsynced());
        self.end_syncs(true);
        self.replicas.retain(|replica| !is_over(replica.topic, &replica.duty));
    }

    fn open(&mut self, entry: &TopicEntry, duty: Duty, now: u64) {
        if !self.know(entry) {
            return;
        }
        let keeper = Keeper {
            me: self.me,
            incarnation: self.incarnation,
            now_ns: now,
            file_bytes: self.data.file_bytes,
        };
        let Data { directory, others, .. } = &self.data;
        let opened = self
            .home
            .look()
            .and_then(|()| Replica::open(&self.pool, directory, entry, duty, keeper, others));
        match opened {
            Ok((replica, events)) => {
                self.counters.add(&self.pool, Counter::ReplicaBytesCut, replica.cut_bytes());
                self.replicas.push(replica);
                events.into_iter().for_each(|event| self.heard(event));
            }
            Err(error) => self.cannot_open(entry, duty, &error, now),
        }
    }

    /// Shows a replica that could not be opened: nothing of it is known to be on the disk.
    fn cannot_open(&mut self, entry: &TopicEntry, duty: Duty, error: &FileError, now: u64) {
        let is_short = may_open(error);
        let (id, log) = (TopicId(entry.id), log_of(entry, duty.source));
        let at = self.pool.copy_line(id, duty.source, duty.replica, duty.stand_in);
        let state = if is_short { ReplicaState::Full } else { ReplicaState::Failed };
        let line = ReplicaLine {
            tail: tail_of_shut(&self.pool.copy_state(at), self.pool.oldest(id, log)),
            topic: entry.id.into(),
            state: state.raw(),
            errno: error.errno(),
            incarnation: self.incarnation,
            ..ReplicaLine::default()
        };
        self.pool.start_copy(at, &line);
        let Duty { source, replica, .. } = duty;
        let text = format!("topic {}: replica {replica} of broker {source}: {error}", entry.name());
        self.heard(match is_short {
            true => Event::Full(text),
            false => Event::Failed(text + "; mend the cause and start this broker again"),
        });
        let retry_at_ns = is_short.then_some(now + REOPEN_NS);
        self.broken.push(Broken { topic: TopicId(entry.id), duty, retry_at_ns });
    }
}

/// Whether files that could not be opened are opened again: another process keeps their lock, or a
/// look was refused, by which nothing was lost.
fn may_open(error: &FileError) -> bool {
    match error {
        FileError::Io { call: "open" | "list" | "read" | "look at", source, .. } => {
            short::is_refusal(source)
        }
        FileError::Io { source, .. } => is_short(source),
        FileError::Locked { .. } => true,
        _ => false,
    }
}
