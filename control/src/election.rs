//! Who may lead, agreed outside of the pool: on one machine by locks that the kernel releases.
//!
//! An election gives an epoch above every one before it and a leader slot that nobody writes any
//! more. That is all that taking over needs ([`landfall_pool::leader`]); whether the old leader
//! still runs is not, since it can show nothing from then on. Where hosts share a pool an election
//! service stands here, whose revision is the epoch.

use std::io;
use std::time::Instant;

use landfall_layout::limits::{ELSEWHERE_GONE_NS, LEADERS_MAX};
use landfall_layout::pool::{LeaderLine, Term};
use landfall_pool::lock::{Byte, Locks, Process};
use landfall_pool::{Pool, host};

use crate::clock::now_ns;

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
    },
    /// Every slot is of a leader that was deposed and may still be running.
    NoSlot,
    /// Another election has not ended.
    Busy,
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
            Self::Led { epoch, pid } => write!(
                f,
                "another control leads this pool, in epoch {epoch}, as process {pid}; stop it \
                 first, or start this one with --standby"
            ),
            Self::NoSlot => write!(
                f,
                "all {LEADERS_MAX} leader slots are of controls that were deposed and still run; \
                 end those processes"
            ),
            Self::Busy => f.write_str("another control is taking the lead of this pool just now"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for NotElected {}

/// The locks on the pool's file. Dropping it lets go of the slot.
pub struct Ballot {
    locks: Locks,
}

impl Ballot {
    fn open(pool: &Pool) -> io::Result<Self> {
        Ok(Self { locks: Locks::open(pool)? })
    }

    /// The locks, to look at those of others.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Whether the process that had a leader slot may still be running. When that cannot be told
    /// it may.
    pub fn may_run(&self, pool: &Pool, slot: usize) -> bool {
        let line = pool.leader_line(slot);
        if Term::unpack(line.term).epoch == 0 {
            return false;
        }
        match self.locks.process(Byte::Leader(slot), line.host, line.locked) {
            Process::There => true,
            Process::Gone => false,
            Process::Elsewhere => age_ns(pool, slot) < ELSEWHERE_GONE_NS,
        }
    }
}

/// Nanoseconds since a leader last beat, by the wall clock.
fn age_ns(pool: &Pool, slot: usize) -> u64 {
    now_ns().saturating_sub(pool.heartbeat_of(slot))
}

/// Stands for election on a pool, once or again and again.
pub struct Candidate {
    ballot: Ballot,
    silent_ns: u64,
    /// The beat last seen of the leader, and when it was first seen: hosts' clocks differ.
    seen: Option<(u64, Instant)>,
}

impl Candidate {
    /// A candidate for the lead of a pool, who deposes a leader that is silent for `silent_ns`.
    pub fn new(pool: &Pool, silent_ns: u64) -> Result<Self, NotElected> {
        let io = |source| NotElected::Io { what: "open the pool's file again", source };
        Ok(Self { ballot: Ballot::open(pool).map_err(io)?, silent_ns, seen: None })
    }

    /// Stands once.
    pub fn stand(mut self, pool: &Pool) -> Result<Elected, (Self, NotElected)> {
        match self.held(pool) {
            Ok((slot, epoch, from)) => Ok(Elected { slot, epoch, from, ballot: self.ballot }),
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
        let serving = pool.serving();
        if let Some((slot, epoch)) = serving
            && self.is_leading(pool, slot)?
        {
            return Err(NotElected::Led { epoch, pid: pool.leader_line(slot).pid });
        }
        let from = serving.map(|(slot, _)| slot);
        let slot = self.free_slot(pool, from)?;
        let epoch = pool.highest_epoch() + 1;
        let line = LeaderLine {
            term: Term { epoch, serves: false }.pack(),
            pid: std::process::id().into(),
            host: host::id(),
            started_ns: now_ns(),
            locked: self.ballot.locks.identity(),
            reserved: [0; 3],
        };
        pool.beat_slot(slot, now_ns());
        // The ballot is held: a claim above this one comes only after it.
        pool.claim(slot, &line);
        Ok((slot, epoch, from))
    }

    /// Whether the leader in a slot leads: its process is there, and it beats.
    fn is_leading(&mut self, pool: &Pool, slot: usize) -> Result<bool, NotElected> {
        let io = |source| NotElected::Io { what: "look at a lock of the pool's file", source };
        let is_taken = self.ballot.locks.is_taken(Byte::Leader(slot)).map_err(io)?;
        let line = pool.leader_line(slot);
        if !is_taken && self.ballot.locks.is_here(line.host, line.locked) {
            return Ok(false);
        }
        let beat = pool.heartbeat_of(slot);
        let since = match self.seen {
            Some((seen, since)) if seen == beat => since,
            _ => self.seen.insert((beat, Instant::now())).1,
        };
        let silent_ns = (since.elapsed().as_nanos() as u64).max(age_ns(pool, slot));
        Ok(silent_ns < self.silent_ns)
    }

    /// Locks a slot whose leader is gone, and not the one that is copied from: the longest unused.
    /// First of those that no other host had: what a process that was killed left in its host's
    /// caches can then be in the way of nobody.
    fn free_slot(&self, pool: &Pool, from: Option<usize>) -> Result<usize, NotElected> {
        let io = |source| NotElected::Io { what: "lock a leader slot", source };
        let mut slots: Vec<usize> = (0..LEADERS_MAX).filter(|slot| Some(*slot) != from).collect();
        slots.sort_by_key(|slot| {
            let line = pool.leader_line(*slot);
            let epoch = Term::unpack(line.term).epoch;
            (epoch != 0 && line.host != host::id(), epoch)
        });
        for slot in slots {
            if !self.ballot.may_run(pool, slot)
                && self.ballot.locks.take(Byte::Leader(slot)).map_err(io)?
            {
                return Ok(slot);
            }
        }
        Err(NotElected::NoSlot)
    }
}
