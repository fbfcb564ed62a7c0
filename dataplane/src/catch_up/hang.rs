//! A disk of this broker's own that does not answer: the threads that read there are left in their
//! calls, others take their place, and what they were at is done without that directory.
//!
//! Others' directories have threads of their own, and nobody waits for those for long. This
//! broker's own is read in place, which costs no change of thread for each batch, until it hangs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use landfall_layout::frame::From;
use landfall_replica::watch::{self, Moves};
use landfall_replica::{Silent, ask, away};

use super::{CatchUp, Lookup, Shared, Task, locked};
use crate::conns::Token;

/// A step in this broker's own directory that does not end for this long: it hangs. Less than a
/// handshake may take, by as much as it then takes to know that without this broker's own files.
const STILL_NS: u64 = 1_500_000_000;
/// What one look counts at most: who looks was stopped as well, if it is longer.
const LOOK_NS: u64 = 500_000_000;
/// How often others' directories are looked at for the number that says that their disk is there.
const WATCH_NS: u64 = 1_000_000_000;

/// What a thread is at, to be done by another one.
#[derive(Clone)]
enum Kept {
    Start { token: Token, from: From, logs: Vec<Lookup> },
    Read { token: Token, log: usize },
}

/// A thread, as it and the loop see it.
#[derive(Default)]
pub struct Work {
    /// Tasks that it began.
    tasks: u64,
    kept: Option<Kept>,
    /// Its steps in directories that are read in place.
    moves: Option<Moves>,
    /// Nobody waits for it any more.
    is_left: bool,
}

impl Work {
    /// Its thread began.
    pub fn begin(&mut self) {
        self.moves = Some(watch::moves());
    }

    /// Its thread is at a task now.
    pub fn take(&mut self, task: &Task) {
        self.tasks += 1;
        self.kept = Some(match task {
            Task::Start { token, from, logs } => {
                Kept::Start { token: *token, from: *from, logs: logs.clone() }
            }
            Task::Read { token, log, .. } => Kept::Read { token: *token, log: *log },
        });
    }

    /// It has done its task; whether somebody waits for that.
    pub fn end(&mut self) -> bool {
        self.kept = None;
        !self.is_left
    }

    /// The task and the step that it is at in a directory that is read in place.
    fn step(&self) -> Option<(u64, u64)> {
        self.kept.as_ref()?;
        Some((self.tasks, self.moves.as_ref()?.in_place()?))
    }
}

/// What the loop saw of a thread.
#[derive(Default)]
pub struct Seen {
    step: Option<(u64, u64)>,
    /// For how long it has been seen so.
    for_ns: u64,
}

impl Seen {
    fn look(&mut self, step: Option<(u64, u64)>, passed_ns: u64) -> bool {
        let is_same = step.is_some() && step == self.step;
        *self = Self { step, for_ns: if is_same { self.for_ns + passed_ns } else { 0 } };
        self.for_ns >= STILL_NS
    }
}

impl Shared {
    /// How a thread looks at its next task's directories.
    pub fn ask_as_told(&self) {
        // Relaxed: a hint. One that is late is seen to hang as well.
        ask::ask_own_too(self.left.load(Ordering::Relaxed) > 0);
    }

