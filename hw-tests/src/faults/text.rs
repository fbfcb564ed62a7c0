//! The text of a fault: `KIND:WHAT:...@MS`, as a command line takes it.

use std::fmt;
use std::str::FromStr;

use super::fault::{Fault, Timed, Who};

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.fault, self.at)
    }
}

impl FromStr for Timed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (fault, at) = text.rsplit_once('@').unwrap_or((text, "0"));
        Ok(Self { fault: fault.parse()?, at: number(at)? })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { who, away } => write!(f, "kill:{who}:{away}"),
            Self::KillAt { who, store } => write!(f, "kill-at:{who}:{store}"),
            Self::Pause { who, ms } => write!(f, "pause:{who}:{ms}"),
            Self::Clock { who, step } => write!(f, "clock:{who}:{step}"),
            Self::Suspend { ms } => write!(f, "suspend:{ms}"),
            Self::Descriptors { who, more, ms } => write!(f, "descriptors:{who}:{more}:{ms}"),
            Self::Memory { who, more, ms } => write!(f, "memory:{who}:{more}:{ms}"),
            Self::Disk { broker, plan, ms } => write!(f, "disk:{broker}:{plan}:{ms}"),
            Self::Damage { broker, spot, running, seed } => {
                let when = if *running { "running" } else { "stopped" };
                write!(f, "damage:{broker}:{spot}:{when}:{seed}")
            }
            Self::Pool { page, seed } => write!(f, "pool:{page}:{seed}"),
            Self::Space { who, space } => write!(f, "space:{who}:{space}"),
            Self::Twin { who, apart, ms } => {
                write!(f, "twin:{who}:{}:{ms}", if *apart { "apart" } else { "beside" })
            }
            Self::TwinData { broker, ms } => write!(f, "twin-data:{broker}:{ms}"),
            Self::Hostile { attack, ms } => write!(f, "hostile:{attack}:{ms}"),
            Self::Restart { end, order, away } => {
                let order: Vec<String> = order.iter().map(Who::to_string).collect();
                write!(f, "restart:{end}:{}:{away}", order.join("+"))
            }
            Self::Cold { end } => write!(f, "cold:{end}"),
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// One of two words; whether it is the first.
fn either(text: &str, first: &str, second: &str) -> Result<bool, String> {
    match text {
        _ if text == first => Ok(true),
        _ if text == second => Ok(false),
        _ => Err(format!("{text:?}: say {first} or {second}")),
    }
}

fn broker(text: &str) -> Result<u8, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        _ => Err(format!("{text:?} is no broker; say 0 or 1")),
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(':').collect();
        match words[..] {
            ["kill", who] => Ok(Self::Kill { who: who.parse()?, away: 0 }),
            ["kill", who, away] => Ok(Self::Kill { who: who.parse()?, away: number(away)? }),
            ["kill-at", who, store] => {
                Ok(Self::KillAt { who: who.parse()?, store: number(store)? })
            }
            ["pause", who, ms] => Ok(Self::Pause { who: who.parse()?, ms: number(ms)? }),
            ["clock", who, step] => {
                let step = step.parse().map_err(|_| format!("{step:?} is no step"))?;
                Ok(Self::Clock { who: who.parse()?, step })
            }
            ["suspend", ms] => Ok(Self::Suspend { ms: number(ms)? }),
            ["descriptors", who, more, ms] => {
                Ok(Self::Descriptors { who: who.parse()?, more: number(more)?, ms: number(ms)? })
            }
            ["memory", who, more, ms] => {
                Ok(Self::Memory { who: who.parse()?, more: number(more)?, ms: number(ms)? })
            }
            ["disk", which, plan, ms] => {
                plan.parse::<landfall_pool::disk::faulty::Plan>()?;
                Ok(Self::Disk { broker: broker(which)?, plan: plan.into(), ms: number(ms)? })
            }
            ["damage", which, spot, when, seed] => Ok(Self::Damage {
                broker: broker(which)?,
                spot: spot.parse()?,
                running: either(when, "running", "stopped")?,
                seed: number(seed)?,
            }),
            ["pool", page, seed] => Ok(Self::Pool { page: page.parse()?, seed: number(seed)? }),
            ["space", who, space] => Ok(Self::Space { who: who.parse()?, space: space.parse()? }),
            ["twin", who, apart, ms] => Ok(Self::Twin {
                who: who.parse()?,
                apart: either(apart, "apart", "beside")?,
                ms: number(ms)?,
            }),
            ["twin-data", which, ms] => {
                Ok(Self::TwinData { broker: broker(which)?, ms: number(ms)? })
            }
            ["hostile", attack, ms] => {
                Ok(Self::Hostile { attack: attack.parse()?, ms: number(ms)? })
            }
            ["restart", end, order, away] => {
                let order = order.split('+').map(str::parse).collect::<Result<Vec<Who>, _>>()?;
                Ok(Self::Restart { end: end.parse()?, order, away: number(away)? })
            }
            ["cold", end] => Ok(Self::Cold { end: end.parse()? }),
            _ => Err(format!(
                "{text:?} is no fault; say one as in pause:broker-0:4000, clock:control:-60000, \
                 disk:1:sync-fails=1:1000 or restart:term:control+broker-0+broker-1:200"
            )),
        }
    }
}
