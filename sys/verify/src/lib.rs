//! Looks at a pool or at replica files and says what is wrong, where, and what to do.
//!
//! Nothing is written but by [`recover`]. Checks are functions from what was loaded to findings;
//! they are total over any bytes and bounded by the size of what they look at, since what is looked
//! at may be broken in any way.
//!
//! A pool may be at work while it is looked at. Then what looks wrong may only be on its way from
//! one state to the next, and counts only when it stands there, word for word, in every look.
//!
//! | module | what |
//! |---|---|
//! | `finding` | what was found, and how bad it is |
//! | `attach`, `pulse` | a pool to look at; whether somebody is at work on it |
//! | `look` | one look at everything in a pool |
//! | `facts`, `tables`, `head` | the tables, and what they say of themselves |
//! | `others` | the tables of leaders that nobody follows |
//! | `chains`, `entries`, `sequence` | logs: links, entries, what the order promises |
//! | [`replicas`] | replica files |
//! | [`recover`], `hold` | mending what follows from the rest |
//! | `batch`, `rings`, `sessions`, `replica_lines` | what the logs are held against |

#![forbid(unsafe_code)]

mod attach;
mod batch;
mod chains;
mod entries;
mod facts;
mod finding;
mod head;
mod hold;
mod look;
mod mend;
mod others;
mod pulse;
pub mod recover;
mod replica_lines;
pub mod replicas;
mod rings;
mod sequence;
mod sessions;
mod tables;

use std::time::Instant;

use landfall_pool::Pool;

pub use attach::{Unchecked, read_only};
pub use facts::Tally;
pub use finding::{Finding, Findings, Severity, UNREAD};
pub use hold::{Held, Hold, hold};
use landfall_pool::clock::boot_ns;
pub use landfall_replica::Silent;
pub use landfall_replica::watch::watched;
pub use look::{Look, look};
use pulse::{BEAT, Pulse};

/// What was found in a pool.
#[derive(Clone, Debug)]
pub struct Report {
    /// What is not as it should be, the worst first.
    pub findings: Findings,
    /// How much was looked at, in the last look.
    pub tally: Tally,
    /// Whether somebody was at work on the pool.
    pub moving: bool,
    /// How often it was looked at.
    pub looks: u32,
}

/// Looks at a pool that is at work. A structure that is wrong in as many looks, in the very same
/// words, a beat apart each, is wrong.
const LOOKS_MAX: u32 = 4;

/// Looks at a pool, as often as it takes to tell what is wrong from what is on its way.
pub fn verify(pool: &Pool) -> Report {
    let begun = Instant::now();
    let first = Pulse::take(pool);
    let Look { mut findings, mut tally } = look(pool);
    let mut looks = 1;
    let mut moving = false;
    // On a machine that is short of time, a process that lives may miss a beat: what looks wrong
    // in a pool whose beats are recent is looked at again in any case.
    let recent = first.is_recent(pool, boot_ns());
    if recent {
        std::thread::sleep(BEAT.saturating_sub(begun.elapsed()));
        moving = Pulse::take(pool) != first;
    }
    while recent && looks < LOOKS_MAX && !findings.is_empty() {
        if looks > 1 {
            std::thread::sleep(BEAT);
        }
        let again = look(pool);
        findings = findings.also_in(&again.findings);
        tally = again.tally;
        looks += 1;
    }
    findings.sort();
    Report { findings, tally, moving, looks }
}
