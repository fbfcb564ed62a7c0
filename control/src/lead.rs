//! The process: its pool, its signals, its sockets.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_control::election::{Candidate, Elected, NotElected};
use landfall_control::http::{Hosts, Listeners, StandingBy, router, serve, standing_by};
use landfall_control::random::random_uuid;
use landfall_control::{Control, Options};
use landfall_pool::Pool;
use landfall_pool::clock::{boot_ns, wall_ns};
use landfall_pool::owner::own_what_is_made;
use landfall_pool::pool::Shape;
use landfall_pool::process::{self, ignores_hangup, survive_file_size};
use landfall_pool::stderr;
use landfall_replica::once::each_once;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch::{Sender, channel};
use tokio::task::AbortHandle;

use crate::flags::Flags;
use crate::leavers;

/// How often the process looks whether its threads are well.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Signals within this time are one.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a standby looks whether it may lead.
const STAND_EVERY: Duration = Duration::from_millis(20);

/// Descriptors without which control cannot begin: the runtime's poll and what wakes it, the pool
/// and its locks, sockets, and a few files at a time.
const FILES_LEAST: usize = 32;

/// Runs until a signal, or until it cannot go on; then the sentence says why.
pub fn run(flags: Flags) -> Result<(), String> {
    if let Some(parent) = flags.parent {
        die_with(parent)?;
    }
    own_what_is_made(flags.group)?;
    survive_file_size();
    raise_descriptors()?;
    find_room().map_err(|error| {
        format!(
            "open {FILES_LEAST} files, the least control begins with: {error}; raise `ulimit -n`"
        )
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start the runtime: {error}"))?;
    let led = runtime.block_on(lead(&Arc::new(flags)));
    // What a signal ended in the middle may wait for another process: the end of this one ends it.
    runtime.shutdown_background();
    led
}

/// As many descriptors as the system lets this process have: each connection takes one.
fn raise_descriptors() -> Result<(), String> {
    let limit = Resource::RLIMIT_NOFILE;
    let raised = getrlimit(limit).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(limit, hard, hard),
        false => Ok(()),
    });
    raised.map_err(|error| format!("raise the bound on descriptors: {error}"))
}

/// Looks whether there are descriptors for the runtime: where it gets no sockets for signals it can
/// only panic.
fn find_room() -> std::io::Result<()> {
    let open = |_| File::open("/dev/null");
    (0..FILES_LEAST).map(open).collect::<Result<Vec<_>, _>>().map(drop)
}

fn die_with(parent: u32) -> Result<(), String> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(|error| format!("ask to die with process {parent}: {error}"))?;
    let actual = std::os::unix::process::parent_id();
    if actual != parent {
        return Err(format!("process {parent} is gone; this one's parent is {actual}"));
    }
    Ok(())
}

async fn lead(flags: &Arc<Flags>) -> Result<(), String> {
    // Before anything takes long, so that a signal is never the default death.
    let mut stop = Stop::new()?;
    let asked = Arc::clone(flags);
    let pool = Arc::new(stop.unless_signalled(move || touched_pool(&asked)).await?);
    if stop.asked {
        return Ok(());
    }
    let unix = flags.unix.as_deref();
    let listeners = Listeners::bind(&flags.listen, unix, Hosts::here(&flags.host))
        .await
        .map_err(|e| e.to_string())?;
    let options = Options {
        idle: flags.idle,
        core: flags.core,
        kept_ns: flags.kept_ms.saturating_mul(1_000_000),
        grace_ns: flags.grace_ms.saturating_mul(1_000_000),
        move_ns: flags.copy_move_ms.saturating_mul(1_000_000),
        session_lease_ns: flags.session_lease_ms.saturating_mul(1_000_000),
        forgets_lost: flags.forget_lost,
        ..Options::default()
    };
    let Some(elected) = elect(&pool, flags, &listeners, stop.signalled()).await? else {
        return Ok(());
    };
    let (asked, ended) = (Arc::clone(flags), Arc::clone(&pool));
    let begin = move || {
        // What a directory says counts once, however often it is named.
        let data = each_once(&asked.restore);
        let control = Control::lead(pool, &asked.pool, options, elected, &data)
            .map_err(|error| error.to_string())?;
        Ok((control, data))
    };
    let (control, data) = stop.unless_signalled(begin).await?;
    let asker = control.asker().map_err(|error| format!("make a socket: {error}"))?;
    let address = listeners.address().map_err(|error| format!("ask for the address: {error}"))?;
    say_ready(&format!("http://{address}"))?;
    let mut failure = None;
    let until = async {
        tokio::select! {
            () = stop.signalled() => {}
            sentence = watch(&control) => failure = Some(sentence),
        }
    };
    serve_until(listeners, router(asker), until).await?;
    match failure {
        Some(sentence) => Err(sentence),
        None => {
            tokio::select! {
                () = leavers::gone(&ended) => {}
                () = stop.again() => {}
            }
            for note in control.close(&data) {
                stderr::note(format_args!("landfall-control: {note}"));
            }
            Ok(())
        }
    }
}

