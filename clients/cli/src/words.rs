//! The words that flags and settings choose between.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

macro_rules! words {
    ($($(#[$doc:meta])+ $name:ident { $($(#[$word_doc:meta])+ $word:ident),+ $(,)? })+) => { $(
        $(#[$doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$word_doc])+ $word),+ }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                // The very word that a flag takes.
                let word = self.to_possible_value();
                f.write_str(word.as_ref().map_or("", |word| word.get_name()))
            }
        }
    )+ };
}

words! {
    /// What order a topic promises.
    Order {
        /// Every message is delivered, each broker's log in its own order
        None,
        /// First-in first-out of each broker's log, positions per broker
        Broker,
        /// One sequence, the same for every subscriber
        Total,
        /// Positions reserved first and written anywhere
        Token,
        /// Total, and first-in first-out for each (client, broker)
        Stream,
        /// Total, first-in first-out for each client across brokers, exactly once
        Strong,
    }

    /// The level a publisher waits for.
    Ack {
        /// No receipts
        None,
        /// Ordered; for orders none and broker: landed
        Ordered,
        /// Written to every disk replica, where a process that ends cannot lose it: what a topic
        /// with --durability window gives
        Replicated,
        /// On stable storage of every disk replica; not with --durability window
        Durable,
    }

    /// How bytes reach a broker and come back.
    Transport {
        /// Memory where the broker is on this host and lets us, else verbs where both sides have
        /// RDMA, else tcp
        Auto,
        /// Through the shared pool
        Memory,
        /// By RDMA
        Verbs,
        /// Over a socket
        Tcp,
    }

    /// How batches get into the pool over verbs.
    Grant {
        /// The publisher writes through a memory window on each extent
        Window,
        /// The publisher writes under the key of a payload segment: every host is trusted
        Open,
        /// The broker reads them from the publisher: nothing of the pool can be written
        Pull,
    }

    /// How a subscriber gets its bytes over verbs.
    Read {
        /// The broker writes batches into the subscriber's ring
        Pushed,
        /// The subscriber reads log and payload out of the pool by itself
        OneSided,
    }

    /// How a process waits.
    Idle {
        /// Polls all the time
        Spin,
        /// Spins, yields, then sleeps
        Backoff,
    }

    /// How a view is printed.
    Format {
        /// For people
        Table,
        /// For programs; has a schema_version
        Json,
    }

    /// How messages are printed.
    Lines {
        /// The payload and a newline
        Raw,
        /// A JSON document a line
        Json,
    }
}

impl From<Order> for landfall::Order {
    fn from(order: Order) -> Self {
        match order {
            Order::None => Self::None,
            Order::Broker => Self::Broker,
            Order::Total => Self::Total,
            Order::Token => Self::Token,
            Order::Stream => Self::Stream,
            Order::Strong => Self::Strong,
        }
    }
}

impl From<Ack> for landfall::Ack {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::None => Self::None,
            Ack::Ordered => Self::Ordered,
            // The receipts of the topic say which of the two it gives.
            Ack::Replicated | Ack::Durable => Self::Durable,
        }
    }
}

impl From<Transport> for landfall::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Auto => Self::Auto,
            Transport::Memory => Self::Memory,
            Transport::Verbs => Self::Verbs,
            Transport::Tcp => Self::Tcp,
        }
    }
}

impl From<Grant> for landfall::GrantMode {
    fn from(grant: Grant) -> Self {
        match grant {
            Grant::Window => Self::Window,
            Grant::Open => Self::Open,
            Grant::Pull => Self::Pull,
        }
    }
}

impl From<Idle> for landfall::Idle {
    fn from(idle: Idle) -> Self {
        match idle {
            Idle::Spin => Self::Spin,
            Idle::Backoff => Self::Backoff,
        }
    }
}
