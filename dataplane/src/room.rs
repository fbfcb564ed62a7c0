//! Who makes room for another connection where there are as many as there may be.
//!
//! Whoever is told to go already; then whoever has connected and not said what for, the first of
//! them first; then the publisher that has been silent longest, if for a while. It connects again
//! by itself when it has something to publish. Nobody else ever goes.

use std::cmp::Reverse;
use std::io;

use landfall_layout::frame::Refusal;
use nix::sys::resource::{Resource, getrlimit};

use crate::broker::Broker;
use crate::conn::{Conn, Kind, Publisher, Via};
use crate::conns::Token;
use crate::hello::Stage;

/// Connections at a time, where descriptors bound them no further.
const MOST: usize = 16_384;
/// Ticks after which a publisher may be said to be silent: 30 s.
const SILENT: u32 = 300;
/// More than there may be that are still told that there are too many.
const TOLD: usize = 64;

/// How many connections there may be, and who could go.
pub struct Room {
    pub most: usize,
    /// As of the last tick, the first to go at the end.
    resting: Vec<Token>,
}

/// What a connection does that could go; the least goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rest {
    /// It was told to go.
    Told,
    /// Its hello has not come; when that has to be here.
    Greeting { deadline_ns: u64 },
    /// It publishes nothing; for so many ticks.
    Silent { ticks: Reverse<u32> },
}

impl Rest {
    fn of(conn: &Conn) -> Option<Self> {
        if conn.socket.is_verbs() {
            return None;
        }
        match &conn.kind {
            Kind::Closing { publisher: None, .. } if conn.held().is_none() => Some(Self::Told),
            Kind::Greeting(greeting) if matches!(greeting.stage, Stage::Reading) => {
                Some(Self::Greeting { deadline_ns: greeting.deadline_ns })
            }
            Kind::Publisher(publisher) => Self::of_publisher(publisher),
            _ => None,
        }
    }

    fn of_publisher(publisher: &Publisher) -> Option<Self> {
        let Publisher { in_flight: 0, wishes: 0, stalled: None, bye: false, via, still, .. } =
            publisher
        else {
            return None;
        };
        let is_silent = matches!(via, Via::Stream(_)) && still.ticks() >= SILENT;
        is_silent.then_some(Self::Silent { ticks: Reverse(still.ticks()) })
    }
}

impl Room {
    /// What this process has: half of its descriptors at most are for whoever comes.
    pub fn here() -> io::Result<Self> {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let half = usize::try_from(soft / 2).unwrap_or(MOST);
        Ok(Self { most: half.clamp(1, MOST), resting: Vec::new() })
    }

    /// What a client is told that finds no room.
    pub fn is_full(&self) -> String {
        format!("this broker has {} connections, which is its bound", self.most)
    }
}

impl Broker {
    /// Whether one more connection may be here, and be told at least that it may not stay.
    pub(crate) fn has_room(&mut self) -> (bool, bool) {
        while self.conns.live() >= self.room.most && self.make_room() {}
        let live = self.conns.live();
        (live < self.room.most, live < self.room.most + TOLD)
    }

    /// Whether somebody went.
    pub(crate) fn make_room(&mut self) -> bool {
        while let Some(token) = self.room.resting.pop() {
            let Some(rest) = self.conns.by_token(token).and_then(|conn| Rest::of(conn)) else {
                continue;
            };
            let slot = token.slot();
            if rest != Rest::Told {
                let text = format!("{}, and this one rests: come again", self.room.is_full());
                self.refuse(slot, Refusal::Busy, &text);
                self.flush_conn(slot);
            }
            self.drop_conn(slot);
            return true;
        }
        false
    }

    /// Looks who could go, if somebody may have to soon.
    pub(crate) fn tick_room(&mut self) {
        let Self { conns, room, .. } = self;
        room.resting.clear();
        if conns.live() < room.most - room.most / 4 {
            return;
        }
        let mut all: Vec<(Rest, Token)> =
            conns.iter().filter_map(|conn| Some((Rest::of(conn)?, conn.token))).collect();
        all.sort_by_key(|(rest, _)| Reverse(*rest));
        room.resting.extend(all.into_iter().map(|(_, token)| token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_told_goes_before_who_says_nothing_and_before_who_publishes_nothing() {
        let greeting = |deadline_ns| Rest::Greeting { deadline_ns };
        let silent = |ticks| Rest::Silent { ticks: Reverse(ticks) };
        let mut all = [silent(300), greeting(9), silent(301), Rest::Told, greeting(8)];
        all.sort();
        assert_eq!(all, [Rest::Told, greeting(8), greeting(9), silent(301), silent(300)]);
    }
}
