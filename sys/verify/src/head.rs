//! The lines of control and of the brokers, command rings, counters' errors.

use landfall_layout::BrokerId;
use landfall_layout::command::{Command, Request, first_command};
use landfall_layout::counters::ErrorEntry;
use landfall_layout::geometry::PROCESS_BLOCKS;
use landfall_layout::limits::{COMMAND_LINES, ERRORS_MAX, LEADERS_MAX, LINE_BYTES, TOPICS_MAX};
use landfall_layout::pool::{BrokerAddress, BrokerState, Term};
use landfall_pool::{Memory, Pool};

use crate::facts::Facts;
use crate::finding::Findings;
use crate::mend;

/// What every broker says of itself.
pub fn brokers(pool: &Pool, facts: &Facts, out: &mut Findings) {
    for broker in BrokerId::all() {
        let at = pool.geometry().broker_line(broker);
        let line = pool.broker(broker);
        let of = format!("line of broker {broker}");
        if line.state > BrokerState::Landed.raw() {
            let found = format!("its state {} is none", line.state);
            out.error("broker", &of, at, found, mend::BROKER_RESUMES);
        }
        if line.incarnation == 0 && (line.state != 0 || line.heartbeat_ns != 0 || line.pid != 0) {
            let found = format!("it says state {} and process {}", line.state, line.pid)
                + " and was never taken: it was just being written";
            out.warning("broker", &of, at, found, mend::BROKER_RESUMES);
        }
        if line.epoch_seen > facts.epoch {
            let found =
                format!("it saw epoch {} and the pool's is {}", line.epoch_seen, facts.epoch);
            out.error("broker", &of, at, found, mend::COPY_POOL);
        }
        let address = pool.broker_address(broker);
        let bytes = [address.tcp_bytes, address.unix_bytes, address.verbs_bytes].map(usize::from);
        let read = [address.tcp(), address.unix(), address.verbs()].map(str::len);
        if bytes.iter().sum::<usize>() > BrokerAddress::TEXT_BYTES || bytes != read {
            let found = format!("its addresses of {bytes:?} bytes cannot be read");
            let at = pool.geometry().broker_address(broker);
            out.warning("broker", &of, at, found, mend::BROKER_RESUMES);
        }
    }
}

/// The lines of the leaders: each holds, one serves once there is anything, and no epoch is had
/// twice.
pub fn leaders(pool: &Pool, facts: &Facts, out: &mut Findings) {
    let terms: Vec<Option<Term>> =
        (0..LEADERS_MAX).map(|slot| Term::unpack(pool.leader_line(slot).term)).collect();
    let are_whole = terms.iter().all(Option::is_some);
    for (slot, term) in terms.iter().enumerate() {
        let at = pool.geometry().leader_line(slot);
        let of = format!("line of leader slot {slot}");
        let Some(term) = term else {
            let found = format!("its word {:#018x} is no term", pool.load_relaxed(at))
                + ": nobody knows which leader's tables are the latest";
            out.error("leader", &of, at, found, mend::NEW_POOL);
            continue;
        };
        let twin = terms[..slot].iter().flatten().position(|other| other.epoch == term.epoch);
        if let Some(twin) = twin.filter(|_| term.epoch != 0) {
            let found = format!("its epoch {} is slot {twin}'s too", term.epoch);
            out.error("leader", &of, at, found, mend::COPY_POOL);
        }
        if term.epoch == 0 && term.serves {
            out.error("leader", &of, at, "it serves in epoch 0", mend::COPY_POOL);
        }
        if are_whole && term.epoch > facts.epoch {
            let found = format!("it claims epoch {} and does not serve;", term.epoch)
                + &format!(" epoch {} does", facts.epoch);
            out.note("leader", &of, at, found, mend::START_CONTROL);
        }
        // Tables that nobody follows are no loss, unless nobody is followed at all.
        let tables = pool.geometry_of(slot);
        let has_topic = |topic: usize| pool.load(tables.topic(topic)) != 0;
        if are_whole && facts.epoch == 0 && (0..TOPICS_MAX).any(has_topic) {
            let found = "it has topics, and no leader serves, so that nobody sees them";
            out.error("leader", &of, at, found, mend::COPY_POOL);
        }
    }
}

/// The rings between control and the brokers.
pub fn commands(pool: &Pool, facts: &Facts, out: &mut Findings) {
    let geometry = *pool.geometry();
    for broker in BrokerId::all() {
        let known = |body| Command::unpack(body).is_some();
        let of = format!("ring from control to broker {broker}");
        let ring = Ring {
            at: geometry.commands(broker),
            taken_at: geometry.commands_taken(broker),
            first: first_command(facts.epoch),
        };
        command_ring(pool, &ring, &of, known, out);
        let known = |body| Request::unpack(body).is_some();
        let of = format!("ring from broker {broker} to control");
        let (at, taken_at) = (geometry.requests(broker), geometry.requests_taken(broker));
        command_ring(pool, &Ring { at, taken_at, first: 0 }, &of, known, out);
    }
}

/// A command ring, and the index that its producer began at.
struct Ring {
    at: u64,
    taken_at: u64,
    first: u64,
}

fn command_ring(
    pool: &Pool,
    ring: &Ring,
    of: &str,
    known: impl Fn([u64; 7]) -> bool,
    out: &mut Findings,
) {
    pool.refresh(ring.taken_at, LINE_BYTES);
    pool.refresh(ring.at, LINE_BYTES * COMMAND_LINES);
    let taken = pool.load(ring.taken_at);
    let from = taken.max(ring.first);
    let line = |index: u64| ring.at + index % COMMAND_LINES * LINE_BYTES;
    let commit = |index: u64| pool.load(line(index) + 56);
    // No leader's ring gets as far as the next one's begins.
    let Some(end) = from.checked_add(COMMAND_LINES).filter(|_| from >> 32 == ring.first >> 32)
    else {
        let found = format!("{taken} lines are taken, and it began at {}", ring.first);
        out.error("command", of, ring.taken_at, found, mend::START_CONTROL);
        return;
    };
    let mut next = from;
    while next < end && commit(next) == next + 1 {
        if !known(pool.load_words(line(next))) {
            let found = format!("line {next} says {:#x}, which is nothing", pool.load(line(next)));
            out.error("command", of, line(next), found, mend::COPY_POOL);
        }
        next += 1;
    }
    for index in next..end {
        let word = commit(index);
        // What an earlier lap or leader left there is an index of this line, and lower.
        let is_left =
            word == 0 || word <= index && (index + 1 - word).is_multiple_of(COMMAND_LINES);
        if !is_left {
            let found = format!("line {index} has commit word {word}; those from {from} on are")
                + &format!(" committed to {next}");
            out.error("command", of, line(index) + 56, found, mend::COPY_POOL);
        }
    }
}

/// Sentences of the distinct-error logs that cannot be read.
pub fn errors(pool: &Pool, out: &mut Findings) {
    for block in 0..PROCESS_BLOCKS {
        for number in 0..ERRORS_MAX {
            let at = pool.geometry().errors(block) + number as u64 * ErrorEntry::BYTES;
            pool.refresh(at, ErrorEntry::BYTES);
            if pool.load(at) == 0 {
                continue;
            }
            let entry = ErrorEntry::from_words(pool.load_words(at));
            if entry.text().is_empty() {
                let found = format!("its sentence of {} bytes cannot be read", entry.text_bytes);
                let of = format!("error {number} of process block {block}");
                out.note("errors", of, at, found, mend::CONTROL_IGNORES);
            }
        }
    }
}
