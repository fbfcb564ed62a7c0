//! The system that is measured: one of its own, or the one that --control names.

use std::net::IpAddr;
use std::path::PathBuf;

use landfall::Client;
use landfall::api::{Cluster, TopicSpec};
use landfall::local::{LocalConfig, LocalSystem, rdma_address};
use landfall_layout::topic::Durability;
use landfall_pool::clock::wall_ns;

use super::window::{kept_bytes, window_bytes};
use crate::args::bench::Common;
use crate::config::Config;
use crate::error::{Failure, Outcome, Tried};
use crate::out;
use crate::words::{Ack, Transport};

/// Where the run's own brokers take clients over RDMA.
fn rdma(transport: Transport) -> Outcome<Option<IpAddr>> {
    match transport {
        Transport::Verbs => {
            rdma_address().map(Some).tried(|| "cannot measure transport verbs".into())
        }
        Transport::Auto => Ok(rdma_address().ok()),
        Transport::Memory | Transport::Tcp => Ok(None),
    }
}

/// Whether receipts of this level wait for a copy on a disk.
fn needs_disk(ack: Ack) -> bool {
    matches!(ack, Ack::Replicated | Ack::Durable)
}

/// Where the run's own brokers keep replicas: such receipts wait for a disk, and which one makes
/// the figure.
fn data(common: &Common) -> Outcome<Option<PathBuf>> {
    let own = |dir: &PathBuf| dir.join(format!("landfall-bench-{}", std::process::id()));
    match &common.data {
        None if needs_disk(common.ack) => Err(Failure::usage(
            format!("--ack {} needs a disk", common.ack),
            "say a directory of the disk to measure with --data DIR; what is written below it is \
             removed at the end",
        )),
        data => Ok(data.as_ref().map(own)),
    }
}

/// The run's own system, and what it leaves on a disk.
struct Own {
    /// None: it was stopped.
    system: Option<LocalSystem>,
    data: Option<PathBuf>,
}

impl Own {
    fn client(&self) -> Outcome<Client> {
        let gone = || Failure::failed("the system cannot be asked", "it was stopped");
        self.system.as_ref().map(LocalSystem::client).ok_or_else(gone)
    }

    fn stop(mut self) -> Outcome {
        let system = self.system.take();
        let stopped = system.map_or(Ok(()), LocalSystem::stop);
        stopped.tried(|| "the system did not stop cleanly".into())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Nobody writes there any more.
        self.system = None;
        if let Some(data) = &self.data
            && let Err(error) = std::fs::remove_dir_all(data)
        {
            out::note(format_args!("{} is left: {error}", data.display()));
        }
    }
}

/// A system and the topic that belongs to this run.
pub struct Target {
    client: Client,
    system: Option<Own>,
    topic: String,
    cluster: Cluster,
}

impl Target {
    /// Starts a system, unless the control address was set by somebody, and makes the topic. Where
    /// somebody `reads`, the topic keeps what that one may still have to read.
    pub fn start(common: &Common, config: &Config, reads: bool) -> Outcome<Self> {
        let settings = &config.settings;
        let system = if config.is_set("control.address") {
            None
        } else {
            let data = data(common)?;
            let local = LocalConfig {
                data: data.clone(),
                brokers: settings.bench.brokers,
                pool_bytes: settings.bench.pool_bytes.0,
                idle: settings.bench.idle.into(),
                prefault: true,
                verbs: rdma(common.transport)?,
                verbs_grant: common.grant.into(),
                ..LocalConfig::default()
            };
            let system = LocalSystem::start(local).tried(|| "the system did not start".into())?;
            Some(Own { system: Some(system), data })
        };
        let client = match &system {
            Some(own) => own.client()?,
            None => Client::new(&settings.control.address)
                .map_err(|error| Failure::usage("the control address cannot be used", error))?,
        };
        let is_set = common.brokers.is_some() || common.pool_bytes.is_some();
        if system.is_none() && (is_set || common.data.is_some()) {
            return Err(Failure::usage(
                "--brokers, --pool-bytes and --data are not possible here",
                format!("the system at {} is measured as it is", settings.control.address),
            ));
        }
        let cluster = client.cluster().tried(|| "cannot describe the cluster".into())?;
        let topic = format!("bench-{}-{:x}", std::process::id(), wall_ns());
        let target = Self { client, system, topic: topic.clone(), cluster };
        let mut spec = TopicSpec::new(topic, settings.topic.order.into());
        if needs_disk(common.ack) {
            // The pool is the first copy.
            spec.replicas = Some(2);
        }
        if common.ack == Ack::Replicated {
            spec.durability = Some(Durability::Window.to_string());
        }
        if reads {
            let window = target.window_bytes(2 * settings.bench.batch_bytes.0);
            let kept = kept_bytes(&target.cluster.pool, target.brokers().len(), window);
            spec.retention_bytes = Some(kept);
        }
        let created = target.client.create_topic(&spec);
        created.tried(|| format!("cannot create topic {}", spec.name))?;
        Ok(target)
    }

    /// A client of it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The topic of this run.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The numbers of the brokers that serve.
    pub fn brokers(&self) -> Vec<u8> {
        self.cluster.brokers.iter().filter(|b| b.is_serving()).map(|b| b.broker).collect()
    }

    /// Bytes of the pool.
    pub fn pool_bytes(&self) -> u64 {
        self.cluster.pool.bytes
    }

    /// How far publishers may be ahead of a subscriber.
    pub fn window_bytes(&self, least: u64) -> u64 {
        window_bytes(&self.cluster.pool, self.brokers().len(), least)
    }

    /// Deletes the topic and stops the system, if it is this run's own.
    pub fn stop(mut self) -> Outcome {
        let deleted = self.delete();
        match self.system.take() {
            Some(own) => own.stop(),
            None => deleted,
        }
    }

    fn delete(&mut self) -> Outcome {
        let topic = std::mem::take(&mut self.topic);
        if topic.is_empty() {
            return Ok(());
        }
        self.client.delete_topic(&topic).tried(|| format!("cannot delete topic {topic}"))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // A run that failed leaves nothing behind in somebody's system either.
        if self.system.is_none()
            && let Err(failure) = self.delete()
        {
            out::note(failure);
        }
    }
}
