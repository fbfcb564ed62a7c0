//! One turn of the loop. Nothing here allocates, locks or formats while batches flow.

use std::time::Duration;

use landfall_layout::channel::BROKER_PARKED_AT;
use landfall_layout::command::Request;
use landfall_layout::counters::Counter;
use landfall_layout::frame::{Frame, Stall};
use landfall_layout::full::{Full, LogsFull};
use landfall_layout::limits::{HEARTBEAT_EVERY_NS, IN_FLIGHT_BATCHES_MAX};
use landfall_layout::pool::{BrokerState, DISK_HANGS};
use landfall_pool::bell::Role;
use landfall_pool::channel::set_parked;
use landfall_pool::clock::{boot_ns, wall_ns};
use nix::sys::epoll::{EpollEvent, EpollTimeout};

use crate::broker::Broker;
use crate::conn::{Conn, Kind, Publisher, Socket, Stalled, Via};
use crate::conns::Over;
use crate::extents;
use crate::joined::Naming;
use crate::land::Wait;
use crate::positions::Asked;
use crate::publish_tcp::{self, Stop};
use crate::receipts::settle;
use crate::replica::HANGS_NS;
use crate::subscribe_memory::wake;

/// Turns between looks at the sockets: after a look that found something, after one that did not,
/// and where no stream depends on it.
const SOCKETS_BUSY: u32 = 1;
const SOCKETS_QUIET: u32 = 4;
const SOCKETS_NO_STREAMS: u32 = 32;
/// Longest sleep: what nobody rings for is found this late.
const PARK_LONGEST: Duration = Duration::from_millis(4);
/// Idle turns between looks at the clock.
const TURNS_PER_CLOCK: u32 = 32;
/// Send calls to subscribers in one turn, of a megabyte at most each: some 20 ms if all are full.
const SENDS_PER_TURN: usize = 64;
/// A publisher that waits is told after this long, and again at most this often.
const STALL_AFTER_NS: u64 = 100_000_000;
const STALL_EVERY_NS: u64 = 1_000_000_000;

impl Broker {
    /// Does once everything there is to do; how much that was.
    pub fn turn(&mut self) -> usize {
        let began_ns = boot_ns();
        if let Some(turned_ns) = self.turned_ns.replace(began_ns) {
            self.env.raise(Counter::BrokerTurnLongestNs, began_ns.saturating_sub(turned_ns));
        }
        // It may have been away since the turn before.
        if !self.env.stands(began_ns) {
            return self.cast_off();
        }
        if self.link.is_left_behind(&self.env) {
            self.follow_leader(boot_ns());
        }
        let mut work = self.take_commands();
        if self.naming.is_some() && self.link.is_accepted() {
            work += self.name_sessions();
        }
        // Until control has accepted this process, nothing may be asked for on its behalf: what an
        // earlier process of this number had is sealed first. Clients wait in the backlog.
        if self.sockets_in == 0 && self.link.is_accepted() {
            let found = self.take_sockets();
            work += found;
            self.sockets_in = match found {
                0 if self.conns.live() == self.conns.channels.len() + self.conns.readers.len() => {
                    SOCKETS_NO_STREAMS
                }
                0 => SOCKETS_QUIET,
                _ => SOCKETS_BUSY,
            };
        }
        self.sockets_in = self.sockets_in.saturating_sub(1);
        work += self.take_channels();
        work += self.take_queues();
        work += self.retry_waiting();
        let now = if work > 0 { boot_ns() } else { 0 };
        if work > 0 && !self.env.stands(now) {
            return self.cast_off();
        }
        work += self.finish_burst();
        work += self.take_fed();
        work += self.deliver();
        self.flush_touched();
        if !self.retiring.is_empty() {
            self.release_segments();
        }
        if work > 0
            && let Some(replicator) = &self.replicator
        {
            // What was landed, or ordered meanwhile, is there to be copied.
            replicator.wake();
        }
        let counter = if work > 0 { Counter::PollsBusy } else { Counter::PollsEmpty };
        self.env.count(counter, 1);
        self.turns = self.turns.wrapping_add(1);
        // A busy turn may take long, and a heartbeat must not be late.
        if work > 0 || self.turns.is_multiple_of(TURNS_PER_CLOCK) {
            self.tick(boot_ns());
            self.tell_said();
        }
        if work == 0 {
            // What comes between this turn and the next is rest.
            self.turned_ns = None;
        }
        work
    }

