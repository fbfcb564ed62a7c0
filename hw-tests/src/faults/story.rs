//! A run: two topics, published to and read while faults come and go, judged at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use landfall::Transport;
use landfall::api::TopicSpec;
use landfall_layout::replica::ReplicaState;

use super::acts::Acts;
use super::apply;
use super::fault::{End, Fault, Kind, Timed, Who};
use super::judge::{self, Allowed};
use super::scene::{PUBLISHERS, SUBSCRIBERS, Scene};
use super::troupe::{Ends, Troupe, patience};
use crate::Failure;
use crate::history::Report;
use crate::history::file::read;
use crate::sweep::client::{create as create_over_deaths, patiently};

/// The topics' names; a message carries the number of its own.
pub const TOPICS: [&str; 2] = ["first", "second"];
/// Folder of the brokers' data directories.
pub const DISKS: &str = "disks";
/// The data directories.
pub const RESTORES: [&str; 2] = ["broker-0", "broker-1"];
const POOL_BYTES: u64 = 96 << 20;
const SEGMENT_BYTES: u64 = 2 << 20;
/// A dead broker's segments are kept for this long.
const KEPT_MS: u64 = 2000;
const GRACE_MS: u64 = 600;
/// One, since a library that reconnects seals a batch that is not full.
pub(super) const MESSAGES: u64 = 1;
const BYTES: usize = 400;
/// Larger, where little of it is to stay in memory.
const BYTES_SHORT: usize = 60_000;
/// Between two batches of a publisher.
const PACE: Duration = Duration::from_millis(8);
/// What goes on before the first fault and behind the last.
const CALM: Duration = Duration::from_millis(150);
/// Receipts that each publisher gets before the faults, and again when they are over.
const PROGRESS: usize = 15;

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    /// The histories' reports, a topic each.
    pub reports: Vec<Report>,
    /// What happened to the processes.
    pub ends: Ends,
    /// How long it took.
    pub took: Duration,
}

/// Runs a scene with these faults, with the programs in a folder.
pub fn run(scene: &Scene, faults: &[Timed], programs: &Path) -> Result<Outcome, Failure> {
    let began = Instant::now();
    check(scene, faults)?;
    let acts = Acts::new(faults.to_vec(), scene.standby);
    let mut troupe = Troupe::new(programs, acts)?;
    match act(scene, faults, &mut troupe) {
        Ok(reports) => Ok(Outcome { reports, ends: troupe.ends, took: began.elapsed() }),
        Err(failure) => Err(troupe.explain(failure)),
    }
}

/// Whether these faults can happen to that scene.
pub fn check(scene: &Scene, faults: &[Timed]) -> Result<(), Failure> {
    for timed in faults {
        let needs_disks = match &timed.fault {
            Fault::Pool { page: super::fault::Page::Table, .. } => true,
            Fault::TwinData { .. } => true,
            fault => matches!(fault.kind(), Kind::Cold | Kind::Damage | Kind::Disk),
        };
        let needed = if needs_disks && scene.replicas < 2 { Some("replicas") } else { None };
        ensure!(needed.is_none(), "{timed} needs replicas, which {} has not", scene.name);
    }
    Ok(())
}

fn servers(scene: &Scene) -> Vec<Who> {
    let mut servers = vec![Who::Control, Who::Broker(0), Who::Broker(1)];
    if scene.standby {
        servers.insert(1, Who::Standby);
    }
    servers
}

