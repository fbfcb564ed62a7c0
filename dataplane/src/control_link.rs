//! What the broker asked of control and has no answer to, and the rings between the two.

use std::collections::VecDeque;

use landfall_layout::command::{Body, Command, Request, first_command};
use landfall_layout::counters::Counter;
use landfall_layout::limits::COMMAND_LINES;
use landfall_layout::segment::{SegmentKind, SegmentState, What};
use landfall_layout::{SegmentId, TopicId};
use landfall_pool::clock::boot_ns;
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};

use crate::env::Env;
use crate::poison::is_known;

/// A request without an answer is sent again after this long.
const REPEAT_NS: u64 = 500_000_000;

struct Open {
    request: Request,
    /// When to send it again.
    again_ns: u64,
}

/// The two rings between this broker and control.
pub struct ControlLink {
    requests: LineProducer,
    commands: LineConsumer,
    /// Requests that want an answer.
    open: Vec<Open>,
    /// Lines the ring had no room for.
    queue: VecDeque<Body>,
    epoch: u64,
    /// The leader slot whose rings these are.
    leader: usize,
    next_request: u64,
    accepted: bool,
}

impl ControlLink {
    /// Goes on in both rings where an earlier process of this number stopped.
    pub fn new(env: &Env) -> Self {
        let epoch = env.pool.epoch_number();
        let geometry = env.pool.geometry();
        let requests = LineRing {
            taken_at: geometry.requests_taken(env.me),
            at: geometry.requests(env.me),
            lines: COMMAND_LINES,
        };
        Self {
            requests: LineProducer::resume(&env.pool, requests),
            commands: commands(env, epoch),
            open: Vec::with_capacity(64),
            queue: VecDeque::with_capacity(64),
            epoch,
            leader: env.pool.leader_slot(),
            // Answers to an earlier process of this number must not be taken for ours.
            next_request: env.incarnation << 16,
            accepted: false,
        }
    }

    /// The epoch last seen.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether control has answered `Register`.
    pub fn is_accepted(&self) -> bool {
        self.accepted
    }

    pub fn set_accepted(&mut self) {
        self.accepted = true;
    }

    /// A number for a request whose answer carries it back.
    pub fn number(&mut self) -> u64 {
        self.next_request = self.next_request.wrapping_add(1);
        self.next_request
    }

    /// Sends a request that wants an answer, unless it is open already.
    pub fn ask(&mut self, env: &Env, request: Request) {
        if self.open.iter().any(|open| open.request == request) {
            return;
        }
        self.open.push(Open { request, again_ns: boot_ns() + REPEAT_NS });
        self.say(env, request);
    }

    /// Asks for a segment, unless that is open already. One that was asked for ahead of need and is
    /// needed now is asked for anew.
    pub fn want(&mut self, env: &Env, kind: SegmentKind, topic: TopicId, is_ahead: bool) {
        let request = Request::Want { kind, topic, is_ahead };
        match self.open.iter_mut().find(|open| wants(&open.request, kind, topic)) {
            None => self.ask(env, request),
            Some(open) if !is_ahead && open.request != request => {
                open.request = request;
                self.say(env, request);
            }
            Some(_) => {}
        }
    }

    /// Reports a finished segment; repeated until the segment's header says that it is sealed.
    pub fn sealed(&mut self, env: &Env, request: Request) {
        self.ask(env, request);
    }

    /// Whether a segment was reported as finished and control may not know it yet.
    pub fn is_sealing(&self, of: u32, which: u64) -> bool {
        self.open.iter().any(|open| match open.request {
            Request::Sealed { segment, generation, .. } => (segment, generation) == (of, which),
            _ => false,
        })
    }

    /// Sends a request that wants no answer.
    pub fn say(&mut self, env: &Env, request: Request) {
        let body = request.pack();
        if !self.queue.is_empty() || !self.requests.push(&env.pool, body) {
            self.queue.push_back(body);
        }
        env.ring_control();
    }

