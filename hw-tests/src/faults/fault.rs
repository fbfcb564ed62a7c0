//! What goes wrong in a run, as a value: it has a text that is read back, and knows nothing of
//! processes.

use std::fmt;
use std::str::FromStr;

/// A process of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Who {
    /// The control that leads at the beginning.
    Control,
    /// A control that waits for its turn.
    Standby,
    /// A broker.
    Broker(u8),
    /// A publisher.
    Publisher(u8),
    /// A subscriber that reads while the others work.
    Subscriber(u8),
    /// A reader of a topic that begins when everything is over, through a broker.
    Reader(u8, u8),
}

impl Who {
    /// Everybody that things happen to, servers first.
    pub const ALL: [Self; 9] = [
        Self::Control,
        Self::Standby,
        Self::Broker(0),
        Self::Broker(1),
        Self::Publisher(0),
        Self::Publisher(1),
        Self::Publisher(2),
        Self::Subscriber(0),
        Self::Subscriber(1),
    ];

    /// Whether it serves until it is told to end.
    pub fn is_server(self) -> bool {
        matches!(self, Self::Control | Self::Standby | Self::Broker(_))
    }

    /// Whether it may lead.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Control | Self::Standby)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Standby => f.write_str("standby"),
            Self::Broker(number) => write!(f, "broker-{number}"),
            Self::Publisher(number) => write!(f, "publisher-{number}"),
            Self::Subscriber(number) => write!(f, "subscriber-{number}"),
            Self::Reader(topic, broker) => write!(f, "reader-{topic}-{broker}"),
        }
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        word(&Self::ALL, text, "process")
    }
}

/// The one of `all` that is called so.
fn word<T: Copy + fmt::Display>(all: &[T], text: &str, what: &str) -> Result<T, String> {
    all.iter().copied().find(|it| it.to_string() == text).ok_or_else(|| {
        let all: Vec<String> = all.iter().map(T::to_string).collect();
        format!("{text:?} is no {what}; say one of {}", all.join(", "))
    })
}

/// An enum of plain words.
macro_rules! words {
    (
        $(#[$about:meta])* $name:ident, $what:literal:
        $($(#[$doc:meta])* $case:ident $word:literal),+ $(,)?
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$doc])* $case),+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$case),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$case => $word),+ })
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                word(Self::ALL, text, $what)
            }
        }
    };
}

words! {
    /// Kinds of faults, as a command line chooses among them.
    Kind, "kind of fault":
    /// SIGKILL, at a time or after a store.
    Kill "kill",
    /// SIGSTOP for a while.
    Pause "pause",
    /// The wall clock of a process steps.
    Clock "clock",
    /// The host sleeps: all stop, and boot time is later when they go on.
    Suspend "suspend",
    /// No more descriptors.
    Descriptors "descriptors",
    /// No more memory.
    Memory "memory",
    /// Writes and syncs fail or are slow.
    Disk "disk",
    /// Bytes of replica files change.
    Damage "damage",
    /// Bytes of the pool change.
    Pool "pool",
    /// A process in namespaces of its own.
    Space "space",
    /// A second process where one is meant.
    Twin "twin",
    /// A client that breaks the rules.
    Hostile "hostile",
    /// Servers end and begin again, in some order.
    Restart "restart",
    /// The pool is lost, and made anew from the replicas.
    Cold "cold",
}

words! {
    /// What is damaged in a replica file.
    Spot, "part of a replica file":
    /// Its header.
    Header "header",
    /// A record's header.
    Record "record",
    /// A record's checksum.
    Checksum "checksum",
    /// What a record holds.
    Payload "payload",
    /// A record that says how far all is there.
    Frontier "frontier",
    /// The topic's settings beside the files.
    Settings "settings",
    /// A page becomes zeros.
    Page "page",
    /// The end is cut off.
    End "end",
}

words! {
    /// What is damaged in a pool.
    Page, "part of a pool":
    /// A batch's payload.
    Payload "payload",
    /// The page of a table.
    Table "table",
}

words! {
    /// Which of a process's namespaces is its own.
    Space, "namespace":
    /// Process ids.
    Pid "pid",
    /// Networks.
    Net "net",
    /// Both.
    Both "both",
}

