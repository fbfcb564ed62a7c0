//! A pool in a memfd, a control in this process, and brokers that do what a test says.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod homes;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_control::answers::{Problem, Topic, TopicSpec};
use landfall_control::messages::Ask;
use landfall_control::random::random_uuid;
use landfall_control::{Asker, Control, Options};
use landfall_layout::command::{Command, Request, first_command};
use landfall_layout::limits::{COMMAND_LINES, SEQUENCED_LOG, TOPICS_MAX};
use landfall_layout::order::OrderEntry;
use landfall_layout::pool::{BrokerAddress, BrokerLine, BrokerState, Coherence};
use landfall_layout::segment::SegmentKind;
use landfall_layout::slot::RingSlot;
use landfall_layout::topic::TopicState;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::Pool;
use landfall_pool::bell::{Ringer, Role};
use landfall_pool::clock::{boot_ns, wall_ns};
use landfall_pool::line_ring::{LineConsumer, LineProducer, LineRing};
use landfall_pool::lock::{Byte, Locks};
use landfall_pool::log::{Found, LogReader};
use landfall_pool::map::memfd;
use landfall_pool::pool::Shape;
use landfall_pool::slot_ring::SlotWriter;

/// Longest wait for something that has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `look` finds something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The memory, and the path by which it is attached.
pub struct Memory {
    fd: OwnedFd,
}

impl Memory {
    pub fn new() -> Self {
        Self { fd: memfd("landfall-control-test", 0).unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    /// A pool of `megabytes` in segments of 2 MiB.
    pub fn pool(&self, megabytes: u64) -> Arc<Pool> {
        self.pool_of(megabytes, Coherence::Coherent)
    }

    /// The same, of that coherence mode.
    pub fn pool_of(&self, megabytes: u64, coherence: Coherence) -> Arc<Pool> {
        let shape = Shape {
            pool_bytes: megabytes << 20,
            segment_bytes: 2 << 20,
            sessions: 64,
            coherence,
            uuid: random_uuid().unwrap(),
            now_ns: wall_ns(),
            sparse: true,
        };
        Arc::new(Pool::create_or_attach(&self.path(), shape).unwrap())
    }
}

/// A control on a pool.
pub struct System {
    pub memory: Memory,
    pub pool: Arc<Pool>,
    pub control: Option<Control>,
    pub asker: Asker,
    options: Options,
}

impl System {
    pub fn start(megabytes: u64) -> Self {
        Self::with(megabytes, Options::default())
    }

    pub fn with(megabytes: u64, options: Options) -> Self {
        let memory = Memory::new();
        let pool = memory.pool(megabytes);
        let control = Control::start(Arc::clone(&pool), &memory.path(), options).unwrap();
        let asker = control.asker().unwrap();
        Self { memory, pool, control: Some(control), asker, options }
    }

    pub fn stop(&mut self) {
        self.control.take().unwrap().stop();
    }

    pub fn start_again(&mut self) {
        let pool = Arc::clone(&self.pool);
        let control = Control::start(pool, &self.memory.path(), self.options).unwrap();
        self.asker = control.asker().unwrap();
        self.control = Some(control);
    }

    pub fn create(&self, spec: TopicSpec) -> Result<Topic, Problem> {
        self.asker.ask_now(|reply| Ask::Create(spec, reply)).unwrap()
    }

    pub fn topic(&self, name: &str, order: &str) -> TopicId {
        TopicId(self.create(spec(name, order)).unwrap().id)
    }

    pub fn describe(&self, name: &str) -> Result<Topic, Problem> {
        self.asker.ask_now(|reply| Ask::Topic(name.into(), reply)).unwrap()
    }

    pub fn free(&self) -> u32 {
        self.asker.ask_now(Ask::Cluster).unwrap().pool.segments_free
    }

    pub fn wait_for_entries(&self, topic: TopicId, log: usize, entries: u64) {
        eventually("entries", || (self.pool.frontier(topic, log).entries >= entries).then_some(()));
        assert_eq!(self.pool.frontier(topic, log).entries, entries, "no more than that");
    }

    /// Every entry of the sequenced log that can be read.
    pub fn entries(&self, topic: TopicId) -> Vec<OrderEntry> {
        let mut reader = LogReader::new(topic, SEQUENCED_LOG);
        let oldest = self.pool.oldest(topic, SEQUENCED_LOG);
        (oldest..self.pool.frontier(topic, SEQUENCED_LOG).entries)
            .map(|index| match reader.entry(&self.pool, index) {
                Found::Entry(entry) => entry,
                other => panic!("entry {index}: {other:?}"),
            })
            .collect()
    }

    pub fn consumed(&self, topic: TopicId, broker: BrokerId) -> u64 {
        self.pool.slot_ring(topic, broker).unwrap().consumed(&*self.pool)
    }

    pub fn wait_for_consumed(&self, topic: TopicId, broker: BrokerId, through: u64) {
        eventually("consumed", || (self.consumed(topic, broker) == through).then_some(()));
    }
}

/// Creates a topic with copies on disk, which `home` says that it has.
pub fn create_on_disk(
    asker: &Asker,
    spec: &TopicSpec,
    home: &mut Broker,
) -> Result<Topic, Problem> {
    let pool = Arc::clone(&home.pool);
    std::thread::scope(|scope| {
        let asked =
            scope.spawn(|| asker.ask_now(|reply| Ask::Create(spec.clone(), reply)).unwrap());
        let topic = eventually("the topic, or a refusal", || match named(&pool, &spec.name) {
            Some(topic) => Some(Some(topic)),
            None => asked.is_finished().then_some(None),
        });
        if let Some(topic) = topic {
            home.ask(Request::TopicSaid { topic });
        }
        asked.join().unwrap()
    })
}

/// The live topic of that name in the pool's table.
pub fn named(pool: &Pool, name: &str) -> Option<TopicId> {
    let entries = (0..TOPICS_MAX).filter_map(|slot| pool.topic_in_slot(slot));
    let mut live = entries.filter(|entry| entry.state() == TopicState::Live);
    live.find(|entry| entry.name() == name).map(|entry| TopicId(entry.id))
}

pub fn spec(name: &str, order: &str) -> TopicSpec {
    TopicSpec { name: name.into(), order: order.into(), ..TopicSpec::default() }
}

/// A broker's side of the pool, without its sockets.
pub struct Broker {
    pub id: BrokerId,
    pub pool: Arc<Pool>,
    pub incarnation: u64,
    requests: LineProducer,
    commands: LineConsumer,
    ringer: Ringer,
    epoch: u64,
    seen: Vec<Command>,
    next_request: u64,
    _locks: Locks,
}

/// A segment that control granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    pub segment: u32,
    pub generation: u64,
    pub base_index: u64,
}

impl Broker {
    /// Takes the number without a word to control.
    pub fn appear(pool: &Arc<Pool>, number: usize, incarnation: u64) -> Self {
        Self::appear_on(pool, number, incarnation, landfall_pool::host::id())
    }

