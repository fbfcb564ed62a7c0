//! Processes that are killed: nothing acknowledged is lost, nothing is shown in another order.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use landfall::{Ack, Order};

use crate::flow::{Promise, Until, audit, check_sent, message, name_of, publish, read};
use crate::raw::Session;
use crate::rig::patience;
use crate::scenarios::cold::Data;
use crate::scenarios::tools::tool;
use crate::{Failure, Rig, Site};

/// A publisher that is gone after half a payload: its claim becomes padding, nothing of the batch
/// is delivered, others go on, and the session goes on elsewhere.
pub fn a_publisher_gone_in_mid_batch_leaves_nothing(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let mut witness = site.publisher(&topic).client_id(50).broker(0).build()?;
    publish(&mut witness, 50, 0..50, 500)?;
    let mut epoch = 0;
    for round in 0..5_u64 {
        let mut session = Session::open(&site, 0, &topic, 9, epoch)?;
        epoch = session.welcome.session_epoch;
        ensure!(session.welcome.next_seq == round, "next is {}", session.welcome.next_seq);
        session.send([round])?;
        session.receipt()?;
        let batch = session.batch(round + 1, &message(9, round + 1, 200_000)).bytes();
        // In the payload, right behind the preamble, and in the preamble itself.
        let cut = [batch.len() / 2, 64, 30, batch.len() - 1, 1000][round as usize];
        session.raw.send(&batch[..cut])?;
        std::thread::sleep(Duration::from_millis(20));
        drop(session);
        publish(&mut witness, 50, 50 + round * 20..70 + round * 20, 500)?;
    }
    witness.close()?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(9, 5), (50, 150)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    site.close()
}

/// `landfall publish` is killed while it publishes: what is there is a whole prefix of its lines.
pub fn a_publisher_process_killed_leaves_a_whole_prefix(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let mut child = Command::new(tool("landfall")?)
        .args(["publish", &topic.name, "--control", site.system.address()])
        .args(["--transport", &site.rig.transport.to_string(), "--batch-bytes", "4096"])
        .args(["--grant", &site.rig.grant.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut lines = child.stdin.take().ok_or_else(|| Failure::new("no stdin"))?;
    let feeder = std::thread::spawn(move || {
        for n in 0_u64.. {
            if writeln!(lines, "line {n} {}", "x".repeat((n % 90) as usize)).is_err() {
                break;
            }
        }
    });
    let enough = site.wait_until("that the tool publishes", |client| {
        Ok(client.topic(&topic.name)?.messages >= 5_000)
    });
    child.kill()?;
    child.wait()?;
    feeder.join().map_err(|_| Failure::new("the feeder panicked"))?;
    enough?;
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    ensure!(reading.messages.len() >= 5_000, "{} lines", reading.messages.len());
    for (n, read) in reading.messages.iter().enumerate() {
        let line = format!("line {n} {}", "x".repeat(n % 90));
        ensure!(read.payload == line.as_bytes(), "line {n} came as {:?}", read.payload);
    }
    audit(Order::Strong, &[&reading])?;
    // The place the killed process had is free for the next one.
    let mut next = site.publisher(&topic).build()?;
    publish(&mut next, 1, 0..100, 100)?;
    next.close()?;
    site.close()
}

/// What publishers rest between 50 messages, so that a small pool holds everything.
const REST: Duration = Duration::from_millis(2);

/// Publishers of three orders, disturbed while they publish; then everything is looked for.
pub(super) fn disturbed(
    rig: &Rig,
    rest: Duration,
    mut disturb: impl FnMut(&mut Site) -> Result<(), Failure>,
) -> Result<(), Failure> {
    const BYTES: usize = 300;
    let mut site = rig.start()?;
    let orders = [Order::Strong, Order::Total, Order::Broker];
    // What dead brokers had stays for a while; a pool that is short must not give up the oldest.
    let topics = orders.map(|order| site.topic_with(order, |spec| spec.keep = Some(true)));
    let topics = topics.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (stop, begun) = (AtomicBool::new(false), AtomicU64::new(0));
    let builders: Vec<_> = (0..4_u64)
        .map(|who| {
            // Two of order strong, one of them through every broker; one of each other order.
            let topic = &topics[[0, 0, 1, 2][who as usize]];
            let builder = site
                .publisher(topic)
                .client_id(who + 1)
                .batch_bytes(4 << 10)
                .memory_bytes(1 << 20)
                .ack(Ack::Ordered);
            (who, if who == 1 { builder.spread(true) } else { builder.broker(0) })
        })
        .collect();
    let sent = std::thread::scope(|scope| -> Result<Vec<u64>, Failure> {
        let writers: Vec<_> = builders
            .into_iter()
            .map(|(who, builder)| {
                let (stop, begun) = (&stop, &begun);
                scope.spawn(move || -> Result<u64, Failure> {
                    let mut publisher = builder.build()?;
                    begun.fetch_add(1, Ordering::Relaxed);
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        publisher.publish(&message(who, n, BYTES))?;
                        n += 1;
                        if n % 50 == 0 {
                            std::thread::sleep(rest);
                        }
                    }
                    // Closing waits for every receipt.
                    publisher.close()?;
                    Ok(n)
                })
            })
            .collect();
        let deadline = Instant::now() + patience();
        while begun.load(Ordering::Relaxed) < 4 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(300));
        let disturbed = disturb(&mut site);
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let sent = writers
            .into_iter()
            .map(|it| it.join().map_err(|_| Failure::new("a publisher panicked"))?)
            .collect();
        disturbed?;
        sent
    });
    let sent = sent.map_err(|failure| site.explain(failure))?;
    for (topic, (order, who)) in topics.iter().zip([
        (Order::Strong, &[0_u64, 1][..]),
        (Order::Total, &[2]),
        (Order::Broker, &[3]),
    ]) {
        let first = read(site.subscriber(topic).build()?, Until::CaughtUp)?;
        let last = site.subscriber(topic).broker(rig.brokers as u8 - 1).build()?;
        let last = read(last, Until::CaughtUp)?;
        let sent: Vec<_> = who.iter().map(|who| (*who, sent[*who as usize])).collect();
        let promise =
            if order == Order::Strong { Promise::InOrderOnce } else { Promise::AtLeastOnce };
        check_sent(&first, &sent, promise)?;
        check_sent(&last, &sent, promise)?;
        audit(order, &[&first, &last])?;
    }
    site.close()
}

