//! Memory that does not keep what was put there: batches whose bytes changed, and a pool whose
//! end cannot be read any more. What disks have is read as if nothing had happened.

use landfall::api::Topic;
use landfall::{Ack, Event, GapReason, Order, Transport};
use landfall_layout::limits::{BROKERS_MAX, SEQUENCED_LOG};
use landfall_layout::order::OrderEntry;
use landfall_layout::segment::{SegmentKind, What};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::log::{Found, LogReader};
use landfall_pool::{Memory, Pool};

use super::cold::Data;
use crate::flow::{Promise, Reading, Until, audit, check_sent, publish, read};
use crate::rig::patience;
use crate::{Failure, Rig, Site};

/// Bytes of a message.
const BYTES: usize = 5_000;

pub(super) fn data(rig: &Rig, name: &str) -> Result<Data, Failure> {
    let flush = if rig.flush { "-flush" } else { "" };
    Data::new(&format!("{name}-{}-{}{flush}", rig.transport, rig.brokers))
}

/// Every entry of a topic's logs that a batch belongs to.
pub(super) fn entries(pool: &Pool, topic: TopicId) -> Vec<OrderEntry> {
    let logs = (0..BROKERS_MAX).chain([SEQUENCED_LOG]);
    let of = |log| {
        let mut reader = LogReader::new(topic, log);
        let indexes = pool.oldest(topic, log)..pool.frontier(topic, log).entries;
        let found = indexes.filter_map(move |index| match reader.entry(pool, index) {
            Found::Entry(entry) => Some(entry),
            Found::Lapped { .. } | Found::Gone => None,
        });
        found.collect::<Vec<_>>()
    };
    logs.flat_map(of).filter(|entry| !entry.is_hole()).collect()
}

/// Turns a bit of a batch, `offset` bytes behind its start.
fn spoil(pool: &Pool, entry: &OrderEntry, offset: u32) -> Result<(), Failure> {
    let at = pool.at(entry.segment, entry.offset + offset, 8);
    let at = at.ok_or_else(|| Failure::new(format!("{entry:?} is not in the pool")))?;
    pool.store(at, pool.load(at) ^ 1 << 17);
    pool.publish(at, 8);
    Ok(())
}

pub(super) fn no_gap(reading: &Reading) -> Result<(), Failure> {
    ensure!(reading.missed == 0, "{} messages were told to be missed", reading.missed);
    Ok(())
}

/// Batches that changed in memory after they were durable, one here and there and many in a row:
/// every subscriber gets them as they were published, and is shown no error. The publisher that
/// has them in memory alone has lost them, and its subscribers are told of each, once.
pub fn what_changed_in_memory_is_read_from_disk(rig: &Rig) -> Result<(), Failure> {
    let data = data(rig, "changed")?;
    let site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
    let pool = Pool::attach(site.system.pool())?;
    for order in [Order::Strong, Order::Broker] {
        let topic = site.topic_with(order, |spec| spec.replicas = Some(2))?;
        let builder = site.publisher(&topic).client_id(1).batch_bytes(16 << 10);
        let mut publisher = builder.ack(Ack::Durable).build()?;
        publish(&mut publisher, 1, 0..600, BYTES)?;
        publisher.close()?;
        let entries = entries(&pool, TopicId(topic.id));
        ensure!(entries.len() > 100, "only {} batches", entries.len());
        // In the payload, in the first line of it, in the preamble.
        for (i, entry) in entries.iter().enumerate() {
            match i {
                0 | 7 => spoil(&pool, entry, 4096)?,
                20..40 => spoil(&pool, entry, 64)?,
                60 | 61 => spoil(&pool, entry, 8)?,
                _ => {}
            }
        }
        let before = site.counter("batches_repaired_total")?;
        let mine = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
        let tcp = site.subscriber(&topic).transport(Transport::Tcp).build()?;
        let tcp = read(tcp, Until::CaughtUp)?;
        for reading in [&mine, &tcp] {
            no_gap(reading)?;
            check_sent(reading, &[(1, 600)], Promise::InOrderOnce)?;
        }
        audit(order, &[&mine, &tcp])?;
        let repaired = site.counter("batches_repaired_total")? - before;
        ensure!(repaired == 2 * 24, "{repaired} batches were read from disk instead");
        site.client.delete_topic(&topic.name)?;
    }
    without_a_copy(&site, &pool)?;
    site.close()
}

