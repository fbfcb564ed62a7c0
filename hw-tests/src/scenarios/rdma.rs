//! What a NIC and a broker have to refuse of clients over verbs: each is refused, counted and
//! named, nobody else is disturbed, and no committed byte changes.

use std::time::{Duration, Instant};

use landfall::Order;
use landfall::api::Topic;
use landfall_layout::batch::PREAMBLE_BYTES;
use landfall_layout::frame::{Frame, Reached, Refusal};
use landfall_layout::verbs::{GrantMode, Intent, KNOCK_BYTES, Knock, Said};
use landfall_nic::{Failure as Broken, Remote};

use super::hostile::Witness;
use crate::flow::{Promise, Random, Until, audit, check_sent, message, publish, read};
use crate::raw_verbs::{Knocked, RawVerbs, Room, knock, knock_with};
use crate::rig::patience;
use crate::{Failure, Rig, Site};

/// Client ids of those who misbehave, as errors name them.
const ROGUE: u64 = 0xbad;

/// A system with a publisher that behaves, and its topic.
fn stage(rig: &Rig, lease: Duration) -> Result<(Site, Witness), Failure> {
    let site = rig.start_with(|config| config.verbs_lease = lease)?;
    let mut witness = Witness::new(&site)?;
    witness.goes_on()?;
    Ok((site, witness))
}

/// Longer than any scenario.
const LONG: Duration = Duration::from_secs(3600);

/// Ends a scenario: the witness went on throughout, and the rogue's good batches are there.
fn close(site: Site, mut witness: Witness, rogue: u64) -> Result<(), Failure> {
    witness.goes_on()?;
    let others: &[(u64, u64)] = if rogue > 0 { &[(ROGUE, rogue)] } else { &[] };
    witness.close(&site, others).map_err(|failure| site.explain(failure))?;
    site.close()
}

pub(super) fn refused_by_the_nic(verdict: Option<Broken>) -> Result<(), Failure> {
    match verdict {
        Some(failure) if failure.is_remote_access() => Ok(()),
        other => Err(Failure::new(format!("a remote access error was expected, not {other:?}"))),
    }
}

/// The broker counted it and named the client.
fn was_named(site: &Site, times: u64) -> Result<(), Failure> {
    site.wait_until("that the remote access error was counted", |_| {
        Ok(site.counter("remote_access_errors_total")? == times)
    })?;
    let errors = site.client.errors()?;
    let name = format!("client {ROGUE:#x}");
    let named = errors.iter().any(|error| error.text.contains(&name));
    ensure!(named, "nobody named {name}: {errors:?}");
    Ok(())
}

/// A rogue with one good batch in a room of its own.
fn rogue(site: &Site, topic: &Topic) -> Result<(RawVerbs, Room), Failure> {
    let mut raw = RawVerbs::open(site, topic, ROGUE)?;
    let room = raw.room(4096)?;
    let receipt = raw.publish(room, 0, 0)?;
    ensure!(receipt.reached == Reached::Ordered, "{receipt:?}");
    Ok((raw, room))
}

fn behind(room: Room) -> Remote {
    Remote { at: room.at + 1024, key: room.key }
}

/// A key is void as soon as its extent was given back.
pub fn a_write_after_its_window_was_invalidated(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let (mut raw, room) = rogue(&site, witness.topic())?;
    let before = site.counter("windows_invalidated_total")?;
    raw.say(Said::Done { slot: room.slot })?;
    site.wait_until("that the window was invalidated", |_| {
        Ok(site.counter("windows_invalidated_total")? > before)
    })?;
    // The invalidation itself is a matter of microseconds behind its count.
    std::thread::sleep(Duration::from_millis(50));
    refused_by_the_nic(raw.write(&[0xee; 256], behind(room), None)?)?;
    was_named(&site, 1)?;
    close(site, witness, 1)
}

