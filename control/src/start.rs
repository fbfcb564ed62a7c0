//! Control as a whole: started on a pool, asked, stopped.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender as AskSender, channel, sync_channel};
use std::thread::JoinHandle;

use landfall_layout::geometry::CONTROL_BLOCK;
use landfall_layout::limits::{
    COPY_MOVE_NS, ELSEWHERE_GONE_NS, HEARTBEAT_LEASE_NS, SESSION_LEASE_NS,
};
use landfall_layout::topic::TopicEntry;
use landfall_pool::Pool;
use landfall_pool::bell::{Bell, Ringer, Role};
use landfall_pool::clock::{boot_ns, wall_ns};
use landfall_pool::counters::ErrorLog;
use landfall_pool::poison::Part;
use landfall_pool::stderr;
use landfall_replica::Silent;
use landfall_replica::ask::{PATIENT, SILENT};
use tokio::sync::oneshot;

use crate::cold::{self, ColdError};
use crate::directories::{silent, silent_at_start};
use crate::election::{Ballot, Candidate, Elected, NotElected};
use crate::keeper::{self, Graves, Keeper};
use crate::messages::{Ask, CHANNEL_MESSAGES, Reply, Sender, Shared, ToSequencer};
use crate::ordering::{self, Idle, SequencerThread};
use crate::recovery::{Had, Kept, UnknownTopic, recover};
use crate::taking_over::TakingOver;

/// Why control could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// This process was not elected.
    NotElected(NotElected),
    /// Another control claimed a higher epoch while this one was taking over.
    Overtaken {
        /// That epoch.
        epoch: u64,
    },
    /// A bell or a thread could not be made.
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The pool holds a topic that this program cannot serve.
    Topic(UnknownTopic),
    /// A data directory that has to be read does not answer.
    Silent(Silent),
    /// Topics cannot be brought back from data directories, or these say what holds no more.
    Cold(ColdError),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotElected(why) => why.fmt(f),
            Self::Overtaken { epoch } => {
                write!(f, "epoch {epoch} has begun: another control leads this pool")
            }
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Topic(error) => error.fmt(f),
            Self::Silent(silent) => write!(
                f,
                "{silent}; what it says of topics has to be read before this pool is served: mend \
                 it, or mount the disk where it answers, and start again"
            ),
            Self::Cold(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How the sequencer waits.
    pub idle: Idle,
    /// Core that the sequencer is pinned to.
    pub core: Option<usize>,
    /// How long a dead broker's segments are kept for publishers to read back, nanoseconds.
    pub kept_ns: u64,
    /// How long a dead broker's memory subscribers have to let go, nanoseconds.
    pub grace_ns: u64,
    /// How long the keeper of a copy on disk is away before another takes it over, nanoseconds.
    pub move_ns: u64,
    /// How long a broker of another host is silent until it counts as gone, nanoseconds.
    pub gone_ns: u64,
    /// How long a session is kept open that no broker is in, nanoseconds.
    pub session_lease_ns: u64,
    /// Goes on without what only directories have that were not named: it is lost, and they may not
    /// be restored from ever again.
    pub forgets_lost: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            idle: Idle::default(),
            core: None,
            kept_ns: SESSION_LEASE_NS,
            grace_ns: HEARTBEAT_LEASE_NS,
            move_ns: COPY_MOVE_NS,
            gone_ns: ELSEWHERE_GONE_NS,
            session_lease_ns: SESSION_LEASE_NS,
            forgets_lost: false,
        }
    }
}

/// A running control. Dropping it stops both threads and leaves the pool as it is.
pub struct Control {
    pool: Arc<Pool>,
    epoch: u64,
    /// Keeps the leader slot until both threads have ended.
    _ballot: Arc<Ballot>,
    /// Keeps controls of other pools from the data directories.
    _held: Vec<File>,
    shared: Arc<Shared>,
    asks: AskSender<Ask>,
    threads: Vec<JoinHandle<()>>,
}

