//! The lives of a run, as a value that a seed gives.

use std::fmt;

use landfall::Order;

use crate::flow::Random;

/// Lives of a run.
const LIVES: usize = 5;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Brokers, each with a disk.
    pub brokers: u8,
    /// Copies of each batch, the pool counted as the first.
    pub replicas: u8,
    /// Order of the topic.
    pub order: Order,
    /// Brokers can read each other's directories.
    pub reads: bool,
    /// The lives, one after the other.
    pub lives: Vec<Life>,
}

impl Plan {
    /// Copies on disk.
    pub fn copies(&self) -> usize {
        usize::from(self.replicas) - 1
    }
}

/// A life of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Messages, through which broker.
    pub bursts: Vec<(u8, u64)>,
    /// A broker that is killed behind the bursts and stays away to the end of this life, and what
    /// is published then.
    pub dead: Option<(u8, u64)>,
    /// How it ends.
    pub end: End,
    /// The pool is there in the next life.
    pub keeps_pool: bool,
    /// What happens to disks before the next life.
    pub harm: Harm,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Stop,
    /// All processes are killed at once.
    Cut,
}

/// What happens to disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Nothing.
    None,
    /// Two are mounted in each other's places.
    Swap(u8, u8),
    /// An empty one comes in its place.
    Wipe(u8),
    /// A copy of it comes in its place, from the end of the life before.
    Older(u8),
    /// Bytes in its files change.
    Damage(u8, u64),
    /// One of its files is gone.
    Lose(u8, u64),
    /// It is away in the next life, and so is its broker.
    Away(u8),
}

impl Harm {
    /// The disk that it takes something from.
    pub fn takes_from(self) -> Option<u8> {
        match self {
            Self::None | Self::Swap(..) | Self::Away(_) => None,
            Self::Wipe(disk) | Self::Older(disk) | Self::Damage(disk, _) | Self::Lose(disk, _) => {
                Some(disk)
            }
        }
    }
}

/// The run of a seed.
pub fn draw(seed: u64) -> Plan {
    let mut random = Random::new(seed);
    // The first numbers of neighbouring seeds are alike.
    let _ = random.bytes(64);
    let brokers = 2 + random.below(2) as u8;
    let replicas = 2 + random.below(u64::from(brokers)) as u8;
    let orders = [Order::Strong, Order::Strong, Order::Total, Order::Stream, Order::Broker];
    let order = orders[random.below(orders.len() as u64) as usize];
    let reads = random.below(5) < 3;
    let lives = (0..LIVES).map(|_| life(&mut random, brokers, replicas)).collect();
    Plan { brokers, replicas, order, reads, lives }
}

fn life(random: &mut Random, brokers: u8, replicas: u8) -> Life {
    let count = |random: &mut Random| [1, 3, 20, 60, 200][random.below(5) as usize];
    let bursts = (0..random.below(4))
        .map(|_| (random.below(u64::from(brokers)) as u8, count(random)))
        .collect();
    let disk = random.below(u64::from(brokers)) as u8;
    let dies = random.below(5) == 0;
    let dead = dies.then(|| (random.below(u64::from(brokers)) as u8, count(random)));
    let end = if random.below(2) == 0 { End::Stop } else { End::Cut };
    let keeps_pool = random.below(3) == 0;
    let other = (disk + 1 + random.below(u64::from(brokers) - 1) as u8) % brokers;
    let seed = random.word();
    // With one copy on disk there is nothing to take it from.
    let kinds = if replicas > 2 { 9 } else { 4 };
    let harm = match random.below(kinds) {
        0 => Harm::None,
        // In a pool that goes on after a power cut, who has which disk is a matter of that life.
        1 if !keeps_pool || end == End::Stop => Harm::Swap(disk, other),
        1 => Harm::None,
        2 | 3 => Harm::Away(disk),
        4 => Harm::Wipe(disk),
        5 | 6 => Harm::Older(disk),
        7 => Harm::Damage(disk, seed),
        _ => Harm::Lose(disk, seed),
    };
    Life { bursts, dead, end, keeps_pool, harm }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, replicas, order, reads, lives } = self;
        let reads = if *reads { "that read each other's disks" } else { "that read their own" };
        write!(f, "{brokers} brokers {reads}, {replicas} copies, order {}", order.name())?;
        for Life { bursts, dead, end, keeps_pool, harm } in lives {
            for (broker, count) in bursts {
                write!(f, "; {count} by {broker}")?;
            }
            if let Some((broker, count)) = dead {
                write!(f, "; {broker} dies; {count} more")?;
            }
            let pool = if *keeps_pool { "pool kept" } else { "pool lost" };
            write!(f, "; {end:?}, {pool}, {harm:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_run_and_seeds_give_all_that_can_happen() {
        let mut harms = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let plan = draw(seed);
            assert_eq!(plan, draw(seed));
            assert!((2..=plan.brokers + 1).contains(&plan.replicas), "{plan}");
            for life in &plan.lives {
                let takes = life.harm.takes_from();
                assert!(takes.is_none() || plan.replicas > 2, "{plan}");
                let said = format!("{:?}", life.harm);
                harms.insert(said.split('(').next().unwrap_or_default().to_owned());
            }
        }
        assert_eq!(harms.len(), 7, "{harms:?}");
    }
}
