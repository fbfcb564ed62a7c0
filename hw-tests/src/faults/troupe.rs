//! The processes of a run, looked after: those that end are started again, and whether they may
//! have ended is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use landfall::Client;

use super::acts::Acts;
use super::fault::{Space, Who};
use super::seat::{Judged, Seat};
use crate::Failure;
use crate::device::slow;

/// Longest that any one thing is waited for when nothing goes wrong any more.
pub fn patience() -> Duration {
    slow(Duration::from_secs(60))
}

/// Between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Who may not have heard that it is to end is told again this often.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Lives of one process that end by themselves in one run; more are no fault's consequence.
const LIVES_MAX: u32 = 300;

/// What happened to processes in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Killed.
    pub killed: u32,
    /// Servers that ended with a sentence.
    pub servers: u32,
    /// Clients whose library gave up.
    pub clients: u32,
}

/// The processes and their folder. Dropping it kills them and removes the folder.
pub struct Troupe {
    programs: PathBuf,
    folder: PathBuf,
    pub(super) seats: BTreeMap<Who, Seat>,
    /// Namespaces of their own.
    spaces: BTreeMap<Who, Space>,
    /// Servers that may end by themselves, with a sentence.
    pub(super) excused: BTreeSet<Who>,
    pub(super) acts: Acts,
    client: Client,
    /// Whose socket the door leads to.
    door: Option<Who>,
    pub(super) ends: Ends,
    /// What ended how, for a failure.
    story: Vec<String>,
    began: Instant,
    /// When the processes were looked after last.
    tended: Instant,
    keep: bool,
}

/// A time without a look that a standby may take for the leader's, where there is one.
const AWAY: Duration = Duration::from_secs(1);

