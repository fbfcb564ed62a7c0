//! The scenarios of the sweep: one story with different stress, told by the real processes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use landfall::api::TopicSpec;
use landfall::{Error, Order, Transport};
use landfall_replica::names;

use super::client::{Reading, patiently, subscribe};
use super::plan::{Part, Plan};
use super::stage::Stage;
use crate::Failure;
use crate::history::{Event, Promises, Report, check, file};

/// What a run is about.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// Order of its topic.
    pub order: Order,
    /// Batches of each publisher.
    pub batches: u64,
    /// Messages in each batch.
    pub messages: u64,
    /// Bytes of each message.
    pub bytes: usize,
    /// Bytes that the topic keeps at least.
    pub retention_bytes: Option<u64>,
    /// How many topics of the same name there are, one after the other.
    pub topics: u32,
    /// Everything is stopped, and started again, before the last reading.
    pub stops: bool,
    /// Publishers deal their batches out over both brokers.
    pub spread: bool,
    /// Batches that a publisher has under way before it waits for all receipts.
    pub under_way: u64,
    /// The pool's hosts do not see each other's caches.
    pub flush: bool,
    /// Before all others a client reserves positions, fills one and is gone without a word.
    pub leaver: bool,
    /// Copies of each batch, the pool counted as the first; with more than one, receipts are for
    /// what is durable.
    pub replicas: u8,
}

const PLAIN: Scenario = Scenario {
    name: "",
    about: "",
    order: Order::Strong,
    batches: 8,
    messages: 3,
    bytes: 200,
    retention_bytes: None,
    topics: 1,
    stops: false,
    spread: false,
    under_way: 4,
    flush: false,
    leaver: false,
    replicas: 1,
};

/// All scenarios.
pub const SCENARIOS: [Scenario; 14] = [
    Scenario { name: "strong", about: "two publishers and a reader, order strong", ..PLAIN },
    Scenario {
        name: "total",
        about: "two publishers and a reader, order total",
        order: Order::Total,
        ..PLAIN
    },
    Scenario {
        name: "stream",
        about: "two publishers and a reader, order stream",
        order: Order::Stream,
        ..PLAIN
    },
    Scenario {
        name: "none",
        about: "two publishers and a reader, order none",
        order: Order::None,
        ..PLAIN
    },
    Scenario {
        name: "topics",
        about: "a topic is deleted and made anew, twice",
        batches: 2,
        topics: 3,
        ..PLAIN
    },
    Scenario {
        name: "retention",
        about: "segments are retired and come back while they are read",
        batches: 16,
        messages: 2,
        bytes: 300_000,
        retention_bytes: Some(1),
        ..PLAIN
    },
    Scenario {
        name: "shutdown",
        about: "everything is stopped and started again",
        batches: 4,
        stops: true,
        ..PLAIN
    },
    Scenario {
        name: "spread",
        about: "each publisher through both brokers, order strong",
        batches: 12,
        spread: true,
        under_way: 12,
        ..PLAIN
    },
    Scenario {
        name: "pressure",
        about: "more batches under way than the rings have slots",
        batches: 60,
        messages: 1,
        spread: true,
        under_way: 60,
        ..PLAIN
    },
    Scenario {
        name: "flush",
        about: "a pool whose lines are written back and dropped",
        order: Order::Stream,
        flush: true,
        ..PLAIN
    },
    Scenario {
        name: "durable",
        about: "each batch on both brokers' disks before its receipt, order strong",
        replicas: 3,
        ..PLAIN
    },
    Scenario {
        name: "durable-none",
        about: "each batch on both brokers' disks before its receipt, order none",
        order: Order::None,
        replicas: 3,
        ..PLAIN
    },
    Scenario {
        name: "token",
        about: "positions reserved first, a client that leaves its own unfilled, order token",
        order: Order::Token,
        spread: true,
        leaver: true,
        ..PLAIN
    },
    Scenario {
        name: "durable-token",
        about: "the same with each batch and each hole on both brokers' disks",
        order: Order::Token,
        spread: true,
        leaver: true,
        replicas: 3,
        ..PLAIN
    },
];

/// The scenario of that name.
pub fn find(name: &str) -> Result<&'static Scenario, String> {
    SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("there is no scenario {name:?}; say one of {}", names.join(", "))
    })
}

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    /// Stores that the first life of each process made.
    pub stores: std::collections::BTreeMap<Part, u64>,
    /// Processes killed.
    pub kills: u32,
    /// The histories' reports, a topic each.
    pub reports: Vec<Report>,
    /// How long it took.
    pub took: Duration,
}

