//! Scenarios run against every transport and rig.
//!
//! A scenario is one promise of the whole system, told as a program: it starts real processes,
//! publishes, disturbs, reads back and judges. Every scenario runs on every [`rig::Rig`], and the
//! order auditor judges what subscribers saw in each.
//!
//! | module | what |
//! |---|---|
//! | [`rig`] | rigs, and a running system on one of them |
//! | [`device`] | the RDMA device they run on, where that was asked for |
//! | [`disks`] | disks that are swapped, emptied, older, damaged or away between two lives |
//! | [`explore`] | the protocols on memory that no hardware keeps coherent between hosts |
//! | [`faults`] | pauses, clocks, damage, doubles and more, drawn from a seed |
//! | [`flow`] | publishing and reading with known contents |
//! | [`history`] | what clients noted, and whether every promise was kept |
//! | [`raw`], [`raw_verbs`] | clients that speak the wire themselves, also wrongly |
//! | [`scenarios`] | the scenarios, in one table |
//! | [`sweep`] | processes killed after each of their stores, and what is left then |

#![forbid(unsafe_code)]

#[macro_use]
pub mod failure;
pub mod device;
pub mod disks;
pub mod explore;
pub mod faults;
pub mod flow;
pub mod history;
pub mod raw;
pub mod raw_verbs;
pub mod rig;
pub mod scenarios;
pub mod sweep;

pub use failure::Failure;
pub use rig::{Rig, Site};
