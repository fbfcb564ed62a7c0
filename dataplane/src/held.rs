//! Publishers that wait long for a durable receipt are told which copy holds it back.

use landfall_layout::frame::Frame;
use landfall_layout::held::{Held, HeldBy};
use landfall_layout::limits::IN_FLIGHT_BATCHES_MAX;
use landfall_layout::pool::{BrokerState, DISK_HANGS};
use landfall_layout::replica::ReplicaState;
use landfall_layout::topic::{Durability, TopicEntry};
use landfall_layout::{BrokerId, TopicId};

use crate::broker::Broker;
use crate::conns::Token;
use crate::env::Env;
use crate::receipts::landing;
use crate::topics::Topic;

/// A receipt that has waited for this long for a copy is one to be told of, and told again this
/// often. Nanoseconds.
const HELD_AFTER_NS: u64 = 500_000_000;
const HELD_EVERY_NS: u64 = 1_000_000_000;

/// What a topic's oldest durable receipt waits for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waited {
    /// Log index of its entry, and since when it is the oldest.
    oldest: Option<u64>,
    since_ns: u64,
    told_ns: u64,
    /// The keeper that it waited for at the last look, and that one's beat.
    beat: Option<(BrokerId, u64)>,
    /// What was told last, but for numbers that move.
    told: Option<(u8, u8, u8, HeldBy)>,
}

impl Broker {
    /// Tells publishers what their durable receipts wait for.
    pub(crate) fn tell_held(&mut self, now_ns: u64) {
        let Self { env, topics, conns, .. } = self;
        for topic in topics.iter_mut().flatten() {
            let Some(held) = look(env, topic, now_ns) else { continue };
            let owners = topic.awaiting.iter().map(|awaiting| awaiting.batch.owner);
            let others = topic.confirming.iter().map(|confirming| confirming.batch.owner);
            let mut told: Vec<Token> = Vec::new();
            for owner in owners.chain(others) {
                if told.contains(&owner) {
                    continue;
                }
                told.push(owner);
                let Some(conn) = conns.by_token(owner) else { continue };
                if conn.out.frames() < usize::from(IN_FLIGHT_BATCHES_MAX) {
                    conn.tell(Frame::Held(held));
                    conns.touch(owner.slot());
                }
            }
        }
    }
}

/// What the topic's oldest durable receipt waits for, when it is time to tell.
#[cold]
fn look(env: &Env, topic: &mut Topic, now_ns: u64) -> Option<Held> {
    let own = topic.awaiting.front().map(|awaiting| awaiting.index);
    let of_all = topic.confirming.iter().map(|confirming| confirming.index).min();
    let oldest = own.or(of_all);
    if oldest != topic.waited.oldest {
        topic.waited =
            Waited { oldest, since_ns: now_ns, told: topic.waited.told, ..Waited::default() };
    }
    let awaited = oldest?;
    if topic.waited.beat.is_none() {
        topic.waited.beat = furthest_behind(env, topic, own.is_some(), awaited)
            .and_then(|held| BrokerId::new(held.keeper.into()))
            .map(|keeper| (keeper, env.pool.broker(keeper).heartbeat_ns));
    }
    let waited = topic.waited;
    if now_ns.saturating_sub(waited.since_ns) < HELD_AFTER_NS
        || now_ns.saturating_sub(waited.told_ns) < HELD_EVERY_NS
    {
        return None;
    }
    let mut held = furthest_behind(env, topic, own.is_some(), awaited)?;
    let keeper = BrokerId::new(held.keeper.into())?;
    let line = env.pool.broker(keeper);
    if BrokerState::from_raw(line.state) == BrokerState::Absent {
        held.by = HeldBy::Gone;
    } else if waited.beat == Some((keeper, line.heartbeat_ns)) || line.disk == DISK_HANGS {
        held.by = HeldBy::Silent;
    }
    topic.waited.told_ns = now_ns;
    topic.waited.beat = Some((keeper, line.heartbeat_ns));
    let told = Some((held.source, held.replica, held.keeper, held.by));
    if told != waited.told {
        topic.waited.told = told;
        let name = env.pool.topic(topic.id).map(|entry| entry.name().to_owned());
        let name = name.unwrap_or_default();
        env.error(&format!("topic {name}: durable receipts wait: {held}"));
    }
    Some(held)
}

/// The copy that is furthest behind of those that are waited for: of what this broker landed, or
/// of what all did.
fn furthest_behind(env: &Env, topic: &Topic, is_own: bool, awaited: u64) -> Option<Held> {
    let entry = env.pool.topic(topic.id)?;
    let copies = |source| copies_of(env, topic.id, &entry, source, awaited);
    let least = |all: &mut dyn Iterator<Item = Held>| {
        all.filter(|held| held.durable <= awaited).min_by_key(|held| held.durable)
    };
    match is_own {
        true => least(&mut copies(env.me)),
        false => least(&mut landing(env, topic.id).flat_map(copies)),
    }
}

fn copies_of<'a>(
    env: &'a Env,
    topic: TopicId,
    entry: &'a TopicEntry,
    source: BrokerId,
    awaited: u64,
) -> impl Iterator<Item = Held> + 'a {
    let keepers = env.pool.keepers(topic, source);
    (0..entry.disk_replicas()).filter_map(move |replica| {
        let home = entry.replica_broker(source, replica)?;
        let stand_in = keepers.stand_in(replica);
        let keeper = stand_in.map_or(home, |stand_in| stand_in.broker);
        let line = env.pool.copy_state(env.pool.copy_line(topic, source, replica, stand_in));
        let reached = match (entry.durability(), line.state()) {
            (Durability::Window, state) if state != ReplicaState::Failed => line.written,
            _ => line.durable,
        };
        Some(Held {
            source: source.raw(),
            replica: replica as u8,
            keeper: keeper.raw(),
            moved: stand_in.is_some(),
            by: HeldBy::of(line.state()),
            errno: line.errno,
            durable: reached,
            awaited,
        })
    })
}