async fn serve_until(
    listeners: Listeners,
    router: axum::Router,
    until: impl Future<Output = ()>,
) -> Result<(), String> {
    serve(listeners, router, until).await.map_err(|error| format!("serve HTTP: {error}"))
}

fn say_ready(address: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    writeln!(out, "ready {address}")
        .and_then(|()| out.flush())
        .map_err(|error| format!("say ready on stdout: {error}"))
}

/// Waits until control cannot go on.
async fn watch(control: &Control) -> String {
    loop {
        if let Some(sentence) = control.failure() {
            return sentence;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How long a control that is told to stop before it serves still tries to, so that it ends in good
/// order: where logs ended was taken back, and has to be said again.
const LAST_TRY: Duration = Duration::from_secs(3);

/// The signals that end the process in order.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal is gone; none under nohup.
    hangup: Option<Signal>,
    /// One came.
    asked: bool,
}

async fn hung_up(hangup: Option<&mut Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

impl Stop {
    fn new() -> Result<Self, String> {
        let take = |kind| signal(kind).map_err(|error| format!("take a signal: {error}"));
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: if ignores_hangup() { None } else { Some(take(SignalKind::hangup())?) },
            asked: false,
        })
    }

    /// Waits until one came.
    async fn signalled(&mut self) {
        if self.asked {
            return;
        }
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hung_up(self.hangup.as_mut()) => {}
        }
        self.asked = true;
    }

    /// Waits until another one comes from somebody who has lost patience: nobody is to be waited
    /// for any more. Two that come together are one.
    async fn again(&mut self) {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            self.asked = false;
            self.signalled().await;
        }
    }

    /// Does what can take long, as it does where it waits for another process, on a thread of its
    /// own. A signal does not end it at once: see [`LAST_TRY`]. What is not done by then is left as
    /// a death of the process would leave it, from where the next control goes on.
    async fn unless_signalled<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let mut task = tokio::task::spawn_blocking(work);
        let done = tokio::select! {
            done = &mut task => Ok(done),
            () = self.signalled() => tokio::time::timeout(LAST_TRY, &mut task).await,
        };
        match done {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(format!(
                "told to stop before it served, and not ready to within {} s: directories may not \
                 say any more where logs ended; the next control goes on with what this one began",
                LAST_TRY.as_secs()
            )),
        }
    }
}

/// How long another election takes when nothing is wrong is microseconds.
const BUSY_TOLD_NS: u64 = 1_000_000_000;
const BUSY_MOST_NS: u64 = 10_000_000_000;

/// An election of another process that does not end.
#[derive(Default)]
struct Busy {
    since_ns: Option<u64>,
    told: bool,
}

impl Busy {
    /// Says it when it takes long. One that is no standby does not wait without end.
    fn wait(&mut self, is_standby: bool, now: u64) -> Result<(), String> {
        let waited = now.saturating_sub(*self.since_ns.get_or_insert(now));
        let text = format!(
            "another process has kept the lock of the election (byte 0 of the pool's file) for {} \
             s, as a control does that is stopped; lslocks shows which: let it go on, or end it",
            waited / 1_000_000_000
        );
        if waited > BUSY_MOST_NS && !is_standby {
            return Err(text);
        }
        if waited > BUSY_TOLD_NS && !self.told {
            self.told = true;
            stderr::note(format_args!("landfall-control: waiting: {text}"));
        }
        Ok(())
    }
}

/// Tells whoever asks that this control stands by, until it is dropped.
struct Answering {
    task: AbortHandle,
    knows: Sender<StandingBy>,
}

impl Answering {
    fn begin(listeners: &Listeners, knows: StandingBy) -> Result<Self, String> {
        let shared = listeners.share().map_err(|error| format!("listen twice: {error}"))?;
        let (knows, told) = channel(knows);
        let task = tokio::spawn(serve(shared, standing_by(told), std::future::pending()));
        Ok(Self { task: task.abort_handle(), knows })
    }

