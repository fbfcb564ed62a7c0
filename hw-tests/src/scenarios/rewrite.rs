//! Batches that are written anew after they had landed, by whoever can: every reader sees what was
//! landed, or the same gap; nobody else loses anything, and the publisher is named and fenced.

use landfall::api::Topic;
use landfall::{Ack, Error, Event, GapReason, Order, Publisher, Subscriber, Transport};
use landfall_layout::batch::{BatchPreamble, PREAMBLE_BYTES, crc32c};
use landfall_layout::order::OrderEntry;
use landfall_layout::slot::RingSlot;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::slot_ring::SlotReader;
use landfall_pool::{Memory, Pool};

use super::poison::{data, entries, no_gap};
use crate::flow::{Promise, Until, audit, check_sent, message, publish, read};
use crate::rig::patience;
use crate::{Failure, Rig, Site};

/// Bytes of a message: one fits a batch.
const BYTES: usize = 3_000;
const BATCH_BYTES: u32 = 4 << 10;
/// Who rewrites, and who does not.
const ROGUE: u64 = 0xbad;
const HONEST: u64 = 0x600d;

/// What is written anew.
#[derive(Clone, Copy, Debug)]
pub enum Anew {
    /// All of it, with checksums that hold.
    Whole,
    /// The payload alone.
    Payload,
    /// The preamble alone, with a checksum that holds.
    Preamble,
}

impl Anew {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Whole, Self::Payload, Self::Preamble];

    /// What becomes of a batch's bytes.
    pub fn change(self, batch: &mut [u8]) {
        let (head, payload) = batch.split_at_mut(PREAMBLE_BYTES as usize);
        let Ok(bytes) = <[u8; 64]>::try_from(&*head) else { return };
        let mut preamble = BatchPreamble::from_bytes(bytes);
        if matches!(self, Self::Whole | Self::Payload) {
            // The message's own bytes, behind its header.
            payload[16..].fill(0xee);
        }
        match self {
            Self::Whole => preamble.payload_crc = crc32c(payload),
            Self::Payload => return,
            Self::Preamble => preamble.sealed_ns += 1,
        }
        head.copy_from_slice(&preamble.seal().to_bytes());
    }
}

/// Writes a batch anew where it lies, as a publisher over memory can.
fn rewrite(
    pool: &Pool,
    (segment, offset, bytes): (u32, u32, u32),
    how: Anew,
) -> Result<(), Failure> {
    let at = pool.at(segment, offset, bytes);
    let at = at.ok_or_else(|| Failure::new(format!("{offset} of {segment} is not in the pool")))?;
    let words = (0..u64::from(bytes).div_ceil(8)).map(|word| pool.load(at + 8 * word));
    let mut batch: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    batch.truncate(bytes as usize);
    how.change(&mut batch);
    pool.write(at, &batch)?;
    pool.publish(at, bytes.into());
    Ok(())
}

fn place(entry: &OrderEntry) -> (u32, u32, u32) {
    (entry.segment, entry.offset, entry.bytes)
}

fn publisher(site: &Site, topic: &Topic, client: u64, ack: Ack) -> Result<Publisher, Failure> {
    let builder = site.publisher(topic).client_id(client).broker(0).batch_bytes(BATCH_BYTES);
    Ok(builder.ack(ack).build()?)
}

/// The rogue is named in the errors, and its epoch is over.
pub fn is_named_and_fenced(site: &Site, pool: &Pool, topic: &Topic) -> Result<(), Failure> {
    let name = format!("client {ROGUE:#x}");
    site.wait_until("that the publisher is named", |client| {
        Ok(client.errors()?.iter().any(|e| e.text.contains(&name) && e.text.contains("fenced")))
    })?;
    site.wait_until("that its session is over", |_| {
        pool.follow();
        let lines = (0..pool.header().sessions).filter_map(|index| pool.session(index));
        let mine = lines.filter(|line| line.client == ROGUE && line.topic == topic.id);
        let standing = mine.map(|line| landfall_layout::session::Standing::unpack(line.standing));
        let mut states = standing.map(|standing| (standing.epoch, standing.state));
        Ok(states.any(|(epoch, state)| {
            epoch > 1 || state != landfall_layout::session::SessionState::Active
        }))
    })
}

/// What a reader was told of as spoilt, and the batches that it was shown, by position.
pub type Story = (Vec<(u64, u64)>, Vec<(u64, Vec<u8>)>);