const POOL_BYTES: u64 = 64 << 20;
const SEGMENT_BYTES: u64 = 2 << 20;
/// A dead broker's segments are kept for this long; publishers come back within milliseconds.
const KEPT_MS: u64 = 2000;
/// What a client reserved and did not fill is nobody's after this.
const LEASE_MS: u64 = 700;
/// A memory reader looks at its connection four times a second.
const GRACE_MS: u64 = 600;
const TOPIC: &str = "swept";
/// Folder of the brokers' data directories.
const DISKS: &str = "disks";
const SERVERS: [Part; 3] = [Part::Control, Part::Broker(0), Part::Broker(1)];
const BROKERS: [Part; 2] = [Part::Broker(0), Part::Broker(1)];
const PUBLISHERS: [Part; 2] = [Part::Publisher(0), Part::Publisher(1)];
/// The publisher that leaves positions behind.
const LEAVER: u8 = 2;

/// Runs a scenario with the kills of `plan`, with the programs in a folder.
pub fn run(scenario: &Scenario, plan: Plan, programs: &Path) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let mut stage = Stage::new(programs, plan)?;
    match story(scenario, &mut stage) {
        Ok(reports) => {
            let (stores, kills) = (stage.stores(), stage.kills());
            Ok(Outcome { stores, kills, reports, took: began.elapsed() })
        }
        Err(failure) => Err(stage.explain(failure)),
    }
}

fn story(scenario: &Scenario, stage: &mut Stage) -> Result<Vec<Report>, Failure> {
    begin_servers(scenario, stage)?;
    let free = free_segments(stage)?;
    let mut reports = Vec::new();
    for round in 0..scenario.topics {
        reports.push(round_of(scenario, stage, round, free)?);
    }
    stop_servers(stage)?;
    look_into_pool(stage)?;
    look_for_leftovers(stage)?;
    Ok(reports)
}

/// One topic's life: made, written, read, checked, deleted; nothing of it is left.
fn round_of(
    scenario: &Scenario,
    stage: &mut Stage,
    round: u32,
    free: u64,
) -> Result<Report, Failure> {
    create(scenario, stage)?;
    let read_on = stage.folder().join(format!("notes/stop-{round}"));
    if scenario.leaver {
        let leaver = Part::Publisher(LEAVER);
        let arguments = publisher_arguments(scenario, stage, round, LEAVER);
        stage.begin(leaver, "landfall-sweep-client", arguments)?;
        stage.wait_until("the end of the one that leaves", |stage| stage.are_done(&[leaver]))?;
    }
    begin_clients(scenario, stage, round, &read_on)?;
    stage.wait_until("the end of both publishers", |stage| stage.are_done(&PUBLISHERS))?;
    if scenario.stops {
        std::fs::write(&read_on, "")?;
        stage.wait_until("the reader's end", |stage| stage.are_done(&[Part::Subscriber]))?;
        stop_servers(stage)?;
        look_into_pool(stage)?;
        begin_servers(scenario, stage)?;
    }
    for (reader, transport, broker) in [(1000, Transport::Memory, 0), (1001, Transport::Tcp, 1)] {
        let notes = stage.notes().join(format!("{round}-reader-{reader}.json"));
        let reading =
            Reading { topic: TOPIC.into(), reader, transport, broker, notes, until: None };
        stage.meanwhile("reading everything", move |client| subscribe(&client, &reading))?;
    }
    if !scenario.stops {
        std::fs::write(&read_on, "")?;
        stage.wait_until("the reader's end", |stage| stage.are_done(&[Part::Subscriber]))?;
    }
    let report = judge(scenario, stage, round)?;
    delete(stage)?;
    let deadline = Instant::now() + super::stage::patience();
    loop {
        let now = free_segments(stage)?;
        if now == free {
            return Ok(report);
        }
        ensure!(
            Instant::now() < deadline,
            "{now} segments are free without any topic, and {free} were at the start"
        );
    }
}

