//! A broker that keeps copies stays away: another keeps them meanwhile.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use landfall::api::Topic;
use landfall::{Ack, Order, Publisher};
use landfall_layout::BrokerId;
use landfall_replica::SourceSurvey;
use landfall_replica::names::list;
use nix::sys::signal::Signal;

use super::cold::{Data, lose_the_pool};
use super::takeover::signal;
use super::tools::tool;
use crate::flow::{Promise, Reading, Until, audit, check_sent, publish, read};
use crate::{Failure, Rig, Site};

/// How long a keeper is away before its copies move.
const MOVE: Duration = Duration::from_millis(500);

fn three(rig: &Rig, data: &Data) -> Result<Site, Failure> {
    let rig = Rig { brokers: 3, ..*rig };
    rig.start_with(|config| {
        config.data = Some(data.0.clone());
        config.data_file_bytes = 256 << 10;
        config.copy_move = MOVE;
    })
}

/// A publisher through broker 0, whose batches brokers 0 and 1 keep.
fn durable(site: &Site, topic: &Topic) -> Result<Publisher, Failure> {
    let builder = site.publisher(topic).client_id(1).broker(0).batch_bytes(32 << 10);
    Ok(builder.ack(Ack::Durable).build()?)
}

/// Waits until the second copy of what broker 0 landed is with that broker, in that state.
fn wait_for(site: &Site, topic: &Topic, broker: u8, state: &str) -> Result<(), Failure> {
    site.wait_until(&format!("that broker {broker} keeps the copy, {state}"), |client| {
        let copies = client.topic(&topic.name)?.replicas_state;
        let of = copies.iter().find(|copy| (copy.source, copy.replica) == (0, 1));
        let of = of.ok_or_else(|| Failure::new(format!("{copies:?}")))?;
        ensure!(of.home == 1, "{of:?}");
        Ok((of.broker, of.state.as_str()) == (broker, state))
    })
}

/// What a broker's directory has of broker 0's batches: first log index, and batches.
fn on_disk(data: &Path, keeper: usize) -> Result<Option<(u64, u64)>, Failure> {
    let listing = list(&data.join(format!("broker-{keeper}")))?;
    let sources = listing.topics.iter().flat_map(|topic| &topic.sources);
    let Some(source) = sources.into_iter().find(|of| Some(of.source) == BrokerId::new(0)) else {
        return Ok(None);
    };
    let survey = SourceSurvey::take(&source.files)?;
    let first = survey.files.first().map_or(0, |file| file.header.first_index);
    Ok(Some((first, survey.files.iter().map(|file| file.batches).sum())))
}

