//! A publisher that waits: whether its brokers are there, and what it says when it took too long.

use std::time::Duration;

use super::Publisher;
use super::drive::Trouble;
use crate::error::Error;
use crate::silence::lost;
use landfall_pool::clock::coarse_ns;

impl Publisher {
    /// Notes whether anything was heard of a broker. One that says nothing and that control gave up
    /// is left, as if its connection had ended.
    pub(super) fn listen(&mut self, link: usize, now_ns: u64) -> Result<(), Trouble> {
        let link = &mut self.links[link];
        if link.has_heard() {
            link.silence.heard();
            return Ok(());
        }
        if link.gone || !link.silence.nothing(now_ns) {
            return Ok(());
        }
        let finding = self.route.ask_about(link.broker);
        link.silence.found(finding, coarse_ns());
        match link.silence.doubt(now_ns) {
            Some((silent, finding)) if finding.leaves() => {
                Err(lost(link.broker, silent, finding).into())
            }
            _ => Ok(()),
        }
    }

    /// Nothing moved for the timeout: what is waited for, and who has it.
    #[cold]
    pub(super) fn too_long(&mut self, awaited: &str, waited: Duration) -> Error {
        let mut parts = vec![self.waiting_batches()];
        parts.extend(self.down_why.as_ref().map(|why| format!("not connected: {why}")));
        parts.extend((0..self.links.len()).map(|link| self.who_has_it(link)));
        parts.retain(|part| !part.is_empty());
        let mut awaited = awaited.to_owned();
        if !parts.is_empty() {
            awaited.push_str(&format!(" ({})", parts.join("; ")));
        }
        Error::Timeout { awaited, waited, stalled: self.stalled, held: self.held }
    }

    fn waiting_batches(&self) -> String {
        let sealed = self.session.unsettled().count();
        let filled: usize = self
            .lanes
            .iter()
            .map(|lane| lane.filled.len() + usize::from(lane.open.is_some()))
            .sum();
        match (sealed, filled) {
            (0, 0) => String::new(),
            (sealed, 0) => format!("{sealed} batches have no receipt"),
            (sealed, filled) => format!("{sealed} batches have no receipt, {filled} wait for room"),
        }
    }

    fn who_has_it(&mut self, link: usize) -> String {
        let link = &mut self.links[link];
        let finding = self.route.ask_about(link.broker);
        let mut text = match link.in_flight {
            0 => format!("broker {} has been sent none of what waits", link.broker),
            some => format!("broker {} has {some} of them", link.broker),
        };
        if let Some((silent, _)) = link.silence.doubt(coarse_ns()) {
            text.push_str(&format!(", said nothing for {} ms", silent.as_millis()));
        }
        text.push_str(&format!(", and {finding}"));
        text
    }
}
