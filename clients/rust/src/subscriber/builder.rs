//! How a subscriber is set up.

use std::time::Duration;

use landfall_layout::frame::From;
use landfall_layout::limits::BROKERS_MAX;

use super::{Mark, Subscriber};
use crate::Idle;
use crate::client::Client;
use crate::connect::Transport;
use crate::error::Error;

/// What a subscriber shall do, until [`build`](Self::build) connects it.
#[derive(Clone, Debug)]
pub struct SubscriberBuilder {
    pub(crate) client: Client,
    pub(crate) topic: String,
    pub(crate) transport: Transport,
    pub(crate) from: From,
    pub(crate) mark: Option<Mark>,
    pub(crate) broker: Option<u8>,
    pub(crate) idle: Idle,
    pub(crate) timeout: Duration,
    pub(crate) verify: bool,
    pub(crate) ring_bytes: u64,
    pub(crate) one_sided: bool,
}

impl SubscriberBuilder {
    pub(crate) fn new(client: Client, topic: &str) -> Self {
        Self {
            client,
            topic: topic.to_owned(),
            transport: Transport::Auto,
            from: From::Latest,
            mark: None,
            broker: None,
            idle: Idle::Backoff,
            timeout: Duration::from_secs(10),
            verify: true,
            ring_bytes: 32 << 20,
            one_sided: false,
        }
    }

    /// How bytes reach the subscriber. Default: memory where the broker's Unix socket allows it,
    /// then verbs where both sides have RDMA, then tcp.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Where to start. Default: the latest. A position that the topic has not come to is an error,
    /// [`BeyondEnd`](Error::BeyondEnd): it is another topic's, or of another system. A batch is
    /// shown whole, also where the position lies inside of it.
    pub fn from(mut self, from: From) -> Self {
        self.from = from;
        self.mark = None;
        self
    }

    /// Goes on where another subscriber of the same topic was. Where the topic was deleted
    /// meanwhile and made anew, [`build`](Self::build) fails with
    /// [`MadeAgain`](Error::MadeAgain).
    pub fn resume(mut self, mark: Mark) -> Self {
        self.from = mark.position.map_or(mark.from, From::Position);
        self.mark = Some(mark);
        self
    }

    /// Uses this broker and no other. Default: any that serves; each can deliver every batch.
    pub fn broker(mut self, broker: u8) -> Self {
        self.broker = Some(broker);
        self
    }

    /// How [`Subscriber::next`] waits. Default: backing off.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.idle = idle;
        self
    }

    /// How long connecting takes at most. Default 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether each payload's checksum is compared with the publisher's. Default: yes. Who says no
    /// is shown what memory has, zeros where it was found that it cannot be read, and gets no
    /// payload that changed there from a copy on disk.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Bytes of the ring that a broker writes batches into over verbs, or that READs land in:
    /// memory that is registered with the NIC. Default 32 MiB; at least two of the largest batches
    /// fit, whatever is said.
    pub fn ring_bytes(mut self, bytes: u64) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// Whether a subscriber over verbs reads log and payload out of the pool by itself, with READs
    /// that cost the broker's processor nothing. Default: no, the broker writes batches into the
    /// subscriber's ring. Other transports are not concerned.
    ///
    /// Nobody wakes such a reader: one that backs off looks about once a millisecond.
    pub fn one_sided(mut self, one_sided: bool) -> Self {
        self.one_sided = one_sided;
        self
    }

    /// Connects.
    pub fn build(self) -> Result<Subscriber, Error> {
        if let Some(broker) = self.broker
            && usize::from(broker) >= BROKERS_MAX
        {
            let why = format!("{broker}; brokers are 0 to {}", BROKERS_MAX - 1);
            return Err(Error::Setting { setting: "broker", why });
        }
        let topic = self.topic.clone();
        Subscriber::connect(self).map_err(|error| error.of_topic(&topic))
    }
}
