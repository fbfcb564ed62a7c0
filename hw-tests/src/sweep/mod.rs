//! The kill sweep: the real processes, each killed after each of its stores to shared memory.
//!
//! What a killed process leaves is a prefix of its stores ([`landfall_pool`] counts them when it
//! is built with the feature `kill-switch`). A run of a [`scenario`](mod@scenario) kills one
//! process after one of its stores, starts it again, lets everything recover, publishes and reads
//! on, and then judges what all clients noted ([`history`](crate::history)), that no segment is
//! missing and that no file was left behind. A sweep does that for many stores of every process;
//! torture draws several kills at random, whole-system kills among them, for as long as it is told
//! to.
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | who is killed when |
//! | [`child`], [`stage`] | the processes, started again when they are killed |
//! | [`client`], [`token`] | publishers and readers that note what they do |
//! | [`scenario`](mod@scenario) | what happens in a run, and what has to hold after it |
//! | [`campaign`] | many runs, two at a time |

pub mod campaign;
pub mod child;
pub mod client;
pub mod plan;
pub mod scenario;
pub mod stage;
pub mod token;
