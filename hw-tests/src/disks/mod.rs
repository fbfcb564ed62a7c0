//! What happens to disks between two lives of a system: they change places, are replaced by empty
//! or older ones, are damaged, or are away. A run is a few lives with a harm between them, drawn
//! from a seed, and is judged by what really lies in the files.
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | the lives of a run, as a value |
//! | [`truth`] | which messages lie on which disk |
//! | [`world`] | the processes and the directories |
//! | [`run`] | a run, and what has to hold in it |
//! | [`campaign`] | many runs, some at a time |
//!
//! Two rules find most: where all copies are called `well`, each acknowledged message lies on as
//! many disks as its topic has copies there; and a start that is not refused shows each of them.

pub mod campaign;
pub mod plan;
pub mod run;
pub mod truth;
pub mod world;

/// Folder of the data directories, and in it `broker-N` of each broker.
pub const DISKS: &str = "disks";