impl Control {
    /// Takes the lead of a pool, if nobody has it.
    pub fn start(pool: Arc<Pool>, path: &Path, options: Options) -> Result<Self, StartError> {
        let candidate =
            Candidate::new(&pool, HEARTBEAT_LEASE_NS).map_err(StartError::NotElected)?;
        let elected = candidate.stand(&pool).map_err(|(_, why)| StartError::NotElected(why))?;
        Self::lead(pool, path, options, elected, &[])
    }

    /// Takes over as the one elected: its bells, everything that is in the pool, and the lead. On
    /// a pool that nobody ever led, topics come back from the data directories in `restore`.
    ///
    /// # Errors
    ///
    /// [`StartError::Overtaken`]: another control has claimed the lead since. What seemed to be
    /// wrong then is nothing to tell: this one compared its own tables, of when it was elected,
    /// with what directories say now.
    pub fn lead(
        pool: Arc<Pool>,
        path: &Path,
        options: Options,
        elected: Elected,
        restore: &[PathBuf],
    ) -> Result<Self, StartError> {
        let (claimed, epoch) = (Arc::clone(&pool), elected.epoch);
        Self::take_over(pool, path, options, elected, restore).map_err(|error| {
            match claimed.leads(epoch) {
                true => error,
                false => StartError::Overtaken { epoch: claimed.highest_epoch() },
            }
        })
    }

