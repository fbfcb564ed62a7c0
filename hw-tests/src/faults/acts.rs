//! When faults begin and end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::apply;
use super::fault::{Fault, Space, Timed, Who};
use super::troupe::Troupe;
use super::twin::Extra;
use crate::Failure;

/// What takes a fault back.
pub(super) enum Undo {
    /// The process goes on.
    Resume(Who),
    /// The host wakes so many milliseconds later.
    Wake(u64),
    /// The process has its bound back.
    Bound { pid: i32, what: &'static str, before: String },
    /// The disk is well.
    Disk(u8),
    /// Processes beside those of the run end, and are judged.
    Extra(Extra),
}

/// The faults of a run, and how far they are.
#[derive(Default)]
pub struct Acts {
    faults: Vec<Timed>,
    /// Those that have begun.
    begun: usize,
    began: Option<Instant>,
    undo: Vec<(Instant, Undo)>,
    /// One is under way that looks after processes itself.
    busy: bool,
    /// Whether a standby is part of the run.
    has_standby: bool,
}

impl Acts {
    /// These faults, none of which has begun.
    pub fn new(mut faults: Vec<Timed>, has_standby: bool) -> Self {
        faults.sort_by_key(|timed| timed.at);
        Self { faults, has_standby, ..Self::default() }
    }

    /// From now on faults begin.
    pub fn begin(&mut self) {
        self.began = Some(Instant::now());
    }

    /// Whether every fault has begun and ended.
    pub fn are_over(&self) -> bool {
        self.begun == self.faults.len() && self.undo.is_empty() && !self.busy
    }

    pub(super) fn spaces(&self) -> BTreeMap<Who, Space> {
        let space = |timed: &Timed| match timed.fault {
            Fault::Space { who, space } => Some((who, space)),
            _ => None,
        };
        self.faults.iter().filter_map(space).collect()
    }

    pub(super) fn kill_at(&self, who: Who) -> Option<u64> {
        self.faults.iter().find_map(|timed| match timed.fault {
            Fault::KillAt { who: whom, store } if whom == who => Some(store),
            _ => None,
        })
    }

    /// Servers that these faults allow to end with a sentence.
    pub(super) fn excused(&self) -> BTreeSet<Who> {
        let mut excused = BTreeSet::new();
        let is_any = |is_it: fn(&Fault) -> bool| self.faults.iter().any(|it| is_it(&it.fault));
        let makes_pool = is_any(|fault| matches!(fault, Fault::Cold { .. } | Fault::Pool { .. }));
        if makes_pool
            && is_any(|fault| matches!(fault, Fault::Pause { who, .. } if who.is_control()))
        {
            // One that is stopped while it makes the next pool keeps the other one from it, and
            // brokers wait for a pool for 10 s.
            excused.extend(Who::ALL.into_iter().filter(|who| who.is_server() && !who.is_control()));
        }
        for timed in &self.faults {
            match timed.fault {
                // One that was away may have been deposed, and then ends.
                Fault::Pause { who, .. } | Fault::Clock { who, .. }
                    if who.is_control() && self.has_standby =>
                {
                    excused.extend([Who::Control, Who::Standby]);
                }
                // Two that begin together: the first has not said that it serves when the other
                // stands for election.
                Fault::Suspend { .. } | Fault::Restart { .. } | Fault::Cold { .. }
                    if self.has_standby =>
                {
                    excused.extend([Who::Control, Who::Standby]);
                }
                // It may have the directory when the pool is lost under it: the next control does
                // not take that from a broker of another pool.
                Fault::Twin { who: who @ Who::Broker(_), .. } => {
                    excused.extend([who, Who::Control, Who::Standby]);
                }
                Fault::Twin { who, .. } | Fault::Memory { who, .. } => {
                    excused.insert(who);
                }
                // The second system may be there first, if this one is just being started.
                Fault::TwinData { broker, .. } => {
                    excused.extend([Who::Broker(broker), Who::Control, Who::Standby]);
                }
                Fault::Pool { .. } => {
                    excused.extend(Who::ALL.into_iter().filter(|who| who.is_server()));
                }
                _ => {}
            }
        }
        excused
    }

    /// Whether a server may be without what it needs to begin.
    pub(super) fn may_not_start(&self, who: Who) -> bool {
        let is_bound =
            |timed: &Timed| matches!(timed.fault, Fault::Descriptors { who: w, .. } if w == who);
        self.faults.iter().any(is_bound)
    }

    /// What a process's bound was before faults that are not over lowered it.
    pub(super) fn bound_before(&self, of: i32, on: &str) -> Option<String> {
        self.undo.iter().find_map(|(_, undo)| match undo {
            Undo::Bound { pid, what, before } if *pid == of && *what == on => Some(before.clone()),
            _ => None,
        })
    }

    pub(super) fn later(&mut self, ms: u64, undo: Undo) {
        self.undo.push((Instant::now() + Duration::from_millis(ms), undo));
    }

    /// Does what is due.
    pub(super) fn act(troupe: &mut Troupe) -> Result<(), Failure> {
        let now = Instant::now();
        while let Some(at) = troupe.acts.undo.iter().position(|(at, _)| *at <= now) {
            let (_, undo) = troupe.acts.undo.swap_remove(at);
            apply::undo(troupe, undo)?;
        }
        let acts = &mut troupe.acts;
        let Some(began) = acts.began.filter(|_| !acts.busy) else { return Ok(()) };
        let Some(timed) = acts.faults.get(acts.begun).cloned() else { return Ok(()) };
        if began.elapsed() < Duration::from_millis(timed.at) {
            return Ok(());
        }
        acts.begun += 1;
        acts.busy = true;
        troupe.tell(timed.fault.to_string());
        let result = apply::begin(troupe, &timed.fault);
        troupe.acts.busy = false;
        result
    }

    /// At the end of a run that was cut short: what goes on without it ends.
    pub(super) fn end_all(&mut self) {
        self.undo.clear();
    }
}