    /// Sleeps until something happens, for a few milliseconds at most. Whether there was work
    /// after all.
    pub(crate) fn park(&mut self) -> bool {
        if self.env.standing.is_cast_off() {
            return true;
        }
        self.bell.park(&self.env.pool);
        self.set_channels_parked(true);
        // Once more, now that others can see that they have to ring.
        self.sockets_in = 0;
        let found = self.turn() > 0;
        if !found {
            self.env.count(Counter::Parks, 1);
            if self.link.is_accepted() {
                let longest = EpollTimeout::from(PARK_LONGEST.as_millis() as u8);
                // What woke it is found again by the next turn: epoll is level-triggered here.
                let _ = self.epoll.wait(&mut self.events[..8], longest);
            } else {
                self.bell.wait(PARK_LONGEST);
            }
        }
        if !self.env.stands(boot_ns()) {
            self.cast_off();
            return true;
        }
        self.set_channels_parked(false);
        self.bell.unpark(&self.env.pool);
        if let Some(replicator) = &self.replicator {
            // Whoever rang may have meant batches of a topic that has no publisher here.
            replicator.wake();
        }
        self.sockets_in = 0;
        self.tick(boot_ns());
        self.tell_said();
        found
    }

    /// Tells control of topics that stand on this broker's disk now.
    fn tell_said(&mut self) {
        let Self { env, link, replicator, .. } = self;
        let said = replicator.as_ref().filter(|replicator| replicator.has_said());
        for topic in said.into_iter().flat_map(|replicator| replicator.take_said()) {
            link.say(env, Request::TopicSaid { topic });
        }
    }

    fn set_channels_parked(&mut self, parked: bool) {
        for i in 0..self.conns.channels.len() {
            let slot = self.conns.channels[i];
            if let Some(channel) = self.conns.get(slot).and_then(|conn| conn.channel.as_ref()) {
                set_parked(&channel.mapping, BROKER_PARKED_AT, parked);
            }
        }
        if parked {
            self.arm_queues();
        }
    }

    /// Asks for a bell at the next completion of every queue.
    fn arm_queues(&mut self) {
        for i in 0..self.conns.queues.len() {
            let slot = self.conns.queues[i];
            let Self { env, conns, .. } = self;
            if let Some(Conn { socket: Socket::Verbs(link), .. }) = conns.get(slot)
                && let Err(error) = link.arm()
            {
                env.error(&error.to_string());
            }
        }
    }