/// A topic whose only copy is the pool: what changed there is gone.
fn without_a_copy(site: &Site, pool: &Pool) -> Result<(), Failure> {
    let topic = site.topic(Order::Strong)?;
    let mut publisher = site.publisher(&topic).client_id(1).batch_bytes(16 << 10).build()?;
    publish(&mut publisher, 1, 0..60, BYTES)?;
    publisher.close()?;
    let entries = entries(pool, TopicId(topic.id));
    let spoilt = [&entries[3], &entries[9]];
    for entry in spoilt {
        spoil(pool, entry, 4096)?;
    }
    let mut subscriber = site.subscriber(&topic).build()?;
    let (mut told, mut shown) = (Vec::new(), 0);
    loop {
        match subscriber.next(patience()) {
            Err(error) => return Err(error.into()),
            Ok(Event::Gap { reason: GapReason::Corrupt, missed, resume, .. }) => {
                told.push((resume - missed, resume));
            }
            Ok(Event::CaughtUp) => break,
            Ok(Event::Batch(_)) => shown += 1,
            Ok(other) => return Err(Failure::new(format!("a subscriber was told {other:?}"))),
        }
    }
    ensure!(shown + 2 == entries.len(), "{shown} batches of {} were shown", entries.len());
    let range = |entry: &&OrderEntry| (entry.first_position, entry.end_position());
    let wanted: Vec<_> = spoilt.iter().map(range).collect();
    ensure!(told == wanted, "told of {told:?}, and {wanted:?} were spoilt");
    Ok(())
}

/// A replica that comes late finds batches that changed in memory, and takes them from the other
/// replica; it is as durable as that one.
pub fn a_replica_takes_what_memory_lost_from_another(rig: &Rig) -> Result<(), Failure> {
    let rig = Rig { brokers: rig.brokers.max(2), ..*rig };
    let data = data(&rig, "other")?;
    let mut site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
    let pool = Pool::attach(site.system.pool())?;
    let topic = site.topic_with(Order::Strong, |spec| spec.replicas = Some(3))?;
    site.system.kill_broker(1);
    let builder = site.publisher(&topic).client_id(1).broker(0).batch_bytes(16 << 10);
    let mut publisher = builder.ack(Ack::Ordered).build()?;
    publish(&mut publisher, 1, 0..100, BYTES)?;
    publisher.close()?;
    let entries = entries(&pool, TopicId(topic.id));
    let end = entries.len() as u64;
    let durable = |site: &Site, broker: u8| -> Result<u64, Failure> {
        let state = site.client.topic(&topic.name)?.replicas_state;
        let of = state.iter().find(|copy| (copy.source, copy.broker) == (0, broker));
        Ok(of.map_or(0, |copy| copy.durable))
    };
    site.wait_until("that the first replica has everything", |_| Ok(durable(&site, 0)? == end))?;
    for entry in [&entries[2], &entries[3], entries.last().expect("there are many")] {
        spoil(&pool, entry, 4096)?;
    }
    site.system.start_broker(1)?;
    site.wait_until("that the second replica has everything", |_| Ok(durable(&site, 1)? == end))?;
    let failed = site.counter("replica_failures_total")?;
    let repaired = site.counter("batches_repaired_total")?;
    ensure!((failed, repaired) == (0, 3), "{failed} failures, {repaired} batches repaired");
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    no_gap(&reading)?;
    check_sent(&reading, &[(1, 100)], Promise::InOrderOnce)?;
    site.close()
}

/// A system whose pool loses its end, and what there was before.
struct Cut {
    site: Site,
    pool: Pool,
    topic: Topic,
    /// Segments that were free at the start.
    free: u64,
    /// The segment that is cut; those behind it are gone.
    segment: u32,
}

impl Cut {
    /// Cuts the pool's file within a payload segment of the topic, behind which are others. No
    /// ring and no order log may lie there: without those nothing goes on.
    fn short(mut self) -> Result<Self, Failure> {
        let id = TopicId(self.topic.id);
        let mut used: Vec<u32> = entries(&self.pool, id).iter().map(|e| e.segment).collect();
        used.sort_unstable();
        used.dedup();
        ensure!(used.len() >= 9, "the topic's batches are in {} segments", used.len());
        self.segment = used[used.len() * 2 / 3];
        for segment in self.segment..self.pool.geometry().segments() {
            let kind = self.kind(segment)?;
            let is_spared = matches!(kind, SegmentKind::Payload | SegmentKind::Free);
            ensure!(is_spared, "segment {segment} behind the cut is {kind:?}");
        }
        let at = self.pool.geometry().segment(SegmentId(self.segment)).unwrap_or_default();
        let file = std::fs::OpenOptions::new().write(true).open(self.site.system.pool())?;
        file.set_len(at + (1 << 20))?;
        Ok(self)
    }

    fn kind(&self, segment: u32) -> Result<SegmentKind, Failure> {
        let header = self.pool.segment_header(SegmentId(segment));
        let header = header.ok_or_else(|| Failure::new(format!("there is no {segment}")))?;
        Ok(What::unpack(header.what).map_err(|error| Failure::new(error.to_string()))?.kind)
    }

