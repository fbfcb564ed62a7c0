//! Topics: created, listed, described.

use std::collections::{BTreeMap, VecDeque};

use landfall_layout::geometry::Geometry;
use landfall_layout::limits::{
    LOGS_PER_TOPIC, REPLICAS_MAX, RING_SLOTS_DEFAULT, SEQUENCED_LOG, SESSION_LEASE_NS, TOPICS_MAX,
};
use landfall_layout::order::FrontierLine;
use landfall_layout::pool::Coherence;
use landfall_layout::topic::{
    Durability, Order, TOPIC_CHECK_INGEST, TOPIC_KEEP, TOPIC_WINDOW, TopicEntry, TopicState,
    check_name, check_ring_slots,
};
use landfall_layout::{BrokerId, SegmentId, TopicId};

use super::Keeper;
use super::coming::{FEW_DISKS, if_brokers_come};
use super::sums::Mark;
use crate::answers::{
    BrokerFacts, Cluster, Health, PoolFacts, Problem, SCHEMA_VERSION, Topic as TopicAnswer,
    TopicSpec,
};
use crate::life::Life;
use crate::messages::{NewTopic, ToSequencer};
use crate::sequencer::{Frontier, TopicSequencer};
use landfall_pool::clock::wall_ns;

const MS: u64 = 1_000_000;

/// A topic as the keeper keeps it.
#[derive(Debug)]
pub struct Topic {
    /// Its entry in the table.
    pub entry: TopicEntry,
    /// Its id.
    pub id: TopicId,
    /// Its order.
    pub order: Order,
    /// Its logs that have a segment, by number.
    pub logs: BTreeMap<usize, Log>,
    /// Its payload segments.
    pub payload: Vec<SegmentId>,
}

/// What a log passed over when pools were lost: last, and in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// First position of the last range.
    pub from: u64,
    /// Position behind it; 0: it never passed over anything.
    pub to: u64,
    /// Positions in all.
    pub positions: u64,
    /// Indexes in all.
    pub entries: u64,
}

/// A log's chain and where it begins for readers.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Segments, the oldest first.
    pub chain: VecDeque<SegmentId>,
    /// Oldest index that may be read.
    pub oldest_index: u64,
    /// Position of that entry's first message.
    pub oldest_position: u64,
    /// What it passed over when pools were lost.
    pub passed: Passed,
    /// A broker's own log: the last segment granted to its present process.
    pub granted: Option<SegmentId>,
    /// A sequenced log whose writer has no segment yet: it goes on at this index, and what is
    /// behind that in the last segment a control before this one may still write.
    pub awaits_from: Option<u64>,
    /// Where retention has summed its bytes to.
    pub summed: Option<Mark>,
}

impl Topic {
    /// Whether it may be used.
    pub fn is_live(&self) -> bool {
        self.entry.state() == TopicState::Live
    }
}

/// Refuses to promise more than the pool has room for, were it this topic's alone.
fn fits(retention_bytes: u64, pool: &Geometry) -> Result<(), Problem> {
    let most = u64::from(pool.segments()) * pool.segment_bytes();
    if retention_bytes <= most {
        return Ok(());
    }
    Err(Problem::bad(format!(
        "retention_bytes {retention_bytes} is more than the pool has: {} segments of {} bytes, \
         {most} in all; say less, leave it out to keep as much as there is room for, or make the \
         pool larger",
        pool.segments(),
        pool.segment_bytes()
    )))
}

