//! Going away in good order.

use std::time::Duration;

use landfall_layout::frame::Frame;
use landfall_layout::limits::HEARTBEAT_LEASE_NS;
use landfall_layout::pool::BrokerState;
use landfall_pool::clock::boot_ns;
use landfall_pool::stderr;

use crate::broker::Broker;
use crate::conn::{Conn, Kind};
use crate::conns::Conns;

/// Receipts for what has landed are waited for this long.
const RECEIPTS_NS: u64 = 2_000_000_000;
/// Then clients have this long to read what they were told.
const FAREWELL_NS: u64 = 500_000_000;
/// A subscriber over memory that still reads a segment has this long to let go of it: as long as
/// control waits for those of a broker that died.
const READERS_NS: u64 = HEARTBEAT_LEASE_NS;
/// At most so many clients are named.
const NAMED_MOST: usize = 4;

impl Broker {
    /// Takes nothing new, reports what has landed, says goodbye to everyone, copies what logs have,
    /// gives its segments back and leaves its line absent.
    pub(crate) fn leave(&mut self) {
        if !self.env.stands(boot_ns()) {
            self.cast_off();
            return;
        }
        self.say(BrokerState::Leaving);
        self.turn_until(RECEIPTS_NS, |broker| {
            broker.topics.iter().flatten().all(|topic| topic.is_settled())
        });
        for slot in self.conns.slots() {
            let Self { env, conns, .. } = self;
            let Some(conn) = conns.get(slot) else { continue };
            if matches!(conn.kind, Kind::Closing { .. }) {
                continue;
            }
            if let Kind::Stream(delivering) = &mut conn.kind {
                delivering.spill_any(env, &mut conn.out);
            }
            conn.tell(Frame::Bye);
            self.begin_closing(slot);
        }
        // Who keeps copies of what it landed knows from here on that no more comes.
        self.say(BrokerState::Landed);
        self.turn_until(FAREWELL_NS, |broker| broker.conns.live() == 0);
        let until_ns = boot_ns().saturating_add(self.stop_wait_ns);
        if let Some(who) = self.named(Conn::may_write) {
            self.tell(&format!(
                "waits for up to {} s for {who}, which may write into the pool over memory and has \
                 not closed its connection, as one that is stopped",
                self.stop_wait_ns / 1_000_000_000
            ));
            self.turn_until(self.stop_wait_ns, |broker| !broker.conns.iter().any(Conn::may_write));
        }
        self.drain(until_ns);
        // One that stands still in the middle of a batch is known of by this broker alone.
        self.turn_until(READERS_NS, |broker| {
            broker.conns.iter().all(|conn| conn.channel.is_none() || conn.may_write())
        });
        if self.env.standing.is_cast_off() {
            return;
        }
        if let Some(replicator) = &mut self.replicator {
            replicator.stop();
        }
        // A memory client that has not closed and may write is no clean end: control waits for it,
        // as it does for those of a process that died. Who only reads changes nothing of where
        // logs end, whatever it does.
        let writers = self.named(Conn::may_write);
        for slot in self.conns.slots() {
            // One that is stopped may still write what it was granted: nothing is said to be over
            // of that. Control asks the kernel about it, as for a process that died.
            let writes = self.conns.get(slot).is_some_and(|conn| conn.may_write());
            if !writes {
                self.drop_conn(slot);
            }
        }
        if let Some(who) = writers {
            self.tell(&format!(
                "ends while {who} may still write into the pool over memory: it has not left in \
                 good order"
            ));
            return;
        }
        if !self.env.standing.look(&self.env.pool, boot_ns()) {
            return;
        }
        let Self { env, topics, link, .. } = self;
        for topic in topics.iter_mut().flatten() {
            topic.stock.close(env);
            topic.report_sealed(env, link);
        }
        env.pool.beat_broker(env.me, boot_ns(), link.epoch(), BrokerState::Absent.raw());
        env.ring_control();
    }

    /// Control does not count on this process any more: others may use what it was writing into.
    /// Nothing is written or said from here on. Queue pairs go first, with their windows, then the
    /// registrations: what clients' NICs may reach through them is not this broker's.
    #[cold]
    pub(crate) fn cast_off(&mut self) -> usize {
        self.conns = Conns::new();
        self.verbs = None;
        0
    }

    /// The clients that are so, for people; none: there is none.
    fn named(&self, is_so: impl Fn(&Conn) -> bool) -> Option<String> {
        let mut all: Vec<String> =
            self.conns.iter().filter(|it| is_so(it)).map(Conn::client).collect();
        all.sort_unstable();
        all.dedup();
        let more = all.len().saturating_sub(NAMED_MOST);
        all.truncate(NAMED_MOST);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!all.is_empty()).then(|| all.join(", ") + &rest)
    }

    /// Says of itself in the pool what it does from here on.
    fn say(&mut self, state: BrokerState) {
        self.state = state;
        let Self { env, link, .. } = self;
        if env.standing.look(&env.pool, boot_ns()) {
            env.pool.beat_broker(env.me, boot_ns(), link.epoch(), state.raw());
        }
    }

    /// Says something at the end: among the errors, and to whoever started this process.
    pub(crate) fn tell(&self, what: &str) {
        let sentence = format!("broker {} {what}", self.env.me);
        self.env.error(&sentence);
        stderr::note(format_args!("landfall-broker: {sentence}"));
    }

    /// Turns until that is done, for so long at most.
    pub(crate) fn turn_until(&mut self, at_most_ns: u64, mut done: impl FnMut(&mut Self) -> bool) {
        let end = boot_ns().saturating_add(at_most_ns);
        while !done(self) && boot_ns() < end && !self.env.standing.is_cast_off() {
            if self.turn() == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}