fn begin_servers(scenario: &Scenario, stage: &mut Stage) -> Result<(), Failure> {
    let folder = stage.folder().display().to_string();
    let parent = std::process::id().to_string();
    let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let pool = format!("{folder}/pool");
    let (bytes, segment) = (POOL_BYTES.to_string(), SEGMENT_BYTES.to_string());
    let socket = format!("{folder}/control.sock");
    let (kept, grace) = (KEPT_MS.to_string(), GRACE_MS.to_string());
    let coherence = if scenario.flush { "flush" } else { "coherent" };
    let control: Vec<String> = strings(&[
        "--coherence",
        coherence,
        "--pool",
        &pool,
        "--pool-bytes",
        &bytes,
        "--segment-bytes",
        &segment,
        "--sparse",
        "--sessions",
        "16",
        "--listen",
        "127.0.0.1:0",
        "--unix",
        &socket,
        "--parent",
        &parent,
        "--kept-ms",
        &kept,
        "--grace-ms",
        &grace,
    ]);
    stage.begin(Part::Control, "landfall-control", control)?;
    for number in 0..2_u8 {
        let socket = format!("{folder}/broker-{number}.sock");
        let number_text = number.to_string();
        let broker = strings(&[
            "--pool",
            &pool,
            "--number",
            &number_text,
            "--unix",
            &socket,
            "--parent",
            &parent,
        ]);
        let mut broker: Vec<String> = broker;
        if scenario.replicas > 1 {
            broker.push(format!("--data={folder}/{DISKS}/broker-{number}"));
        }
        stage.begin(Part::Broker(number), "landfall-broker", broker)?;
    }
    stage.wait_until("that all servers are ready", |stage| stage.are_ready(&SERVERS))
}

/// What publisher `number` is to do.
fn publisher_arguments(scenario: &Scenario, stage: &Stage, round: u32, number: u8) -> Vec<String> {
    let leaves = number == LEAVER;
    let transport = if number == 1 { Transport::Tcp } else { Transport::Memory };
    let notes = stage.notes().join(format!("{round}-publisher-{number}.json"));
    let mut arguments = vec![
        "publish".to_owned(),
        format!("--control={}", stage.client().address()),
        format!("--topic={TOPIC}"),
        format!("--parent={}", std::process::id()),
        format!("--client={}", number + 1),
        format!("--transport={transport}"),
        format!("--broker={}", number % 2),
        format!("--batches={}", scenario.batches),
        format!("--messages={}", scenario.messages),
        format!("--bytes={}", scenario.bytes),
        format!("--under-way={}", scenario.under_way),
        format!("--notes={}", notes.display()),
    ];
    let flags =
        [(scenario.spread, "--spread"), (scenario.replicas > 1, "--durable"), (leaves, "--leaves")];
    arguments.extend(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag.to_string()));
    arguments
}

fn begin_clients(
    scenario: &Scenario,
    stage: &mut Stage,
    round: u32,
    read_on: &Path,
) -> Result<(), Failure> {
    let control = stage.client().address().to_owned();
    let parent = std::process::id().to_string();
    let notes = stage.notes();
    for number in 0..2_u8 {
        let arguments = publisher_arguments(scenario, stage, round, number);
        stage.begin(Part::Publisher(number), "landfall-sweep-client", arguments)?;
    }
    let arguments = [
        "subscribe".to_owned(),
        format!("--control={control}"),
        format!("--topic={TOPIC}"),
        format!("--parent={parent}"),
        "--transport=memory".to_owned(),
        "--broker=0".to_owned(),
        format!("--notes={}", notes.join(format!("{round}-subscriber.json")).display()),
        format!("--until={}", read_on.display()),
    ];
    stage.begin(Part::Subscriber, "landfall-sweep-client", arguments.into())
}

/// Brokers first, so that control hears them leave.
fn stop_servers(stage: &mut Stage) -> Result<(), Failure> {
    stage.stop(&BROKERS)?;
    stage.stop(&[Part::Control])
}

fn create(scenario: &Scenario, stage: &mut Stage) -> Result<(), Failure> {
    let mut spec = TopicSpec::new(TOPIC, scenario.order);
    spec.retention_bytes = scenario.retention_bytes;
    spec.keep = scenario.retention_bytes.is_none().then_some(true);
    spec.ring_slots = Some(16);
    spec.session_lease_ms = (scenario.order == Order::Token).then_some(LEASE_MS);
    spec.replicas = (scenario.replicas > 1).then_some(scenario.replicas);
    stage.meanwhile("creating the topic", move |client| super::client::create(&client, &spec))
}

