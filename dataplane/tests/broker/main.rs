//! A broker in this process, on a pool in a memfd, with a scripted control.

mod again;
mod away;
mod client;
mod control;
mod drain;
mod garbage;
mod halves;
mod memory;
mod retention;
mod rig;
mod room;
mod sessions;
mod tcp;
mod token;
mod turns;
