//! What became of the batches that landed here.

use landfall_layout::counters::{Counter, Stage};
use landfall_layout::doubt::DoubtLine;
use landfall_layout::frame::{Ack, Frame, Reached, Receipt};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::session::SessionLine;
use landfall_layout::topic::{Durability, Order};
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::clock::wall_ns;
use landfall_pool::log::Found;

use crate::conn::Kind;
use crate::conns::{Conns, Over};
use crate::env::Env;
use crate::losses::{Lost, lost_of};
use crate::topics::{Awaiting, Confirming, Landing, Topic, Waiting};

/// Log entries followed in one turn for one topic.
const ENTRIES_PER_TURN: u64 = 512;

/// Reports what is known by now; how many batches that was.
#[inline]
pub fn settle(env: &Env, topic: &mut Topic, conns: &mut Conns, now_ns: u64) -> usize {
    if topic.is_settled() {
        return 0;
    }
    let settled = match topic.landing {
        Landing::Ring(_) => settle_ordered(env, topic, conns),
        _ => settle_landed(env, topic, conns, now_ns),
    };
    if !topic.confirming.is_empty() {
        settle_confirmed(env, topic, conns);
    }
    settled + settle_replicated(env, topic, conns)
}

/// Own logs: everything below the frontier has landed, which is all there is to reach unless a
/// replica is waited for.
fn settle_landed(env: &Env, topic: &mut Topic, conns: &mut Conns, now_ns: u64) -> usize {
    let mut settled = 0;
    while let Some((index, waiting)) = topic.in_flight.front() {
        let batch = *waiting;
        env.latency(Stage::LandedToOrdered, batch.landed_ns, now_ns);
        if wants_replicas(conns, &batch) {
            topic.awaiting.push_back(Awaiting { batch, index, position: batch.position });
        } else {
            report(env, conns, &batch, Reached::Landed, batch.position);
        }
        topic.in_flight.pop();
        settled += 1;
    }
    settled
}

/// Sequenced topics: follow the log, then see what was consumed without an entry.
fn settle_ordered(env: &Env, topic: &mut Topic, conns: &mut Conns) -> usize {
    let Landing::Ring(writer) = &mut topic.landing else { return 0 };
    // In this order: the sequencer moves the frontier before it moves the consumed index, so an
    // index that is consumed by now and has an entry has it below the frontier loaded next.
    let consumed = writer.consumed(&env.pool);
    let frontier = env.pool.frontier(topic.id, SEQUENCED_LOG).entries;
    let stop = frontier.min(topic.follower.next + ENTRIES_PER_TURN);
    let mut settled = 0;
    while topic.follower.next < stop {
        let index = topic.follower.next;
        match topic.follower.reader.entry(&env.pool, index) {
            Found::Entry(entry) => {
                topic.follower.next += 1;
                if entry.broker != env.me.raw() || entry.is_hole() {
                    continue;
                }
                let Some(waiting) = topic.in_flight.by_low(entry.ring_index) else { continue };
                if !waiting.reported {
                    waiting.reported = true;
                    let batch = *waiting;
                    let position = entry.first_position;
                    if wants_replicas(conns, &batch) {
                        topic.awaiting.push_back(Awaiting { batch, index, position });
                    } else {
                        report(env, conns, &batch, Reached::Ordered, position);
                    }
                    settled += 1;
                }
            }
            // What retention has taken was ordered; the position is not known any more.
            Found::Lapped { oldest } => {
                topic.follower.next = oldest.max(index + 1);
                // Whatever had landed by now may be among it; what lands later has a later entry.
                topic.follower.lapped = topic.in_flight.end();
            }
            Found::Gone => return settled,
        }
    }
    let followed = topic.follower.next >= frontier;
    while let Some((index, waiting)) = topic.in_flight.front() {
        if !waiting.reported {
            if !followed || index >= consumed {
                break;
            }
            let batch = *waiting;
            let is_lapped = index < topic.follower.lapped;
            match dropped(env, conns, topic.order, &batch, is_lapped) {
                Dropped::Duplicate if wants_replicas(conns, &batch) => {
                    // The earlier copy's entry is somewhere below the frontier.
                    let index = frontier.saturating_sub(1);
                    topic.confirming.push(Confirming { batch, index });
                }
                Dropped::Duplicate => report(env, conns, &batch, Reached::Duplicate, 0),
                Dropped::Lost => report(env, conns, &batch, Reached::Lost, 0),
                Dropped::Over => {}
            }
            settled += 1;
        }
        topic.in_flight.pop();
    }
    settled
}

