//! Lines of disk replicas, against the log they follow.

use landfall_layout::BrokerId;
use landfall_layout::keepers::stand_in_key;
use landfall_layout::limits::{DISK_REPLICAS_MAX, SEQUENCED_LOG, STAND_INS_MAX};
use landfall_layout::replica::{ReplicaLine, ReplicaState};
use landfall_pool::Pool;
use landfall_pool::lines::load_keyed;

use crate::chains::is_stale;
use crate::facts::TopicFacts;
use crate::finding::Findings;
use crate::mend;

/// Which word of a replica's line says whose it is.
const TOPIC_WORD: usize = 4;

/// Looks at every replica's line of a topic.
pub fn look(pool: &Pool, topic: &TopicFacts, out: &mut Findings) {
    let sequenced = topic.order.is_some_and(|order| order.is_sequenced());
    for source in BrokerId::all() {
        let log = if sequenced { SEQUENCED_LOG } else { source.index() };
        for replica in 0..DISK_REPLICAS_MAX {
            let at = pool.geometry().replica(topic.id.slot(), source, replica);
            let words = load_keyed(pool, at, TOPIC_WORD);
            // Before the frontier: it was further by then than anything the line says.
            let line = ReplicaLine::from_words(words);
            let entries = pool.frontier(topic.id, log).entries;
            let of = format!("topic {}, replica {replica} of broker {source}", topic.name);
            if line.topic == u64::from(topic.id.0) {
                judge(&line, entries, (&of, at), out);
            } else if !is_stale(line.topic, topic.id) {
                let found = format!("its line is about topic {:#x}, which", line.topic)
                    + " this slot never had";
                out.error("replica", &of, at, found, mend::BROKER_RESUMES);
            }
        }
    }
    look_at_stand_ins(pool, topic, out);
}

/// The lines of brokers for copies that they keep, or kept, in place of others.
fn look_at_stand_ins(pool: &Pool, topic: &TopicFacts, out: &mut Findings) {
    let sequenced = topic.order.is_some_and(|order| order.is_sequenced());
    for (keeper, number) in
        BrokerId::all().flat_map(|keeper| (0..STAND_INS_MAX).map(move |line| (keeper, line)))
    {
        let at = pool.geometry().stand_in(topic.id.slot(), keeper, number);
        let line = ReplicaLine::from_words(load_keyed(pool, at, TOPIC_WORD));
        // A line that never began, or that was being begun, says nothing.
        if line.topic == 0 || line.topic == u64::MAX {
            continue;
        }
        let of = format!("topic {}, line {number} of broker {keeper} as a stand-in", topic.name);
        let source = BrokerId::new(usize::from((line.topic >> 32) as u8).wrapping_sub(1));
        let replica = usize::from((line.topic >> 40) as u8).wrapping_sub(1);
        let id = line.topic & u64::from(u32::MAX);
        let is_key = |source| stand_in_key(topic.id, source, replica) == line.topic;
        match source.filter(|_| replica < DISK_REPLICAS_MAX) {
            Some(source) if is_key(source) => {
                let log = if sequenced { SEQUENCED_LOG } else { source.index() };
                judge(&line, pool.frontier(topic.id, log).entries, (&of, at), out);
            }
            Some(_) if is_stale(id, topic.id) => {}
            _ => {
                let found = format!("its line is about {:#x}, which is no copy", line.topic)
                    + " that this slot ever had";
                out.error("replica", &of, at, found, mend::BROKER_RESUMES);
            }
        }
    }
}

fn judge(line: &ReplicaLine, entries: u64, (of, at): (&str, u64), out: &mut Findings) {
    let ReplicaLine { durable, written, .. } = *line;
    if line.state > ReplicaState::Full.raw() {
        let found = format!("its state {} is none", line.state);
        out.error("replica", of, at, found, mend::BROKER_RESUMES);
    }
    if durable > written {
        let found = format!("it says durable to {durable} and written to {written}");
        out.error("replica", of, at, found, mend::BROKER_RESUMES);
    }
    if written.max(durable) > entries {
        let found = format!("it says {} entries are kept", written.max(durable))
            + &format!(" and the log has {entries}");
        out.error("replica", of, at, found, mend::COPY_POOL);
    }
    if let ReplicaState::Failed | ReplicaState::Full = line.state() {
        let found = format!("it is {} since entry {durable}", line.state().name())
            + &format!(", system error {}", line.errno);
        out.note("replica", of, at, found, mend::RESTART_BROKER);
    }
}