impl Troupe {
    /// Nobody yet, in a folder on tmpfs.
    pub fn new(programs: &Path, acts: Acts) -> Result<Self, Failure> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only the number matters.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("/dev/shm/landfall-faults-{}-{number}", std::process::id());
        let folder = PathBuf::from(folder);
        std::fs::create_dir_all(folder.join("notes"))?;
        let client = Client::new(&format!("unix:{}", folder.join("door.sock").display()))?;
        Ok(Self {
            programs: programs.to_owned(),
            folder,
            seats: BTreeMap::new(),
            spaces: acts.spaces(),
            excused: acts.excused(),
            acts,
            client,
            door: None,
            ends: Ends::default(),
            story: Vec::new(),
            began: Instant::now(),
            tended: Instant::now(),
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

    /// Folder of the programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// A client of whichever control leads.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Notes a thing that happened, for a failure.
    pub fn tell(&mut self, what: impl Into<String>) {
        let ms = self.began.elapsed().as_millis();
        self.story.push(format!("{ms} ms: {}", what.into()));
    }

    /// Whether something that was noted has these words.
    pub fn was_told(&self, words: &str) -> bool {
        self.story.iter().any(|told| told.contains(words))
    }

    /// Gives a process its place and starts it.
    pub fn begin(
        &mut self,
        who: Who,
        program: &'static str,
        arguments: Vec<String>,
    ) -> Result<(), Failure> {
        let lives = self.seats.get(&who).map_or(0, |seat| seat.lives);
        let space = self.spaces.get(&who).copied();
        let kill_at = self.acts.kill_at(who).filter(|_| lives == 0);
        let mut seat = Seat::new(who, program, arguments, space, kill_at);
        seat.lives = lives;
        seat.start(&self.programs, &self.folder)?;
        self.seats.insert(who, seat);
        Ok(())
    }

    /// Does what is due, and looks after the processes.
    pub fn tend(&mut self) -> Result<(), Failure> {
        let away = self.tended.elapsed();
        self.tended = Instant::now();
        if away > AWAY && self.seats.contains_key(&Who::Standby) {
            // The machine stood still, or had no time: so it was for a leader, perhaps.
            self.excused.extend([Who::Control, Who::Standby]);
            self.tell(format!("nobody looked after the processes for {} ms", away.as_millis()));
        }
        Acts::act(self)?;
        let parts: Vec<Who> = self.seats.keys().copied().collect();
        for who in parts {
            self.look_after(who)?;
        }
        self.turn_door()
    }

    fn look_after(&mut self, who: Who) -> Result<(), Failure> {
        let may_end = !who.is_server() || self.excused.contains(&who);
        let may_not_start = self.acts.may_not_start(who);
        let Some(seat) = self.seats.get_mut(&who) else { return Ok(()) };
        if seat.is_due() {
            return seat.start(&self.programs, &self.folder);
        }
        let lives = seat.lives;
        let what = match seat.judge(may_end, may_not_start)? {
            Judged::Well | Judged::Done => return Ok(()),
            Judged::Killed => {
                self.ends.killed += 1;
                format!("{who}, life {lives}, was killed")
            }
            Judged::GaveUp(sentence) => {
                match who.is_server() {
                    true => self.ends.servers += 1,
                    false => self.ends.clients += 1,
                }
                ensure!(lives < LIVES_MAX, "{who} has ended {lives} times; last: {sentence}");
                format!("{who}, life {lives}, ended: {sentence}")
            }
        };
        self.tell(what);
        Ok(())
    }

    /// Clients find control behind a link that leads to the one who said last that it leads.
    fn turn_door(&mut self) -> Result<(), Failure> {
        let controls = self.seats.iter_mut().filter(|(who, _)| who.is_control());
        let leads = controls.filter_map(|(who, seat)| Some((seat.ready_since()?, *who))).max();
        let Some((_, who)) = leads else { return Ok(()) };
        if self.door != Some(who) {
            let (door, fresh) = (self.folder.join("door.sock"), self.folder.join("door.new"));
            // Nothing may be left of an earlier try.
            let _ = std::fs::remove_file(&fresh);
            std::os::unix::fs::symlink(self.folder.join(format!("{who}.sock")), &fresh)?;
            std::fs::rename(&fresh, &door)?;
            self.door = Some(who);
            self.tell(format!("{who} leads"));
        }
        Ok(())
    }

    /// Waits until `done` says so, looking after the processes meanwhile.
    pub fn wait_until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + patience();
        loop {
            self.tend()?;
            if done(self)? {
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
        use std::sync::mpsc::{TryRecvError, channel};
        let client = self.client.clone();
        let (answer, answered) = channel();
        std::thread::Builder::new().name("landfall-faults".into()).spawn(move || {
            // Whoever asked may have given up.
            let _ = answer.send(act(client));
        })?;
        let mut result = None;
        self.wait_until(what, |_| match answered.try_recv() {
            Ok(answer) => {
                result = Some(answer);
                Ok(true)
            }
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => Err(Failure::new("its thread panicked")),
        })?;
        let result = result.unwrap_or_else(|| Err(Failure::new("nothing was answered")));
        result.map_err(|failure| failure.with(&format!("; {}", self.said())))
    }

    /// Whether all of them serve.
    pub fn are_ready(&self, parts: &[Who]) -> bool {
        parts.iter().all(|who| self.seats.get(who).is_some_and(Seat::is_ready))
    }

    /// Whether all of them have ended as they should.
    pub fn are_done(&self, parts: &[Who]) -> bool {
        parts.iter().all(|who| self.seats.get(who).is_none_or(|seat| seat.done))
    }

    /// Asks servers to end, one after the other, and waits until each has; one that is killed or
    /// gives up on the way has ended too.
    pub fn stop(&mut self, parts: &[Who]) -> Result<(), Failure> {
        for who in parts {
            let Some(seat) = self.seats.get_mut(who) else { continue };
            seat.held = true;
            seat.resume();
            seat.stopping = true;
            seat.terminate();
            let what = format!("the end of {who}, which was told to");
            let mut again_at = Instant::now() + ASK_AGAIN_AFTER;
            self.wait_until(&what, |troupe| {
                let Some(seat) = troupe.seats.get(who).filter(|seat| seat.is_running()) else {
                    return Ok(true);
                };
                if seat.may_be_deaf() && Instant::now() >= again_at {
                    seat.terminate();
                    again_at = Instant::now() + ASK_AGAIN_AFTER;
                }
                Ok(false)
            })?;
        }
        Ok(())
    }

    /// Servers that were stopped begin again, in that order.
    pub fn go_on(&mut self, parts: &[Who]) -> Result<(), Failure> {
        for who in parts {
            let Some(seat) = self.seats.get_mut(who) else { continue };
            seat.held = false;
            (seat.stopping, seat.done) = (false, false);
            if !seat.is_running() {
                seat.start(&self.programs, &self.folder)?;
            }
        }
        Ok(())
    }

    /// Keeps the folder of a run that failed, where `LANDFALL_SWEEP_KEEP` asks for that, and tells
    /// what happened.
    pub fn explain(&mut self, failure: Failure) -> Failure {
        self.keep = std::env::var_os("LANDFALL_SWEEP_KEEP").is_some();
        let mut more = String::from("\n  what happened:");
        for line in &self.story {
            more.push_str(&format!("\n    {line}"));
        }
        if self.keep {
            more.push_str(&format!("\n  its files are in {}", self.folder.display()));
        }
        failure.with(&more)
    }

    /// The last that each process said, for a failure.
    fn said(&self) -> String {
        let mut all = String::from("they said:");
        for (who, seat) in &self.seats {
            let state = if seat.is_running() { "runs" } else { "does not run" };
            all.push_str(&format!("\n    {who} (life {}, {state}): {}", seat.lives, seat.said()));
        }
        all
    }
}

impl Drop for Troupe {
    fn drop(&mut self) {
        self.seats.clear();
        self.acts.end_all();
        if !self.keep {
            // What cannot be removed stays to be seen.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