    /// Something else by now, perhaps.
    fn tell(&self, knows: StandingBy) {
        self.knows.send_if_modified(|told| {
            let is_new = *told != knows;
            *told = knows;
            is_new
        });
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Stands for election: once, or as standby until it is elected. `None`: a signal came first.
async fn elect(
    pool: &Pool,
    flags: &Flags,
    listeners: &Listeners,
    signalled: impl Future<Output = ()>,
) -> Result<Option<Elected>, String> {
    let mut signalled = std::pin::pin!(signalled);
    let silent_ns = flags.silent_ms.saturating_mul(1_000_000);
    let http = listeners.address().map_err(|error| format!("ask for the address: {error}"))?;
    let candidate = Candidate::new(pool, silent_ns).map_err(|error| error.to_string())?;
    let mut candidate = candidate.reached_at(http);
    let mut told: Option<Answering> = None;
    let mut busy = Busy::default();
    loop {
        let (again, why) = match candidate.stand(pool) {
            Ok(elected) => return Ok(Some(elected)),
            Err(refused) => refused,
        };
        candidate = again;
        let may_pass = why.may_pass();
        let is_damaged = matches!(why, NotElected::Damaged(_));
        if is_damaged || !flags.standby && !may_pass {
            return Err(why.to_string());
        }
        match why {
            NotElected::Busy => busy.wait(flags.standby, boot_ns())?,
            _ => busy = Busy::default(),
        }
        let stands_by = flags.standby || matches!(why, NotElected::NoSlot { .. });
        if stands_by && !matches!(why, NotElected::Busy) {
            let knows = StandingBy { why: why.while_standing_by(), leader: why.leader() };
            match &told {
                Some(told) => told.tell(knows),
                None => {
                    stderr::note(format_args!("landfall-control: standing by: {}", knows.why));
                    told = Some(Answering::begin(listeners, knows)?);
                }
            }
        }
        tokio::select! {
            () = &mut signalled => return Ok(None),
            () = tokio::time::sleep(STAND_EVERY) => {}
        }
    }
}

/// Who keeps the lock of a file, in words.
fn keeper(path: &Path) -> String {
    let unknown = || "a process that lslocks shows".to_owned();
    process::holder(path).map_or_else(unknown, |holder| holder.to_string())
}

/// Locks the pool's file while it is looked at or made, which takes seconds at most.
fn lock(mut file: File, path: &Path) -> Result<Flock<File>, String> {
    let began = boot_ns();
    let mut told = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EWOULDBLOCK)) => file = again,
            Err((_, error)) => return Err(format!("lock {}: {error}", path.display())),
        }
        if !told && boot_ns() - began > BUSY_TOLD_NS {
            told = true;
            stderr::note(format_args!(
                "landfall-control: waiting: {} keeps the lock of {}, as a control does that makes \
                 the pool",
                keeper(path),
                path.display()
            ));
        }
        std::thread::sleep(STAND_EVERY);
    }
}

/// The pool, made if the memory is all new. Two controls that start together must not both find
/// it so: a lock on the file is held meanwhile.
fn open_pool(flags: &Flags) -> Result<Pool, String> {
    let path = &flags.pool;
    let shown = path.display();
    let is_new = !path.exists();
    if is_new && flags.existing {
        return Err(format!(
            "{shown}: there is no pool any more: somebody removed it. What its brokers had in it \
             is gone; stop them, and start without --existing and with --restore for each data \
             directory"
        ));
    }
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| format!("open {shown}: {error}"))?;
    check_owner(&file, path)?;
    let _lock = lock(file, path)?;
    create_or_attach(flags, path).inspect_err(|_| {
        if is_new {
            // Nothing is left behind of what could not be made; the sentence matters more.
            let _ = std::fs::remove_file(path);
        }
    })
}

/// The pool, with its pages there if that is asked for.
fn touched_pool(flags: &Flags) -> Result<Pool, String> {
    let pool = open_pool(flags)?;
    if let Some(base) = &flags.sockets {
        pool.keep_sockets_in(base).map_err(|error| format!("keep sockets: {error}"))?;
    }
    if flags.prefault {
        pool.touch().map_err(|error| error.to_string())?;
    }
    Ok(pool)
}

/// Refuses a file that another user has put there: that one could read and write all of it.
fn check_owner(file: &File, path: &Path) -> Result<(), String> {
    let found = file.metadata().map_err(|error| format!("look at {}: {error}", path.display()))?;
    let (user, owner) = (nix::unistd::geteuid().as_raw(), found.uid());
    if !found.is_file() || owner == user || owner == 0 {
        return Ok(());
    }
    Err(format!(
        "{} belongs to user {owner}, and this process is user {user}: start control as that user, \
         give the file to this one with chown, or name another file",
        path.display()
    ))
}

fn create_or_attach(flags: &Flags, path: &Path) -> Result<Pool, String> {
    let shape = Shape {
        pool_bytes: flags.pool_bytes,
        segment_bytes: flags.segment_bytes,
        sessions: flags.sessions,
        coherence: flags.coherence,
        uuid: random_uuid().map_err(|error| format!("read /dev/urandom: {error}"))?,
        now_ns: wall_ns(),
        sparse: flags.sparse,
    };
    let pool = Pool::create_or_attach(path, shape).map_err(|error| error.to_string())?;
    let header = pool.header();
    let is_other = header.uuid != shape.uuid
        && (header.pool_bytes, header.segment_bytes, header.sessions, header.coherence)
            != (shape.pool_bytes, shape.segment_bytes, shape.sessions, shape.coherence.raw());
    if is_other {
        stderr::note(format_args!(
            "landfall-control: {} holds a pool already, of {} bytes in segments of {} with {} \
             sessions; it is used as it is",
            path.display(),
            header.pool_bytes,
            header.segment_bytes,
            header.sessions
        ));
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_that_does_not_end_is_told_of_and_only_a_standby_waits_on() {
        let second = 1_000_000_000;
        for is_standby in [false, true] {
            let mut busy = Busy::default();
            assert_eq!((busy.wait(is_standby, second), busy.told), (Ok(()), false));
            assert_eq!((busy.wait(is_standby, 3 * second), busy.told), (Ok(()), true));
            let end = busy.wait(is_standby, 12 * second);
            assert_eq!(end.is_ok(), is_standby, "{end:?}");
        }
    }
}
