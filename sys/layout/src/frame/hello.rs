//! How a connection begins.

/// What a client wants of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Send batches.
    Publish,
    /// Receive batches.
    Subscribe,
}

/// How bytes reach the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// Through the connection itself.
    Stream,
    /// Through the pool, by a client on the same host; the connection is only a bell.
    Memory,
    /// By RDMA. Such a connection begins with a knock (`verbs::Knock`), never with this frame.
    Verbs,
}

/// The frontier that a receipt names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ack {
    /// No receipts.
    None,
    /// Ordered; for orders `none` and `broker`: landed.
    Ordered,
    /// On stable storage of every disk replica.
    Durable,
}

/// Where a subscription starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// The oldest batch that is still there.
    Earliest,
    /// Whatever comes after now.
    Latest,
    /// The batch that holds this position, or the first after it.
    Position(u64),
    /// The first batch that landed at this wall clock, nanoseconds, or later.
    Time(u64),
}

/// First frame of every connection; its tail is a [`HelloTail`](super::HelloTail).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What the client wants.
    pub role: Role,
    /// How bytes will travel.
    pub carrier: Carrier,
    /// Publisher: the receipts it wants.
    pub ack: Ack,
    /// Publisher: its client id, not 0.
    pub client: u64,
    /// Publisher: session epoch to join; 0 opens the next one.
    pub session_epoch: u32,
    /// Publisher: a random number, drawn once by each, that tells it from others of its client id;
    /// 0 where it has none.
    pub life: u32,
    /// Publisher: it had an epoch of this session. Where another one opened the session since, no
    /// epoch is opened for it.
    pub comes_back: bool,
    /// Subscriber: where to start.
    pub from: From,
    /// Subscriber: a batch did not hold, so that each is to be checked before it is sent, and read
    /// from a replica where memory has another than the log says.
    pub checked: bool,
}
