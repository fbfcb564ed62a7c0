//! What the replicator's thread does about files of topics that it has not open.

use landfall_pool::clock::boot_ns;
use landfall_replica::TopicFile;
use landfall_replica::names::topic_directory;

use super::deleted::{keep, remove_forgotten, remove_topic};
use super::thread::{Known, Worker};

/// How often files are tried to be removed that could not be, nanoseconds.
const FORGET_EVERY_NS: u64 = 1_000_000_000;
/// Topics of the directory that the pool does not have of which each has a sentence: the log of
/// errors has room for few more.
const STRANGERS_TOLD: usize = 16;

impl Worker {
    /// Removes what is left of topics that were deleted while this broker was away, or while it
    /// came. Goes on until this thread has each topic open that there are files of: only from then
    /// on no deletion ends without it.
    pub fn forget(&mut self) {
        if !self.forgets || boot_ns() < self.forget_at_ns {
            return;
        }
        self.pool.follow();
        let topics = &self.topics;
        let is_open = |name: &str, created_ns: u64| {
            topics.iter().any(|topic| topic.name == name && topic.created_ns == created_ns)
        };
        match remove_forgotten(&self.pool, &self.data.directory, is_open) {
            Ok(forgotten) => {
                self.forgets = forgotten.may_be_more;
                self.tell_strangers(forgotten.strangers);
                if !forgotten.removed.is_empty() {
                    self.shared.note(format!(
                        "removed the replicas of topics that were deleted meanwhile: {}",
                        forgotten.removed.join(", ")
                    ));
                }
            }
            Err(error) => self.forget_later(error.to_string()),
        }
    }

    /// What could not be removed is tried again, and not at every look.
    fn forget_later(&mut self, why: String) {
        self.shared.note(why);
        self.forgets = true;
        self.forget_at_ns = boot_ns() + FORGET_EVERY_NS;
    }

    /// Says which topics are here that the pool does not have, as they were when a leader first
    /// served it: once, and of many not each.
    fn tell_strangers(&mut self, mut strangers: Vec<String>) {
        if self.told {
            return;
        }
        self.told = self.pool.serving().is_some();
        let more = strangers.len().saturating_sub(STRANGERS_TOLD);
        strangers.truncate(STRANGERS_TOLD);
        if more > 0 {
            let directory = self.data.directory.display();
            strangers.push(format!("{directory} has {more} more topics that the pool has not"));
        }
        strangers.into_iter().for_each(|text| self.say(text));
    }

    pub(super) fn remove(&mut self, gone: &Known) {
        if let Err(error) = remove_topic(&self.data.directory, &gone.name, gone.created_ns) {
            self.forget_later(format!("topic {} was deleted: {error}", gone.name));
        }
    }

    /// Keeps the files of a topic that is not in the table any more, which does not show that it
    /// was deleted.
    pub(super) fn keep(&mut self, gone: &Known, reached: u32) {
        let directory = topic_directory(&self.data.directory, &gone.name, gone.created_ns);
        if directory.is_dir() {
            let kept =
                TopicFile::read(&directory).and_then(|file| keep(&directory, &file, reached));
            self.say(kept.unwrap_or_else(|error| error.to_string()));
        }
    }
}
