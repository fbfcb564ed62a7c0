//! The client library: publishers, subscribers, the order auditor.
//!
//! A [`Client`] talks to control over HTTP: topics, brokers, counters. From it come a
//! [`Publisher`] and a [`Subscriber`] for one topic each. Both are plain values without a thread
//! behind them: everything happens inside the calls, one owner at a time. A message that
//! [`Publisher::publish`] has taken waits in an open batch until that is full, or a later call
//! finds that it has lingered: whoever publishes now and then calls [`Publisher::poll`] in
//! between, or [`Publisher::flush`].
//!
//! Bytes travel through the pool ([`Transport::Memory`]) on a broker's own host, by RDMA
//! ([`Transport::Verbs`]) where both hosts have it, and over TCP everywhere. [`Transport::Auto`],
//! the default, takes the first of these that works; [`Publisher::transport`] and
//! [`Subscriber::transport`] say which one that was. Over verbs a publisher's batches are composed
//! in memory that its NIC sends from ([`Publisher::reserve`] lends it out, so that nothing is
//! copied), and a subscriber is written to, or reads by itself
//! ([`SubscriberBuilder::one_sided`]).
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use landfall::api::TopicSpec;
//! use landfall::{Client, Event, Order, Start};
//!
//! # fn main() -> Result<(), landfall::Error> {
//! let client = Client::new("http://127.0.0.1:7400")?;
//! client.create_topic(&TopicSpec::new("greetings", Order::Strong))?;
//!
//! let mut publisher = client.publisher("greetings").build()?;
//! publisher.publish(b"hello")?;
//! publisher.close()?;
//!
//! let mut subscriber = client.subscriber("greetings").from(Start::Earliest).build()?;
//! while let Event::Batch(batch) = subscriber.next(Duration::from_secs(1))? {
//!     for message in batch.messages() {
//!         println!("{}", String::from_utf8_lossy(message.payload));
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod api;
pub mod audit;
mod authority;
mod client;
mod connect;
mod error;
mod http;
pub mod local;
pub mod publisher;
mod route;
mod silence;
pub mod subscriber;
mod verbs;
mod wait;

pub use landfall_layout::batch::{BatchError, Message, Messages};
pub use landfall_layout::frame::{
    Ack, FrameError, From as Start, GapReason, Reached, Refusal, Stall,
};
pub use landfall_layout::held::{Held, HeldBy};
pub use landfall_layout::topic::Order;
pub use landfall_layout::verbs::GrantMode;

pub use client::Client;
pub use connect::{Transport, UnknownTransport};
pub use error::{Corruption, Error, Stalled};
pub use landfall_pool::idle::Idle;
pub use publisher::{
    Acked, BatchReceipt, Lane, Outgoing, PublishError, Publisher, PublisherBuilder, PublisherStats,
    Receipt, Reservation, Reserved, ReservedPositions, Ticket,
};
pub use subscriber::{Batch, Event, Mark, NoMark, Subscriber, SubscriberBuilder};