/// What a new topic's spec says, checked.
fn entry_of(spec: &TopicSpec, id: TopicId, known: &[Disk]) -> Result<(TopicEntry, Order), Problem> {
    check_name(&spec.name).map_err(|error| Problem::bad(error.to_string()))?;
    let order: Order = spec.order.parse().map_err(|error| Problem::bad(format!("{error}")))?;
    let ring_slots = spec.ring_slots.unwrap_or(RING_SLOTS_DEFAULT);
    check_ring_slots(ring_slots).map_err(|error| Problem::bad(error.to_string()))?;
    let replicas = spec.replicas.unwrap_or(1);
    let replica_brokers = replica_brokers(replicas, known)?;
    let durability = durability_of(spec, replicas)?;
    let keep = spec.keep.unwrap_or(false);
    let retention_bytes = spec.retention_bytes.unwrap_or(0);
    let retention_ns = nanoseconds("retention_ms", spec.retention_ms.unwrap_or(0))?;
    if keep && (retention_bytes != 0 || retention_ns != 0) {
        return Err(Problem::bad(
            "a topic that keeps everything has no retention bound: leave out keep, or \
             retention_bytes and retention_ms",
        ));
    }
    let disk_bytes = spec.disk_bytes.unwrap_or(0);
    let disk_ns = nanoseconds("disk_ms", spec.disk_ms.unwrap_or(0))?;
    if replicas == 1 && (disk_bytes != 0 || disk_ns != 0) {
        return Err(Problem::bad(
            "a topic with 1 replica has nothing on a disk: leave out disk_bytes and disk_ms, or \
             say 2 replicas or more",
        ));
    }
    let lease = spec.session_lease_ms.unwrap_or(SESSION_LEASE_NS / MS);
    if lease == 0 {
        return Err(Problem::bad("session_lease_ms is 0; a session needs at least 1"));
    }
    let mut name = [0; 120];
    name[..spec.name.len()].copy_from_slice(spec.name.as_bytes());
    // A batch that does not hold stops its replicas, so it is refused before it is ordered, unless
    // somebody says otherwise.
    let check = if spec.check_ingest.unwrap_or(replicas > 1) { TOPIC_CHECK_INGEST } else { 0 };
    let window = if durability == Durability::Window { TOPIC_WINDOW } else { 0 };
    let entry = TopicEntry {
        version: 0,
        id: id.0,
        state: TopicState::Live as u8,
        order: order.raw(),
        flags: check | window | if keep { TOPIC_KEEP } else { 0 },
        replicas,
        ring_slots,
        name_bytes: spec.name.len() as u32,
        retention_bytes,
        retention_ns,
        created_ns: wall_ns(),
        session_lease_ns: nanoseconds("session_lease_ms", lease)?,
        name,
        replica_brokers,
        reserved8: [0; 7],
        disk_bytes,
        disk_ns,
        deleted_ns: 0,
        life: 0,
        begin_index: 0,
        begin_position: 0,
        reserved: [0; 3],
    };
    Ok((entry, order))
}

/// A broker of the pool, as far as it may keep replicas.
#[derive(Clone, Copy, Debug)]
struct Disk {
    broker: BrokerId,
    has_disk: bool,
    is_live: bool,
}

/// How a number that is not wanted is none of the pool's brokers.
const FORGOTTEN: &str = "one that serves and is stopped in good order is forgotten when nothing is \
                         on it, a dead one by `landfall broker forget NUMBER`";

/// A refusal for want of brokers with disks: there may be more.
fn few_disks(message: String) -> Problem {
    Problem::conflict(FEW_DISKS, message)
}

