//! Sessions: exactly once, gaps, fencing, and how many there may be.

use std::ops::Range;
use std::time::{Duration, Instant};

use landfall::api::Topic;
use landfall::{Order, Publisher};
use landfall_layout::frame::{Frame, Reached, Refusal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::device::trim;
use crate::flow::{Promise, Until, audit, check_sent, publish, read};
use crate::raw::{Raw, Session, publisher};
use crate::rig::patience;
use crate::{Failure, Rig, Site};

/// What a client sends again is received again, told to be a duplicate, and delivered once.
pub fn duplicates_are_told_and_not_delivered(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let mut first = Session::open(&site, 0, &topic, 5, 0)?;
    first.send(0..10)?;
    first.receipts(10)?;
    // A connection that ended without goodbye; the session stands, and is joined again.
    let epoch = first.welcome.session_epoch;
    drop(first);
    let mut again = Session::open(&site, rig.brokers - 1, &topic, 5, epoch)?;
    ensure!(again.welcome.next_seq == 10, "next is {}", again.welcome.next_seq);
    again.send(5..15)?;
    let mut receipts = again.receipts(10)?;
    receipts.sort_by_key(|receipt| receipt.batch_seq);
    for receipt in receipts {
        let expected = if receipt.batch_seq < 10 { Reached::Duplicate } else { Reached::Ordered };
        ensure!(receipt.reached == expected, "batch {}: {:?}", receipt.batch_seq, receipt.reached);
    }
    again.bye()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(5, 15)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    ensure!(site.counter("duplicates_total")? >= 5, "duplicates are not counted");
    site.close()
}

/// What was on its way to one broker of a stream when that ended comes again through another, which
/// had later ones: it is ordered, and only what is in the log is told to be a duplicate.
pub fn a_stream_takes_through_one_broker_what_another_never_had(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Stream)?;
    let mut first = Session::open(&site, 0, &topic, 5, 0)?;
    first.send([0, 2, 4, 6])?;
    first.receipts(4)?;
    drop(first);
    for (broker, gap) in [(0, 1), (rig.brokers - 1, 3)] {
        let mut again = Session::open(&site, broker, &topic, 5, 0)?;
        ensure!(again.welcome.next_seq == 7, "next is {}", again.welcome.next_seq);
        let mut sent = [0, 2, 4, 6, gap];
        sent.sort_unstable();
        again.send(sent)?;
        for receipt in again.receipts(sent.len())? {
            let seq = receipt.batch_seq;
            let expected = if seq == gap { Reached::Ordered } else { Reached::Duplicate };
            ensure!(receipt.reached == expected, "batch {seq}: {:?}", receipt.reached);
        }
        again.bye()?;
    }
    let mut last = Session::open(&site, 0, &topic, 5, 0)?;
    last.send([5, 7])?;
    last.receipts(2)?;
    last.bye()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(5, 8)], Promise::Once)?;
    audit(Order::Stream, &[&reading])?;
    site.close()
}

/// A missing batch is waited for as long as the lease; then the session is fenced, what came after
/// the gap is never delivered, and the next epoch sends it again.
pub fn a_gap_outlives_its_lease_and_is_fenced(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic_with(Order::Strong, |spec| spec.session_lease_ms = Some(300))?;
    let mut gappy = Session::open(&site, 0, &topic, 6, 0)?;
    let mut other = Session::open(&site, rig.brokers - 1, &topic, 7, 0)?;
    gappy.send([0, 1, 3, 4, 7])?;
    // Somebody else's gap holds nobody up.
    other.send(0..20)?;
    other.receipts(20)?;
    let mut receipts = gappy.receipts(2)?;
    let next = gappy.fenced(&mut receipts)?;
    ensure!(next == 2, "the first that is not ordered is {next}");
    ensure!(receipts.len() == 2, "receipts beyond the gap: {receipts:?}");
    // What comes late in the old epoch does not count; the connection itself need not end.
    let late = gappy.batch(2, &crate::flow::message(6, 2, 100));
    let _ = gappy.raw.send(&late.bytes());

    let mut fresh = Session::open(&site, 0, &topic, 6, 0)?;
    ensure!(fresh.welcome.session_epoch > gappy.welcome.session_epoch, "the same epoch again");
    ensure!(fresh.welcome.next_seq == 2, "next is {}", fresh.welcome.next_seq);
    fresh.send(2..8)?;
    for receipt in fresh.receipts(6)? {
        ensure!(receipt.reached == Reached::Ordered, "{receipt:?}");
    }
    fresh.bye()?;
    other.bye()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(6, 8), (7, 20)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    ensure!(site.counter("sessions_fenced_total")? >= 1, "fenced sessions are not counted");
    site.close()
}