fn act(scene: &Scene, faults: &[Timed], troupe: &mut Troupe) -> Result<Vec<Report>, Failure> {
    begin_servers(scene, troupe)?;
    for name in TOPICS {
        create(scene, troupe, name)?;
    }
    let stop = troupe.notes().join("stop");
    let read_on = troupe.notes().join("stop-reading");
    begin_clients(scene, faults, troupe, &stop, &read_on)?;
    // A topic of which nothing is on disk yet would not come back with its pool.
    progress(troupe)?;
    troupe.acts.begin();
    let longest = faults.iter().map(|timed| timed.at + timed.fault.lasts()).max().unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(longest) + 3 * patience();
    while !troupe.acts.are_over() {
        troupe.tend()?;
        ensure!(Instant::now() < deadline, "the faults did not end");
        std::thread::sleep(Duration::from_millis(2));
    }
    troupe.tell("the faults are over");
    calm(troupe)?;
    let mut faults = faults.to_vec();
    if heal(scene, &faults, troupe)? {
        faults.push(Timed { at: 0, fault: Fault::Cold { end: End::Kill } });
    }
    progress(troupe)?;
    std::fs::write(&stop, "")?;
    let publishers: Vec<Who> = PUBLISHERS.iter().map(|it| Who::Publisher(it.0)).collect();
    troupe.wait_until("the end of the publishers", |troupe| Ok(troupe.are_done(&publishers)))?;
    let allowed = Allowed::of(scene, &faults);
    let counts = judge::counts(troupe)?;
    read_everything(troupe, &allowed)?;
    std::fs::write(&read_on, "")?;
    let readers: Vec<Who> = SUBSCRIBERS.iter().map(|it| Who::Subscriber(it.0)).collect();
    troupe.wait_until("the end of the readers", |troupe| Ok(troupe.are_done(&readers)))?;
    let mut reports = Vec::new();
    for (number, name) in TOPICS.iter().enumerate() {
        let report = judge::topic(scene, &troupe.notes(), number, &allowed);
        let report = report.map_err(|failure| failure.with(&format!(" (topic {name})")))?;
        judge::count(&report, counts[number], &allowed)?;
        reports.push(report);
    }
    finish(scene, troupe, &allowed)?;
    Ok(reports)
}

/// Everything ends in good order, and what is left fits together.
fn finish(scene: &Scene, troupe: &mut Troupe, allowed: &Allowed) -> Result<(), Failure> {
    let mut order = vec![Who::Broker(0), Who::Broker(1)];
    order.extend(servers(scene).into_iter().filter(|who| who.is_control()));
    troupe.stop(&order)?;
    judge::look(troupe.folder(), scene, allowed)
}

fn calm(troupe: &mut Troupe) -> Result<(), Failure> {
    let until = Instant::now() + CALM;
    troupe.wait_until("a moment's passing", |_| Ok(Instant::now() >= until))
}

fn begin_servers(scene: &Scene, troupe: &mut Troupe) -> Result<(), Failure> {
    let folder = troupe.folder().display().to_string();
    let coherence = if scene.flush { "flush" } else { "coherent" };
    for who in servers(scene) {
        match who {
            Who::Broker(number) => {
                let arguments = broker_arguments(&folder, number, scene.replicas > 1);
                troupe.begin(who, "landfall-broker", arguments)?;
            }
            _ => {
                let mut arguments = control_arguments(&folder, &who.to_string(), coherence);
                if scene.standby {
                    arguments.push("--standby".to_owned());
                }
                troupe.begin(who, "landfall-control", arguments)?;
                if who == Who::Control {
                    // It is the one that leads at first.
                    troupe.wait_until("control's lead", |t| Ok(t.are_ready(&[who])))?;
                }
            }
        }
    }
    let brokers = [Who::Broker(0), Who::Broker(1)];
    troupe.wait_until("that all servers are ready", |t| Ok(t.are_ready(&brokers)))
}

pub(super) fn control_arguments(folder: &str, name: &str, coherence: &str) -> Vec<String> {
    vec![
        format!("--coherence={coherence}"),
        format!("--pool={folder}/pool"),
        format!("--pool-bytes={POOL_BYTES}"),
        format!("--segment-bytes={SEGMENT_BYTES}"),
        "--sessions=256".to_owned(),
        "--sparse".to_owned(),
        "--listen=0.0.0.0:0".to_owned(),
        format!("--unix={folder}/{name}.sock"),
        format!("--kept-ms={KEPT_MS}"),
        format!("--grace-ms={GRACE_MS}"),
    ]
}

