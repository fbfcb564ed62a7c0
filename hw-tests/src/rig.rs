//! Rigs, and a running system on one of them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use landfall::api::{Topic, TopicSpec};
use landfall::local::{LocalConfig, LocalSystem};
use landfall::{Client, Order, PublisherBuilder, Start, SubscriberBuilder, Transport};
use landfall_layout::verbs::GrantMode;

use crate::Failure;
use crate::device::slow;
use crate::scenarios::Scenario;

/// Longest that one call of the client waits without progress.
pub fn patience() -> Duration {
    slow(Duration::from_secs(10))
}

/// Longest that a scenario may take: one that hangs fails with a message.
fn limit() -> Duration {
    slow(Duration::from_secs(100))
}

/// How clients reach the brokers, and how many there are.
#[derive(Clone, Copy, Debug)]
pub struct Rig {
    /// Transport of publishers and subscribers.
    pub transport: Transport,
    /// Brokers.
    pub brokers: usize,
    /// How publishers write over verbs; of no meaning to other transports.
    pub grant: GrantMode,
    /// Whether subscribers over verbs read by themselves.
    pub one_sided: bool,
    /// The pool is one whose hosts do not see each other's caches.
    pub flush: bool,
}

impl Rig {
    /// A rig of this transport and so many brokers.
    pub fn new(transport: Transport, brokers: usize) -> Self {
        Self { transport, brokers, grant: GrantMode::default(), one_sided: false, flush: false }
    }

    /// Starts a system of this rig.
    pub fn start(self) -> Result<Site, Failure> {
        self.start_with(|_| {})
    }

    /// Starts a system of this rig that differs from the usual one: 128 MiB in segments of 2 MiB.
    pub fn start_with(self, change: impl FnOnce(&mut LocalConfig)) -> Result<Site, Failure> {
        let mut config = LocalConfig {
            brokers: self.brokers,
            pool_bytes: 128 << 20,
            segment_bytes: 2 << 20,
            sessions: 64,
            start_wait: limit(),
            sparse: true,
            ..LocalConfig::default()
        };
        if self.transport == Transport::Verbs {
            config.verbs = Some(crate::device::address()?);
            config.verbs_grant = self.grant;
        }
        config.pool = crate::device::fresh_pool()?;
        config.flush = self.flush;
        change(&mut config);
        let system = LocalSystem::start(config)?;
        let client = system.client();
        let free = client.cluster()?.pool.segments_free;
        let watch = Watch { client: system.client(), is_over: false };
        Ok(Site { watch, rig: self, client, system, free })
    }

    /// Runs a scenario here, and fails with what it found or when it takes too long.
    pub fn run(self, scenario: &'static Scenario) {
        let (report, outcome) = mpsc::channel();
        std::thread::spawn(move || {
            // Nobody waits any more when the limit has passed.
            let _ = report.send((scenario.run)(&self));
        });
        let limit = limit();
        match outcome.recv_timeout(limit) {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => panic!("{} on {self:?}: {failure}", scenario.name),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("{} on {self:?} did not end within {limit:?}", scenario.name)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                panic!("{} on {self:?} panicked; its message is above", scenario.name)
            }
        }
    }
}

/// A running system.
pub struct Site {
    watch: Watch,
    /// The rig it runs on.
    pub rig: Rig,
    /// A client of it.
    pub client: Client,
    /// Its processes.
    pub system: LocalSystem,
    /// Segments that were free at the start.
    free: u64,
}

/// A scenario that fails ends before its site is closed. Then what the system itself found says
/// more than the failure.
struct Watch {
    client: Client,
    is_over: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        match self.client.errors() {
            Ok(errors) => errors.iter().for_each(|error| eprintln!("{error:?}")),
            Err(error) => eprintln!("the system's errors cannot be read: {error}"),
        }
    }
}

impl Site {
    /// Creates a topic of that order.
    pub fn topic(&self, order: Order) -> Result<Topic, Failure> {
        self.topic_with(order, |_| {})
    }

    /// Creates a topic of that order that differs from the usual.
    pub fn topic_with(
        &self,
        order: Order,
        change: impl FnOnce(&mut TopicSpec),
    ) -> Result<Topic, Failure> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut spec = TopicSpec::new(format!("{order}-{number}"), order);
        change(&mut spec);
        Ok(self.client.create_topic(&spec)?)
    }

    /// A publisher over this rig's transport.
    pub fn publisher(&self, topic: &Topic) -> PublisherBuilder {
        self.client
            .publisher(&topic.name)
            .transport(self.rig.transport)
            .timeout(patience())
            .grant(self.rig.grant)
    }

    /// A subscriber over this rig's transport, from the earliest.
    pub fn subscriber(&self, topic: &Topic) -> SubscriberBuilder {
        let builder = self.client.subscriber(&topic.name).from(Start::Earliest);
        let one_sided = self.rig.one_sided;
        builder.transport(self.rig.transport).one_sided(one_sided).timeout(patience())
    }

    /// Where a raw client finds a broker: its Unix socket on memory rigs.
    pub fn address(&self, broker: usize) -> Result<String, Failure> {
        let cluster = self.client.cluster()?;
        let broker = cluster
            .brokers
            .iter()
            .find(|it| usize::from(it.broker) == broker)
            .ok_or_else(|| Failure::new(format!("broker {broker} is not in the cluster")))?;
        Ok(match self.rig.transport {
            Transport::Memory => broker.unix.clone(),
            _ => broker.tcp.clone(),
        })
    }

    /// A failure with what the processes noted as errors.
    pub fn explain(&self, failure: Failure) -> Failure {
        match self.client.errors() {
            Ok(errors) => {
                let noted = errors.iter().map(|error| {
                    format!("\n  {} ({} times): {}", error.process, error.count, error.text)
                });
                failure.with(&noted.collect::<String>())
            }
            Err(error) => failure.with(&format!("; and control does not answer: {error}")),
        }
    }

    /// A counter of a broker, or the sum over all of them.
    pub fn counter(&self, name: &str) -> Result<u64, Failure> {
        let processes = self.client.counters()?;
        Ok(processes.iter().filter_map(|process| process.counters.get(name)).sum())
    }

    /// Waits until `done` says so.
    pub fn wait_until(
        &self,
        what: &str,
        mut done: impl FnMut(&Client) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let patience = patience();
        let deadline = Instant::now() + patience;
        while !done(&self.client)? {
            ensure!(Instant::now() < deadline, "{what} did not happen within {patience:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Deletes every topic, looks that every segment came back and every process lives, and stops
    /// the system.
    pub fn close(mut self) -> Result<(), Failure> {
        for topic in self.client.topics()? {
            self.client.delete_topic(&topic.name)?;
        }
        let free = self.free;
        self.wait_until("that every segment came back", |client| {
            Ok(client.cluster()?.pool.segments_free == free)
        })?;
        let notes = self.system.tick();
        ensure!(self.system.is_whole(), "a process ended by itself: {notes:?}");
        self.watch.is_over = true;
        self.system.stop()?;
        Ok(())
    }
}
