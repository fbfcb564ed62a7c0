//! Who is killed when.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A process of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// Control.
    Control,
    /// A broker.
    Broker(u8),
    /// A publisher: 0 writes into the pool, 1 sends over tcp; 2 leaves reserved positions behind.
    Publisher(u8),
    /// The subscriber that reads while the others work.
    Subscriber,
}

impl Part {
    /// Those that a sweep kills. Broker 1 is broker 0 with a tcp publisher.
    pub const ALL: [Self; 7] = [
        Self::Control,
        Self::Broker(0),
        Self::Broker(1),
        Self::Publisher(0),
        Self::Publisher(1),
        Self::Publisher(2),
        Self::Subscriber,
    ];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Broker(number) => write!(f, "broker-{number}"),
            Self::Publisher(number) => write!(f, "publisher-{number}"),
            Self::Subscriber => f.write_str("subscriber"),
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|part| part.to_string() == text);
        known.ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(Self::to_string).collect();
            format!("there is no process {text:?}; say one of {}", all.join(", "))
        })
    }
}

/// The kills of one run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// For each process, the stores after which its lives end, first life first. A life beyond
    /// those listed is not cut short.
    pub kills: BTreeMap<Part, Vec<u64>>,
    /// Processes that are killed so long after the beginning, if they are there then.
    pub timed: Vec<(Part, Duration)>,
    /// When all processes are killed together.
    pub all_at: Option<Duration>,
    /// How long a killed process stays away.
    pub away: Duration,
}

impl Plan {
    /// Nobody is killed.
    pub fn quiet() -> Self {
        Self::default()
    }

    /// One process is killed once, after its `store`-th store.
    pub fn one(part: Part, store: u64) -> Self {
        Self { kills: BTreeMap::from([(part, vec![store])]), ..Self::default() }
    }

    pub(super) fn kill_at(&self, part: Part, life: u32) -> Option<u64> {
        self.kills.get(&part)?.get(life as usize).copied()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (part, stores) in &self.kills {
            let stores: Vec<String> = stores.iter().map(u64::to_string).collect();
            parts.push(format!("{part} at {}", stores.join(", then ")));
        }
        for (part, after) in &self.timed {
            parts.push(format!("{part} after {} ms", after.as_millis()));
        }
        if let Some(at) = self.all_at {
            parts.push(format!("all after {} ms", at.as_millis()));
        }
        if parts.is_empty() { f.write_str("nobody") } else { f.write_str(&parts.join("; ")) }
    }
}
