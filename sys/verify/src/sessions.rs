//! Session lines: each by itself, and against what its topic's log has.

use std::collections::HashMap;

use landfall_layout::TopicId;
use landfall_layout::session::{SessionLine, SessionState, Standing};
use landfall_layout::topic::Order;
use landfall_pool::Pool;

use crate::facts::{Facts, Tally, TopicFacts};
use crate::finding::Findings;
use crate::mend;
use crate::sequence::Sequences;

/// Lines of one topic's sessions, with their index.
pub type Lines = Vec<(u32, SessionLine)>;

/// Loads every line in use, by topic, and judges each by itself.
pub fn load(
    pool: &Pool,
    facts: &Facts,
    tally: &mut Tally,
    out: &mut Findings,
) -> HashMap<TopicId, Lines> {
    let mut lines: HashMap<TopicId, Lines> = HashMap::new();
    let mut clients: HashMap<(TopicId, u64), u32> = HashMap::new();
    for index in 0..pool.geometry().sessions() {
        let (Some(line), Some(at)) = (pool.session(index), pool.geometry().session(index)) else {
            continue;
        };
        let of = format!("session line {index}");
        let standing = Standing::unpack(line.standing);
        let raw_state = line.standing >> 32;
        if raw_state > SessionState::Closed as u64 {
            let found = format!("its state {raw_state} is none; everyone takes it for fenced");
            out.error("session", &of, at, found, mend::COPY_POOL);
        }
        if standing.state == SessionState::Free {
            judge_free(&line, (&of, at), out);
            continue;
        }
        tally.sessions += 1;
        let topic = TopicId(line.topic);
        if facts.topic(topic).is_none() {
            let found = format!("it is of topic {:#x}, which the table has not", line.topic);
            out.warning("session", &of, at, found, mend::CONTROL_FREES);
            continue;
        }
        if line.client == 0 || standing.epoch == 0 {
            let found = format!("it is of client {:#x}", line.client)
                + &format!(" in epoch {}; neither can be 0", standing.epoch);
            out.error("session", &of, at, found, mend::COPY_POOL);
        }
        if let Some(other) = clients.insert((topic, line.client), index) {
            let found = format!("client {:#x} has line {other} too", line.client);
            out.error("session", &of, at, found, mend::COPY_POOL);
        }
        lines.entry(topic).or_default().push((index, line));
    }
    lines
}

/// A free line may have words of a session that was just being opened, and the last epoch of the
/// one before. One that was never used has no sequence.
fn judge_free(line: &SessionLine, (of, at): (&str, u64), out: &mut Findings) {
    let epoch = Standing::unpack(line.standing).epoch;
    if epoch == 0 && line.next_seq != 0 {
        let found = format!("it is free and says client {:#x}, epoch {epoch}", line.client)
            + &format!(", next batch {}", line.next_seq);
        out.error("session", of, at, found, mend::COPY_POOL);
    } else if line.client != 0 || line.topic != 0 {
        let found = format!("client {:#x} was getting it", line.client);
        out.warning("session", of, at, found, mend::CONTROL_IGNORES);
    }
}

/// Holds the lines of a topic against its log, which `retained` says whether it is all there.
pub fn judge(
    pool: &Pool,
    topic: &TopicFacts,
    lines: &Lines,
    sequences: &Sequences,
    retained: bool,
    out: &mut Findings,
) {
    let order = topic.order;
    if !matches!(order, Some(Order::Strong | Order::Stream)) {
        return;
    }
    for (index, line) in lines {
        let Some(at) = pool.geometry().session(*index) else { continue };
        let of = format!("session line {index}, topic {}, client {:#x}", topic.name, line.client);
        let next = line.next_seq;
        match sequences.highest(line.client, line.opened_at) {
            Some(last) if last.seq >= next => {
                let found = format!("it expects batch {next} and entry {}", last.index)
                    + &format!(" is batch {}", last.seq);
                out.warning("session", &of, at, found, mend::CONTROL_READS_LOG);
            }
            Some(last) if last.seq.saturating_add(1) < next => {
                let found = format!("it expects batch {next} and the last one in the log is")
                    + &format!(" {}, entry {}: those between are missing", last.seq, last.index);
                out.error("session", &of, at, found, mend::COPY_POOL);
            }
            None if retained && next > 0 => {
                let found = format!("it expects batch {next}, nothing was ever retired, and")
                    + " the log has no batch of it";
                // A line that is over is given to another client word by word.
                match Standing::unpack(line.standing).state {
                    SessionState::Active => {
                        out.error("session", &of, at, found, mend::COPY_POOL);
                    }
                    _ => out.warning("session", &of, at, found, mend::CONTROL_IGNORES),
                }
            }
            _ => {}
        }
    }
}