    /// A thread that was left came back: the directory answers again.
    pub fn came_back(&self) {
        self.left.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins a thread.
pub fn begin(
    shared: &Arc<Shared>,
    work: &Arc<std::sync::Mutex<Work>>,
) -> io::Result<JoinHandle<()>> {
    let (shared, work) = (shared.clone(), work.clone());
    let builder = std::thread::Builder::new().name("catch-up".to_owned());
    builder.spawn(move || shared.work(&work))
}

impl CatchUp {
    /// Leaves threads that this broker's own directory does not answer, and has others do what
    /// those were at. Logs of subscribers that have to ask again, and a sentence for people.
    pub fn leave_hung(&mut self, now_ns: u64) -> (Vec<(Token, usize)>, Option<String>) {
        let passed = now_ns.saturating_sub(self.looked_ns).min(LOOK_NS);
        self.looked_ns = now_ns;
        if now_ns.saturating_sub(self.watched_ns) >= WATCH_NS {
            self.watched_ns = now_ns;
            // This broker's own is named by its replicator, in this process.
            self.data.iter().skip(1).for_each(|data| away::watch(data));
        }
        let (mut again, mut told) = (Vec::new(), None);
        for at in 0..self.works.len() {
            let (old, seen) = &mut self.works[at];
            let old = Arc::clone(old);
            let mut old = locked(&old);
            if !seen.look(old.step(), passed) {
                continue;
            }
            let fresh = Arc::default();
            let Ok(thread) = begin(&self.shared, &fresh) else { continue };
            let Some(kept) = old.kept.take() else { continue };
            self.threads.push(thread);
            self.works[at] = (fresh, Seen::default());
            old.is_left = true;
            if self.shared.left.fetch_add(1, Ordering::Relaxed) == 0 {
                told = self.data.first().map(|own| {
                    let silent = Silent::new(own.clone());
                    format!("readers are served without this broker's own files: {silent}")
                });
            }
            match kept {
                Kept::Start { token, from, logs } => {
                    self.submit(Task::Start { token, from, logs });
                }
                Kept::Read { token, log } => again.push((token, log)),
            }
        }
        (again, told)
    }

    /// This broker's own directory, where it does not answer.
    pub fn silent(&self) -> Option<Silent> {
        let path = self.data.first()?.clone();
        (self.shared.left.load(Ordering::Relaxed) > 0).then_some(Silent::new(path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use landfall_layout::BrokerId;
    use landfall_pool::disk::plain::Plain;
    use landfall_replica::lookup::Start;
    use landfall_replica::merge::Wanted;
    use landfall_replica::names::{replica_file, source_directory, topic_directory};
    use nix::sys::stat::Mode;

    use super::super::Done;
    use super::*;
    use crate::replica::Data;
    use crate::replica::rig::{CREATED_NS, Source};

    /// This broker's own copy is where nobody answers; another broker's is whole.
    #[test]
    fn readers_are_served_from_others_while_this_brokers_own_disk_hangs() {
        let root = std::env::temp_dir().join(format!("catch-up-hangs-{}", std::process::id()));
        let (own, other) = (root.join("own"), root.join("other"));
        let source = BrokerId::new(0).unwrap();
        let theirs = source_directory(&topic_directory(&own, "t", CREATED_NS), source);
        fs::create_dir_all(&theirs).unwrap();
        let hung = replica_file(&theirs, 0);
        nix::unistd::mkfifo(&hung, Mode::S_IRWXU).unwrap();
        let mut log = Source::new(crate::rig::pool(), 0);
        for _ in 0..3 {
            let entry = log.place(&[7; 100], true);
            log.append(&entry);
        }
        log.publish();
        let mut worker = log.worker(Data::new(&other), Box::new(Plain), 1).unwrap();
        worker.look_at_table(1);
        while worker.round(1) {}
        ask::here(&own);
        let data = vec![own.clone(), other];
        let mut catch_up = CatchUp::start(data.clone()).unwrap();
        let (sources, name) = (vec![source], "t".to_owned());
        let (created_ns, stood_in) = (CREATED_NS, None);
        let wanted = Wanted { data, name, created_ns, sources, is_shared: false, stood_in };
        let lookup = Lookup { log: 0, wanted, until: 3, last_skip: None, is_bounded: false };
        let from = From::Position(4);
        let token = Token(0);
        catch_up.submit(Task::Start { token, from, logs: vec![lookup] });
        let (mut now, mut told) = (1, Vec::new());
        let mut found = Vec::new();
        while found.is_empty() {
            now += LOOK_NS / 5;
            told.extend(catch_up.leave_hung(now).1);
            found = catch_up.take_done();
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let [Done::Start { looked: Ok(looked), .. }] = &found[..] else { panic!("nothing found") };
        assert_eq!(looked.starts, vec![(0, Start { index: 1, position: 3 })]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&own.display().to_string()), "{told:?}");
        assert_eq!(catch_up.silent().map(|silent| silent.path), Some(own));
        // It answers again.
        while catch_up.silent().is_some() {
            drop(fs::OpenOptions::new().read(true).write(true).open(&hung));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(catch_up.take_done().is_empty(), "what was done twice");
        fs::remove_dir_all(&root).unwrap();
    }
}
