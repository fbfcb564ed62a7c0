//! The control process: topics, segments, sessions and the sequencer.
//!
//! Three threads. The [`ordering`] thread carries out what the [`sequencer`] of each topic
//! decides, and nothing else. The [`keeper`] owns topics and segments and speaks with brokers
//! through the pool. [`http`] serves people and clients. They speak by channels; what they share
//! with other processes is in the pool, where each line has one writer.

#![forbid(unsafe_code)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod answers;
pub mod bitmap;
pub mod cold;
pub mod copies;
mod directories;
pub mod election;
pub mod http;
pub mod keeper;
pub mod life;
pub mod messages;
pub mod ordering;
pub mod outbox;
pub mod random;
pub mod recovery;
pub mod retention;
pub mod segments;
pub mod sequencer;
pub mod start;
mod taking_over;

pub use ordering::Idle;
pub use start::{Asker, Control, Options, StartError};