/// How many brokers keep the replicas of a topic with `replicas` copies: numbers 0 up to that.
/// `known` are all brokers of the pool. Those that are gone keep theirs when they come back, and
/// others do meanwhile, so there have to be as many live ones as there are copies on disk.
fn replica_brokers(replicas: u8, known: &[Disk]) -> Result<u8, Problem> {
    if usize::from(replicas) > REPLICAS_MAX || replicas == 0 {
        return Err(Problem::bad(format!(
            "{replicas} replicas are not possible; say 1 to {REPLICAS_MAX}: the pool is the first, \
             each further one is on a disk"
        )));
    }
    if replicas == 1 {
        return Ok(0);
    }
    let disks = usize::from(replicas - 1);
    let brokers = known.len();
    let is_missing = |number: &usize| known.iter().all(|known| known.broker.index() != *number);
    if let Some(missing) = (0..brokers).find(is_missing) {
        let above = known.iter().map(|known| known.broker).filter(|it| it.index() > missing);
        let above: Vec<String> = above.map(|broker| broker.to_string()).collect();
        let above = above.join(", ");
        return Err(few_disks(format!(
            "{replicas} replicas need brokers that are numbered from 0 on without a hole; of \
             {brokers} brokers none has number {missing}: start it with --data DIR, or do without \
             broker {above}: {FORGOTTEN}"
        )));
    }
    if let Some(Disk { broker, .. }) = known.iter().find(|known| !known.has_disk) {
        return Err(few_disks(format!(
            "{replicas} replicas need a disk at each broker, and broker {broker} has none: start \
             it with --data DIR, or do without it, if it has the highest number: {FORGOTTEN}"
        )));
    }
    let live = known.iter().filter(|known| known.is_live).count();
    if disks > live {
        let gone = known.iter().filter(|known| !known.is_live);
        let gone: Vec<String> = gone.map(|known| known.broker.to_string()).collect();
        return Err(few_disks(format!(
            "{replicas} replicas are the pool and {disks} {}, each of another live broker, and \
             {live} live {} a disk{}: start {} more with --data DIR, or ask for fewer replicas",
            if disks == 1 { "disk" } else { "disks" },
            if live == 1 { "broker has" } else { "brokers have" },
            match gone.is_empty() {
                true => String::new(),
                false => format!(" (not live: {})", gone.join(", ")),
            },
            disks - live
        )));
    }
    Ok(brokers as u8)
}

fn durability_of(spec: &TopicSpec, replicas: u8) -> Result<Durability, Problem> {
    let Some(word) = &spec.durability else { return Ok(Durability::Sync) };
    let durability: Durability = word.parse().map_err(Problem::bad)?;
    if durability == Durability::Window && replicas < 2 {
        return Err(Problem::bad(format!(
            "durability window says when copies on disk are synced, and {replicas} replica is in \
             the pool alone: ask for 2 replicas or more, or leave durability out"
        )));
    }
    Ok(durability)
}

fn nanoseconds(what: &str, ms: u64) -> Result<u64, Problem> {
    ms.checked_mul(MS).ok_or_else(|| {
        let most = u64::MAX / MS;
        Problem::bad(format!("{what} is {ms}; at most {most} milliseconds are possible"))
    })
}

impl Keeper {
    pub(super) fn create_topic(&mut self, spec: &TopicSpec) -> Result<TopicAnswer, Problem> {
        // One that left a moment ago may be none of its homes.
        self.look_at_brokers();
        let leads_ns = self.clock_ns().saturating_sub(self.began_ns);
        let (mut entry, order) = entry_of(spec, TopicId(0), &self.known_disks())
            .map_err(|problem| if_brokers_come(problem, leads_ns))?;
        fits(entry.retention_bytes, self.pool.geometry())?;
        if let Some(topic) = self.topic_named(&spec.name) {
            return Err(match topic.is_live() {
                true => Problem::conflict("exists", format!("topic {} exists already", spec.name)),
                false => being_deleted(&spec.name),
            });
        }
        let id = self.next_topic_id()?;
        entry.id = id.0;
        entry.created_ns = self.graves.age(&spec.name, entry.created_ns);
        let mut topic = Topic { entry, id, order, logs: BTreeMap::new(), payload: Vec::new() };
        self.leaves_room(&spec.name, order)?;
        if order.is_sequenced() {
            let Some(log) = self.begin_log(id, SEQUENCED_LOG, 0) else {
                let (free, all) = (self.segments.free(), self.segments.total());
                return Err(Problem::full(
                    "pool_full",
                    format!(
                        "topic {} needs a segment for its order log and {free} of {all} segments \
                         are free; delete a topic, or make the pool larger",
                        spec.name
                    ),
                ));
            };
            let room = self.log_segment(log.chain[0]).expect("the segment was just given out");
            let sequencer = TopicSequencer::new(order, entry.session_lease_ns, Frontier::default())
                .expect("a sequenced order has a sequencer");
            topic.logs.insert(SEQUENCED_LOG, log);
            let new = NewTopic { topic: id, order, sequencer, is_new: true, log: room };
            self.tell_sequencer(ToSequencer::AddTopic(Box::new(new)));
        }
        self.forget_keepers(id);
        // Tables that others read have it at once. A deposed leader's answer is never heard.
        if !self.still_leads() {
            return Err(Problem::full("stopping", "another control leads this pool; ask it"));
        }
        self.pool.set_topic(&entry);
        let answer = self.answer_of(&topic);
        self.topics[id.slot()] = Some(topic);
        Ok(answer)
    }