    /// Nothing that was lost is in use for anything that came later, and people are told.
    fn check(&mut self) -> Result<(), Failure> {
        self.pool.follow();
        let facts = self.site.client.cluster()?.pool;
        ensure!(facts.segments_lost >= 3, "{} segments are lost", facts.segments_lost);
        let behind = self.segment..self.pool.geometry().segments();
        let headers = behind.filter_map(|segment| self.pool.segment_header(SegmentId(segment)));
        let headers: Vec<_> = headers.collect();
        let known = headers.iter().map(|header| header.lost_ns).filter(|ns| *ns != 0);
        let first_ns = known.min().unwrap_or_default();
        // One may have been given out before anybody had met the end.
        let late: Vec<_> = headers.iter().filter(|h| h.granted_ns > first_ns).collect();
        ensure!(late.is_empty(), "given out after {first_ns}, when the end was known: {late:?}");
        let errors = self.site.client.errors()?;
        let of_control = errors.iter().filter(|error| error.process == "control");
        let told = of_control.filter(|error| error.text.contains("lost")).count();
        ensure!(told >= 2, "control told of {told} losses");
        // Which one is met first is chance.
        let number = |text: &str| text.strip_prefix("segment ")?.split(' ').next()?.parse().ok();
        let named = errors.iter().filter_map(|error| number(&error.text));
        let named: Vec<u32> = named.collect();
        let is_right = !named.is_empty() && named.iter().all(|number| *number >= self.segment);
        ensure!(is_right, "{named:?} are told to be lost, from {} on: {errors:?}", self.segment);
        let notes = self.site.system.tick();
        ensure!(self.site.system.is_whole(), "a process ended: {notes:?}");
        Ok(())
    }

    /// Everything that was not lost comes back.
    fn close(self) -> Result<(), Failure> {
        let Self { site, topic, free, .. } = self;
        site.client.delete_topic(&topic.name)?;
        site.wait_until("that every segment came back or is lost", |client| {
            let pool = client.cluster()?.pool;
            Ok(pool.segments_free + pool.segments_lost == free)
        })?;
        Ok(site.system.stop()?)
    }
}

/// A third of a topic's batches, and all of the pool that is free, are in memory that cannot be
/// read any more. Whoever was reading reads on, whoever comes reads everything, whoever was
/// publishing goes on, and nobody ends.
pub fn a_pool_that_lost_its_end_is_gone_on_with(rig: &Rig) -> Result<(), Failure> {
    // What a NIC has pinned it can still read: clients over verbs would see nothing of the cut.
    let transport = if rig.transport == Transport::Verbs { Transport::Tcp } else { rig.transport };
    let data = data(rig, "cut")?;
    let site = Rig { transport, ..*rig }.start_with(|config| {
        config.pool = None;
        config.data = Some(data.0.clone());
    })?;
    let free = site.client.cluster()?.pool.segments_free;
    let pool = Pool::attach(site.system.pool())?;
    let topic = site.topic_with(Order::Strong, |spec| spec.replicas = Some(2))?;
    let last = rig.brokers as u8 - 1;
    let mut publishers = Vec::new();
    for (who, broker) in [(0, 0), (1, last)] {
        let builder = site.publisher(&topic).client_id(who + 1).broker(broker);
        let mut publisher = builder.batch_bytes(64 << 10).ack(Ack::Durable).build()?;
        publish(&mut publisher, who, 0..10, BYTES)?;
        publisher.flush()?;
        publishers.push((who, publisher));
    }
    // Its batches are small: many fit a page, which is the unit in which memory is lost.
    let builder = site.publisher(&topic).client_id(3).broker(0).batch_bytes(1 << 10);
    let mut small = builder.ack(Ack::Durable).build()?;
    let mut early = site.subscriber(&topic).build()?;
    let mut early_reading = Reading::default();
    early_reading.read(&mut early, Until::Messages(10))?;
    for (who, publisher) in &mut publishers {
        publish(publisher, *who, 10..2_500, BYTES)?;
        publisher.flush()?;
    }
    let cut = Cut { site, pool, topic, free, segment: 0 };
    let mut cut = cut.short()?;
    // Nobody has met the end yet: the first to do so is a broker that lands a batch there.
    publish(&mut small, 2, 0..100, 200)?;
    small.close()?;
    early_reading.read(&mut early, Until::Messages(5_100))?;
    no_gap(&early_reading)?;
    let sent = [(0, 2_500), (1, 2_500), (2, 100)];
    check_sent(&early_reading, &sent, Promise::InOrderOnce)?;
    for (who, publisher) in &mut publishers {
        publish(publisher, *who, 2_500..3_000, BYTES)?;
        publisher.flush()?;
    }
    early_reading.read(&mut early, Until::Messages(6_100))?;
    drop(early);
    for (_, publisher) in publishers {
        publisher.close()?;
    }
    let mut readings = vec![early_reading];
    for transport in [transport, Transport::Tcp] {
        let late = cut.site.subscriber(&cut.topic).transport(transport).build()?;
        readings.push(read(late, Until::CaughtUp)?);
    }
    for reading in &readings {
        no_gap(reading)?;
        check_sent(reading, &[(0, 3_000), (1, 3_000), (2, 100)], Promise::InOrderOnce)?;
    }
    audit(Order::Strong, &readings.iter().collect::<Vec<_>>())?;
    cut.check().map_err(|failure| cut.site.explain(failure))?;
    cut.close()
}
