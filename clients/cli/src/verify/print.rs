//! What was found, for people and for programs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use landfall_verify::replicas::{FilesTally, Gap, LogKept, Missing, SourceKept, TopicKept};
use landfall_verify::{Finding, Findings, Severity, Tally};
use serde::Serialize;

use crate::out::{grouped, human_bytes};

/// How much was looked at.
#[derive(Clone, Debug)]
pub enum Looked {
    /// A pool.
    Pool {
        /// Of what how much.
        tally: Tally,
        /// Whether somebody was at work on it.
        moving: bool,
        /// How often.
        looks: u32,
    },
    /// Replica files.
    Files {
        /// How much.
        tally: FilesTally,
        /// What there is of each topic.
        topics: Vec<TopicKept>,
    },
}

/// What `-o json` prints behind its schema version.
#[derive(Serialize)]
pub struct Document<'a> {
    path: String,
    kind: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    moving: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    looks: Option<u32>,
    looked: BTreeMap<&'static str, u64>,
    counts: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<ShownTopic<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<&'a [String]>,
    findings: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    severity: &'static str,
    check: &'static str,
    of: &'a str,
    at: Option<u64>,
    found: &'a str,
    mend: &'static str,
}

#[derive(Serialize)]
struct ShownTopic<'a> {
    name: &'a str,
    created_ns: u64,
    order: Option<&'static str>,
    logs: Vec<ShownLog>,
    replicas: Vec<ShownReplica>,
}

#[derive(Serialize)]
struct ShownLog {
    log: u8,
    ordered_entries: Option<u64>,
    ordered_position: Option<u64>,
    batches: u64,
    holes: u64,
    entries: [u64; 2],
    positions: [u64; 2],
    gaps: Vec<ShownGap>,
}

#[derive(Serialize)]
struct ShownGap {
    why: &'static str,
    entries: [u64; 2],
    positions: Option<[u64; 2]>,
}

#[derive(Serialize)]
struct ShownReplica {
    path: String,
    source: u8,
    files: u64,
    batches: u64,
    bytes: u64,
    covers: Vec<[u64; 2]>,
    torn_bytes: u64,
}

fn pair(range: &Range<u64>) -> [u64; 2] {
    [range.start, range.end]
}

impl<'a> Document<'a> {
    /// The document of these findings.
    pub fn new(path: &Path, looked: &'a Looked, findings: &'a Findings) -> Self {
        let worst = Severity::ALL.into_iter().find(|severity| findings.count(*severity) > 0);
        let mut counts: BTreeMap<_, _> = Severity::ALL
            .into_iter()
            .map(|severity| (plural(severity), findings.count(severity)))
            .collect();
        counts.insert("more", findings.more());
        let (kind, moving, looks, topics) = match looked {
            Looked::Pool { moving, looks, .. } => ("pool", Some(*moving), Some(*looks), None),
            Looked::Files { topics, .. } => {
                ("replicas", None, None, Some(topics.iter().map(topic).collect()))
            }
        };
        Self {
            path: path.display().to_string(),
            kind,
            status: worst.map_or("ok", Severity::word),
            moving,
            looks,
            looked: looked.numbers(),
            counts,
            topics,
            done: None,
            findings: findings.kept().iter().map(shown).collect(),
        }
    }

    /// The same, with what was done.
    pub fn done(self, done: &'a [String]) -> Self {
        Self { done: Some(done), ..self }
    }
}

fn plural(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "notes",
        Severity::Warning => "warnings",
        Severity::Error => "errors",
    }
}

fn shown(finding: &Finding) -> Shown<'_> {
    let Finding { severity, check, of, at, found, mend } = finding;
    Shown { severity: severity.word(), check, of, at: *at, found, mend }
}

fn topic(topic: &TopicKept) -> ShownTopic<'_> {
    let log = |log: &LogKept| ShownLog {
        log: log.log,
        ordered_entries: log.ordered.map(|(entries, _)| entries),
        ordered_position: log.ordered.map(|(_, position)| position),
        batches: log.batches,
        holes: log.holes,
        entries: pair(&log.entries),
        positions: pair(&log.positions),
        gaps: log.gaps.iter().map(gap).collect(),
    };
    let replica = |source: &SourceKept| ShownReplica {
        path: source.path.display().to_string(),
        source: source.source,
        files: source.files,
        batches: source.batches,
        bytes: source.bytes,
        covers: source.covers.iter().map(pair).collect(),
        torn_bytes: source.torn_bytes,
    };
    ShownTopic {
        name: &topic.name,
        created_ns: topic.created_ns,
        order: topic.order,
        logs: topic.logs.iter().map(log).collect(),
        replicas: topic.sources.iter().map(replica).collect(),
    }
}

fn gap(gap: &Gap) -> ShownGap {
    ShownGap {
        why: gap.why.word(),
        entries: pair(&gap.entries),
        positions: gap.positions.as_ref().map(pair),
    }
}