    /// Takes what sockets have; how many had something.
    fn take_sockets(&mut self) -> usize {
        let mut events = std::mem::take(&mut self.events);
        // An interrupted wait only means that the sockets are looked at in the next turn.
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..ready] {
            self.socket_event(*event);
        }
        self.events = events;
        ready
    }

    fn socket_event(&mut self, event: EpollEvent) {
        use crate::broker::{BELL, FILES, TCP_LISTENER, UNIX_LISTENER, VERBS_LISTENER};
        match event.data() {
            TCP_LISTENER => self.accept_tcp(),
            UNIX_LISTENER => self.accept_unix(),
            BELL => self.bell.unpark(&self.env.pool),
            VERBS_LISTENER => {
                self.take_knocks();
            }
            FILES => {
                if let Some(catch_up) = &self.catch_up {
                    catch_up.hush();
                }
            }
            mark => self.conn_event(mark, event.events()),
        }
    }

    /// Looks at the channels of memory publishers.
    fn take_channels(&mut self) -> usize {
        let mut work = 0;
        let mut i = 0;
        while i < self.conns.channels.len() {
            let slot = self.conns.channels[i];
            let ready = self.conns.get(slot).is_some_and(|conn| {
                let waits = matches!(&conn.kind, Kind::Publisher(p) if p.stalled.is_some());
                !waits && conn.channel.as_ref().is_some_and(|channel| channel.is_ready())
            });
            if ready {
                work += self.serve_publisher(slot);
            }
            // A connection that ended has left the list, and another is in its place.
            i += usize::from(self.conns.channels.get(i) == Some(&slot));
        }
        work
    }

    /// Tries again for publishers that wait for room, or for their turn.
    fn retry_waiting(&mut self) -> usize {
        let mut work = 0;
        let mut i = 0;
        while i < self.conns.waiting.len() {
            let slot = self.conns.waiting[i];
            if self.may_begin(slot) {
                work += self.serve_publisher(slot);
            }
            i += usize::from(self.conns.waiting.get(i) == Some(&slot));
        }
        self.looks_at_halves = false;
        work
    }

    /// Takes what a publisher has sent; how much that was.
    pub(crate) fn serve_publisher(&mut self, slot: usize) -> usize {
        let Self { env, topics, conns, scratch, state, .. } = self;
        let Some(conn) = conns.get(slot) else { return 0 };
        let Conn { token, socket, kind, out, channel, .. } = conn;
        let Kind::Publisher(publisher) = kind else { return 0 };
        let id = publisher.topic;
        let Some(topic) = topics[id.slot()].as_deref_mut().filter(|topic| topic.id == id) else {
            return 0;
        };
        let Publisher { session, via, fenced, in_flight, brought, .. } = publisher;
        // A broker that is leaving finishes what has begun and begins nothing.
        let bound = match state {
            BrokerState::Serving => u32::from(IN_FLIGHT_BATCHES_MAX),
            _ => 0,
        };
        let free = bound.saturating_sub(*in_flight);
        let (taken, landed, stop) = match via {
            Via::Stream(reading) => {
                let allowance = free.saturating_sub(out.frames() as u32);
                let from = publish_tcp::From {
                    socket,
                    session,
                    owner: *token,
                    fenced: *fenced,
                    allowance,
                    brought: &mut *brought,
                };
                let (landed, stop) = reading.read_on(env, topic, from, scratch);
                (landed, landed, stop)
            }
            Via::Memory(extents) => {
                let Some(channel) = channel else { return 0 };
                let allowance = if channel.is_behind() { 0 } else { free };
                let from = extents::From { session, owner: *token, fenced: *fenced, allowance };
                extents.read_on(env, topic, from, channel)
            }
            Via::Verbs(via) => {
                let Socket::Verbs(link) = socket else { return 0 };
                let allowance = free.saturating_sub(out.frames() as u32);
                let from = extents::From { session, owner: *token, fenced: *fenced, allowance };
                via.read_on(env, topic, from, link, out)
            }
        };
        *in_flight += landed;
        if !matches!(via, Via::Stream(_)) {
            *brought += u64::from(landed);
        }
        let has_words = matches!(via, Via::Verbs(_)) && !out.is_empty();
        if has_words || channel.as_ref().is_some_and(|channel| channel.has_news()) {
            conns.touch(slot);
        }
        self.after_serving(slot, stop);
        taken as usize
    }

    /// Acts on what stopped a publisher.
    fn after_serving(&mut self, slot: usize, stop: Stop) {
        let Some(Conn { token, kind: Kind::Publisher(publisher), .. }) = self.conns.get(slot)
        else {
            return;
        };
        match stop {
            Stop::Dry | Stop::Share => {
                if publisher.stalled.take().is_some() {
                    self.stop_waiting(slot);
                }
            }
            Stop::Wait(why) => {
                let is_new = publisher.stalled.is_none_or(|stalled| stalled.why != why);
                if is_new {
                    let (since_ns, next_seq) = (boot_ns(), None);
                    publisher.stalled = Some(Stalled { why, since_ns, told_ns: 0, next_seq });
                    self.start_waiting(slot, why);
                }
            }
            Stop::Fenced { epoch, next_seq } => {
                let owner = *token;
                self.fence(Over { owner, epoch, next_seq });
            }
            Stop::Reserve { request, count, whole } => {
                if publisher.stalled.take().is_some() {
                    self.stop_waiting(slot);
                }
                self.ask_positions(slot, Asked { request, count, whole });
            }
            Stop::Bye => self.said_bye(slot),
            Stop::Silent => self.want_read(slot, false),
            Stop::Ended { .. } if publisher.writes_pool() => self.hang_up(slot),
            Stop::Ended { .. } => self.drop_conn(slot),
            Stop::Refuse(why, sentence) => self.refuse(slot, why, &sentence),
        }
    }

    #[cold]
    fn start_waiting(&mut self, slot: usize, why: Wait) {
        if why == Wait::Ring {
            self.env.count(Counter::RingFull, 1);
        }
        if matches!(why, Wait::Segment | Wait::Log) {
            self.env.count(Counter::SegmentWait, 1);
        }
        if !self.conns.waiting.contains(&slot) {
            self.conns.waiting.push(slot);
        }
        self.want_read(slot, false);
    }

    #[cold]
    fn stop_waiting(&mut self, slot: usize) {
        self.conns.waiting.retain(|other| *other != slot);
        self.want_read(slot, true);
    }

    /// Makes what was landed count, wakes who waits for it, and reports what is known.
    fn finish_burst(&mut self) -> usize {
        let Self { env, topics, conns, link, peers, live_topics, .. } = self;
        let mut settled = 0;
        let (mut ring_sequencer, mut ring_peers) = (false, false);
        for slot in live_topics.iter() {
            let Some(topic) = topics[*slot].as_deref_mut() else { continue };
            let mut now = 0;
            if topic.dirty {
                now = wall_ns();
                topic.publish_frontier(env, now);
                topic.replenish(env, link);
                topic.report_sealed(env, link);
                ring_sequencer |= topic.order.is_sequenced();
                ring_peers |= !topic.order.is_sequenced();
            }
            settled += settle(env, topic, conns, now);
        }
        if ring_sequencer {
            env.ringer.ring(&env.pool, Role::Sequencer);
        }
        if ring_peers {
            for peer in peers.iter() {
                env.ringer.ring(&env.pool, Role::Broker(*peer));
            }
        }
        self.fence_dropped();
        settled
    }

    /// Serves subscribers, from where the turn before ended on: however many there are, a turn
    /// takes no longer than so many send calls do.
    fn deliver(&mut self) -> usize {
        let mut work = 0;
        for _ in 0..self.conns.deliveries.len() {
            if work >= SENDS_PER_TURN {
                break;
            }
            if self.next_delivery >= self.conns.deliveries.len() {
                self.next_delivery = 0;
            }
            let Some(&slot) = self.conns.deliveries.get(self.next_delivery) else { break };
            self.feed(slot);
            work += self.deliver_to(slot);
            // One that was let go has left its place to another.
            let is_there = self.conns.deliveries.get(self.next_delivery) == Some(&slot);
            self.next_delivery += usize::from(is_there);
        }
        let mut i = 0;
        while i < self.conns.readers.len() {
            let slot = self.conns.readers[i];
            let Self { env, conns, .. } = self;
            if conns.get(slot).is_some_and(|conn| !wake(env, conn)) {
                self.drop_conn(slot);
            }
            i += usize::from(self.conns.readers.get(i) == Some(&slot));
        }
        work
    }

    fn deliver_to(&mut self, slot: usize) -> usize {
        let Self { env, conns, .. } = self;
        let Some(conn) = conns.get(slot) else { return 0 };
        let Kind::Stream(delivering) = &mut conn.kind else { return 0 };
        if delivering.blocked || !conn.out.is_empty() || !delivering.has_work(env) {
            return 0;
        }
        let socket = match &mut conn.socket {
            Socket::Verbs(link) => return delivering.write_on(env, link),
            other => other.fd(),
        };
        let Some(socket) = socket else { return 0 };
        match delivering.send_on(env, socket) {
            Ok(sent) => {
                if delivering.blocked {
                    self.want_write(slot, true);
                }
                usize::from(sent)
            }
            Err(_) => {
                self.drop_conn(slot);
                1
            }
        }
    }

    /// Sends what was queued in this turn.
    fn flush_touched(&mut self) {
        while let Some(slot) = self.conns.touched.pop() {
            self.flush_conn(slot);
        }
    }

    /// What has to be done now and then, judged by the clock.
    fn tick(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.ticked_ns) < HEARTBEAT_EVERY_NS {
            return;
        }
        self.ticked_ns = now_ns;
        self.env.set_clock(now_ns);
        self.follow_leader(now_ns);
        // Whoever beats is counted on, or finds here that it is not.
        if !self.env.standing.look(&self.env.pool, now_ns) {
            self.cast_off();
            return;
        }
        let Self { env, link, topics, state, .. } = self;
        env.pool.beat_broker(env.me, now_ns, link.epoch(), state.raw());
        for topic in topics.iter_mut().flatten() {
            Self::tidy_topic(topic, env);
            topic.replenish(env, link);
            topic.report_sealed(env, link);
        }
        self.tick_conns(now_ns);
        self.tick_halves();
        self.tick_unused();
        self.tick_room();
        for note in self.replicator.iter().flat_map(|replicator| replicator.take_notes()) {
            self.env.error(&note);
        }
        self.look_at_disk(now_ns);
        self.fence_unfaithful();
        self.tick_queues(now_ns);
        self.tick_feeds(now_ns);
        self.look_at_losses();
        self.fence_late(now_ns);
        self.tell_stalled(now_ns);
        self.tell_held(now_ns);
        self.release_topics(now_ns);
        self.find_peers();
        self.accepting(true);
    }

    /// Says in this broker's line whether its disk hangs: control has others keep its copies then.
    fn look_at_disk(&mut self, now_ns: u64) {
        let Self { env, replicator: Some(replicator), .. } = self else { return };
        let hangs = replicator.hangs(now_ns);
        if hangs == (env.pool.broker(env.me).disk == DISK_HANGS) {
            return;
        }
        env.pool.say_disk(env.me, if hangs { DISK_HANGS } else { 1 });
        let what = match hangs {
            true => {
                "hangs: a write or sync has not ended for 5 s, or another call for 15 s (dmesg \
                 may say more); nothing that it keeps becomes durable before it answers, or \
                 another broker with a disk has its copies"
            }
            false => "answers again",
        };
        env.error(&format!("the disk of broker {} {what}", env.me));
    }

    /// Turns to the tables of the control that leads now.
    pub(crate) fn follow_leader(&mut self, now_ns: u64) {
        let Self { env, link, topics, .. } = self;
        if !link.follow(env, now_ns) {
            return;
        }
        for topic in topics.iter_mut().flatten() {
            topic.heed_leader(env);
        }
        self.naming = Some(Naming::default());
        self.say_withheld();
        // Their windows are on the tables of the leader before: they come again for new ones.
        for i in (0..self.conns.queues.len()).rev() {
            let slot = self.conns.queues[i];
            if self.conns.get(slot).is_some_and(|conn| matches!(conn.kind, Kind::RemoteReader(_))) {
                self.drop_conn(slot);
            }
        }
    }

    /// Tells publishers why they wait.
    fn tell_stalled(&mut self, now_ns: u64) {
        self.free.look_again();
        for i in 0..self.conns.waiting.len() {
            let slot = self.conns.waiting[i];
            let Self { env, topics, conns, free, .. } = self;
            let Some(conn) = conns.get(slot) else { continue };
            let Kind::Publisher(publisher) = &mut conn.kind else { continue };
            let Some(stalled) = &mut publisher.stalled else { continue };
            let due = now_ns.saturating_sub(stalled.since_ns) >= STALL_AFTER_NS
                && now_ns.saturating_sub(stalled.told_ns) >= STALL_EVERY_NS;
            let Some(why) = stalled.shown().filter(|_| due) else { continue };
            stalled.told_ns = now_ns;
            let topic = topics[publisher.topic.slot()].as_deref_mut();
            let waited_ns = now_ns.saturating_sub(stalled.since_ns);
            let (why, used, of) = match (why, topic) {
                (Stall::RingFull, Some(topic)) => {
                    let (used, of) = topic.ring_use(env);
                    (why, used, of)
                }
                (Stall::HalvesFull, _) => {
                    let (used, of) = env.halves.in_use();
                    (why, used, of)
                }
                (_, topic) => {
                    let (all, of) = (free.count(env), env.pool.geometry().segments());
                    let (why, used) = all.shown(why, of);
                    if let Some(topic) = topic.filter(|_| waited_ns >= HANGS_NS) {
                        match why {
                            Stall::LogsFull => topic.note_full(env, &LogsFull { used, of }),
                            _ => topic.note_full(env, &Full { free: used, of }),
                        }
                    }
                    (why, used, of)
                }
            };
            if conn.out.frames() < usize::from(IN_FLIGHT_BATCHES_MAX) {
                conn.tell(Frame::Stalled { why, used, of });
                conns.touch(slot);
            }
        }
    }
}
