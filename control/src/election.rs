//! Who may lead, agreed outside of the pool: on one machine by locks that the kernel releases.
//!
//! An election gives an epoch above every one before it and a leader slot that nobody writes any
//! more. That is all that taking over needs ([`landfall_pool::leader`]); whether the old leader
//! still runs is not, since it can show nothing from then on. Where hosts share a pool an election
//! service stands here, whose revision is the epoch.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use landfall_layout::limits::{ELSEWHERE_GONE_NS, LEADERS_MAX};
use landfall_layout::pool::{LeaderLine, Term};
use landfall_pool::clock::{boot_ns, wall_ns};
use landfall_pool::leader::DamagedTerm;
use landfall_pool::lock::{Byte, Locks, Process};
use landfall_pool::silence::Silence;
use landfall_pool::{Pool, host};

/// What an election gave.
pub struct Elected {
    /// The leader slot.
    pub slot: usize,
    /// The epoch.
    pub epoch: u64,
    /// Whose tables are the latest: the slot of the leader that served last.
    pub from: Option<usize>,
    /// Keeps the slot, and knows which other slots are kept.
    pub ballot: Ballot,
    /// Another one was seen to serve while this one stood.
    pub has_seen_leader: bool,
}

/// Why this process was not elected.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotElected {
    /// Another one leads, and beats.
    Led {
        /// Its epoch.
        epoch: u64,
        /// Its process, on its host.
        pid: u64,
        /// Where its HTTP API is, if that is known.
        http: Option<SocketAddr>,
        /// It beats for certain. If not, whoever stands again will know within the time for which
        /// a leader may be silent.
        beats: bool,
    },
    /// Every slot is of a leader that was deposed and may still be running.
    NoSlot {
        /// One of them is of another host, and only its silence can tell.
        waits: bool,
    },
    /// Another election has not ended.
    Busy,
    /// A leader line does not hold, and it may be the latest.
    Damaged(DamagedTerm),
    /// The locks.
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl std::fmt::Display for NotElected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Led { epoch, pid, .. } => write!(
                f,
                "another control leads this pool, in epoch {epoch}, as process {pid}; stop it \
                 first, or start this one with --standby"
            ),
            Self::NoSlot { .. } => write!(
                f,
                "all {LEADERS_MAX} leader slots are of controls that were deposed and still run; \
                 end those processes"
            ),
            Self::Busy => f.write_str("another control is taking the lead of this pool just now"),
            Self::Damaged(damaged) => damaged.fmt(f),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for NotElected {}

impl NotElected {
    /// Why a control stands by that was started to do so.
    pub fn while_standing_by(&self) -> String {
        match self {
            Self::Led { epoch, pid, .. } => format!(
                "another control leads this pool, in epoch {epoch}, as process {pid}; ask that \
                 one, or wait until this one leads"
            ),
            other => other.to_string(),
        }
    }

    /// Where the control that leads is asked instead, if that is known.
    pub fn leader(&self) -> Option<SocketAddr> {
        match self {
            Self::Led { http, .. } => *http,
            _ => None,
        }
    }

    /// Whether standing again may end otherwise without anybody doing anything.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Busy | Self::Led { beats: false, .. } | Self::NoSlot { waits: true })
    }
}

/// The locks on the pool's file. Dropping it lets go of the slot.
pub struct Ballot {
    locks: Locks,
    /// The beats of each slot's leader, as this process has seen them.
    silences: Box<Mutex<[Silence; LEADERS_MAX]>>,
}

impl Ballot {
    fn open(pool: &Pool) -> io::Result<Self> {
        Ok(Self { locks: Locks::open(pool)?, silences: Box::default() })
    }