pub(super) fn broker_arguments(folder: &str, number: u8, keeps: bool) -> Vec<String> {
    let mut arguments = vec![
        format!("--pool={folder}/pool"),
        format!("--number={number}"),
        format!("--unix={folder}/broker-{number}.sock"),
        "--listen=127.0.0.1:0".to_owned(),
    ];
    if keeps {
        arguments.push(format!("--data={folder}/{DISKS}/broker-{number}"));
        arguments.push("--data-file-bytes=65536".to_owned());
        // As where all brokers are on one host: one copy is mended from the other.
        let others = (0..2).filter(|other| *other != number);
        arguments
            .extend(others.map(|other| format!("--read-data={folder}/{DISKS}/broker-{other}")));
    }
    arguments
}

fn begin_clients(
    scene: &Scene,
    faults: &[Timed],
    troupe: &mut Troupe,
    stop: &Path,
    read_on: &Path,
) -> Result<(), Failure> {
    // A broker in a network of its own is reached through memory alone.
    let apart = |broker: Option<u8>| {
        faults.iter().any(|timed| match timed.fault {
            Fault::Space { who, space } => {
                space != super::fault::Space::Pid
                    && broker.is_none_or(|broker| who == Who::Broker(broker))
            }
            _ => false,
        })
    };
    let bytes = if scene.short { BYTES_SHORT } else { BYTES };
    for (number, topic, transport, broker) in PUBLISHERS {
        let transport = if apart(broker) { Transport::Memory } else { transport };
        let spread = scene.spread && number == 0;
        let mut arguments = common(troupe, "send", topic, transport, broker, stop);
        arguments.push(format!(
            "--notes={}",
            troupe.notes().join(format!("{topic}-publisher-{number}.json")).display()
        ));
        arguments.push(format!("--client={}", client_of(number)));
        arguments.push(format!("--messages={MESSAGES}"));
        arguments.push(format!("--bytes={bytes}"));
        arguments.push(format!("--pace-ms={}", PACE.as_millis()));
        let flags = [(spread, "--spread"), (scene.replicas > 1, "--durable")];
        arguments
            .extend(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word.to_string()));
        troupe.begin(Who::Publisher(number), "landfall-sweep-client", arguments)?;
    }
    for (number, topic, transport, broker) in SUBSCRIBERS {
        let transport = if apart(broker) { Transport::Memory } else { transport };
        let mut arguments = common(troupe, "follow", topic, transport, broker, read_on);
        arguments.push(format!(
            "--notes={}",
            troupe.notes().join(format!("{topic}-subscriber-{number}.json")).display()
        ));
        arguments.push(format!("--reader={number}"));
        troupe.begin(Who::Subscriber(number), "landfall-sweep-client", arguments)?;
    }
    Ok(())
}

fn client_of(publisher: u8) -> u64 {
    u64::from(publisher) + 1
}

fn common(
    troupe: &Troupe,
    what: &str,
    topic: usize,
    transport: Transport,
    broker: Option<u8>,
    until: &Path,
) -> Vec<String> {
    let mut arguments = vec![
        what.to_owned(),
        format!("--control={}", troupe.client().address()),
        format!("--topic={}", TOPICS[topic]),
        format!("--topic-number={topic}"),
        format!("--transport={transport}"),
        format!("--until={}", until.display()),
    ];
    arguments.extend(broker.map(|broker| format!("--broker={broker}")));
    arguments
}

fn create(scene: &Scene, troupe: &mut Troupe, name: &str) -> Result<(), Failure> {
    let mut spec = TopicSpec::new(name, scene.order);
    match scene.short {
        true => spec.retention_bytes = Some(1),
        false => spec.keep = Some(true),
    }
    spec.ring_slots = Some(64);
    spec.replicas = (scene.replicas > 1).then_some(scene.replicas);
    troupe.meanwhile("creating the topic", move |client| create_over_deaths(&client, &spec))
}

/// What servers say whose directories another pool has taken up.
const OVERTAKEN: &str = "went on in another pool since";