/// A window ends where the extent ends, at both ends.
pub fn a_write_outside_its_window(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let (mut raw, room) = rogue(&site, witness.topic())?;
    let past = Remote { at: room.at + u64::from(room.bytes) - 64, key: room.key };
    refused_by_the_nic(raw.write(&[0xee; 128], past, None)?)?;
    was_named(&site, 1)?;
    let mut raw = RawVerbs::open(&site, witness.topic(), ROGUE)?;
    let room = raw.room(4096)?;
    let before = Remote { at: room.at - 64, key: room.key };
    refused_by_the_nic(raw.write(&[0xee; 64], before, None)?)?;
    was_named(&site, 2)?;
    close(site, witness, 1)
}

/// A key is of no use on another client's queue pair.
pub fn a_write_with_another_clients_key(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let mut victim = RawVerbs::open(&site, witness.topic(), 0x600d)?;
    let theirs = victim.room(4096)?;
    victim.publish(theirs, 0, 0)?;
    let (mut raw, _) = rogue(&site, witness.topic())?;
    let target = Remote { at: theirs.at, key: theirs.key };
    refused_by_the_nic(raw.write(&[0xee; 64], target, None)?)?;
    was_named(&site, 1)?;
    // The victim's own key works on.
    let receipt = victim.publish(theirs, 8, 1)?;
    ensure!(receipt.reached == Reached::Ordered, "{receipt:?}");
    drop(victim);
    let mut witness = witness;
    witness.goes_on()?;
    witness.close(&site, &[(ROGUE, 1), (0x600d, 2)])?;
    site.close()
}

/// A slot's next extent has another key.
pub fn a_write_with_an_old_key(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let (mut raw, old) = rogue(&site, witness.topic())?;
    raw.say(Said::Done { slot: old.slot })?;
    std::thread::sleep(Duration::from_millis(200));
    let new = raw.room(4096)?;
    ensure!(new.slot == old.slot && new.key != old.key, "{old:?} then {new:?}");
    let target = Remote { at: new.at, key: old.key };
    refused_by_the_nic(raw.write(&[0xee; 64], target, None)?)?;
    was_named(&site, 1)?;
    close(site, witness, 1)
}

/// What may be written may not be read.
pub fn a_read_of_a_window_for_writing(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let (mut raw, room) = rogue(&site, witness.topic())?;
    refused_by_the_nic(raw.read(Remote { at: room.at, key: room.key }, 64)?)?;
    was_named(&site, 1)?;
    close(site, witness, 1)
}

fn expect_out(knocked: Knocked, why: Refusal) -> Result<String, Failure> {
    match knocked {
        Knocked::Out(Some(Frame::Refused(found)), text) if found == why && !text.is_empty() => {
            Ok(text)
        }
        Knocked::Out(frame, text) => {
            Err(Failure::new(format!("{why:?} with a sentence expected: {frame:?} {text:?}")))
        }
        Knocked::In(_) => Err(Failure::new("a forged knock was let in")),
    }
}

/// Knocks that no client of ours makes.
pub fn forged_handshakes(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let topic = witness.topic().clone();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let token = site.client.token(&topic.name, 0)?;
        let number = token.number().unwrap_or_default();
        knock_with(&token.verbs, &topic, ROGUE, number, |knock: &mut Knock| {
            let mut bytes = knock.to_bytes().to_vec();
            change(&mut bytes);
            bytes
        })
    };
    let random = Random::new(3).bytes(KNOCK_BYTES);
    expect_out(with(&|bytes| bytes.clone_from(&random))?, Refusal::Malformed)?;
    expect_out(with(&|bytes| bytes.clear())?, Refusal::Malformed)?;
    let text = expect_out(with(&|bytes| bytes[4] = 9)?, Refusal::Version)?;
    ensure!(text.contains('9'), "{text}");
    expect_out(with(&|bytes| bytes[5] = 7)?, Refusal::Malformed)?;
    let before = site.counter("tokens_refused_total")?;
    expect_out(with(&|bytes| bytes[24] ^= 1)?, Refusal::NotServed)?;
    ensure!(site.counter("tokens_refused_total")? == before + 1, "a wrong token was not counted");
    let text = expect_out(
        knock(&site, &topic, ROGUE, |knock| knock.grant = GrantMode::Open)?,
        Refusal::NotServed,
    )?;
    ensure!(text.contains("open"), "{text}");
    expect_out(knock(&site, &topic, 0, |_| {})?, Refusal::Malformed)?;
    let small = knock(&site, &topic, ROGUE, |knock| knock.intent = Intent::Subscribe)?;
    expect_out(small, Refusal::Malformed)?;
    close(site, witness, 0)
}

