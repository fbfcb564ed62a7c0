//! The system that is measured: one of its own, or the one that --control names.

use std::time::{SystemTime, UNIX_EPOCH};

use landfall::Client;
use landfall::api::{Cluster, TopicSpec};
use landfall::local::{LocalConfig, LocalSystem};

use crate::args::bench::Common;
use crate::config::Config;
use crate::error::{Failure, Outcome, Tried};
use crate::out;

/// A system and the topic that belongs to this run.
pub struct Target {
    client: Client,
    system: Option<LocalSystem>,
    topic: String,
    cluster: Cluster,
}

impl Target {
    /// Starts a system, unless the control address was set by somebody, and makes the topic.
    pub fn start(common: &Common, config: &Config) -> Outcome<Self> {
        let settings = &config.settings;
        let system = if config.is_set("control.address") {
            None
        } else {
            let local = LocalConfig {
                brokers: settings.bench.brokers,
                pool_bytes: settings.bench.pool_bytes.0,
                idle: settings.bench.idle.into(),
                prefault: true,
                ..LocalConfig::default()
            };
            Some(LocalSystem::start(local).tried(|| "the system did not start".into())?)
        };
        let client = match &system {
            Some(system) => system.client(),
            None => Client::new(&settings.control.address)
                .map_err(|error| Failure::usage("the control address cannot be used", error))?,
        };
        if system.is_none() && (common.brokers.is_some() || common.pool_bytes.is_some()) {
            return Err(Failure::usage(
                "--brokers and --pool-bytes are not possible here",
                format!("the system at {} is measured as it is", settings.control.address),
            ));
        }
        let cluster = client.cluster().tried(|| "cannot describe the cluster".into())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let topic = format!("bench-{}-{:x}", std::process::id(), now.as_nanos());
        let spec = TopicSpec::new(topic.clone(), settings.topic.order.into());
        client.create_topic(&spec).tried(|| format!("cannot create topic {topic}"))?;
        Ok(Self { client, system, topic, cluster })
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

    /// How far publishers may be ahead of a subscriber: half of what was free at the start, and
    /// less the segments that brokers keep open and spare.
    pub fn window_bytes(&self) -> u64 {
        let pool = &self.cluster.pool;
        let open = 2 * self.brokers().len() as u64 + 4;
        pool.segments_free.saturating_sub(open) * pool.segment_bytes / 2
    }

    /// Deletes the topic and stops the system, if it is this run's own.
    pub fn stop(mut self) -> Outcome {
        let deleted = self.delete();
        match self.system.take() {
            Some(system) => system.stop().tried(|| "the system did not stop cleanly".into()),
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