    /// The same, unless it would have to wait for room; whether it was sent.
    pub fn try_say(&mut self, env: &Env, request: Request) -> bool {
        let is_sent = self.queue.is_empty() && self.requests.push(&env.pool, request.pack());
        if is_sent {
            env.ring_control();
        }
        is_sent
    }

    /// Sends lines that had no room, as far as there is some now; whether none is left.
    pub fn drain(&mut self, env: &Env) -> bool {
        while let Some(body) = self.queue.front() {
            if !self.requests.push(&env.pool, *body) {
                return false;
            }
            self.queue.pop_front();
            if self.queue.is_empty() {
                env.ring_control();
            }
        }
        true
    }

    /// The answer is here: whether the request was open.
    pub fn answered(&mut self, is_it: impl Fn(&Request) -> bool) -> Option<Request> {
        let i = self.open.iter().position(|open| is_it(&open.request))?;
        Some(self.open.swap_remove(i).request)
    }

    /// Forgets open requests.
    pub fn forget(&mut self, is_it: impl Fn(&Request) -> bool) {
        self.open.retain(|open| !is_it(&open.request));
    }

    /// The next command. A line that says nothing we know is noted and passed over.
    pub fn next(&mut self, env: &Env) -> Option<Command> {
        while let Some(body) = self.commands.pop(&env.pool) {
            match Command::unpack(body) {
                Some(command) => return Some(command),
                None => env.error("control sent a command this broker does not know"),
            }
        }
        None
    }

    /// Whether the pool follows another leader than these rings are of.
    #[inline]
    pub fn is_left_behind(&self, env: &Env) -> bool {
        self.leader != env.pool.leader_slot()
    }

    /// Turns to the rings of the leader that the pool follows, if it is another one than before,
    /// and sends it everything that is open. Whether it is.
    pub fn follow(&mut self, env: &Env, now_ns: u64) -> bool {
        let epoch = env.pool.epoch_number();
        let is_new = epoch != self.epoch;
        if is_new || self.is_left_behind(env) {
            self.epoch = epoch;
            self.leader = env.pool.leader_slot();
            self.commands = commands(env, epoch);
            self.requests.heed(&env.pool, env.pool.geometry().requests_taken(env.me));
        }
        self.send_again(env, now_ns, is_new);
        is_new
    }

    /// Sends again what is overdue; everything open when another control leads.
    fn send_again(&mut self, env: &Env, now_ns: u64, is_new: bool) {
        if !self.drain(env) {
            return;
        }
        self.open.retain(|open| !is_done(env, &open.request));
        let mut sent = false;
        for open in &mut self.open {
            if !is_new && now_ns < open.again_ns {
                continue;
            }
            if !self.requests.push(&env.pool, open.request.pack()) {
                break;
            }
            open.again_ns = now_ns + REPEAT_NS;
            sent = true;
            env.count(Counter::RequestsRepeated, 1);
        }
        if sent {
            env.ring_control();
        }
    }
}

/// The commands of an epoch.
fn commands(env: &Env, epoch: u64) -> LineConsumer {
    let geometry = env.pool.geometry();
    let ring = LineRing {
        taken_at: geometry.commands_taken(env.me),
        at: geometry.commands(env.me),
        lines: COMMAND_LINES,
    };
    LineConsumer::begin(&env.pool, ring, first_command(epoch))
}

/// Whether a request is for a segment of that kind, ahead of need or not.
pub fn wants(request: &Request, of: SegmentKind, whose: TopicId) -> bool {
    matches!(*request, Request::Want { kind, topic, .. } if (kind, topic) == (of, whose))
}

/// `Sealed` and `Lost` have no answer but the segment's header.
fn is_done(env: &Env, request: &Request) -> bool {
    if let Request::Lost { segment } = *request {
        return is_known(env, segment);
    }
    let Request::Sealed { segment, generation, .. } = *request else { return false };
    let Some(header) = env.pool.segment_header(SegmentId(segment)) else { return true };
    header.generation != generation
        || What::unpack(header.what).map_or(true, |what| !matches!(what.state, SegmentState::Open))
}
