//! What became of the batches that landed here.

use landfall_layout::counters::{Counter, Stage};
use landfall_layout::frame::{Ack, Frame, Reached, Receipt};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::session::SessionState;
use landfall_pool::log::Found;

use crate::conn::Kind;
use crate::conns::Conns;
use crate::env::Env;
use crate::topics::{Landing, Topic, Waiting};

/// Log entries followed in one turn for one topic.
const ENTRIES_PER_TURN: u64 = 512;

/// Reports what is known by now; how many batches that was.
#[inline]
pub fn settle(env: &Env, topic: &mut Topic, conns: &mut Conns, now_ns: u64) -> usize {
    if topic.in_flight.is_empty() {
        return 0;
    }
    match topic.landing {
        Landing::Ring(_) => settle_ordered(env, topic, conns),
        _ => settle_landed(env, topic, conns, now_ns),
    }
}

/// Own logs: everything below the frontier has landed, which is all there is to reach.
fn settle_landed(env: &Env, topic: &mut Topic, conns: &mut Conns, now_ns: u64) -> usize {
    let mut settled = 0;
    while let Some(waiting) = topic.in_flight.pop() {
        env.latency(Stage::LandedToOrdered, waiting.landed_ns, now_ns);
        report(env, conns, &waiting, Reached::Landed, waiting.position);
        settled += 1;
    }
    settled
}

/// Sequenced topics: follow the log, then see what was consumed without an entry.
fn settle_ordered(env: &Env, topic: &mut Topic, conns: &mut Conns) -> usize {
    let Landing::Ring(writer) = &topic.landing else { return 0 };
    // In this order: the sequencer moves the frontier before it moves the consumed index, so an
    // index that is consumed by now and has an entry has it below the frontier loaded next.
    let consumed = writer.ring().consumed(&env.pool);
    let frontier = env.pool.frontier(topic.id, SEQUENCED_LOG).entries;
    let stop = frontier.min(topic.follower.next + ENTRIES_PER_TURN);
    let mut settled = 0;
    while topic.follower.next < stop {
        match topic.follower.reader.entry(&env.pool, topic.follower.next) {
            Found::Entry(entry) => {
                topic.follower.next += 1;
                if entry.broker != env.me.raw() {
                    continue;
                }
                let Some(waiting) = topic.in_flight.by_low(entry.ring_index) else { continue };
                if !waiting.reported {
                    waiting.reported = true;
                    let waiting = *waiting;
                    report(env, conns, &waiting, Reached::Ordered, entry.first_position);
                    settled += 1;
                }
            }
            // What retention has taken was ordered; the position is not known any more.
            Found::Lapped { oldest } => topic.follower.next = oldest.max(topic.follower.next + 1),
            Found::Gone => return settled,
        }
    }
    let followed = topic.follower.next >= frontier;
    while let Some((index, waiting)) = topic.in_flight.front() {
        if !waiting.reported {
            if !followed || index >= consumed {
                break;
            }
            let waiting = *waiting;
            dropped(env, conns, &waiting);
            settled += 1;
        }
        topic.in_flight.pop();
    }
    settled
}

/// The sequencer took the slot and ordered nothing: a duplicate, or a session that is over.
#[cold]
fn dropped(env: &Env, conns: &mut Conns, waiting: &Waiting) {
    let line = env.pool.session(waiting.session);
    let stands = line.is_some_and(|line| {
        let standing = landfall_layout::session::Standing::unpack(line.standing);
        standing.epoch == waiting.session_epoch && standing.state == SessionState::Active
    });
    if stands {
        report(env, conns, waiting, Reached::Duplicate, 0);
        return;
    }
    let next_seq = line.map_or(0, |line| line.next_seq);
    let Some(conn) = conns.by_token(waiting.owner) else { return };
    let Kind::Publisher(publisher) = &mut conn.kind else { return };
    publisher.in_flight = publisher.in_flight.saturating_sub(1);
    if !std::mem::replace(&mut publisher.fenced, true) {
        env.count(Counter::Fenced, 1);
        conn.tell(Frame::Fenced { session_epoch: waiting.session_epoch, next_seq });
    }
    conns.touch(waiting.owner.slot());
}

/// Tells the connection, if it is still there and wants to know.
#[inline]
fn report(env: &Env, conns: &mut Conns, waiting: &Waiting, reached: Reached, position: u64) {
    env.count(
        if reached == Reached::Duplicate { Counter::Duplicates } else { Counter::Receipts },
        1,
    );
    let Some(conn) = conns.by_token(waiting.owner) else { return };
    let Kind::Publisher(publisher) = &mut conn.kind else { return };
    publisher.in_flight = publisher.in_flight.saturating_sub(1);
    if publisher.ack != Ack::None {
        conn.tell(Frame::Receipt(Receipt {
            reached,
            count: waiting.count,
            batch_seq: waiting.batch_seq,
            position,
            landed_ns: waiting.landed_ns,
            session_epoch: waiting.session_epoch,
        }));
    }
    conns.touch(waiting.owner.slot());
}