    fn take_over(
        pool: Arc<Pool>,
        path: &Path,
        options: Options,
        elected: Elected,
        restore: &[PathBuf],
    ) -> Result<Self, StartError> {
        let Elected { slot, epoch, from, ballot, has_seen_leader } = elected;
        pool.take_part(Part::System);
        let io = |what| move |source| StartError::Io { what, source };
        let bind = |role| Bell::bind(&pool, role).map_err(io("take the name of a bell"));
        let (keeper_bell, sequencer_bell) = (bind(Role::Keeper)?, bind(Role::Sequencer)?);
        let now = wall_ns();
        let earlier = ballot.earlier(&pool, slot);
        let taking_over = TakingOver::begin(&pool).map_err(io("start a thread"))?;
        pool.copy_tables(from);
        // What was noted outlives who noted it, as long as the pool does.
        if let Some(from) = from {
            ErrorLog::new(&pool, CONTROL_BLOCK).take_over(&pool, from);
        }
        // Nobody serves a pool while it is not known what directories say of it.
        let reads_all = from.is_none_or(|slot| pool.ended_by(slot) > 0);
        if reads_all && let Some(silent) = silent_at_start(restore).into_iter().next() {
            return Err(StartError::Silent(silent));
        }
        // A system that ran until now does without a disk that hangs.
        let bound = if reads_all { PATIENT } else { SILENT };
        if from.is_some() {
            let notes = cold::elsewhere::check(&pool, restore, bound, options.forgets_lost);
            let notes = notes.map_err(StartError::Cold)?;
            notes.iter().for_each(|note| stderr::note(format_args!("control: {note}")));
        }
        // Memory in which somebody was seen to serve is that of a system that runs, and brokers
        // wait for the next one to lead them.
        if from.is_some() && !has_seen_leader {
            cold::elsewhere::check_files(&pool, restore, bound).map_err(StartError::Cold)?;
        }
        let (waits, tell) = ((bound, from.is_none()), cold::hold::say_busy);
        let held = match cold::hold::hold_all(restore, &pool.uuid_text(), waits, tell) {
            Ok((held, notes)) => {
                notes.iter().for_each(|note| stderr::note(format_args!("control: {note}")));
                held
            }
            // Who takes a pool over that works takes over what its brokers have, too.
            Err(error) if from.is_some() => {
                stderr::note(format_args!("control: {error}"));
                Vec::new()
            }
            Err(error) => return Err(StartError::Cold(error)),
        };
        let mut had = Had::new();
        if from.is_none() && !restore.is_empty() {
            let errors = ErrorLog::new(&pool, CONTROL_BLOCK);
            let back = cold::restore(&pool, restore, options.forgets_lost, now);
            let back = back.map_err(StartError::Cold)?;
            had = back.had;
            for note in &back.news {
                stderr::note(format_args!("control: {note}"));
                errors.tell(&pool, now, note);
            }
            for note in &back.notes {
                stderr::note(format_args!("control: {note}"));
                errors.note(&pool, now, note);
            }
        }
        cold::end::go_on(&pool, from, restore, options.forgets_lost).map_err(StartError::Cold)?;
        let shared = Arc::new(Shared::new(pool.geometry().segments()));
        let kept = Kept { wall_ns: now, boot_ns: boot_ns(), kept_ns: options.kept_ns };
        let latest = earlier.iter().map(|(_, epoch)| *epoch).max();
        let may = (ballot.locks(), latest);
        let recovered = recover(&pool, epoch, &shared.last_entries, kept, may, &had)
            .map_err(StartError::Topic)?;
        // Who was deposed meanwhile found no segment, since it may take none.
        if !pool.leads(epoch) {
            return Err(StartError::Overtaken { epoch: pool.highest_epoch() });
        }
        let errors = ErrorLog::new(&pool, CONTROL_BLOCK);
        for note in &recovered.notes {
            stderr::note(format_args!("control: {note}"));
            errors.note(&pool, now, note);
        }
        let (graves, mut notes) = Graves::read(restore, bound);
        // Who leads now may have said some of it, and these tables know nothing of that.
        if !pool.leads(epoch) {
            return Err(StartError::Overtaken { epoch: pool.highest_epoch() });
        }
        let alive: Vec<TopicEntry> = cold::end::live(&pool).collect();
        notes.extend(graves.take_back(|name, created_ns| {
            let is_it = |entry: &TopicEntry| (entry.name(), entry.created_ns) == (name, created_ns);
            alive.iter().any(is_it) && pool.leads(epoch)
        }));
        for note in notes {
            stderr::note(format_args!("control: {note}"));
        }
        drop(taking_over);
        pool.beat_leader(boot_ns());
        if !pool.serve(epoch) {
            return Err(StartError::Overtaken { epoch: pool.highest_epoch() });
        }
        let ballot = Arc::new(ballot);
        let (to_sequencer, from_keeper) = sync_channel::<ToSequencer>(CHANNEL_MESSAGES);
        let (to_keeper, from_sequencer) = sync_channel(CHANNEL_MESSAGES);
        let (asks, asked) = channel();
        let mut to_sequencer = Sender::new(to_sequencer);
        recovered.commands.into_iter().for_each(|command| to_sequencer.send(command));
        // EDGE for-sequencer, release half: the thread that takes these is not started yet.
        shared.for_sequencer.store(true, Ordering::Release);
        let make_ringer = || Ringer::new(&pool).map_err(io("make a socket to ring bells with"));
        let sequencer = SequencerThread::new(
            Arc::clone(&pool),
            epoch,
            ordering::Wiring {
                shared: Arc::clone(&shared),
                bell: sequencer_bell,
                ringer: make_ringer()?,
                from_keeper,
                to_keeper: Sender::new(to_keeper),
                idle: options.idle,
            },
            recovered.sessions,
        );
        let keeper = Keeper::new(
            Arc::clone(&pool),
            path.display().to_string(),
            epoch,
            keeper::Wiring {
                shared: Arc::clone(&shared),
                bell: keeper_bell,
                ringer: make_ringer()?,
                to_sequencer,
                from_sequencer,
                asks: asked,
                kept_ns: options.kept_ns,
                grace_ns: options.grace_ns,
                move_ns: options.move_ns,
                gone_ns: options.gone_ns,
                session_lease_ns: options.session_lease_ns,
                ballot: Arc::clone(&ballot),
                earlier,
                graves: graves.clone(),
            },
            recovered.state,
        );
        let mut control =
            Self { pool, epoch, _ballot: ballot, _held: held, shared, asks, threads: Vec::new() };
        let core = options.core;
        control.spawn("sequencer", move || {
            pin(core);
            sequencer.run();
        })?;
        control.spawn("keeper", move || keeper.run())?;
        control.say_alive(restore, graves, alive)?;
        Ok(control)
    }

