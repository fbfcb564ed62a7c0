//! The protocols of the pool, as they run in production, on memory that no hardware keeps coherent
//! between hosts: every schedule, every stale read, every crash, up to a bound.
//!
//! A family is what explores one protocol: scenarios, and the flushes and fences that they prove
//! redundant. Every other flush and fence that a family meets has to be missed when it is deleted.
//!
//! | variable | what |
//! |---|---|
//! | `EXPLORE_PREEMPTIONS` | the bound on preemptions, 2 or more; 2 where it is not set |
//! | `EXPLORE_SECONDS` | seconds of drawn schedules for each scenario, after all walked ones |

use std::path::Path;
use std::time::Duration;

use landfall_model::mutate::{Bounds, Subject, Table, mutate};
use landfall_model::{HostId, Scenario};

pub mod counted;
pub mod deletion;
pub mod grant;
pub mod hold;
pub mod landing;
pub mod late_release;
pub mod leftovers;
pub mod line_ring;
pub mod lines;
pub mod log;
pub mod moving;
pub mod replication;
pub mod slot_ring;
pub mod takeover;

/// Hosts of the scenarios.
const A: HostId = HostId(0);
const B: HostId = HostId(1);
const C: HostId = HostId(2);

/// The scenarios of one protocol.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What is explored.
    pub scenarios: Vec<Scenario<'static>>,
    /// The flushes and fences it answers for.
    pub subject: Subject<'static>,
}

/// All families.
pub fn families() -> Vec<Family> {
    vec![
        line_ring::family(),
        line_ring::deposed(),
        slot_ring::family(),
        lines::keyed(),
        lines::versioned(),
        log::family(),
        hold::family(),
        takeover::family(),
        deletion::family(),
        late_release::family(),
        landing::family(),
        grant::family(),
        counted::family(),
        replication::family(),
        moving::family(),
    ]
}

/// Explores a family as far as the environment says.
pub fn explore(family: &Family) -> Result<Table, String> {
    let preemptions = number("EXPLORE_PREEMPTIONS")?.unwrap_or(PREEMPTIONS_LEAST);
    if preemptions < PREEMPTIONS_LEAST {
        return Err(format!(
            "EXPLORE_PREEMPTIONS is {preemptions}; say {PREEMPTIONS_LEAST} or more: with fewer, \
             not every flush and fence that is needed is missed when it is deleted"
        ));
    }
    let seconds = number("EXPLORE_SECONDS")?;
    let bounds = Bounds {
        preemptions: u32::try_from(preemptions).unwrap_or(u32::MAX),
        seeds: if seconds.is_some() { u64::MAX } else { SEEDS },
        time: Duration::MAX,
        draw: seconds.map_or(Duration::MAX, Duration::from_secs),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    mutate(family.name, &family.scenarios, &root, family.subject, bounds)
}

/// Fewest preemptions with which each flush and fence that is needed is missed.
const PREEMPTIONS_LEAST: u64 = 2;

/// Seeds drawn for each scenario where no time is given.
const SEEDS: u64 = 2000;

fn number(variable: &str) -> Result<Option<u64>, String> {
    match std::env::var(variable) {
        Err(_) => Ok(None),
        Ok(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{variable} is {text:?}, which is no number")),
        },
    }
}
