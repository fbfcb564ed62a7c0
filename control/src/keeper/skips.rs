//! What logs passed over when pools were lost, for directories that were made since.
//!
//! A broker that is given another disk makes a topic's directory there. Where it can read no other
//! one, it does not know what the topic's logs passed over, and its directory may be all that is
//! left some day: what nobody ever wrote would be told of as lost. Control reads the directories
//! that it was given, and says in each what it has not got.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use landfall_layout::TopicId;
use landfall_layout::limits::LOGS_PER_TOPIC;
use landfall_pool::Pool;
use landfall_pool::stderr;
use landfall_replica::names::topic_directory;
use landfall_replica::there::Places;
use landfall_replica::{Skips, TopicFile, ask};

/// The thread that tells directories, from when there is something to tell.
#[derive(Debug, Default)]
pub struct TellSkips(Option<Sender<(String, u64)>>);

impl TellSkips {
    /// A broker has written what the topic is into its directory, which may be a new one.
    pub fn tell(&mut self, data: &[PathBuf], name: &str, created_ns: u64) {
        if data.is_empty() {
            return;
        }
        let sender = self.0.get_or_insert_with(|| {
            let (sender, topics) = channel();
            let data = data.to_vec();
            let thread = std::thread::Builder::new().name("skips".to_owned());
            // Without a thread nobody is told: what is said there is no less than before.
            let _ = thread.spawn(move || work(&data, &topics));
            sender
        });
        let _ = sender.send((name.to_owned(), created_ns));
    }
}

/// Whether some log of the topic passed something over.
pub fn has_passed(pool: &Pool, topic: TopicId) -> bool {
    let chain = |log| pool.chain(topic, log).and_then(|chain| chain.skipped());
    (0..LOGS_PER_TOPIC).any(|log| chain(log).is_some())
}

fn work(data: &[PathBuf], topics: &Receiver<(String, u64)>) {
    for (name, created_ns) in topics {
        let mut said = Vec::new();
        for data in data {
            let topic = topic_directory(data, &name, created_ns);
            let place = topic.clone();
            // One that does not answer, or has no such topic, says nothing and is not told.
            if let Ok(Ok(file)) = ask(data, move || TopicFile::read(&place)) {
                said.push((data, topic, file));
            }
        }
        let mut all: BTreeMap<usize, Skips> = BTreeMap::new();
        // Of a log that began before a directory was made, though nobody knew of it, only those
        // from before know where.
        let late = said.iter().flat_map(|(_, _, file)| file.made_at.keys());
        let late: BTreeSet<usize> = late.copied().collect();
        for (_, _, file) in &said {
            for log in late.iter().chain(file.skipped.keys()) {
                let skips = file.skips_of(*log);
                if !skips.ranges().is_empty() {
                    all.entry(*log).or_default().join(&skips);
                }
            }
        }
        for (data, topic, file) in said {
            if file.deleted || file.skipped == all {
                continue;
            }
            let word = Places { skipped: all.clone(), ..Places::default() };
            let told = ask(data, move || word.tell(&topic));
            if let Err(error) = told.unwrap_or_else(|silent| Err(silent.into())) {
                stderr::note(format_args!(
                    "topic {name}: {error}; what its logs passed over is not said there, and is \
                     told of as lost should that directory be all that is left"
                ));
            }
        }
    }
}