/// Whoever opens the next epoch of a client fences the one before.
pub fn a_later_epoch_fences_the_one_before(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let mut old = Session::open(&site, 0, &topic, 8, 0)?;
    old.send(0..3)?;
    old.receipts(3)?;
    let mut new = Session::open(&site, rig.brokers - 1, &topic, 8, 0)?;
    ensure!(new.welcome.next_seq == 3, "next is {}", new.welcome.next_seq);
    old.send(3..6)?;
    let next = old.fenced(&mut Vec::new())?;
    ensure!(next == 3, "fenced from {next} on");
    new.send(3..5)?;
    new.receipts(2)?;
    // An epoch that is over cannot be joined, and one that never was cannot either.
    for epoch in [old.welcome.session_epoch, new.welcome.session_epoch + 5] {
        let mut raw = Raw::connect(&site.address(0)?)?;
        raw.send_frame(Frame::Hello(publisher(8, epoch)), topic.name.as_bytes())?;
        let answer = raw.expect()?;
        let refused = matches!(answer, (Frame::Fenced { .. } | Frame::Refused(_), _));
        ensure!(refused, "epoch {epoch} was joined: {answer:?}");
    }
    new.bye()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(8, 5)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    site.close()
}

/// Batches in the name of another client, epoch or topic are refused, and leave nothing.
pub fn a_forged_session_is_refused(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let mut victim = Session::open(&site, 0, &topic, 11, 0)?;
    victim.send(0..5)?;
    victim.receipts(5)?;
    type Forge = fn(&mut landfall_layout::batch::BatchPreamble);
    let forgeries: [Forge; 4] = [
        |preamble| preamble.client = 11,
        |preamble| preamble.session_epoch += 1,
        |preamble| preamble.topic ^= 1,
        |preamble| preamble.topic += 1 << 8,
    ];
    for (number, forge) in forgeries.into_iter().enumerate() {
        let mut forger = Session::open(&site, 0, &topic, 100 + number as u64, 0)?;
        let batch = forger.batch(5, b"forged").with(forge);
        forger.raw.send(&batch.bytes())?;
        let (why, sentence) = forger.raw.expect_refusal()?;
        ensure!(why == Refusal::BadBatch, "forgery {number}: {why:?} {sentence}");
    }
    victim.send(5..8)?;
    victim.receipts(3)?;
    victim.bye()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(11, 8)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    site.close()
}