    /// The id of the next topic: a free slot's next generation. Generation 0 is never used, so no
    /// topic's id is 0, which is what unused lines say.
    fn next_topic_id(&self) -> Result<TopicId, Problem> {
        let slot = self.topics.iter().position(Option::is_none).ok_or_else(|| {
            let text = format!("all {TOPICS_MAX} topics are in use; delete one");
            Problem::full("topics_full", text)
        })?;
        let before =
            self.pool.topic_in_slot(slot).map_or(0, |entry| TopicId(entry.id).generation());
        let generation = (before + 1) & 0x00ff_ffff;
        Ok(TopicId::new(slot, generation.max(1)))
    }

    pub(super) fn topic_named(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().flatten().find(|topic| topic.entry.name() == name)
    }

    pub(super) fn list_topics(&self) -> Vec<TopicAnswer> {
        let live = self.topics.iter().flatten().filter(|topic| topic.is_live());
        let mut answers: Vec<_> = live.map(|topic| self.answer_of(topic)).collect();
        answers.sort_by(|a, b| a.name.cmp(&b.name));
        answers
    }

    pub(super) fn describe_topic(&self, name: &str) -> Result<TopicAnswer, Problem> {
        self.usable_topic(name).map(|topic| self.answer_of(topic))
    }

    pub(super) fn usable_topic(&self, name: &str) -> Result<&Topic, Problem> {
        match self.topic_named(name) {
            Some(topic) if topic.is_live() => Ok(topic),
            Some(_) => Err(being_deleted(name)),
            None => Err(Problem::missing(format!("there is no topic {name:?}"))),
        }
    }

    fn answer_of(&self, topic: &Topic) -> TopicAnswer {
        let logs: Vec<usize> = match topic.order.is_sequenced() {
            true => vec![SEQUENCED_LOG],
            false => (0..LOGS_PER_TOPIC - 1).collect(),
        };
        let mut longest = (FrontierLine::default(), 0);
        let (mut messages, mut batches, mut bytes) = (0_u64, 0_u64, 0_u64);
        for log in logs {
            let line = self.pool.frontier(topic.id, log);
            // What was passed over when a pool was lost was never there.
            let passed = topic.logs.get(&log).map_or_else(Passed::default, |log| log.passed);
            messages = messages.saturating_add(line.position.saturating_sub(passed.positions));
            batches = batches.saturating_add(line.entries.saturating_sub(passed.entries));
            bytes = bytes.saturating_add(line.bytes);
            if line.position >= longest.0.position {
                longest = (line, topic.logs.get(&log).map_or(0, |log| log.oldest_position));
            }
        }
        let entry = &topic.entry;
        TopicAnswer {
            name: entry.name().to_owned(),
            id: entry.id,
            order: topic.order.name(),
            ring_slots: entry.ring_slots,
            retention_bytes: entry.retention_bytes,
            retention_ms: entry.retention_ns / MS,
            keep: entry.keeps(),
            check_ingest: entry.checks_ingest(),
            replicas: entry.replicas.max(1),
            durability: entry.durability().name(),
            replicas_state: self.replicas_of(topic),
            disk_bytes: entry.disk_bytes,
            disk_ms: entry.disk_ns / MS,
            session_lease_ms: entry.session_lease_ns / MS,
            created_ns: entry.created_ns,
            messages,
            batches,
            bytes,
            oldest_position: longest.1,
            next_position: longest.0.position,
            segments: self.segments_of(topic),
            segments_lost: self.lost_of(topic),
        }
    }

    /// The pool's brokers, and whether each has a disk for replicas.
    fn known_disks(&self) -> Vec<Disk> {
        self.known_brokers()
            .map(|broker| Disk {
                broker: broker.id,
                has_disk: self.pool.broker(broker.id).disk != 0,
                is_live: broker.life == Life::Live,
            })
            .collect()
    }