/// Reports what all replicas have by now. A receipt never says more than they do: what is written
/// and not synced is replicated, and not durable.
fn settle_replicated(env: &Env, topic: &mut Topic, conns: &mut Conns) -> usize {
    if topic.awaiting.is_empty() {
        return 0;
    }
    let (mut settled, mut now) = (0, 0);
    let there = replicated(env, topic, env.me);
    let lost = Lost::of(env, topic);
    while let Some(awaiting) = topic.awaiting.front() {
        let Awaiting { batch, index, position } = *awaiting;
        if index >= there {
            break;
        }
        if now == 0 {
            now = wall_ns();
        }
        let reached = match lost.has(env, topic, index) {
            true => Reached::Lost,
            false => {
                env.latency(Stage::LandedToDurable, batch.landed_ns, now);
                env.count(Counter::DurableReceipts, 1);
                reached_by(topic)
            }
        };
        report(env, conns, &batch, reached, position);
        topic.awaiting.pop_front();
        settled += 1;
    }
    settled
}

/// Index below which all replicas have what `source` landed, as surely as the topic says.
fn replicated(env: &Env, topic: &Topic, source: BrokerId) -> u64 {
    let reached = env.pool.replicated(topic.id, source, topic.disk_replicas);
    match topic.durability {
        Durability::Window => reached.written,
        Durability::Sync => reached.durable,
    }
}

/// What a batch has reached that is in all replicas.
fn reached_by(topic: &Topic) -> Reached {
    match topic.durability {
        Durability::Window => Reached::Replicated,
        Durability::Sync => Reached::Durable,
    }
}

/// Tells of batches that have no entry of their own, where all replicas have what may be meant by
/// now. One that waits long holds up nobody else: it is about all brokers' replicas.
#[cold]
fn settle_confirmed(env: &Env, topic: &mut Topic, conns: &mut Conns) {
    let there = landing(env, topic.id).map(|source| replicated(env, topic, source)).min();
    let there = there.unwrap_or(u64::MAX);
    let id = topic.id;
    topic.confirming.retain(|Confirming { batch, index }| {
        let is_over = *index < there;
        if is_over {
            let lost =
                client_of(conns, batch).map(|client| lost_of(env, id, SEQUENCED_LOG, client));
            let lost = lost.unwrap_or_default();
            let is_lost = lost.iter().any(|entry| entry.batch_seq == batch.batch_seq);
            let reached = if is_lost { Reached::Lost } else { Reached::Duplicate };
            env.count(Counter::DurableReceipts, u64::from(!is_lost));
            report(env, conns, batch, reached, 0);
        }
        !is_over && conns.by_token(batch.owner).is_some()
    });
}

/// Brokers that land batches for a sequenced topic.
pub(crate) fn landing(env: &Env, topic: TopicId) -> impl Iterator<Item = BrokerId> {
    BrokerId::all().filter(move |source| env.pool.ring(topic, *source).is_some())
}

/// The client whose batch it is, while it is connected.
fn client_of(conns: &mut Conns, waiting: &Waiting) -> Option<u64> {
    match &conns.by_token(waiting.owner)?.kind {
        Kind::Publisher(publisher) => Some(publisher.session.client),
        _ => None,
    }
}

/// Whether the batch's publisher waits for its replicas.
#[inline]
fn wants_replicas(conns: &mut Conns, waiting: &Waiting) -> bool {
    let Some(conn) = conns.by_token(waiting.owner) else { return false };
    matches!(&conn.kind, Kind::Publisher(publisher) if publisher.ack == Ack::Durable)
}

/// Why a slot was consumed and nothing was ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dropped {
    /// The batch is in the log, or was until retention took it.
    Duplicate,
    /// It was ordered, and was lost with a pool.
    Lost,
    /// The session is over, and its publisher was told.
    Over,
}

