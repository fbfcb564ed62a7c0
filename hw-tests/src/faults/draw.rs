//! Faults drawn from a seed: the same for the same seed, wherever and however often.

use super::fault::{Attack, End, Fault, Kind, Page, Space, Spot, Timed, Who};
use super::scene::{SCENES, Scene};
use crate::flow::Random;

/// What is drawn from.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Kinds that may come.
    pub kinds: Vec<Kind>,
    /// Longest pause, milliseconds.
    pub pause_max: u64,
    /// Faults of a run at most.
    pub most: u64,
}

/// Scene and faults of the run with that seed. With `first`, a fault of that kind is among them;
/// with `only`, that is the scene, and what cannot happen there is left out.
pub fn draw(
    choice: &Choice,
    seed: u64,
    first: Option<Kind>,
    only: Option<&'static Scene>,
) -> (&'static Scene, Vec<Timed>) {
    let mut random = Random::new(seed);
    // The first numbers of neighbouring seeds resemble each other.
    random.word();
    let count = 1 + random.below(choice.most.max(1));
    let mut kinds: Vec<Kind> = Vec::new();
    for number in 0..count {
        let kind = *of(&mut random, &choice.kinds);
        kinds.push(first.filter(|_| number == 0).unwrap_or(kind));
    }
    // Who is away, or cannot see the others, is taken for dead only together with something else.
    if kinds.contains(&Kind::Space) && choice.kinds.contains(&Kind::Pause) {
        kinds.extend([Kind::Pause, Kind::Pause]);
    }
    // A copy may be lost to one fault, not to two.
    if kinds.contains(&Kind::Pool) {
        let keep = kinds[0];
        let other = if keep == Kind::Damage { Kind::Pool } else { Kind::Damage };
        kinds.retain(|kind| *kind != other);
    }
    let needs_disks = [Kind::Cold, Kind::Damage, Kind::Disk, Kind::Pool];
    let is_durable = kinds.iter().any(|kind| needs_disks.contains(kind));
    let scenes: Vec<&'static Scene> =
        SCENES.iter().filter(|scene| !is_durable || scene.replicas > 1).collect();
    let any = *of(&mut random, &scenes);
    let scene = only.unwrap_or(any);
    kinds.retain(|kind| scene.replicas > 1 || !needs_disks.contains(kind));
    // Only one broker's files are damaged, so that the other's have everything.
    let damaged = random.below(2) as u8;
    let mut faults: Vec<Timed> = Vec::new();
    for kind in kinds {
        let at = random.below(1500);
        faults.push(Timed { fault: fault(&mut random, kind, scene, damaged, choice), at });
    }
    faults.sort_by_key(|timed| timed.at);
    // A process has namespaces once.
    let mut spaced = Vec::new();
    faults.retain(|timed| match timed.fault {
        Fault::Space { who, .. } => {
            let is_first = !spaced.contains(&who);
            spaced.push(who);
            is_first
        }
        _ => true,
    });
    (scene, faults)
}

fn of<'a, T>(random: &mut Random, all: &'a [T]) -> &'a T {
    &all[random.below(all.len() as u64) as usize]
}

fn anybody(random: &mut Random, scene: &Scene) -> Who {
    let all: Vec<Who> =
        Who::ALL.into_iter().filter(|who| scene.standby || *who != Who::Standby).collect();
    *of(random, &all)
}

fn server(random: &mut Random, scene: &Scene) -> Who {
    loop {
        let who = anybody(random, scene);
        if who.is_server() {
            return who;
        }
    }
}

fn fault(random: &mut Random, kind: Kind, scene: &Scene, damaged: u8, choice: &Choice) -> Fault {
    let broker = random.below(2) as u8;
    match kind {
        Kind::Kill if random.below(3) == 0 => {
            Fault::KillAt { who: anybody(random, scene), store: 1 + random.below(4000) }
        }
        Kind::Kill => Fault::Kill { who: anybody(random, scene), away: random.below(400) },
        Kind::Pause => {
            // Shorter and longer than each lease.
            let ms = *of(random, &[350, 600, 600, 1500, 4000, 4000, 12_000]);
            Fault::Pause { who: anybody(random, scene), ms: ms.min(choice.pause_max) }
        }
        Kind::Clock => {
            let step = *of(random, &[2_000, 4_000, 60_000, 3_600_000, 12 * 3_600_000]);
            let step = if random.below(2) == 0 { step } else { -step };
            Fault::Clock { who: anybody(random, scene), step }
        }
        Kind::Suspend => Fault::Suspend { ms: *of(random, &[800, 4_000, 30_000, 3_600_000]) },
        Kind::Descriptors => Fault::Descriptors {
            who: server(random, scene),
            more: random.below(4),
            ms: 300 + random.below(1200),
        },
        Kind::Memory => Fault::Memory {
            who: server(random, scene),
            more: random.below(4096),
            ms: 300 + random.below(1200),
        },
        Kind::Disk => {
            let number = random.below(6);
            let plan = match random.below(6) {
                0 => format!("write-fails={}", 1 + number),
                1 => format!("sync-fails={}", 1 + number),
                2 => format!("full-after={}", number * 3000),
                3 => format!("short={},sync-us=3000", 64 + number * 100),
                4 => format!("sync-us={}", 20_000 * (1 + number)),
                _ => format!("write-us={},sync-us=50000", 5_000 * (1 + number)),
            };
            Fault::Disk { broker, plan, ms: 300 + random.below(1500) }
        }
        Kind::Damage => Fault::Damage {
            broker: damaged,
            spot: *of(random, Spot::ALL),
            running: random.below(2) == 0,
            seed: random.below(1000),
        },
        Kind::Pool => {
            let page = if random.below(4) == 0 { Page::Table } else { Page::Payload };
            Fault::Pool { page, seed: random.below(1000) }
        }
        Kind::Space => {
            let who = server(random, scene);
            let space = *of(random, Space::ALL);
            // What memory has no more is read over TCP, which another network is not.
            Fault::Space { who, space: if scene.replicas > 1 { Space::Pid } else { space } }
        }
        Kind::Twin if scene.replicas > 1 && random.below(3) == 0 => {
            Fault::TwinData { broker, ms: 800 + random.below(1500) }
        }
        Kind::Twin => {
            let who = *of(random, &[Who::Control, Who::Broker(0), Who::Broker(1)]);
            let apart = random.below(2) == 0;
            Fault::Twin { who, apart, ms: 800 + random.below(1500) }
        }
        Kind::Hostile => {
            Fault::Hostile { attack: *of(random, Attack::ALL), ms: 500 + random.below(1500) }
        }
        Kind::Restart => {
            let mut order = vec![Who::Control, Who::Broker(0), Who::Broker(1)];
            if scene.standby {
                order.push(Who::Standby);
            }
            for i in (1..order.len()).rev() {
                order.swap(i, random.below(i as u64 + 1) as usize);
            }
            Fault::Restart { end: *of(random, End::ALL), order, away: random.below(500) }
        }
        Kind::Cold => Fault::Cold { end: *of(random, End::ALL) },
    }
}