/// A broker dies and comes back: publishers reconnect and send again what had no receipt. Nothing
/// acknowledged is lost; in order `strong` nothing comes twice.
pub fn a_broker_killed_and_started_again(rig: &Rig) -> Result<(), Failure> {
    disturbed(rig, REST, |site| {
        site.system.kill_broker(0);
        std::thread::sleep(Duration::from_millis(100));
        Ok(site.system.start_broker(0)?)
    })
}

/// Control dies and comes back, twice: brokers keep what they have, the next epoch goes on.
pub fn control_killed_and_started_again(rig: &Rig) -> Result<(), Failure> {
    disturbed(rig, REST, |site| {
        let before = site.client.cluster()?.epoch;
        for _ in 0..2 {
            site.system.kill_control();
            std::thread::sleep(Duration::from_millis(100));
            site.system.start_control()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        let after = site.client.cluster()?.epoch;
        ensure!(after >= before + 2, "the epoch was {before} and is {after}");
        Ok(())
    })
}

/// Every process dies at once; the pool is all that is left, and it is enough.
pub fn everything_killed_and_started_again(rig: &Rig) -> Result<(), Failure> {
    disturbed(rig, REST, |site| {
        site.system.kill_control();
        for broker in 0..site.rig.brokers {
            site.system.kill_broker(broker);
        }
        site.system.start_control()?;
        for broker in 0..site.rig.brokers {
            site.system.start_broker(broker)?;
        }
        Ok(())
    })?;
    // And with nobody publishing: what was ordered is read as before.
    let mut site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let mut publisher = site.publisher(&topic).build()?;
    publish(&mut publisher, 1, 0..500, 300)?;
    publisher.close()?;
    let before = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    site.system.kill_control();
    for broker in 0..rig.brokers {
        site.system.kill_broker(broker);
    }
    site.system.start_control()?;
    for broker in 0..rig.brokers {
        site.system.start_broker(broker)?;
    }
    let mut publisher = site.publisher(&topic).build()?;
    publish(&mut publisher, 2, 0..500, 300)?;
    publisher.close()?;
    let after = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    ensure!(after.messages[..500] == before.messages[..], "the order changed");
    check_sent(&after, &[(1, 500), (2, 500)], Promise::InOrderOnce)?;
    ensure!(after.messages.iter().all(|read| name_of(&read.payload).is_some()), "bytes changed");
    audit(Order::Strong, &[&before, &after])?;
    site.close()
}

/// A subscriber from the latest loses its broker before it has seen anything of another's log. What
/// lands there meanwhile is shown, and what was there before is not. Its clock is ahead of the
/// brokers' by a minute, in builds where clocks can be set.
pub fn what_lands_while_a_reader_of_the_latest_is_away_is_shown(rig: &Rig) -> Result<(), Failure> {
    let mut site = rig.start()?;
    let folder = Data::new(&format!("latest-{}-{}-{}", rig.transport, rig.brokers, rig.flush))?;
    let clock = folder.0.join("clock");
    let words = [60_000_000_000_i64.to_le_bytes(), [0; 8]].concat();
    std::fs::write(&clock, words)?;
    let other = rig.brokers - 1;
    for order in [Order::None, Order::Broker] {
        let topic = site.topic(order)?;
        let say = |site: &Site, broker: usize, what: &str| -> Result<(), Failure> {
            let mut publisher = site.publisher(&topic).broker(broker as u8).build()?;
            publisher.publish(what.as_bytes())?;
            Ok(publisher.close()?)
        };
        say(&site, other, "before")?;
        let shown = folder.0.join(topic.name.clone());
        let mut reader = Command::new(tool("landfall")?)
            .args(["subscribe", &topic.name, "--control", site.system.address()])
            .args(["--from", "latest", "--broker", "0"])
            .args(["--transport", &site.rig.transport.to_string()])
            .env("LANDFALL_CLOCK_FILE", &clock)
            .stdout(std::fs::File::create(&shown)?)
            .stderr(Stdio::null())
            .spawn()?;
        let lines = || -> Result<Vec<String>, Failure> {
            Ok(std::fs::read_to_string(&shown)?.lines().map(str::to_owned).collect())
        };
        let mut read = || -> Result<Vec<String>, Failure> {
            site.wait_until("that it has begun", |_| {
                say(&site, 0, "begun")?;
                // What it shows may wait in its buffer while more comes.
                std::thread::sleep(Duration::from_millis(300));
                Ok(!lines()?.is_empty())
            })?;
            site.system.kill_broker(0);
            if other > 0 {
                say(&site, other, "away")?;
            }
            site.system.start_broker(0)?;
            say(&site, other, "later")?;
            site.wait_until("that it goes on", |_| Ok(lines()?.contains(&"later".to_owned())))?;
            lines()
        };
        let read = read();
        reader.kill()?;
        reader.wait()?;
        let read = read?;
        let times = |what: &str| read.iter().filter(|line| *line == what).count();
        let counts = (times("before"), times("away"), times("later"));
        ensure!(counts == (0, usize::from(other > 0), 1), "in order {order} it showed {read:?}");
    }
    site.close()
}
