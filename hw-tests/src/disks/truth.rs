//! Which messages lie on which disk, as its files say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use landfall_layout::batch::Messages;
use landfall_layout::replica::Body;
use landfall_replica::Walk;
use landfall_replica::names::list;

use crate::Failure;
use crate::flow::name_of;

/// Numbers of the messages that lie on each disk in a record that holds.
#[derive(Clone, Debug, Default)]
pub struct Truth(BTreeMap<u8, BTreeSet<u64>>);

impl Truth {
    /// Reads the disks of so many brokers; `at`: where each is.
    pub fn read(brokers: u8, at: impl Fn(u8) -> std::path::PathBuf) -> Result<Self, Failure> {
        (0..brokers)
            .map(|disk| Ok((disk, messages(&at(disk))?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// On how many disks a message lies, without those that `not` says.
    pub fn copies(&self, n: u64, not: impl Fn(u8) -> bool) -> usize {
        self.0.iter().filter(|(disk, messages)| !not(**disk) && messages.contains(&n)).count()
    }
}

fn messages(disk: &Path) -> Result<BTreeSet<u64>, Failure> {
    let mut found = BTreeSet::new();
    let listing = if disk.is_dir() { Some(list(disk)?) } else { None };
    let topics = listing.into_iter().flat_map(|listing| listing.topics);
    let files = topics.flat_map(|topic| topic.sources).flat_map(|source| source.files);
    for (_, path) in files {
        // One whose header does not hold says nothing.
        let Ok(mut walk) = Walk::open(&path) else { continue };
        while let Some(record) = walk.next()? {
            if let Body::Batch { preamble, payload, .. } = record.body {
                let names = Messages::new(payload, preamble.count);
                found.extend(names.filter_map(|it| name_of(it.payload)).map(|(_, n)| n));
            }
        }
    }
    Ok(found)
}