    /// Brokers that land batches for a topic, or did.
    pub(super) fn landing(&self, topic: &Topic) -> Vec<BrokerId> {
        let lands = |source: &BrokerId| match topic.order.is_sequenced() {
            true => self.pool.ring(topic.id, *source).is_some(),
            false => self.pool.frontier(topic.id, source.index()).entries > 0,
        };
        BrokerId::all().filter(lands).collect()
    }

    /// Rings are not counted: they lie beside those of other topics.
    fn segments_of(&self, topic: &Topic) -> u32 {
        let logs: usize = topic.logs.values().map(|log| log.chain.len()).sum();
        let retiring = self.retiring.iter().filter(|retiring| retiring.topic == topic.id).count();
        (logs + retiring + topic.payload.len()) as u32
    }

    fn lost_of(&self, topic: &Topic) -> u32 {
        if self.segments.lost() == 0 {
            return 0;
        }
        let of = self.segments.of(topic.id).into_iter();
        of.filter(|segment| self.segments.is_lost(*segment)).count() as u32
    }

    pub(super) fn health(&self) -> Health {
        let live = self.brokers.iter().filter(|broker| broker.life == Life::Live);
        Health {
            schema_version: SCHEMA_VERSION,
            ready: true,
            epoch: self.epoch,
            brokers: live.count() as u32,
        }
    }

    pub(super) fn cluster(&self) -> Cluster {
        let geometry = self.pool.geometry();
        let clock_ns = self.clock_ns();
        let known = self.known_brokers();
        Cluster {
            schema_version: SCHEMA_VERSION,
            epoch: self.epoch,
            pid: std::process::id(),
            pool: PoolFacts {
                uuid: self.pool.uuid_text(),
                path: self.path.clone(),
                bytes: geometry.pool_bytes(),
                segment_bytes: geometry.segment_bytes(),
                segments: self.segments.total(),
                segments_free: self.segments.free(),
                segments_lost: self.segments.lost(),
                batch_bytes_max: geometry.batch_bytes_max(),
                sessions: geometry.sessions(),
                coherence: match Coherence::from_raw(self.pool.header().coherence) {
                    Some(Coherence::Flush) => "flush",
                    _ => "coherent",
                },
            },
            brokers: known
                .map(|broker| {
                    let line = self.pool.broker(broker.id);
                    let address = self.pool.broker_address(broker.id);
                    BrokerFacts {
                        broker: broker.id.raw(),
                        state: broker.state_name(&line),
                        tcp: address.tcp().to_owned(),
                        unix: address.unix().to_owned(),
                        verbs: address.verbs().to_owned(),
                        pid: line.pid,
                        heartbeat_age_ms: broker.beats.last_ns(clock_ns).map(|age_ns| age_ns / MS),
                        epoch_seen: line.epoch_seen,
                    }
                })
                .collect(),
        }
    }
}

