//! A subscriber whose broker says nothing: whether it goes to another one.
//!
//! One that reads the pool by itself needs its broker too: it answers for what is being read. So
//! that is looked after while batches come as well; the others find it out when they wait.

use std::time::Duration;

use super::{Subscriber, Via};
use crate::error::Error;
use crate::silence::lost;
use landfall_pool::clock::coarse_ns;

/// Time between two looks, while waiting.
const LISTEN_EVERY_NS: u64 = 50_000_000;

impl Subscriber {
    /// Before a wait: notes whether anything was heard of the broker, now and then. An error where
    /// nothing was for the timeout, and there is no other broker to go to.
    pub(super) fn listen_sometimes(&mut self) -> Result<(), Error> {
        let now = coarse_ns();
        if now.saturating_sub(self.listened_ns) < LISTEN_EVERY_NS {
            return Ok(());
        }
        self.listened_ns = now;
        self.listen(now);
        let timeout = self.setup.timeout;
        match self.silence.doubt(now) {
            Some((silent, finding)) if !finding.serves() => {
                let awaited = format!(
                    "broker {} to say anything, which it did not for {} ms, and {finding}",
                    self.broker,
                    silent.as_millis()
                );
                match self.silence.is_to_be_told(now, timeout) {
                    true => {
                        Err(Error::Timeout { awaited, waited: silent, stalled: None, held: None })
                    }
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Notes whether anything was heard of the broker. One that says nothing and that control gave
    /// up is left, as if its connection had ended.
    pub(super) fn listen(&mut self, now_ns: u64) {
        let has_heard = match &mut self.via {
            Via::Memory(reader) => {
                reader.has_looked = false;
                reader.has_beaten()
            }
            Via::Pushed(reader) => reader.has_heard(),
            Via::OneSided(reader) => reader.has_heard(),
            Via::Tcp(reader) => std::mem::take(&mut reader.has_heard),
            Via::Down => true,
        };
        if has_heard {
            self.silence.heard();
        } else if self.silence.nothing(now_ns) {
            self.doubt(now_ns);
        }
    }

    #[cold]
    fn doubt(&mut self, now_ns: u64) {
        let finding = self.route.ask_about(self.broker);
        let silent = self.silence.doubt(now_ns).map_or(Duration::ZERO, |(silent, _)| silent);
        if finding.leaves() {
            self.let_go(lost(self.broker, silent, &finding));
            self.silence.heard();
        } else {
            self.silence.found(finding, coarse_ns());
        }
    }
}