/// A token opens one connection, for its topic.
pub fn a_replayed_token(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let topic = witness.topic().clone();
    let token = site.client.token(&topic.name, 0)?;
    let number = token.number().unwrap_or_default();
    let dial = |topic: &Topic| {
        knock_with(&token.verbs, topic, ROGUE, number, |knock| knock.to_bytes().to_vec())
    };
    let Knocked::In(first) = dial(&topic)? else {
        return Err(Failure::new("a fresh token was refused"));
    };
    let text = expect_out(dial(&topic)?, Refusal::NotServed)?;
    ensure!(text.contains("used"), "{text}");
    drop(first);
    expect_out(dial(&topic)?, Refusal::NotServed)?;
    let other = site.topic(Order::Total)?;
    let foreign = site.client.token(&other.name, 0)?;
    let foreign = foreign.number().unwrap_or_default();
    let text = expect_out(
        knock_with(&token.verbs, &topic, ROGUE, foreign, |knock| knock.to_bytes().to_vec())?,
        Refusal::NotServed,
    )?;
    ensure!(text.contains("topic"), "{text}");
    ensure!(site.counter("tokens_refused_total")? == 3, "three tokens were refused");
    close(site, witness, 0)
}

/// Epochs that were never opened, and batches of another one.
pub fn a_wrong_epoch(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let topic = witness.topic().clone();
    let text = expect_out(
        knock(&site, &topic, ROGUE, |knock| knock.session_epoch = 99)?,
        Refusal::Malformed,
    )?;
    ensure!(text.contains("99"), "{text}");
    let (mut raw, room) = rogue(&site, &topic)?;
    raw.welcome.session_epoch += 1;
    let bytes = raw.batch(1, &message(ROGUE, 1, 100)).bytes();
    let said = Said::Batch { slot: room.slot, line: 16 };
    raw.write(&bytes, behind(room), Some(said))?;
    match raw.expect()? {
        (Frame::Refused(Refusal::BadBatch), text) if text.contains("epoch") => {}
        other => return Err(Failure::new(format!("a refusal was expected, not {other:?}"))),
    }
    close(site, witness, 1)
}

/// A later epoch takes the window of the one before: its late writes fail in the NIC.
pub fn a_fenced_publishers_late_write(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let (mut old, room) = rogue(&site, witness.topic())?;
    // The same client opens its next epoch, which fences this one.
    let mut new = RawVerbs::open(&site, witness.topic(), ROGUE)?;
    ensure!(new.welcome.session_epoch > old.welcome.session_epoch, "no later epoch");
    match old.expect()? {
        (Frame::Fenced { session_epoch, .. }, _) => {
            ensure!(session_epoch == old.welcome.session_epoch, "epoch {session_epoch} fenced");
        }
        other => return Err(Failure::new(format!("Fenced was expected, not {other:?}"))),
    }
    std::thread::sleep(Duration::from_millis(50));
    refused_by_the_nic(old.write(&[0xee; 256], behind(room), None)?)?;
    was_named(&site, 1)?;
    let room = new.room(4096)?;
    let receipt = new.publish(room, 0, new.welcome.next_seq)?;
    ensure!(receipt.reached == Reached::Ordered, "{receipt:?}");
    close(site, witness, 2)
}

