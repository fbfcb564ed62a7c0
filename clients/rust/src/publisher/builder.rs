//! How a publisher is set up.

use std::time::Duration;

use landfall_layout::batch::{MESSAGE_HEADER_BYTES, PREAMBLE_BYTES};
use landfall_layout::frame::Ack;
use landfall_layout::limits::{BATCH_BYTES_MAX, BROKERS_MAX};
use landfall_layout::verbs::GrantMode;

use super::Publisher;
use crate::Idle;
use crate::client::Client;
use crate::connect::Transport;
use crate::error::Error;
use crate::wait::random_id;

/// What a publisher shall do, until [`build`](Self::build) connects it.
#[derive(Clone, Debug)]
pub struct PublisherBuilder {
    pub(crate) client: Client,
    pub(crate) topic: String,
    pub(crate) transport: Transport,
    pub(crate) grant: GrantMode,
    pub(crate) ack: Ack,
    pub(crate) client_id: u64,
    pub(crate) batch_bytes: u32,
    pub(crate) linger: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) broker: Option<u8>,
    pub(crate) spread: bool,
    pub(crate) idle: Idle,
    pub(crate) timeout: Duration,
}

impl PublisherBuilder {
    pub(crate) fn new(client: Client, topic: &str) -> Self {
        Self {
            client,
            topic: topic.to_owned(),
            transport: Transport::Auto,
            grant: GrantMode::Window,
            ack: Ack::Ordered,
            client_id: 0,
            batch_bytes: 256 << 10,
            linger: Duration::from_millis(1),
            memory_bytes: 64 << 20,
            broker: None,
            spread: false,
            idle: Idle::Backoff,
            timeout: Duration::from_secs(10),
        }
    }

    /// How bytes reach the broker. Default: memory where the broker's Unix socket allows it, then
    /// verbs where both sides have RDMA, then tcp.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// How batches get into the pool over verbs. Default: window. With
    /// [`Pull`](GrantMode::Pull), a message has to fit [`batch_bytes`](Self::batch_bytes).
    pub fn grant(mut self, grant: GrantMode) -> Self {
        self.grant = grant;
        self
    }

    /// Which receipts are wanted. Default: ordered.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// The client id, not 0. Default: a random one. A publisher with the id of one before it goes
    /// on where that one ended, and fences it.
    pub fn client_id(mut self, id: u64) -> Self {
        self.client_id = id;
        self
    }

    /// Bytes of a full batch, its preamble included. Default 256 KiB. A single message may be
    /// larger, up to what the pool takes.
    pub fn batch_bytes(mut self, bytes: u32) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How long a batch that is not full stays open. Default 1 ms; 0 seals after each message.
    ///
    /// There is no thread behind a publisher: the next call into it honours this. A loop that
    /// pauses calls [`Publisher::poll`] meanwhile.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Bound on the bytes of batches that are open, queued or not yet acknowledged. Default
    /// 64 MiB.
    ///
    /// Over verbs it is memory that is registered with the NIC, in buffers of
    /// [`batch_bytes`](Self::batch_bytes), at least six of them; a batch takes one, however little
    /// is in it.
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Uses this broker and no other. Default: any that serves.
    pub fn broker(mut self, broker: u8) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Deals batches out over all live brokers, a connection each. Default: one broker.
    ///
    /// In order `strong` a broker lets a batch in once the one before it is ordered, or behind it
    /// where both come to the same broker. So they are dealt out in runs of 64 batches or 256 KiB,
    /// and the slowest connection sets the pace.
    pub fn spread(mut self, spread: bool) -> Self {
        self.spread = spread;
        self
    }

    /// How calls that wait do it. Default: backing off.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.idle = idle;
        self
    }

    /// How long connecting takes at most, and how long a call waits while nothing moves. Default
    /// 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects, and opens the session.
    pub fn build(mut self) -> Result<Publisher, Error> {
        if self.client_id == 0 {
            self.client_id = random_id();
        }
        self.check()?;
        let topic = self.topic.clone();
        Publisher::connect(self).map_err(|error| error.of_topic(&topic))
    }

    fn check(&self) -> Result<(), Error> {
        let no = |setting, why: String| Err(Error::Setting { setting, why });
        // A batch has at least one message, and the smallest message is a header.
        let least = PREAMBLE_BYTES + MESSAGE_HEADER_BYTES as u32;
        if !(least..=BATCH_BYTES_MAX).contains(&self.batch_bytes) {
            let why = format!("{} bytes; say {least} to {BATCH_BYTES_MAX}", self.batch_bytes);
            return no("batch_bytes", why);
        }
        if self.memory_bytes < u64::from(self.batch_bytes) {
            let why = format!(
                "{} bytes do not hold one batch of {}",
                self.memory_bytes, self.batch_bytes
            );
            return no("memory_bytes", why);
        }
        if self.timeout.is_zero() {
            return no("timeout", "0; nothing is done without any wait: say 10s".to_owned());
        }
        if let Some(broker) = self.broker {
            if usize::from(broker) >= BROKERS_MAX {
                return no("broker", format!("{broker}; brokers are 0 to {}", BROKERS_MAX - 1));
            }
            if self.spread {
                return no("spread", format!("on, and pinned to broker {broker}; say one"));
            }
        }
        Ok(())
    }
}