    /// The same on some host. The lock of another one is not seen here.
    pub fn appear_on(pool: &Arc<Pool>, number: usize, incarnation: u64, host: u64) -> Self {
        let id = BrokerId::new(number).unwrap();
        let locks = Locks::open(pool).unwrap();
        // One that takes the number from another leaves it to it to be there.
        if host == landfall_pool::host::id() {
            let _ = locks.take(Byte::Broker(id)).unwrap();
        }
        let line = BrokerLine {
            incarnation,
            heartbeat_ns: boot_ns(),
            epoch_seen: pool.epoch_number(),
            state: BrokerState::Serving.raw(),
            pid: std::process::id().into(),
            host,
            disk: 0,
            locked: locks.identity(),
        };
        let address = BrokerAddress::new("127.0.0.1:9", "@nowhere", "127.0.0.1:10").unwrap();
        pool.set_broker(id, &line, &address);
        let geometry = pool.geometry();
        let ring = |taken_at, at| LineRing { taken_at, at, lines: COMMAND_LINES };
        let requests = ring(geometry.requests_taken(id), geometry.requests(id));
        let commands = ring(geometry.commands_taken(id), geometry.commands(id));
        Self {
            id,
            incarnation,
            requests: LineProducer::resume(&**pool, requests),
            commands: LineConsumer::begin(&**pool, commands, first_command(pool.epoch_number())),
            ringer: Ringer::new(pool).unwrap(),
            pool: Arc::clone(pool),
            seen: Vec::new(),
            epoch: pool.epoch_number(),
            next_request: incarnation << 16,
            _locks: locks,
        }
    }

    /// Takes the number and is accepted.
    pub fn register(pool: &Arc<Pool>, number: usize, incarnation: u64) -> Self {
        Self::appear(pool, number, incarnation).accepted()
    }

    /// Is accepted.
    pub fn accepted(mut self) -> Self {
        let Self { incarnation, .. } = self;
        let broker = &mut self;
        broker.ask(Request::Register { incarnation });
        let epoch = broker.wait("Accepted", |command| match command {
            Command::Accepted { epoch, incarnation: of } if of == incarnation => Some(epoch),
            _ => None,
        });
        assert_eq!(epoch, self.pool.epoch_number());
        self
    }

    /// Moves its heartbeat.
    pub fn beat(&self) {
        let epoch = self.pool.epoch_number();
        self.pool.beat_broker(self.id, boot_ns(), epoch, BrokerState::Serving.raw());
    }

    pub fn ask(&mut self, request: Request) {
        self.follow();
        assert!(self.requests.push(&*self.pool, request.pack()), "the request ring is full");
        self.ringer.ring(&self.pool, Role::Keeper);
    }

