//! What happened in a run, told when a failing run is made again.

use std::fmt;
use std::panic::Location;

/// One thing that happened.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    Load { at: u64, value: u64, stale: bool },
    Store { at: u64, value: u64 },
    Dma { at: u64, value: u64 },
    Moved { what: &'static str, at: u64, bytes: u64 },
    Fence { what: &'static str },
    Idle,
    Switch,
    Crash(&'static str),
    WorstCase,
}

/// An event, who made it and where in the source.
pub(crate) struct Told {
    pub process: usize,
    pub event: Event,
    pub place: Option<&'static Location<'static>>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}: ", self.process)?;
        match self.event {
            Event::Load { at, value, stale } => {
                let stale = if stale { " (older than the newest)" } else { "" };
                write!(f, "load {at:#x} = {value:#x}{stale}")?;
            }
            Event::Store { at, value } => write!(f, "store {at:#x} = {value:#x}")?,
            Event::Dma { at, value } => write!(f, "DMA {at:#x} = {value:#x}")?,
            Event::Moved { what, at, bytes } => write!(f, "{what} {at:#x}, {bytes} bytes")?,
            Event::Fence { what } => f.write_str(what)?,
            Event::Idle => f.write_str("waits")?,
            Event::Switch => f.write_str("goes on")?,
            Event::Crash(what) => f.write_str(what)?,
            Event::WorstCase => f.write_str("all wait; from here loads see the oldest they may")?,
        }
        match self.place {
            Some(place) => write!(f, "  [{}:{}]", place.file(), place.line()),
            None => Ok(()),
        }
    }
}
