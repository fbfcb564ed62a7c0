//! Commands to one broker: its ring, and behind it a queue for what the ring has no room for.

use std::collections::VecDeque;

use landfall_layout::BrokerId;
use landfall_layout::command::{Command, Request, first_command};
use landfall_layout::limits::COMMAND_LINES;
use landfall_pool::Pool;
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};

/// Both rings of a broker, from control's side.
#[derive(Debug)]
pub struct Outbox {
    producer: LineProducer,
    consumer: LineConsumer,
    queue: VecDeque<Command>,
}

impl Outbox {
    /// Begins the commands of an epoch, and goes on with the requests where the control before
    /// this one was.
    pub fn begin(pool: &Pool, broker: BrokerId, epoch: u64) -> Self {
        let geometry = pool.geometry();
        let commands = LineRing {
            taken_at: geometry.commands_taken(broker),
            at: geometry.commands(broker),
            lines: COMMAND_LINES,
        };
        let requests = LineRing {
            taken_at: geometry.requests_taken(broker),
            at: geometry.requests(broker),
            lines: COMMAND_LINES,
        };
        let mut consumer = LineConsumer::resume(pool, requests);
        consumer.catch_up(pool);
        let producer = LineProducer::begin(commands, first_command(epoch));
        Self { producer, consumer, queue: VecDeque::new() }
    }

    /// Queues a command; it goes out with the next `flush`.
    pub fn send(&mut self, command: Command) {
        self.queue.push_back(command);
    }

    /// Forgets what is queued: it was for a process that is gone.
    pub fn clear(&mut self) {
        self.queue.clear();
    }

    /// Whether every command is in the ring.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Moves queued commands into the ring, as far as there is room. True when one went.
    pub fn flush(&mut self, pool: &Pool) -> bool {
        let before = self.queue.len();
        while let Some(command) = self.queue.front() {
            if !self.producer.push(pool, command.pack()) {
                break;
            }
            self.queue.pop_front();
        }
        self.queue.len() < before
    }

    /// The broker's next request; lines that say nothing we know are skipped.
    pub fn next_request(&mut self, pool: &Pool) -> Option<Request> {
        loop {
            if let Some(request) = Request::unpack(self.consumer.pop(pool)?) {
                return Some(request);
            }
        }
    }

    /// Whether a grant of this sort is queued and not yet in the ring.
    pub fn is_queued(&self, same: impl Fn(&Command) -> bool) -> bool {
        self.queue.iter().any(same)
    }
}