/// Reads until it has caught up; any other gap is a failure.
pub fn story(mut subscriber: Subscriber) -> Result<Story, Failure> {
    let (mut told, mut shown) = (Vec::new(), Vec::new());
    loop {
        match subscriber.next(patience())? {
            Event::Gap { reason: GapReason::Corrupt, missed, resume, .. } => {
                told.push((resume - missed, resume));
            }
            Event::CaughtUp => return Ok((told, shown)),
            Event::Batch(batch) => {
                let payload: Vec<u8> = batch.messages().flat_map(|m| m.payload.to_vec()).collect();
                shown.push((batch.first_position(), payload));
            }
            other => return Err(Failure::new(format!("a subscriber was told {other:?}"))),
        }
    }
}

/// Batches that have copies on disk are rewritten in every way: every reader sees what was landed,
/// and is told of nothing.
pub fn what_its_publisher_rewrites_is_read_from_a_copy(rig: &Rig) -> Result<(), Failure> {
    let data = data(rig, "rewritten")?;
    let site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
    let pool = Pool::attach(site.system.pool())?;
    for order in [Order::Strong, Order::Broker] {
        let topic = site.topic_with(order, |spec| spec.replicas = Some(2))?;
        let mut rogue = publisher(&site, &topic, ROGUE, Ack::Durable)?;
        let mut honest = publisher(&site, &topic, HONEST, Ack::Durable)?;
        for n in 0..20 {
            publish(&mut rogue, ROGUE, n..n + 1, BYTES)?;
            publish(&mut honest, HONEST, n..n + 1, BYTES)?;
        }
        rogue.flush()?;
        honest.flush()?;
        let mine = |entry: &&OrderEntry| entry.client == ROGUE;
        let all = entries(&pool, TopicId(topic.id));
        let all: Vec<_> = all.iter().filter(mine).collect();
        ensure!(all.len() >= 12, "{} batches", all.len());
        for (entry, how) in all.iter().skip(2).zip(Anew::ALL.into_iter().cycle()).take(9) {
            rewrite(&pool, place(entry), how)?;
        }
        let mut readings = Vec::new();
        for transport in [rig.transport, Transport::Tcp] {
            let subscriber = site.subscriber(&topic).transport(transport).build()?;
            readings.push(read(subscriber, Until::CaughtUp)?);
        }
        for reading in &readings {
            no_gap(reading)?;
            check_sent(reading, &[(ROGUE, 20), (HONEST, 20)], Promise::InOrderOnce)?;
        }
        audit(order, &readings.iter().collect::<Vec<_>>())?;
        is_named_and_fenced(&site, &pool, &topic)?;
        // Nobody else notices, and the rogue may go on in its next epoch.
        publish(&mut honest, HONEST, 20..25, BYTES)?;
        honest.close()?;
        publish(&mut rogue, ROGUE, 20..21, BYTES)?;
        rogue.close()?;
        site.client.delete_topic(&topic.name)?;
    }
    site.close()
}

/// Batches that only the pool has are rewritten: each is the same gap for every reader, once, and
/// everything else is there.
pub fn what_is_rewritten_and_has_no_copy_is_the_same_gap_for_all(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let pool = Pool::attach(site.system.pool())?;
    for order in [Order::Total, Order::Broker] {
        let topic = site.topic(order)?;
        let mut rogue = publisher(&site, &topic, ROGUE, Ack::Ordered)?;
        let mut honest = publisher(&site, &topic, HONEST, Ack::Ordered)?;
        for n in 0..20 {
            publish(&mut rogue, ROGUE, n..n + 1, BYTES)?;
            publish(&mut honest, HONEST, n..n + 1, BYTES)?;
        }
        rogue.flush()?;
        honest.flush()?;
        let all = entries(&pool, TopicId(topic.id));
        let mine: Vec<_> = all.iter().filter(|entry| entry.client == ROGUE).collect();
        let mut wanted = Vec::new();
        for (entry, how) in mine.iter().skip(3).zip(Anew::ALL) {
            rewrite(&pool, place(entry), how)?;
            wanted.push((entry.first_position, entry.end_position()));
        }
        let story_of = |transport| story(site.subscriber(&topic).transport(transport).build()?);
        let (told, shown) = story_of(rig.transport)?;
        ensure!(told == wanted, "{order}: told of {told:?}, and {wanted:?} were rewritten");
        ensure!(shown.len() + 3 == all.len(), "{} of {} batches", shown.len(), all.len());
        let again = story_of(Transport::Tcp)?;
        ensure!((told, shown) == again, "{order}: two readers saw different things");
        is_named_and_fenced(&site, &pool, &topic)?;
        publish(&mut honest, HONEST, 20..25, BYTES)?;
        honest.close()?;
        drop(rogue);
    }
    site.close()
}