    fn spawn(
        &mut self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), StartError> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|source| StartError::Io { what: "start a thread", source })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Lets the data directories know that what came back is served, and what was deleted. A thread
    /// does it that nobody waits for: disks may be slow, and what is not said is said by the next
    /// control.
    fn say_alive(
        &self,
        restore: &[PathBuf],
        graves: Graves,
        alive: Vec<TopicEntry>,
    ) -> Result<(), StartError> {
        if restore.is_empty() {
            return Ok(());
        }
        let (pool, restore, epoch) = (Arc::clone(&self.pool), restore.to_vec(), self.epoch);
        let body = move || {
            let is_alive = |name: &str, created_ns: u64| {
                alive.iter().any(|entry| (entry.name(), entry.created_ns) == (name, created_ns))
            };
            let passed_on = graves.pass_on(is_alive, || pool.leads(epoch));
            for note in cold::end::say_alive(&pool, &restore).into_iter().chain(passed_on) {
                stderr::note(format_args!("control: {note}"));
            }
        };
        let thread = std::thread::Builder::new().name("restored".to_owned()).spawn(body);
        thread.map(drop).map_err(|source| StartError::Io { what: "start a thread", source })
    }

    /// The epoch it leads in.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Something to ask it with.
    pub fn asker(&self) -> io::Result<Asker> {
        let ringer = Arc::new(Ringer::new(&self.pool)?);
        Ok(Asker { pool: Arc::clone(&self.pool), asks: self.asks.clone(), ringer })
    }

    /// Why it cannot go on, once that is so.
    pub fn failure(&self) -> Option<String> {
        // Relaxed: a number on its own.
        let epoch = self.shared.deposed_by.load(Ordering::Relaxed);
        if epoch != 0 {
            return Some(format!("epoch {epoch} has begun: another control leads this pool"));
        }
        let ended = self.threads.iter().find(|thread| thread.is_finished())?;
        Some(format!("the {} thread ended", ended.thread().name().unwrap_or("other")))
    }

    /// Stops, leaving the pool as it is.
    pub fn stop(self) {
        drop(self);
    }

    /// Stops for good, as it seems: if all brokers have left, the data directories `data` say where
    /// logs ended, so that a new pool goes on there. What could not be said is a sentence.
    pub fn close(mut self, data: &[PathBuf]) -> Vec<String> {
        self.join();
        let silent = silent(data);
        let is_silent = |data: &PathBuf| silent.iter().any(|silent| silent.path == *data);
        let answer: Vec<PathBuf> = data.iter().filter(|data| !is_silent(data)).cloned().collect();
        let mut notes: Vec<String> = silent.iter().map(Silent::to_string).collect();
        notes.extend(cold::end::say_ended(&self.pool, self.epoch, &answer));
        notes
    }

    fn join(&mut self) {
        // Relaxed: nothing else is read on the strength of it.
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Ok(ringer) = Ringer::new(&self.pool) {
            ringer.ring(&self.pool, Role::Keeper);
            ringer.ring(&self.pool, Role::Sequencer);
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.join();
    }
}

/// Asks the keeper from any thread.
#[derive(Clone)]
pub struct Asker {
    pool: Arc<Pool>,
    asks: AskSender<Ask>,
    ringer: Arc<Ringer>,
}

impl Asker {
    /// The pool, to look at.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Asks and awaits the answer; `None` when control is stopping.
    pub async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).ok()?;
        self.ringer.ring(&self.pool, Role::Keeper);
        answer.await.ok()
    }

    /// Asks and waits for the answer, outside the runtime; `None` when control is stopping.
    pub fn ask_now<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).ok()?;
        self.ringer.ring(&self.pool, Role::Keeper);
        answer.blocking_recv().ok()
    }
}

/// Pins the calling thread; a core that cannot be had is said, and any other does.
fn pin(core: Option<usize>) {
    use nix::sched::{CpuSet, sched_setaffinity};
    let Some(core) = core else { return };
    let mut set = CpuSet::new();
    let pinned =
        set.set(core).and_then(|()| sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        stderr::note(format_args!("control: the sequencer is not pinned to core {core}: {error}"));
    }
}
