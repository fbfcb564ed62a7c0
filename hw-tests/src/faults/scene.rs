//! What faults happen to: systems of one shape with topics of different promises.

use landfall::{Order, Transport};

/// A system and its topics.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// Order of its topics.
    pub order: Order,
    /// Copies of each batch, the pool counted as the first; with more than one, receipts are for
    /// what is durable.
    pub replicas: u8,
    /// A second control waits.
    pub standby: bool,
    /// The pool's lines are written back and dropped.
    pub flush: bool,
    /// The first publisher deals its batches out over both brokers.
    pub spread: bool,
    /// Memory keeps little, and the rest is read from disk.
    pub short: bool,
}

const PLAIN: Scene = Scene {
    name: "",
    about: "",
    order: Order::Strong,
    replicas: 1,
    standby: false,
    flush: false,
    spread: false,
    short: false,
};

/// All scenes.
pub const SCENES: [Scene; 10] = [
    Scene { name: "strong", about: "order strong, in memory", ..PLAIN },
    Scene { name: "total", about: "order total, in memory", order: Order::Total, ..PLAIN },
    Scene { name: "stream", about: "order stream", order: Order::Stream, standby: true, ..PLAIN },
    Scene { name: "none", about: "order none", order: Order::None, ..PLAIN },
    Scene { name: "standby", about: "order strong, two controls", standby: true, ..PLAIN },
    Scene { name: "flush", about: "a pool that is flushed", flush: true, standby: true, ..PLAIN },
    Scene { name: "spread", about: "a publisher through both brokers", spread: true, ..PLAIN },
    Scene {
        name: "durable",
        about: "each batch on both brokers' disks before its receipt, two controls",
        replicas: 3,
        standby: true,
        ..PLAIN
    },
    Scene {
        name: "durable-none",
        about: "the same in order none, one control",
        order: Order::None,
        replicas: 3,
        ..PLAIN
    },
    Scene {
        name: "durable-short",
        about: "both disks, memory keeps little, a publisher through both brokers",
        replicas: 3,
        short: true,
        spread: true,
        ..PLAIN
    },
];

/// The scene of that name.
pub fn find(name: &str) -> Result<&'static Scene, String> {
    SCENES.iter().find(|scene| scene.name == name).ok_or_else(|| {
        let names: Vec<&str> = SCENES.iter().map(|scene| scene.name).collect();
        format!("there is no scene {name:?}; say one of {}", names.join(", "))
    })
}

/// A publisher: its number, its topic, its way. Every topic has publishers of its own.
pub const PUBLISHERS: [(u8, usize, Transport, Option<u8>); 3] = [
    (0, 0, Transport::Memory, Some(0)),
    (1, 0, Transport::Tcp, Some(1)),
    // It goes where there is a broker.
    (2, 1, Transport::Auto, None),
];

/// A subscriber that reads meanwhile, likewise.
pub const SUBSCRIBERS: [(u8, usize, Transport, Option<u8>); 2] =
    [(0, 0, Transport::Memory, Some(0)), (1, 1, Transport::Tcp, None)];