/// Ten thousand sessions, each with a batch in the one order.
pub fn ten_thousand_sessions(rig: &Rig) -> Result<(), Failure> {
    const AT_ONCE: u64 = 200;
    let all = trim(10_000, 500);
    let site = rig.start_with(|config| config.sessions = 10_100)?;
    let topic = site.topic(Order::Strong)?;
    let addresses =
        (0..rig.brokers).map(|broker| site.address(broker)).collect::<Result<Vec<_>, _>>()?;
    let mut client = 1;
    while client <= all {
        let mut wave = Vec::new();
        for client in client..(client + AT_ONCE).min(all + 1) {
            let mut raw = Raw::connect(&addresses[client as usize % rig.brokers])?;
            raw.send_frame(Frame::Hello(publisher(client, 0)), topic.name.as_bytes())?;
            wave.push((client, raw));
        }
        let mut sessions = Vec::new();
        for (client, mut raw) in wave {
            match raw.expect()? {
                (Frame::Welcome(welcome), _) => {
                    let mut session = Session { raw, welcome, client };
                    session.send([0])?;
                    sessions.push(session);
                }
                other => return Err(Failure::new(format!("session {client}: {other:?}"))),
            }
        }
        for session in &mut sessions {
            let receipt = session.receipt()?;
            ensure!(receipt.reached == Reached::Ordered, "{receipt:?}");
        }
        // Half of them stay open as sessions, their connections just end.
        for (number, session) in sessions.into_iter().enumerate() {
            if number % 2 == 0 {
                session.bye()?;
            }
        }
        client += AT_ONCE;
    }
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    let sent: Vec<(u64, u64)> = (1..=all).map(|client| (client, 1)).collect();
    check_sent(&reading, &sent, Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    // A session that was left open is still known.
    let back = Session::open(&site, 0, &topic, 2, 1)?;
    ensure!(back.welcome.next_seq == 1, "next is {}", back.welcome.next_seq);
    site.close()
}

/// With every session line in use the next publisher is told so; a closed session's line is used
/// again.
pub fn session_lines_run_out_and_come_back(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start_with(|config| config.sessions = 8)?;
    let topic = site.topic(Order::Strong)?;
    let mut open = Vec::new();
    for client in 1..=8 {
        let mut session = Session::open(&site, 0, &topic, client, 0)?;
        session.send([0])?;
        session.receipt()?;
        open.push(session);
    }
    let mut ninth = Raw::connect(&site.address(0)?)?;
    ninth.send_frame(Frame::Hello(publisher(9, 0)), topic.name.as_bytes())?;
    let (why, sentence) = ninth.expect_refusal()?;
    ensure!(why == Refusal::SessionsFull, "{why:?}: {sentence}");
    open.remove(3).bye()?;
    site.wait_until("a line for the ninth", |_| {
        let mut raw = Raw::connect(&site.address(0)?)?;
        raw.send_frame(Frame::Hello(publisher(9, 0)), topic.name.as_bytes())?;
        match raw.hear(Duration::from_secs(5))? {
            crate::raw::Heard::Frame(Frame::Welcome(_), _) => Ok(true),
            _ => Ok(false),
        }
    })?;
    site.close()
}

/// That many new publishers are let in, as soon as there are lines for them, and publish.
fn let_in(site: &Site, topic: &Topic, clients: Range<u64>) -> Result<Vec<Publisher>, Failure> {
    let mut publishers = Vec::new();
    for client in clients {
        let mut refused = String::new();
        let let_in = site.wait_until("a line for a new publisher", |_| {
            match site.publisher(topic).client_id(client).build() {
                Ok(publisher) => publishers.push(publisher),
                Err(error) => refused = error.to_string(),
            }
            Ok(publishers.last().is_some_and(|last| last.client_id() == client))
        });
        let_in.map_err(|failure| Failure::new(format!("client {client}: {failure}; {refused}")))?;
        if let Some(publisher) = publishers.last_mut() {
            publish(publisher, client, 0..3, 100)?;
        }
    }
    Ok(publishers)
}

/// Sessions whose publishers left while control or their broker was away do not keep their lines,
/// and one whose publisher is there keeps its own.
pub fn lines_come_back_whoever_was_killed(rig: &Rig) -> Result<(), Failure> {
    const LINES: u64 = 4;
    let mut site = rig.start_with(|config| {
        config.sessions = LINES as u32;
        config.session_lease = Duration::from_millis(300);
    })?;
    let topic = site.topic(Order::Strong)?;
    let mut kept = Session::open(&site, rig.brokers - 1, &topic, 1, 0)?;
    kept.send([0])?;
    kept.receipt()?;
    let left = (2..=LINES).map(|client| Session::open(&site, 0, &topic, client, 0));
    let left = left.collect::<Result<Vec<_>, _>>()?;
    site.system.kill_control();
    drop(left);
    site.system.start_control()?;
    let polite = let_in(&site, &topic, 10..9 + LINES)?;
    kept.send([1])?;
    let receipt = kept.receipt()?;
    ensure!(receipt.reached == Reached::Ordered, "it was there all the time: {receipt:?}");
    site.system.kill_control();
    site.system.start_control()?;
    polite.into_iter().try_for_each(Publisher::close)?;
    let mut left = Vec::new();
    site.wait_until("the lines of those who said goodbye", |_| {
        left.extend(Session::open(&site, 0, &topic, 20 + left.len() as u64, 0));
        Ok(left.len() as u64 == LINES - 1)
    })?;
    for broker in 0..rig.brokers {
        site.system.kill_broker(broker);
    }
    drop((kept, left));
    for broker in 0..rig.brokers {
        site.system.start_broker(broker)?;
    }
    let last = let_in(&site, &topic, 30..30 + LINES)?;
    last.into_iter().try_for_each(Publisher::close)?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    let sent = (10..9 + LINES).chain(30..30 + LINES).map(|client| (client, 3));
    let sent: Vec<(u64, u64)> = [(1, 2)].into_iter().chain(sent).collect();
    check_sent(&reading, &sent, Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    site.close()
}

/// Sessions whose publishers were lost less than a lease before their broker stopped in good order
/// do not keep their lines: all are there for others, however often that is.
pub fn lines_come_back_after_stops_in_good_order(rig: &Rig) -> Result<(), Failure> {
    const LINES: u64 = 4;
    let mut site = rig.start_with(|config| {
        config.sessions = LINES as u32;
        config.session_lease = Duration::from_millis(300);
    })?;
    let topic = site.topic(Order::Strong)?;
    for life in 0..2 {
        let mut left = Vec::new();
        site.wait_until("a line for each", |_| {
            left.extend(Session::open(&site, 0, &topic, 10 * life + left.len() as u64 + 1, 0));
            Ok(left.len() as u64 == LINES)
        })?;
        drop(left);
        let pid = site.system.broker_pid(0).ok_or_else(|| Failure::new("broker 0 is gone"))?;
        kill(Pid::from_raw(pid as i32), Signal::SIGTERM)?;
        let until = Instant::now() + patience();
        while site.system.is_whole() {
            ensure!(Instant::now() < until, "broker 0 did not stop within {:?}", patience());
            std::thread::sleep(Duration::from_millis(1));
        }
        site.system.start_broker(0)?;
    }
    site.close()
}