fn delete(stage: &mut Stage) -> Result<(), Failure> {
    stage.meanwhile("deleting the topic", |client| {
        patiently(|| match client.delete_topic(TOPIC) {
            // Another control, which goes on with what the last had begun, or has ended it.
            Err(Error::Control { status: 409, .. } | Error::NoTopic { .. }) => Ok(()),
            other => other,
        })?;
        let deadline = Instant::now() + super::stage::patience();
        while patiently(|| client.topics())?.iter().any(|topic| topic.name == TOPIC) {
            ensure!(Instant::now() < deadline, "the topic is still there");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    })
}

fn free_segments(stage: &mut Stage) -> Result<u64, Failure> {
    stage.meanwhile("asking for the pool", |client| {
        Ok(patiently(|| client.cluster())?.pool.segments_free)
    })
}

/// What all clients of a topic noted, judged together.
fn judge(scenario: &Scenario, stage: &Stage, round: u32) -> Result<Report, Failure> {
    let prefix = format!("{round}-");
    let mut events: Vec<Event> = Vec::new();
    for entry in std::fs::read_dir(stage.notes())? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".json")) {
            events.extend(file::read(&path)?);
        }
    }
    let promises = Promises { order: scenario.order, repeats: stage.kills() > 0 };
    let report = check(promises, &events);
    let sent = 2 * scenario.batches * scenario.messages;
    ensure!(report.is_ok(), "the history is not what was promised: {report}");
    // In each of its lives, the one that leaves publishes a message.
    let all_sent = if scenario.leaver { report.sent > sent } else { report.sent == sent };
    ensure!(
        all_sent && report.finished == 2,
        "{sent} messages were to be sent and read by two readers: {report}"
    );
    // Everything is kept, so that what is missed was never written.
    let keeps = scenario.retention_bytes.is_none();
    ensure!(!keeps || report.missed == 0, "the topic keeps everything: {report}");
    // What a control that dies has handed out is nobody's, and is handed out again.
    ensure!(
        !scenario.leaver || stage.kills() > 0 || report.unwritten > 0,
        "nobody was told of what the one that left had reserved: {report}"
    );
    if scenario.replicas > 1 {
        look_at_replicas(stage)?;
    }
    Ok(report)
}

/// Everything in the pool fits together, headers, tables, logs and batches, when nobody is at work.
fn look_into_pool(stage: &Stage) -> Result<(), Failure> {
    let path = stage.folder().join("pool");
    let pool = landfall_verify::read_only(&path)
        .map_err(|why| Failure::new(format!("{} cannot be looked at: {why}", path.display())))?;
    let found = landfall_verify::look(&pool).findings;
    let errors: Vec<String> = found
        .kept()
        .iter()
        .filter(|finding| finding.severity == landfall_verify::Severity::Error)
        .map(|finding| format!("\n  {finding}"))
        .collect();
    ensure!(errors.is_empty(), "the pool is not whole: {}", errors.concat());
    Ok(())
}

/// No replica contradicts another, or says that it has what it has not.
fn look_at_replicas(stage: &Stage) -> Result<(), Failure> {
    let kept = landfall_verify::replicas::look(&stage.folder().join(DISKS))?;
    let errors = kept.findings.kept().iter();
    let errors = errors.filter(|finding| finding.severity == landfall_verify::Severity::Error);
    let errors: Vec<String> = errors.map(|finding| format!("\n  {finding}")).collect();
    ensure!(errors.is_empty(), "the replicas are not whole: {}", errors.concat());
    Ok(())
}

/// After a clean end only the pool and the clients' notes are there, and no replica of the topics,
/// which are all deleted.
fn look_for_leftovers(stage: &Stage) -> Result<(), Failure> {
    for entry in std::fs::read_dir(stage.folder())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_disk = name == DISKS;
        ensure!(
            is_disk || name == "pool" || name == "notes",
            "{name} was left behind by a clean end"
        );
        let mut replicas = if is_disk { files_under(&path)? } else { Vec::new() };
        // Whose a data directory is stays there, and so does what was deleted.
        let is_own = |part: &OsStr| names::OWN_FILES.iter().any(|name| part == *name);
        replicas.retain(|file| !file.iter().any(is_own));
        ensure!(replicas.is_empty(), "replicas of a deleted topic were left behind: {replicas:?}");
    }
    Ok(())
}

fn files_under(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_under(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}
