//! The processes of a run, started again when they are killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use landfall::Client;

use super::child::{Child, is_killed};
use super::plan::{Part, Plan};
use crate::Failure;
use crate::device::slow;

/// Longest that any one thing is waited for: the longest lease of a run is a second.
pub fn patience() -> Duration {
    slow(Duration::from_secs(15))
}

/// Between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A process's place in a run: it may have several lives there.
struct Seat {
    program: &'static str,
    arguments: Vec<String>,
    child: Option<Child>,
    lives: u32,
    /// It was told to end.
    stopping: bool,
    /// It ended as it should.
    done: bool,
    /// A killed process is started again then.
    again_at: Option<Instant>,
    /// Stores of its first life.
    stores: u64,
}

impl Seat {
    fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill();
        }
    }
}

/// The processes and their folder. Dropping it kills them and removes the folder.
pub struct Stage {
    programs: PathBuf,
    folder: PathBuf,
    plan: Plan,
    seats: BTreeMap<Part, Seat>,
    kills: u32,
    began: Instant,
    client: Client,
    keep: bool,
}

impl Stage {
    /// An empty stage with a folder of its own, where the pool is to be: on tmpfs.
    pub fn new(programs: &Path, plan: Plan) -> Result<Self, Failure> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("/dev/shm/landfall-sweep-{}-{number}", std::process::id());
        let folder = PathBuf::from(folder);
        std::fs::create_dir_all(folder.join("notes"))?;
        let client = Client::new(&format!("unix:{}", folder.join("control.sock").display()))?;
        Ok(Self {
            programs: programs.to_owned(),
            folder,
            plan,
            seats: BTreeMap::new(),
            kills: 0,
            began: Instant::now(),
            client,
            keep: false,
        })
    }

    /// Where the run's files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where clients note what they do.
    pub fn notes(&self) -> PathBuf {
        self.folder.join("notes")
    }

    /// A client of the system.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Processes killed so far.
    pub fn kills(&self) -> u32 {
        self.kills
    }

    /// Stores that the first life of each process made.
    pub fn stores(&self) -> BTreeMap<Part, u64> {
        self.seats.iter().map(|(part, seat)| (*part, seat.stores)).collect()
    }

    /// Begins a process. One that had this place before must be done.
    pub fn begin(
        &mut self,
        part: Part,
        program: &'static str,
        arguments: Vec<String>,
    ) -> Result<(), Failure> {
        let before = self.seats.remove(&part);
        let (lives, stores) = before.map_or((0, 0), |seat| (seat.lives, seat.stores));
        let seat = Seat {
            program,
            arguments,
            child: None,
            lives,
            stopping: false,
            done: false,
            again_at: None,
            stores,
        };
        self.seats.insert(part, seat);
        self.start(part)
    }

    fn start(&mut self, part: Part) -> Result<(), Failure> {
        let Some(seat) = self.seats.get_mut(&part) else { return Ok(()) };
        let mut command = Command::new(self.programs.join(seat.program));
        command.args(&seat.arguments);
        if matches!(part, Part::Publisher(_) | Part::Subscriber) {
            command.args(["--life", &seat.lives.to_string()]);
        }
        let stem = self.folder.join("notes").join(format!("{part}.{}", seat.lives));
        let kill_at = self.plan.kill_at(part, seat.lives);
        // `with_extension` takes what is behind the last dot for one.
        let stem = PathBuf::from(format!("{}.x", stem.display()));
        let child = Child::start(command, &stem, kill_at)
            .map_err(|error| Failure::new(format!("start {} for {part}: {error}", seat.program)))?;
        seat.child = Some(child);
        seat.lives += 1;
        seat.again_at = None;
        Ok(())
    }

    /// Looks after the processes: those that were killed are started again, and one that ended in
    /// any other way, unasked, is a failure.
    pub fn tend(&mut self) -> Result<(), Failure> {
        if self.plan.all_at.is_some_and(|at| self.began.elapsed() >= at) {
            self.plan.all_at = None;
            self.seats.values_mut().for_each(Seat::kill);
        }
        let elapsed = self.began.elapsed();
        let (due, later) = self.plan.timed.drain(..).partition(|(_, after)| *after <= elapsed);
        self.plan.timed = later;
        let due: Vec<(Part, Duration)> = due;
        for (part, _) in due {
            self.seats.get_mut(&part).into_iter().for_each(Seat::kill);
        }
        let parts: Vec<Part> = self.seats.keys().copied().collect();
        for part in parts {
            let Some(seat) = self.seats.get_mut(&part) else { continue };
            if seat.again_at.is_some_and(|at| Instant::now() >= at) {
                self.start(part)?;
                continue;
            }
            let Some(child) = &mut seat.child else { continue };
            let Some(status) = child.ended()? else { continue };
            if seat.lives == 1 {
                seat.stores = child.stores();
            }
            if is_killed(status) {
                self.kills += 1;
                seat.child = None;
                seat.stopping = false;
                seat.again_at = Some(Instant::now() + self.plan.away);
            } else if status.success() && (seat.stopping || !is_server(part)) {
                seat.child = None;
                seat.done = true;
            } else {
                let said = child.said();
                return Err(Failure::new(format!(
                    "{part}, life {}, ended by itself ({status}) after {} stores; it said: {}",
                    seat.lives,
                    child.stores(),
                    said.trim()
                )));
            }
        }
        Ok(())
    }

    /// Waits until `done` says so, looking after the processes meanwhile.
    pub fn wait_until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + patience();
        loop {
            self.tend()?;
            if done(self) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{what} did not happen within {:?}; {}",
                patience(),
                self.said()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Does something that takes the processes' answers, looking after them meanwhile.
    pub fn meanwhile<T: Send + 'static>(
        &mut self,
        what: &str,
        act: impl FnOnce(Client) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let client = self.client.clone();
        let (answer, answered) = channel();
        std::thread::Builder::new().name("landfall-sweep".into()).spawn(move || {
            // Whoever asked may have given up.
            let _ = answer.send(act(client));
        })?;
        let deadline = Instant::now() + 2 * patience();
        loop {
            self.tend()?;
            match answered.recv_timeout(LOOK_EVERY) {
                Ok(result) => {
                    return result.map_err(|failure| failure.with(&format!("; {}", self.said())));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(format!("{what}: the thread for it panicked")));
                }
            }
            ensure!(Instant::now() < deadline, "{what} did not end; {}", self.said());
        }
    }

    /// Keeps the folder of a run that failed, where `LANDFALL_SWEEP_KEEP` asks for that, and says
    /// where it is.
    pub fn explain(&mut self, failure: Failure) -> Failure {
        self.keep = std::env::var_os("LANDFALL_SWEEP_KEEP").is_some();
        if self.keep {
            failure.with(&format!("\n  its files are in {}", self.folder.display()))
        } else {
            failure
        }
    }

    /// Whether these processes serve.
    pub fn are_ready(&self, parts: &[Part]) -> bool {
        parts.iter().all(|part| {
            let child = self.seats.get(part).and_then(|seat| seat.child.as_ref());
            child.is_some_and(Child::is_ready)
        })
    }

    /// Whether these processes have ended as they should.
    pub fn are_done(&self, parts: &[Part]) -> bool {
        parts.iter().all(|part| self.seats.get(part).is_some_and(|seat| seat.done))
    }

    /// Asks servers to end and waits until they have; one that is killed on the way is started
    /// again and asked again.
    pub fn stop(&mut self, parts: &[Part]) -> Result<(), Failure> {
        let deadline = Instant::now() + patience();
        while !self.are_done(parts) {
            for part in parts {
                let Some(seat) = self.seats.get_mut(part) else { continue };
                if let Some(child) = &mut seat.child
                    && !seat.stopping
                    && child.is_ready()
                {
                    seat.stopping = true;
                    child.terminate();
                }
            }
            self.tend()?;
            ensure!(
                Instant::now() < deadline,
                "{parts:?} did not end within {:?} of SIGTERM; {}",
                patience(),
                self.said()
            );
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// The last that each process said, for a failure.
    fn said(&self) -> String {
        let mut all = String::from("they said:");
        for (part, seat) in &self.seats {
            let said = seat.child.as_ref().map(Child::said).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(4)..].join(" / ");
            all.push_str(&format!("\n    {part} (life {}): {last}", seat.lives));
        }
        all
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.seats.clear();
        if !self.keep {
            // What cannot be removed stays to be seen.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn is_server(part: Part) -> bool {
    matches!(part, Part::Control | Part::Broker(_))
}
