//! What has to hold after a run, whatever went wrong in it.

use std::path::Path;

use landfall_verify::Severity;

use super::fault::{Fault, Kind, Page, Space, Timed};
use super::scene::Scene;
use super::story::{DISKS, MESSAGES, TOPICS};
use super::troupe::Troupe;
use crate::Failure;
use crate::history::{Event, Promises, Report, check, file};
use crate::sweep::client::patiently;

/// What the faults of a run excuse, and what they make stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Batches in the pool that may have changed where there is no other copy.
    pub spoilt: u64,
    /// Batches in the pool that may have changed before there was another copy.
    pub spoilt_early: u64,
    /// The pool was lost: what was not durable may be gone, and is told of.
    pub pool_lost: bool,
    /// Files were damaged.
    pub damaged: bool,
    /// A client made batches that nobody may believe.
    pub hostile: bool,
    /// No reader reaches both brokers over tcp.
    pub no_tcp: bool,
    /// Parts of the pool were damaged.
    pub pool_damaged: bool,
}

impl Allowed {
    /// What these faults allow in that scene.
    pub fn of(scene: &Scene, faults: &[Timed]) -> Self {
        let mut allowed = Self::default();
        for timed in faults {
            match &timed.fault {
                Fault::Cold { .. } | Fault::Pool { page: Page::Table, .. } => {
                    allowed.pool_lost = true;
                }
                Fault::Pool { page: Page::Payload, .. } => {
                    allowed.pool_damaged = true;
                    match scene.replicas {
                        0 | 1 => allowed.spoilt += 1,
                        _ => allowed.spoilt_early += 1,
                    }
                }
                Fault::Space { space, .. } if *space != Space::Pid => allowed.no_tcp = true,
                fault if fault.kind() == Kind::Damage => allowed.damaged = true,
                fault if fault.kind() == Kind::Hostile => allowed.hostile = true,
                _ => {}
            }
        }
        allowed
    }
}

/// What the notes of a topic's clients say.
fn events_of(notes: &Path, topic: usize) -> Result<Vec<Event>, Failure> {
    let prefix = format!("{topic}-");
    let mut events = Vec::new();
    for entry in std::fs::read_dir(notes)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".json") {
            events.extend(file::read(&path)?);
        }
    }
    Ok(events)
}

/// The history of a topic is what was promised.
pub(super) fn topic(
    scene: &Scene,
    notes: &Path,
    topic: usize,
    allowed: &Allowed,
) -> Result<Report, Failure> {
    let mut events = events_of(notes, topic)?;
    if allowed.pool_lost {
        events.push(Event::PoolLost);
    }
    let report = check(Promises { order: scene.order, repeats: true }, &events);
    ensure!(report.is_ok(), "the history is not what was promised: {report}");
    ensure!(report.finished >= 2, "two readers were to see everything: {report}");
    // Everything is kept, in memory or on disk: what is missed is what the faults made so.
    let may_miss = allowed.spoilt > 0 || allowed.pool_lost || allowed.hostile;
    // What changed in memory before any copy had it was not acknowledged, and that is told: its
    // publisher may have sent it again since.
    let early = allowed.spoilt_early * MESSAGES;
    let unacknowledged = report.sent.saturating_sub(report.acked).max(early) * report.readers;
    let most = if allowed.pool_damaged { unacknowledged } else { 0 };
    ensure!(may_miss || report.missed <= most, "the topic keeps everything: {report}");
    let spoilt = allowed.spoilt > 0 || allowed.hostile;
    ensure!(spoilt || report.corrupt == 0, "batches were corrupt for readers: {report}");
    Ok(report)
}

/// Messages that control counts in each topic.
pub(super) fn counts(troupe: &mut Troupe) -> Result<[u64; TOPICS.len()], Failure> {
    troupe.meanwhile("asking for the topics", |client| {
        let topics = patiently(|| client.topics())?;
        let count = |name| {
            let topic = topics.iter().find(|topic| topic.name == name);
            topic
                .map(|topic| topic.messages)
                .ok_or_else(|| Failure::new(format!("topic {name} is not there any more")))
        };
        Ok([count(TOPICS[0])?, count(TOPICS[1])?])
    })
}

/// Control counts no messages that nobody sent.
pub(super) fn count(report: &Report, counted: u64, allowed: &Allowed) -> Result<(), Failure> {
    // A library sends again what it has no receipt for, and a hostile client what it likes.
    let most = report.attempts.saturating_mul(if allowed.hostile { 64 } else { 4 });
    ensure!(counted <= most, "control counts {counted} messages, where {report}");
    Ok(())
}

/// The pool and the files fit together, when nobody is at work.
pub(super) fn look(folder: &Path, scene: &Scene, allowed: &Allowed) -> Result<(), Failure> {
    if !allowed.pool_damaged && !allowed.hostile {
        let path = folder.join("pool");
        let pool = landfall_verify::read_only(&path).map_err(|why| {
            Failure::new(format!("{} cannot be looked at: {why}", path.display()))
        })?;
        let found = landfall_verify::look(&pool).findings;
        judge_findings("the pool is not whole", found.kept())?;
    }
    if scene.replicas > 1 && !allowed.damaged {
        let kept = landfall_verify::replicas::look(&folder.join(DISKS))?;
        judge_findings("the replicas are not whole", kept.findings.kept())?;
    }
    Ok(())
}

fn judge_findings(what: &str, found: &[landfall_verify::Finding]) -> Result<(), Failure> {
    let errors = found.iter().filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<String> = errors.map(|finding| format!("\n  {finding}")).collect();
    ensure!(errors.is_empty(), "{what}: {}", errors.concat());
    Ok(())
}