    /// The locks, to look at those of others.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Whether the process that had a leader slot may still be running. When that cannot be told
    /// it may.
    pub fn may_run(&self, pool: &Pool, slot: usize) -> bool {
        let line = pool.leader_line(slot);
        // Whose line does not hold may be anybody.
        if Term::unpack(line.term).is_some_and(|term| term.epoch == 0) {
            return false;
        }
        match self.locks.process(Byte::Leader(slot), line.host, line.locked) {
            Process::There => true,
            Process::Gone => false,
            Process::Elsewhere => self.look(pool, slot).age_ns(boot_ns()) < ELSEWHERE_GONE_NS,
        }
    }

    /// The other leaders of which the processes may still be running, each by its slot and epoch.
    /// More than the last one: whoever deposed a stopped one may have ended before it.
    pub fn earlier(&self, pool: &Pool, own: usize) -> Vec<(usize, u64)> {
        // Whose line does not hold may be anybody.
        let epoch =
            |slot| Term::unpack(pool.leader_line(slot).term).map_or(u64::MAX, |it| it.epoch);
        let others = (0..LEADERS_MAX).filter(|slot| *slot != own);
        others.filter(|slot| self.may_run(pool, *slot)).map(|slot| (slot, epoch(slot))).collect()
    }

    /// Takes a look at a leader's beats: for how long this process has seen none.
    fn look(&self, pool: &Pool, slot: usize) -> Silence {
        let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
        silences[slot].look(pool.heartbeat_of(slot), boot_ns());
        silences[slot]
    }
}

/// Claims a slot; whose tables are the latest after that. One that was elected and silent may have
/// begun to serve since it was looked at: either it finds this claim and shows nothing, or it is
/// found here.
fn claim(pool: &Pool, slot: usize, line: &LeaderLine) -> Option<usize> {
    pool.claim(slot, line);
    pool.serving().map(|(slot, _)| slot)
}

/// Stands for election on a pool, once or again and again.
pub struct Candidate {
    ballot: Ballot,
    silent_ns: u64,
    /// Where its HTTP API is, as the leader line has it.
    http: u64,
    /// One that serves was seen to beat.
    has_seen_leader: bool,
}

impl Candidate {
    /// A candidate for the lead of a pool, who deposes a leader that is silent for `silent_ns`.
    pub fn new(pool: &Pool, silent_ns: u64) -> Result<Self, NotElected> {
        let io = |source| NotElected::Io { what: "open the pool's file again", source };
        let ballot = Ballot::open(pool).map_err(io)?;
        Ok(Self { ballot, silent_ns, http: 0, has_seen_leader: false })
    }

    /// Says to those that stand by where its HTTP API is, once it leads.
    pub fn reached_at(mut self, http: SocketAddr) -> Self {
        self.http = LeaderLine::pack_http(http);
        self
    }

    /// Stands once.
    pub fn stand(mut self, pool: &Pool) -> Result<Elected, (Self, NotElected)> {
        match self.held(pool) {
            Ok((slot, epoch, from)) => {
                let Self { ballot, has_seen_leader, .. } = self;
                Ok(Elected { slot, epoch, from, ballot, has_seen_leader })
            }
            Err(why) => Err((self, why)),
        }
    }

    fn held(&mut self, pool: &Pool) -> Result<(usize, u64, Option<usize>), NotElected> {
        let io = |source| NotElected::Io { what: "lock the pool's file", source };
        if !self.ballot.locks.take(Byte::Ballot).map_err(io)? {
            return Err(NotElected::Busy);
        }
        let outcome = self.decide(pool);
        self.ballot.locks.give_back(Byte::Ballot).map_err(io)?;
        outcome
    }