fn everything(site: &Site, topic: &Topic, sent: u64) -> Result<Reading, Failure> {
    let reading = read(site.subscriber(topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(1, sent)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    Ok(reading)
}

/// Nothing is wrong with any file.
fn verify(data: &Data) -> Result<(), Failure> {
    let output = Command::new(tool("landfall")?).arg("verify").arg(&data.0).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// Two copies on three brokers, one of which is killed and stays away: publishing goes on, and is
/// durable where its keepers are now. What both keepers of a copy have is all of it: the pool is
/// lost then, and the disk with the other copy.
pub fn a_copy_moves_and_its_keepers_have_everything_together(rig: &Rig) -> Result<(), Failure> {
    let data = Data::new(&format!("moves-{}-{}", rig.transport, rig.brokers))?;
    let mut site = three(rig, &data)?;
    let topic = site.topic_with(Order::Strong, |spec| spec.replicas = Some(3))?;
    let mut publisher = durable(&site, &topic)?;
    publish(&mut publisher, 1, 0..200, 1000)?;
    publisher.flush()?;
    site.system.kill_broker(1);
    publish(&mut publisher, 1, 200..400, 1000)?;
    publisher.flush()?;
    wait_for(&site, &topic, 2, "moved")?;
    let said = |text: &str| text.contains("is kept by broker 2") && text.contains(&topic.name);
    site.wait_until("that control says so", |client| {
        Ok(client.errors()?.iter().any(|error| said(&error.text)))
    })?;
    publish(&mut publisher, 1, 400..600, 1000)?;
    publisher.close()?;
    let before = everything(&site, &topic, 600)?;
    let (first, _) = on_disk(&data.0, 2)?.ok_or_else(|| Failure::new("nothing at broker 2"))?;
    ensure!(first > 0, "the copy was not gone on with");
    site.system.kill_control();
    for broker in [0, 2] {
        site.system.kill_broker(broker);
    }
    std::fs::remove_dir_all(data.0.join("broker-0"))?;
    lose_the_pool(&mut site)?;
    let after = everything(&site, &topic, 600)?;
    ensure!(after.messages == before.messages, "not at the same positions");
    site.close()
}

/// A keeper comes back after memory has let go of what it lacks: it takes that from the files of
/// who kept its copies meanwhile, and is given them back.
pub fn a_broker_that_comes_back_catches_up_and_gets_its_copies(rig: &Rig) -> Result<(), Failure> {
    let data = Data::new(&format!("back-{}-{}", rig.transport, rig.brokers))?;
    let mut site = three(rig, &data)?;
    let topic = site.topic_with(Order::Strong, |spec| {
        spec.replicas = Some(3);
        spec.retention_bytes = Some(2 << 20);
    })?;
    let mut publisher = durable(&site, &topic)?;
    publish(&mut publisher, 1, 0..50, 20_000)?;
    publisher.flush()?;
    site.system.kill_broker(1);
    publish(&mut publisher, 1, 50..600, 20_000)?;
    publisher.flush()?;
    site.wait_until("that retention goes by who keeps the copies now", |client| {
        Ok(client.topic(&topic.name)?.oldest_position > 100)
    })?;
    site.system.start_broker(1)?;
    wait_for(&site, &topic, 1, "well")?;
    publish(&mut publisher, 1, 600..700, 20_000)?;
    publisher.close()?;
    let log = site.client.topic(&topic.name)?.batches;
    let (home, other) = (on_disk(&data.0, 1)?, on_disk(&data.0, 0)?);
    ensure!(home == Some((0, log)) && home == other, "{home:?} and {other:?} of {log} batches");
    let states = site.client.topic(&topic.name)?.replicas_state;
    ensure!(states.iter().all(|copy| copy.broker == copy.home), "{states:?}");
    verify(&data)?;
    let before = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    lose_the_pool(&mut site)?;
    let after = everything(&site, &topic, 700)?;
    let kept = before.messages.len();
    ensure!(after.messages.ends_with(&before.messages[..]), "{kept} messages are not the same");
    site.close()
}

/// A keeper is stopped, replaced, and wakes up: nothing of what it does then counts, no file is
/// damaged, and it gets its copies back.
pub fn a_keeper_that_is_stopped_is_replaced_and_wakes_up(rig: &Rig) -> Result<(), Failure> {
    let data = Data::new(&format!("wakes-{}-{}", rig.transport, rig.brokers))?;
    let mut site = three(rig, &data)?;
    let topic = site.topic_with(Order::Strong, |spec| spec.replicas = Some(3))?;
    let mut publisher = durable(&site, &topic)?;
    publish(&mut publisher, 1, 0..300, 1000)?;
    // Some of it is on its way to the disks.
    publisher.seal()?;
    publisher.poll()?;
    let stopped = site.system.broker_pid(1).ok_or_else(|| Failure::new("no broker 1"))?;
    signal(stopped, Signal::SIGSTOP)?;
    publish(&mut publisher, 1, 300..600, 1000)?;
    publisher.flush()?;
    wait_for(&site, &topic, 2, "moved")?;
    publish(&mut publisher, 1, 600..900, 1000)?;
    publisher.seal()?;
    publisher.poll()?;
    signal(stopped, Signal::SIGCONT)?;
    publisher.flush()?;
    wait_for(&site, &topic, 1, "well")?;
    publish(&mut publisher, 1, 900..1000, 1000)?;
    publisher.close()?;
    let log = site.client.topic(&topic.name)?.batches;
    ensure!(on_disk(&data.0, 1)? == Some((0, log)), "{:?} of {log}", on_disk(&data.0, 1)?);
    verify(&data)?;
    let before = everything(&site, &topic, 1000)?;
    lose_the_pool(&mut site)?;
    let after = everything(&site, &topic, 1000)?;
    ensure!(after.messages == before.messages, "not at the same positions");
    site.close()
}
