//! SIGINT and SIGTERM as a word that loops look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::{Failure, Outcome};

/// Whether somebody asked this process to stop.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on SIGINT and SIGTERM only set the word. A second one ends the process at once, so
    /// that a command that does not look any more can still be ended.
    pub fn on_signals() -> Outcome<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 1, stop.0.clone())
                .and_then(|_| signal_hook::flag::register(signal, stop.0.clone()))
                .map_err(|error| Failure::failed("cannot take signals", error))?;
        }
        Ok(stop)
    }

    /// Whether it is time to stop.
    pub fn asked(&self) -> bool {
        // Relaxed: nothing is published with the word; it is looked at again and again.
        self.0.load(Ordering::Relaxed)
    }
}