    /// Takes a slot and claims the next epoch in it, unless somebody leads.
    fn decide(&mut self, pool: &Pool) -> Result<(usize, u64, Option<usize>), NotElected> {
        if let Some(damaged) = pool.damaged_term() {
            return Err(NotElected::Damaged(damaged));
        }
        let serving = pool.serving();
        // Who was elected and is still taking over leads as much as who serves.
        for (slot, epoch) in [pool.highest_claim(), serving].into_iter().flatten() {
            if let Some(beats) = self.is_leading(pool, slot)? {
                let serves = serving.is_some_and(|(serving, _)| serving == slot);
                self.has_seen_leader |= beats && serves;
                let line = pool.leader_line(slot);
                let http = line.http_address();
                return Err(NotElected::Led { epoch, pid: line.pid, http, beats });
            }
        }
        let from = serving.map(|(slot, _)| slot);
        let slot = self.free_slot(pool, from)?;
        let epoch = pool.highest_epoch() + 1;
        let line = LeaderLine {
            term: Term { epoch, serves: false }.pack(),
            pid: std::process::id().into(),
            host: host::id(),
            started_ns: wall_ns(),
            locked: self.ballot.locks.identity(),
            ended: 0,
            http: self.http,
            short: 0,
        };
        pool.beat_slot(slot, boot_ns());
        // The ballot is held: a claim above this one comes only after it.
        let from = claim(pool, slot, &line).or(from);
        Ok((slot, epoch, from))
    }

    /// Whether the leader in a slot leads: its process is there, and has not been seen silent for
    /// too long. If so, whether it was seen to beat.
    fn is_leading(&mut self, pool: &Pool, slot: usize) -> Result<Option<bool>, NotElected> {
        let io = |source| NotElected::Io { what: "look at a lock of the pool's file", source };
        let is_taken = self.ballot.locks.is_taken(Byte::Leader(slot)).map_err(io)?;
        let line = pool.leader_line(slot);
        if !is_taken && self.ballot.locks.is_here(line.host, line.locked) {
            return Ok(None);
        }
        let silence = self.ballot.look(pool, slot);
        Ok((silence.age_ns(boot_ns()) < self.silent_ns).then_some(silence.has_moved()))
    }

    /// Locks a slot whose leader is gone, and not the one that is copied from: the longest unused.
    /// First of those that no other host had: what a process that was killed left in its host's
    /// caches can then be in the way of nobody.
    fn free_slot(&self, pool: &Pool, from: Option<usize>) -> Result<usize, NotElected> {
        let io = |source| NotElected::Io { what: "lock a leader slot", source };
        let mut slots: Vec<usize> = (0..LEADERS_MAX).filter(|slot| Some(*slot) != from).collect();
        slots.sort_by_key(|slot| {
            let line = pool.leader_line(*slot);
            let epoch = Term::unpack(line.term).map_or(0, |term| term.epoch);
            (epoch != 0 && line.host != host::id(), epoch)
        });
        let mut waits = false;
        for slot in slots {
            if self.ballot.may_run(pool, slot) {
                let line = pool.leader_line(slot);
                waits |= !self.ballot.locks.is_here(line.host, line.locked);
            } else if self.ballot.locks.take(Byte::Leader(slot)).map_err(io)? {
                return Ok(slot);
            }
        }
        Err(NotElected::NoSlot { waits })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use landfall_layout::pool::Coherence;
    use landfall_pool::pool::Shape;

    use super::*;

    #[test]
    fn one_that_began_to_serve_since_it_was_looked_at_is_copied_from() {
        let file = landfall_pool::map::memfd("election", 0).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let shape = Shape {
            pool_bytes: 48 << 20,
            segment_bytes: 2 << 20,
            sessions: 64,
            coherence: Coherence::Coherent,
            uuid: [1; 16],
            now_ns: 1,
            sparse: true,
        };
        let open = || Pool::create_or_attach(path.as_ref(), shape).unwrap();
        let (silent, next) = (open(), open());
        let line = |epoch| {
            let term = Term { epoch, serves: false }.pack();
            LeaderLine { term, ..LeaderLine::default() }
        };
        assert_eq!(claim(&silent, 1, &line(1)), None, "nobody ever served");
        assert!(next.serving().is_none());
        assert!(silent.serve(1));
        assert_eq!(claim(&next, 2, &line(2)), Some(1));
        assert!(!silent.leads(1));
    }
}
