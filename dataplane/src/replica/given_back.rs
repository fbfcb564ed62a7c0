//! What topics' bounds let go of, also of copies that this broker kept in place of others and does
//! not any more: their files stay, and the bounds apply to them too.

use std::collections::BTreeMap;
use std::path::Path;

use landfall_layout::topic::TopicEntry;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::clock::{boot_ns, wall_ns};
use landfall_replica::FileError;
use landfall_replica::names::{source_directory, topic_directory};

use super::duties::log_of;
use super::keep::{self, Ages, Bounds};
use super::thread::Worker;

/// How often these files are looked at, nanoseconds: nothing is added to them.
const LOOK_EVERY_NS: u64 = 10_000_000_000;

/// How old the files are of copies that were given back.
#[derive(Default)]
pub struct GivenBack {
    looked_ns: u64,
    ages: BTreeMap<(u32, u8), Ages>,
}

impl Worker {
    /// Removes what topics' bounds let go of.
    pub fn let_go(&mut self, now: u64) {
        for i in 0..self.replicas.len() {
            if let Some(event) = self.replicas[i].let_go(&self.pool, now) {
                self.heard(event);
            }
        }
        if now.saturating_sub(self.given_back.looked_ns) >= LOOK_EVERY_NS {
            self.given_back.looked_ns = now;
            self.let_go_of_given_back(now);
        }
    }

    fn let_go_of_given_back(&mut self, now: u64) {
        let mut before = std::mem::take(&mut self.given_back.ages);
        let mut all = BTreeMap::new();
        for known in &self.topics {
            self.shared.calls.step(boot_ns());
            let Some(entry) = self.pool.topic(known.id) else { continue };
            let bounds = Bounds::of(&entry);
            if !bounds.is_set() {
                continue;
            }
            let topic = topic_directory(&self.data.directory, entry.name(), entry.created_ns);
            for source in BrokerId::all().filter(|source| !self.keeps(&entry, *source)) {
                let directory = source_directory(&topic, source);
                if !directory.is_dir() {
                    continue;
                }
                let of = (entry.id, source.raw());
                let ages: &mut Ages = all.entry(of).or_default();
                *ages = before.remove(&of).unwrap_or_default();
                // What memory still has stays.
                let needed = self.pool.oldest(known.id, log_of(&entry, source));
                if let Err(error) = remove_beyond(&directory, (bounds, needed), ages, now) {
                    self.shared.note(format!("topic {}: {error}", entry.name()));
                }
            }
        }
        self.given_back.ages = all;
    }

    /// Whether the bounds are a replica's to apply: this broker is its home, or stands in, though
    /// it cannot open it.
    fn keeps(&self, entry: &TopicEntry, source: BrokerId) -> bool {
        let mut homes = (0..entry.disk_replicas()).map(|copy| entry.replica_broker(source, copy));
        let open = self.replicas.iter().map(|replica| (replica.topic, replica.duty.source));
        let broken = self.broken.iter().map(|broken| (broken.topic, broken.duty.source));
        let is_it = |it: (TopicId, BrokerId)| it == (TopicId(entry.id), source);
        homes.any(|home| home == Some(self.me)) || open.chain(broken).any(is_it)
    }
}

fn remove_beyond(
    directory: &Path,
    (bounds, needed): (Bounds, u64),
    ages: &mut Ages,
    now: u64,
) -> Result<(), FileError> {
    let mut files = keep::files(directory)?;
    ages.tell(&mut files, now, wall_ns());
    let beyond = keep::beyond(&files, bounds, needed);
    keep::remove(directory, &files, beyond)
}