/// A broker whose replica failed is started again, as it says that it has to be. Where a second
/// system took the directories while the first was down, that one's pool is an older one from then
/// on, and gives way to another. Whether it did.
fn heal(scene: &Scene, faults: &[Timed], troupe: &mut Troupe) -> Result<bool, Failure> {
    if scene.replicas < 2 {
        return Ok(false);
    }
    let has_second = faults.iter().any(|timed| matches!(timed.fault, Fault::TwinData { .. }));
    let leads = [Who::Control, Who::Standby].iter().any(|who| troupe.are_ready(&[*who]));
    if has_second && !leads && troupe.was_told(OVERTAKEN) {
        return make_anew(troupe);
    }
    let failed = troupe.meanwhile("asking for the replicas", |client| {
        let topics = patiently(|| client.topics())?;
        let replicas = topics.into_iter().flat_map(|topic| topic.replicas_state);
        let failed = replicas.filter(|replica| replica.state == ReplicaState::Failed.name());
        let mut failed: Vec<u8> = failed.map(|replica| replica.broker).collect();
        failed.sort_unstable();
        failed.dedup();
        Ok(failed)
    })?;
    if has_second && !failed.is_empty() {
        let said = troupe.meanwhile("asking for errors", |client| patiently(|| client.errors()))?;
        if said.iter().any(|error| error.text.contains(OVERTAKEN)) {
            return make_anew(troupe);
        }
    }
    for broker in failed {
        troupe.tell(format!("a replica of broker {broker} failed: it is started again"));
        troupe.stop(&[Who::Broker(broker)])?;
        troupe.go_on(&[Who::Broker(broker)])?;
    }
    Ok(false)
}

fn make_anew(troupe: &mut Troupe) -> Result<bool, Failure> {
    troupe.tell("the second system has the directories: the pool is made anew");
    apply::lose_pool(troupe, End::Kill)?;
    calm(troupe)?;
    Ok(true)
}

/// Everybody gets on, also when the faults are over: each publisher has receipts for what it sends
/// from then on, and each reader sees of that.
fn progress(troupe: &mut Troupe) -> Result<(), Failure> {
    let before = events(troupe)?;
    let mut checked = Instant::now();
    troupe.wait_until("progress of every client", |troupe| {
        if checked.elapsed() < Duration::from_millis(100) {
            return Ok(false);
        }
        checked = Instant::now();
        let now = events(troupe)?;
        Ok(before.iter().zip(&now).all(|(before, now)| *now >= before + PROGRESS))
    })
}

/// Receipts of each publisher and readings of each reader so far.
fn events(troupe: &Troupe) -> Result<Vec<usize>, Failure> {
    use crate::history::Event;
    let mut counts = Vec::new();
    let publishers = PUBLISHERS.iter().map(|it| format!("{}-publisher-{}", it.1, it.0));
    let readers = SUBSCRIBERS.iter().map(|it| format!("{}-subscriber-{}", it.1, it.0));
    for name in publishers.chain(readers) {
        let path = troupe.notes().join(format!("{name}.json"));
        let events = if path.exists() { read(&path)? } else { Vec::new() };
        let counted = events
            .iter()
            .filter(|event| matches!(event, Event::Acked { .. } | Event::Read(_)))
            .count();
        counts.push(counted);
    }
    Ok(counts)
}

/// Readers that begin now and see everything, of each topic, one through each broker's own ways.
fn read_everything(troupe: &mut Troupe, allowed: &Allowed) -> Result<(), Failure> {
    let never = troupe.notes().join("never");
    for (topic, name) in TOPICS.iter().enumerate() {
        let tcp = if allowed.no_tcp { Transport::Memory } else { Transport::Tcp };
        for (reader, transport, broker) in [(1000, Transport::Memory, 0), (1001, tcp, 1)] {
            let mut arguments = common(troupe, "follow", topic, transport, Some(broker), &never);
            let notes = troupe.notes().join(format!("{topic}-reader-{reader}.json"));
            arguments.push(format!("--notes={}", notes.display()));
            arguments.push(format!("--reader={reader}"));
            arguments.push("--to-the-end".to_owned());
            let who = Who::Reader(topic as u8, broker);
            troupe.begin(who, "landfall-sweep-client", arguments)?;
            let what = format!("reading everything of topic {name}");
            troupe.wait_until(&what, |troupe| Ok(troupe.are_done(&[who])))?;
        }
    }
    Ok(())
}