pub(super) fn being_deleted(name: &str) -> Problem {
    let text = format!("topic {name} is being deleted; try again when its name is free");
    Problem::conflict("deleting", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(order: &str) -> TopicSpec {
        TopicSpec { name: "a".into(), order: order.into(), ..TopicSpec::default() }
    }

    fn refusal(spec: &TopicSpec) -> String {
        let problem = entry_of(spec, TopicId(256), &[]).unwrap_err();
        assert_eq!(problem.status, 400);
        problem.message
    }

    #[test]
    fn what_nobody_says_has_a_default() {
        let (entry, order) = entry_of(&spec("strong"), TopicId(256), &[]).unwrap();
        assert_eq!(order, Order::Strong);
        assert_eq!((entry.ring_slots, entry.replicas), (RING_SLOTS_DEFAULT, 1));
        assert_eq!(entry.session_lease_ns, SESSION_LEASE_NS);
        assert_eq!((entry.name(), entry.keeps(), entry.checks_ingest()), ("a", false, false));
    }

    #[test]
    fn more_than_the_pool_has_room_for_is_refused_with_the_numbers() {
        let pool = Geometry::new(64 << 20, 2 << 20, 64).unwrap();
        let most = u64::from(pool.segments()) << 21;
        assert!(fits(most, &pool).is_ok() && fits(0, &pool).is_ok());
        let text = fits(10 << 40, &pool).unwrap_err().message;
        for part in ["10995116277760", &most.to_string(), "segments of 2097152 bytes"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn an_unknown_order_is_told_which_there_are() {
        let text = refusal(&spec("sorted"));
        assert!(text.contains("sorted") && text.contains("none, broker, total"), "{text}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_numbers() {
        let text = refusal(&TopicSpec { replicas: Some(5), ..spec("total") });
        assert!(text.contains("5 replicas") && text.contains("1 to 4"), "{text}");
        let text = refusal(&TopicSpec { durability: Some("window".into()), ..spec("total") });
        assert!(text.contains("2 replicas or more"), "{text}");
        let text = refusal(&TopicSpec { durability: Some("never".into()), ..spec("total") });
        assert!(text.contains("sync or window"), "{text}");
        let text = refusal(&TopicSpec { ring_slots: Some(100), ..spec("total") });
        assert!(text.contains("100"), "{text}");
        let text = refusal(&TopicSpec { name: "a/b".into(), ..spec("total") });
        assert!(text.contains("'/'"), "{text}");
        let text = refusal(&TopicSpec { session_lease_ms: Some(0), ..spec("total") });
        assert!(text.contains("session_lease_ms"), "{text}");
        let text = refusal(&TopicSpec { retention_ms: Some(u64::MAX), ..spec("total") });
        assert!(text.contains("retention_ms"), "{text}");
        let both = TopicSpec { keep: Some(true), retention_bytes: Some(1), ..spec("total") };
        assert!(refusal(&both).contains("keep"));
    }

    fn disks(brokers: &[(usize, bool)]) -> Vec<Disk> {
        let disk = |(number, has_disk): &(usize, bool)| {
            let broker = BrokerId::new(*number).unwrap();
            Disk { broker, has_disk: *has_disk, is_live: true }
        };
        brokers.iter().map(disk).collect()
    }

    #[test]
    fn replicas_need_as_many_live_brokers_as_copies_on_disk() {
        let mut known = disks(&[(0, true), (1, true), (2, true)]);
        known[0].is_live = false;
        assert_eq!(replica_brokers(3, &known).unwrap(), 3, "others keep what broker 0 would");
        known[2].is_live = false;
        let Problem { status, message: text, .. } = replica_brokers(3, &known).unwrap_err();
        assert_eq!(status, 409, "it is no bad request: another may come");
        assert!(text.contains("2 disks") && text.contains("1 live broker has a disk"), "{text}");
        assert!(text.contains("(not live: 0, 2): start 1 more"), "{text}");
        assert_eq!(replica_brokers(2, &known).unwrap(), 3);
    }

    #[test]
    fn replicas_need_disks_at_brokers_without_a_hole() {
        let ask = |replicas, brokers: &[(usize, bool)]| {
            replica_brokers(replicas, &disks(brokers)).map_err(|problem| problem.message)
        };
        assert_eq!(ask(1, &[]), Ok(0));
        assert_eq!(ask(2, &[(0, true)]), Ok(1));
        assert_eq!(ask(3, &[(0, true), (1, true)]), Ok(2));
        assert_eq!(ask(2, &[(0, true), (1, true), (2, true)]), Ok(3));
        let refused = |replicas, brokers: &[(usize, bool)], says: &str| {
            let text = ask(replicas, brokers).unwrap_err();
            assert!(text.contains(says), "{text}");
        };
        refused(0, &[(0, true)], "1 to 4");
        refused(2, &[], "0 live brokers have a disk: start 1 more");
        refused(3, &[(0, true)], "2 disks, each of another live broker, and 1 live broker has");
        refused(2, &[(0, true), (2, true)], "number 1");
        refused(2, &[(0, true), (1, false)], "broker 1 has none: start it with --data");
    }
}