/// The sequencer took the slot and there is no entry: a duplicate, or a session that is over. Where
/// retention took entries before they were read (`is_lapped`) and the session is not over, the
/// batch was ordered: the sequencer of `total` drops no other one. In the other orders the
/// session's line says so.
#[cold]
fn dropped(
    env: &Env,
    conns: &mut Conns,
    order: Order,
    waiting: &Waiting,
    is_lapped: bool,
) -> Dropped {
    let Some(conn) = conns.by_token(waiting.owner) else { return Dropped::Over };
    let Kind::Publisher(publisher) = &mut conn.kind else { return Dropped::Over };
    let (topic, client) = (publisher.topic, publisher.session.client);
    let line = env.pool.session(waiting.session).filter(|line| line.is_of(topic, client));
    if let Some(line) = &line
        && line.stands(topic, client, waiting.session_epoch)
        && (is_lapped && order == Order::Total || is_told(order, line, waiting))
    {
        let seq = waiting.batch_seq;
        let is_lost = order == Order::Strong
            && line.is_doubtful(seq)
            && DoubtLine::is_lost(env.pool.doubts(topic, waiting.session), seq);
        return if is_lost { Dropped::Lost } else { Dropped::Duplicate };
    }
    let next_seq = line.map_or(0, |line| line.next_seq);
    publisher.in_flight = publisher.in_flight.saturating_sub(1);
    if !publisher.fenced {
        let Waiting { owner, session_epoch: epoch, .. } = *waiting;
        conns.over.push(Over { owner, epoch, next_seq });
    }
    Dropped::Over
}

/// Whether the sequencer can have called it a duplicate. To take another drop for one would
/// acknowledge what nobody ordered: `total` has no duplicates, and what is behind the session's
/// next sequence is in no log.
fn is_told(order: Order, line: &SessionLine, waiting: &Waiting) -> bool {
    match order {
        Order::Strong | Order::Stream => waiting.batch_seq < line.next_seq,
        Order::Token => true,
        Order::Total | Order::None | Order::Broker => false,
    }
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

#[cfg(test)]
mod tests {
    use landfall_layout::order::{ChainLine, FrontierLine};

    use super::*;

    fn waiting(batch_seq: u64) -> Waiting {
        Waiting {
            owner: crate::conns::Token(0),
            batch_seq,
            landed_ns: 0,
            position: 0,
            session: 0,
            session_epoch: 1,
            count: 1,
            reported: false,
        }
    }

    /// The broker was away in the middle of its look: what it had landed was ordered and retained
    /// after it had looked which slots are consumed.
    #[test]
    fn all_that_had_landed_may_be_what_retention_took() {
        let mut rig = crate::rig::LandRig::new(256, false);
        (0..3).for_each(|_| assert!(rig.land_one().is_ok()));
        let (env, topic) = rig.parts();
        let chain = ChainLine { topic: topic.id.0.into(), ..ChainLine::default() };
        env.pool.set_chain(topic.id, SEQUENCED_LOG, &chain);
        env.pool.raise_oldest(topic.id, SEQUENCED_LOG, 3, 3);
        env.pool.start_frontier(topic.id, SEQUENCED_LOG);
        let line = FrontierLine { entries: 3, position: 3, ..FrontierLine::default() };
        env.pool.advance_frontier(topic.id, SEQUENCED_LOG, &line);
        assert_eq!(settle(env, topic, &mut Conns::new(), 1), 0, "no slot is consumed yet");
        assert_eq!((topic.follower.next, topic.follower.lapped), (3, 3));
    }

    #[test]
    fn only_what_can_be_in_the_log_is_called_a_duplicate() {
        let line = SessionLine { next_seq: 5, ..SessionLine::default() };
        for order in [Order::Strong, Order::Stream] {
            assert!(is_told(order, &line, &waiting(4)));
            assert!(!is_told(order, &line, &waiting(5)), "{order}: nobody ordered it");
        }
        assert!(!is_told(Order::Total, &line, &waiting(4)), "it has no duplicates");
    }
}