    /// Turns to the rings of the control that leads now.
    fn follow(&mut self) {
        let epoch = self.pool.epoch_number();
        if std::mem::replace(&mut self.epoch, epoch) == epoch {
            return;
        }
        let geometry = self.pool.geometry();
        let commands = LineRing {
            taken_at: geometry.commands_taken(self.id),
            at: geometry.commands(self.id),
            lines: COMMAND_LINES,
        };
        self.commands = LineConsumer::begin(&*self.pool, commands, first_command(epoch));
        self.requests.heed(&*self.pool, geometry.requests_taken(self.id));
        self.pool.beat_broker(self.id, boot_ns(), epoch, BrokerState::Serving.raw());
    }

    /// Waits for a command, keeping the others.
    pub fn wait<T>(&mut self, what: &str, is_it: impl Fn(Command) -> Option<T>) -> T {
        eventually(what, || self.find(&is_it))
    }

    /// A command that has come, keeping the others.
    pub fn find<T>(&mut self, is_it: impl Fn(Command) -> Option<T>) -> Option<T> {
        self.follow();
        while let Some(body) = self.commands.pop(&*self.pool) {
            self.seen.push(Command::unpack(body).unwrap());
        }
        let at = self.seen.iter().position(|command| is_it(*command).is_some())?;
        is_it(self.seen.remove(at))
    }

    pub fn open_ring(&mut self, topic: TopicId) -> SlotWriter {
        self.ask(Request::OpenRing { topic });
        self.wait("RingReady", |command| (command == Command::RingReady { topic }).then_some(()));
        SlotWriter::resume(&*self.pool, self.pool.slot_ring(topic, self.id).unwrap())
    }

    pub fn want(&mut self, topic: TopicId, kind: SegmentKind) -> Granted {
        self.ask(Request::Want { kind, topic, is_ahead: false });
        self.granted(topic, kind)
    }

    pub fn granted(&mut self, topic: TopicId, wanted: SegmentKind) -> Granted {
        self.wait("Grant", |command| match command {
            Command::Grant { kind, topic: of, segment, generation, base_index }
                if kind == wanted && of == topic =>
            {
                Some(Granted { segment, generation, base_index })
            }
            _ => None,
        })
    }

    /// Opens or joins a session: the answer, and the request's number.
    pub fn open_session(&mut self, topic: TopicId, client: u64, epoch: u32) -> (Command, u64) {
        self.next_request += 1;
        let request = self.next_request;
        (self.ask_session(topic, client, epoch, request), request)
    }

    pub fn ask_session(&mut self, topic: TopicId, client: u64, epoch: u32, number: u64) -> Command {
        let (life, comes_back) = (0, false);
        let request = number;
        self.ask(Request::OpenSession { request, topic, client, epoch, life, comes_back });
        self.wait("session", |command| match command {
            Command::SessionOpen { request, .. } | Command::SessionDenied { request, .. }
                if request == number =>
            {
                Some(command)
            }
            _ => None,
        })
    }

    /// Opens a session that has to open: its index, epoch and next sequence.
    pub fn session(&mut self, topic: TopicId, client: u64, epoch: u32) -> (u32, u32, u64) {
        match self.open_session(topic, client, epoch).0 {
            Command::SessionOpen { index, epoch, next_seq, .. } => (index, epoch, next_seq),
            other => panic!("{other:?}"),
        }
    }

    /// Commits a slot as a landed batch of 64 + 64 bytes would.
    pub fn land(&self, ring: &mut SlotWriter, batch: Batch) -> u64 {
        let slot = RingSlot {
            client: batch.client,
            batch_seq: batch.seq,
            session_epoch: batch.epoch,
            session: batch.session,
            segment: batch.granted.segment,
            offset: batch.offset,
            bytes: 128,
            count: 3,
            landed_ns: wall_ns(),
            topic: batch.topic.0,
            segment_generation: batch.granted.generation,
            sealed_ns: wall_ns(),
            ..RingSlot::default()
        };
        let index = ring.push(&*self.pool, &slot).expect("the ring has room");
        self.ringer.ring(&self.pool, Role::Sequencer);
        index
    }

    /// Says that it leaves, as a broker does that has begun to stop.
    pub fn begin_to_leave(&self) {
        let epoch = self.pool.epoch_number();
        self.pool.beat_broker(self.id, boot_ns(), epoch, BrokerState::Leaving.raw());
    }

    /// Stops as a broker does that was asked to.
    pub fn leave(self) {
        self.stop_beating();
    }

    /// The same, and may have left requests.
    pub fn stop_beating(&self) {
        let (now, epoch) = (wall_ns(), self.pool.epoch_number());
        self.pool.beat_broker(self.id, now, epoch, BrokerState::Absent.raw());
    }
}

/// What `land` needs to know of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub topic: TopicId,
    pub granted: Granted,
    pub client: u64,
    pub session: u32,
    pub epoch: u32,
    pub seq: u64,
    pub offset: u32,
}