words! {
    /// What a hostile client does.
    Attack, "attack":
    /// Bytes that are no frame.
    Garbage "garbage",
    /// A batch that stops half way.
    Half "half",
    /// Sequences that are not due.
    Sequence "sequence",
    /// Its own acknowledged batch anew, with good checksums.
    Rewrite "rewrite",
    /// Its own acknowledged batch, some bytes of it.
    Spoil "spoil",
    /// Connections that say nothing and stay.
    Hold "hold",
    /// One greeting after the other.
    Hello "hello",
    /// Connections to control that ask nothing and stay.
    Http "http",
}

words! {
    /// How servers are told to end.
    End, "way to end":
    /// SIGTERM.
    Term "term",
    /// SIGKILL.
    Kill "kill",
}

/// One thing that goes wrong. Times are milliseconds.
#[allow(missing_docs, reason = "each variant says what its fields are")]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// A process is killed and stays away.
    Kill { who: Who, away: u64 },
    /// A process's first life ends after that store to shared memory.
    KillAt { who: Who, store: u64 },
    /// A process stands still.
    Pause { who: Who, ms: u64 },
    /// A process's wall clock steps by so much, and stays so.
    Clock { who: Who, step: i64 },
    /// All processes stand still and then it is so much later.
    Suspend { ms: u64 },
    /// A process may open so many descriptors more than it has.
    Descriptors { who: Who, more: u64, ms: u64 },
    /// A process may have so many KiB more than it has.
    Memory { who: Who, more: u64, ms: u64 },
    /// A broker's disk fails as the words of [`landfall_pool::disk::faulty::Plan`] say.
    Disk { broker: u8, plan: String, ms: u64 },
    /// A broker's replica files change. It runs, or it is killed before and comes back behind.
    Damage { broker: u8, spot: Spot, running: bool, seed: u64 },
    /// The pool changes.
    Pool { page: Page, seed: u64 },
    /// A process has namespaces of its own from the beginning.
    Space { who: Who, space: Space },
    /// Another process is started as this one was, in a network namespace of its own or not.
    Twin { who: Who, apart: bool, ms: u64 },
    /// Another broker is started on a broker's data directory, of this pool or of one of its own.
    TwinData { broker: u8, ms: u64 },
    /// A client that breaks the rules, for a while.
    Hostile { attack: Attack, ms: u64 },
    /// Servers end one after the other, all are away for a while and begin in that order.
    Restart { end: End, order: Vec<Who>, away: u64 },
    /// The pool is lost.
    Cold { end: End },
}

impl Fault {
    /// What kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } | Self::KillAt { .. } => Kind::Kill,
            Self::Pause { .. } => Kind::Pause,
            Self::Clock { .. } => Kind::Clock,
            Self::Suspend { .. } => Kind::Suspend,
            Self::Descriptors { .. } => Kind::Descriptors,
            Self::Memory { .. } => Kind::Memory,
            Self::Disk { .. } => Kind::Disk,
            Self::Damage { .. } => Kind::Damage,
            Self::Pool { .. } => Kind::Pool,
            Self::Space { .. } => Kind::Space,
            Self::Twin { .. } | Self::TwinData { .. } => Kind::Twin,
            Self::Hostile { .. } => Kind::Hostile,
            Self::Restart { .. } => Kind::Restart,
            Self::Cold { .. } => Kind::Cold,
        }
    }

    /// How long it lasts, in milliseconds: until then its end is not waited for.
    pub fn lasts(&self) -> u64 {
        match self {
            Self::Kill { away, .. } | Self::Restart { away, .. } => *away,
            Self::Pause { ms, .. }
            | Self::Descriptors { ms, .. }
            | Self::Memory { ms, .. }
            | Self::Disk { ms, .. }
            | Self::Twin { ms, .. }
            | Self::TwinData { ms, .. }
            | Self::Hostile { ms, .. } => *ms,
            Self::Suspend { .. } => 300,
            Self::KillAt { .. }
            | Self::Clock { .. }
            | Self::Damage { .. }
            | Self::Pool { .. }
            | Self::Space { .. }
            | Self::Cold { .. } => 0,
        }
    }
}

/// A fault, and when it begins: milliseconds after the clients did.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timed {
    /// What.
    pub fault: Fault,
    /// When.
    pub at: u64,
}