impl Looked {
    fn numbers(&self) -> BTreeMap<&'static str, u64> {
        match self {
            Self::Pool { tally, .. } => BTreeMap::from([
                ("topics", tally.topics),
                ("segments", tally.segments),
                ("segments_used", tally.segments_used),
                ("entries", tally.entries),
                ("waiting_slots", tally.slots),
                ("batches", tally.batches),
                ("bytes", tally.bytes),
                ("sessions", tally.sessions),
            ]),
            Self::Files { tally, topics } => BTreeMap::from([
                ("topics", topics.len() as u64),
                ("directories", tally.directories),
                ("files", tally.files),
                ("batches", tally.batches),
                ("bytes", tally.bytes),
            ]),
        }
    }

    fn sentence(&self) -> String {
        match self {
            Self::Pool { tally, moving, looks } => {
                let work = match (moving, looks) {
                    (false, _) => "the pool was at rest".to_owned(),
                    (true, 1) => "the pool was at work".to_owned(),
                    (true, looks) => {
                        format!("the pool was at work and was looked at {looks} times")
                    }
                };
                let Tally { topics, segments_used, segments, entries, slots, bytes, .. } = tally;
                format!(
                    "looked at {topics} topics, {segments_used} of {segments} segments, \
                     {} entries, {} waiting slots, {} of batches, {} sessions; {work}",
                    grouped(*entries),
                    grouped(*slots),
                    human_bytes(*bytes as f64),
                    grouped(tally.sessions),
                )
            }
            Self::Files { tally, topics } => format!(
                "looked at {} topics in {} directories, {} files of {}, {} batches",
                topics.len(),
                tally.directories,
                grouped(tally.files),
                human_bytes(tally.bytes as f64),
                grouped(tally.batches),
            ),
        }
    }

    /// What there is of each topic in replicas, a line for each log.
    fn topics(&self) -> String {
        let Self::Files { topics, .. } = self else { return String::new() };
        let mut text = String::new();
        for topic in topics {
            let logs = topic.logs.iter().map(|log| kept(topic, log));
            text.extend(logs);
            if topic.logs.is_empty() {
                text.push_str(&format!("topic {}: nothing is kept\n", topic.name));
            }
        }
        text
    }
}

fn kept(topic: &TopicKept, log: &LogKept) -> String {
    let count = |why: Missing| {
        let gaps = log.gaps.iter().filter(|gap| gap.why == why);
        gaps.map(|gap| gap.entries.end - gap.entries.start).sum::<u64>()
    };
    let missing: Vec<String> = [
        (count(Missing::Lost), "lost"),
        (count(Missing::Gone), "gone with files that are not here"),
        (count(Missing::Past), "lost with their pool"),
        (count(Missing::Damaged), "perhaps in damaged files"),
        (count(Missing::Unread), "perhaps in files that could not be read"),
        (count(Missing::Elsewhere), "elsewhere"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, why)| format!("{} {why}", grouped(count)))
    .collect();
    let missing = match missing.is_empty() {
        true => "none missing".to_owned(),
        false => format!("missing: {}", missing.join(", ")),
    };
    // A system at work has them in memory, and they come to disks.
    let missing = match count(Missing::Memory) {
        0 => missing,
        count => format!("{missing}; {} in memory alone, while its pool lives", grouped(count)),
    };
    let holes = match log.holes {
        0 => String::new(),
        holes => format!("{} holes, ", grouped(holes)),
    };
    format!(
        "topic {}, log {}: {} batches, {holes}entries {} to {}, positions {} to {}; {missing}\n",
        topic.name,
        log.log,
        grouped(log.batches),
        log.entries.start,
        log.entries.end,
        log.positions.start,
        log.positions.end,
    )
}

/// A line for each finding, what to do below all of them, and a line of counts.
pub fn text(looked: &Looked, findings: &Findings) -> String {
    let mut text = String::new();
    let mut mends: Vec<(&str, &str)> = Vec::new();
    for finding in findings.kept() {
        text.push_str(&format!("{finding}\n"));
        let mend = (finding.check, finding.mend);
        if !finding.mend.is_empty() && !mends.contains(&mend) {
            mends.push(mend);
        }
    }
    if findings.more() > 0 {
        text.push_str(&format!("and {} more like these\n", grouped(findings.more())));
    }
    if !mends.is_empty() {
        text.push_str("\nwhat to do:\n");
    }
    for (check, mend) in mends {
        text.push_str(&format!("  {check}: {mend}\n"));
    }
    let topics = looked.topics();
    for part in [topics.as_str(), &counts(looked, findings)] {
        let gap = if text.is_empty() || part.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}{part}"));
    }
    text
}

fn counts(looked: &Looked, findings: &Findings) -> String {
    let counts = Severity::ALL.map(|severity| {
        let count = findings.count(severity);
        let word = if count == 1 { severity.word() } else { plural(severity) };
        format!("{} {word}", grouped(count))
    });
    format!("{}: {}\n", counts.join(", "), looked.sentence())
}