/// Half a batch, then nothing: what was there before stays as it was.
pub fn a_publisher_that_dies_in_mid_write(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let (mut raw, room) = rogue(&site, witness.topic())?;
    let bytes = raw.batch(1, &message(ROGUE, 1, 2000)).bytes();
    let half = &bytes[..bytes.len() / 2 / 64 * 64];
    let verdict = raw.write(half, behind(room), None)?;
    ensure!(verdict.is_none(), "{verdict:?}");
    drop(raw);
    close(site, witness, 1)
}

/// A whole batch and never the word that says so: the lease ends it.
pub fn a_publisher_that_never_sends_the_completion(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, Duration::from_secs(8))?;
    let (mut raw, room) = rogue(&site, witness.topic())?;
    let bytes = raw.batch(1, &message(ROGUE, 1, 100)).bytes();
    let verdict = raw.write(&bytes, behind(room), None)?;
    ensure!(verdict.is_none(), "{verdict:?}");
    let since = Instant::now();
    // The witness is as silent, and its lease may end first: wait for the rogue's own name.
    let name = format!("client {ROGUE:#x}");
    while !site.client.errors()?.iter().any(|error| error.text.contains(&name)) {
        ensure!(since.elapsed() < 2 * patience(), "the lease did not end, or named nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(since.elapsed() > Duration::from_secs(6), "the lease ended early");
    ensure!(site.counter("leases_expired_total")? > 0, "nothing was counted");
    let late = raw.write(&bytes, behind(room), None)?;
    ensure!(late.is_some(), "its queue pair still takes writes");
    // The witness said nothing for as long, and came back by itself if it was let go as well.
    let mut witness = witness;
    witness.goes_on()?;
    witness.close_after_reconnects(&site, &[(ROGUE, 1)])?;
    site.close()
}

/// Immediates and batches that are lies.
pub fn lies_are_refused(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let topic = witness.topic().clone();
    let mut told = 0;
    let mut lie = |act: &mut dyn FnMut(&mut RawVerbs, Room) -> Result<(), Failure>| {
        let (mut raw, room) = {
            let mut raw = RawVerbs::open(&site, &topic, ROGUE + 1)?;
            let room = raw.room(4096)?;
            (raw, room)
        };
        act(&mut raw, room)?;
        told += 1;
        match raw.expect()? {
            (Frame::Refused(_), text) if !text.is_empty() => Ok(()),
            other => Err(Failure::new(format!("lie {told}: a refusal expected, not {other:?}"))),
        }
    };
    lie(&mut |raw, _| raw.say_raw(u32::MAX))?;
    lie(&mut |raw, _| raw.say(Said::Taken { lines: 5000 }))?;
    lie(&mut |raw, _| raw.say(Said::Segment { segment: 0 }))?;
    lie(&mut |raw, _| raw.say(Said::Ready { line: 0 }))?;
    lie(&mut |raw, _| raw.say(Said::Batch { slot: 7, line: 0 }))?;
    lie(&mut |raw, room| raw.say(Said::Batch { slot: room.slot, line: 0 }))?;
    lie(&mut |raw, room| {
        // What lies there is no batch.
        let to = Remote { at: room.at, key: room.key };
        let said = Said::Batch { slot: room.slot, line: 0 };
        raw.write(&[0xee; 128], to, Some(said)).map(|_| ())
    })?;
    lie(&mut |raw, room| {
        // Announced at another line than it lies at.
        let bytes = raw.batch(0, &message(1, 1, 100)).bytes();
        let to = Remote { at: room.at, key: room.key };
        let said = Said::Batch { slot: room.slot, line: room.bytes / 64 };
        raw.write(&bytes, to, Some(said)).map(|_| ())
    })?;
    lie(&mut |raw, room| {
        // Shorter than its preamble says.
        let bytes = raw.batch(0, &message(1, 1, 1000)).bytes();
        let to = Remote { at: room.at, key: room.key };
        let said = Said::Batch { slot: room.slot, line: 0 };
        raw.write(&bytes[..PREAMBLE_BYTES as usize], to, Some(said)).map(|_| ())
    })?;
    close(site, witness, 0)
}

/// Subscribers that read by themselves cost the broker no delivery, and pushed ones no copy.
pub fn reading_by_oneself_costs_the_broker_nothing(rig: &Rig) -> Result<(), Failure> {
    const MESSAGES: u64 = 200;
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let mut publisher = site.publisher(&topic).client_id(1).build()?;
    publish(&mut publisher, 0, 0..MESSAGES, 700)?;
    publisher.close()?;
    let sent = [(0, MESSAGES)];
    let alone = read(site.subscriber(&topic).one_sided(true).build()?, Until::CaughtUp)?;
    check_sent(&alone, &sent, Promise::InOrderOnce)?;
    let delivered = site.counter("batches_delivered_total")?;
    ensure!(delivered == 0, "{delivered} batches were delivered to one who reads by himself");
    let pushed = read(site.subscriber(&topic).one_sided(false).build()?, Until::CaughtUp)?;
    check_sent(&pushed, &sent, Promise::InOrderOnce)?;
    ensure!(site.counter("batches_delivered_total")? > 0, "nothing was delivered");
    for copied in ["bytes_copied_total", "bytes_received_total"] {
        let bytes = site.counter(copied)?;
        ensure!(bytes == 0, "{copied}: a broker's CPU moved {bytes} bytes of payload");
    }
    audit(Order::Strong, &[&alone, &pushed])?;
    site.close()
}

/// A pull that points past the publisher's memory costs that publisher its connection.
pub fn a_pull_from_memory_that_is_not_there(rig: &Rig) -> Result<(), Failure> {
    let (site, witness) = stage(rig, LONG)?;
    let pulled = knock(&site, witness.topic(), ROGUE, |knock| knock.grant = GrantMode::Pull)?;
    let Knocked::In(mut raw) = pulled else {
        return Err(Failure::new("a pull was refused"));
    };
    let bytes = raw.batch(0, &message(ROGUE, 0, 100)).bytes();
    raw.put(4096, &bytes);
    raw.say(Said::Ready { line: 64 })?;
    let receipt = raw.receipt()?;
    ensure!(receipt.reached == Reached::Ordered, "{receipt:?}");
    // A goodbye right behind an announcement waits for its batch.
    let pulled = knock(&site, witness.topic(), ROGUE + 1, |k| k.grant = GrantMode::Pull)?;
    let Knocked::In(mut leaving) = pulled else {
        return Err(Failure::new("a pull was refused"));
    };
    let bytes = leaving.batch(0, &message(ROGUE + 1, 0, 100)).bytes();
    leaving.put(4096, &bytes);
    leaving.say(Said::Ready { line: 64 })?;
    leaving.say(Said::Bye)?;
    leaving.receipt()?;
    match leaving.expect()? {
        (Frame::Bye, _) => {}
        other => return Err(Failure::new(format!("Bye was expected, not {other:?}"))),
    }
    // The broker's READ may end the queue pair before this write is acknowledged.
    let _ = raw.say(Said::Ready { line: 1 << 20 });
    site.wait_until("that the queue pair was counted", |_| {
        let access = site.counter("remote_access_errors_total")?;
        Ok(access + site.counter("queue_pair_errors_total")? == 1)
    })?;
    let heard = raw.hear(patience() / 4)?;
    ensure!(heard.is_none(), "{heard:?}");
    let mut witness = witness;
    witness.goes_on()?;
    witness.close(&site, &[(ROGUE, 1), (ROGUE + 1, 1)])?;
    site.close()
}