/// A batch is rewritten before it is ordered, so no copy has it: it is lost alone, its publisher is
/// told so, and everybody else's becomes durable.
pub fn what_is_rewritten_before_it_is_ordered_is_lost_alone(rig: &Rig) -> Result<(), Failure> {
    let data = data(rig, "unordered")?;
    let mut site = rig.start_with(|config| config.data = Some(data.0.clone()))?;
    let pool = Pool::attach(site.system.pool())?;
    let topic = site.topic_with(Order::Strong, |spec| spec.replicas = Some(2))?;
    let mut rogue = publisher(&site, &topic, ROGUE, Ack::Durable)?;
    let mut honest = publisher(&site, &topic, HONEST, Ack::Durable)?;
    publish(&mut rogue, ROGUE, 0..2, BYTES)?;
    publish(&mut honest, HONEST, 0..2, BYTES)?;
    rogue.flush()?;
    honest.flush()?;
    site.system.kill_control();
    for n in 2..5 {
        publish(&mut rogue, ROGUE, n..n + 1, BYTES)?;
        publish(&mut honest, HONEST, n..n + 1, BYTES)?;
        rogue.seal()?;
        honest.seal()?;
    }
    let broker = BrokerId::new(0).ok_or_else(|| Failure::new("there is no broker 0"))?;
    let id = TopicId(topic.id);
    let landed = || -> Option<Vec<RingSlot>> {
        let reader = SlotReader::new(pool.slot_ring(id, broker)?);
        let end = pool.frontier(id, broker.index()).entries;
        (end.checked_sub(6)?..end).map(|index| reader.peek(&pool, index)).collect()
    };
    let is_new = |slots: &Vec<RingSlot>| {
        let count = |client| slots.iter().filter(|slot| slot.client == client).count();
        count(ROGUE) == 3 && count(HONEST) == 3 && slots.iter().all(|slot| slot.batch_seq >= 2)
    };
    let mut slots = None;
    site.wait_until("that six more batches have landed", |_| {
        rogue.poll()?;
        honest.poll()?;
        slots = landed().filter(is_new);
        Ok(slots.is_some())
    })?;
    let slots = slots.unwrap_or_default();
    let mine: Vec<_> = slots.iter().filter(|slot| slot.client == ROGUE).collect();
    let spoilt = mine[1];
    rewrite(&pool, (spoilt.segment, spoilt.offset, spoilt.bytes), Anew::Whole)?;
    site.system.start_control()?;
    honest.flush()?;
    // The receipt says it, or what the publisher finds when it is fenced and looks for its bytes.
    match rogue.flush() {
        Err(Error::Spoilt { batches: 1, messages: 1, .. }) => {}
        Err(Error::Lost { batches: 1.., .. }) => {}
        other => return Err(Failure::new(format!("the publisher was told {other:?}"))),
    }
    drop(rogue);
    is_named_and_fenced(&site, &pool, &topic)?;
    publish(&mut honest, HONEST, 5..8, BYTES)?;
    honest.flush()?;
    honest.close()?;
    let count = site.counter("batches_lost_total")?;
    ensure!(count == 1, "{count} batches are lost");
    ensure!(site.counter("replica_failures_total")? == 0, "a replica failed");
    let mut stories = Vec::new();
    for transport in [rig.transport, Transport::Tcp] {
        let reading = read(site.subscriber(&topic).transport(transport).build()?, Until::CaughtUp)?;
        ensure!(reading.missed == 1, "{} messages were told to be missed", reading.missed);
        let honest =
            reading.messages.iter().filter(|m| m.payload.starts_with(&HONEST.to_le_bytes()));
        ensure!(honest.count() == 8, "the other's messages are not all there");
        let lost = message(ROGUE, 3, BYTES);
        ensure!(reading.messages.iter().all(|m| m.payload != lost), "it was lost, and is there");
        let bytes = reading.messages.into_iter().map(|m| (m.position, m.payload));
        stories.push(bytes.collect::<Vec<_>>());
    }
    ensure!(stories[0] == stories[1], "two readers saw different things");
    site.close()
}
