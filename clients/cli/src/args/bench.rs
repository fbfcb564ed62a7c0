//! `landfall bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Flags;
use crate::units::Size;
use crate::words;

/// `landfall bench`.
#[derive(Subcommand, Debug)]
pub enum Bench {
    /// Throughput of the whole path: publish, order, subscribe, verified
    Bw(Bw),
    /// Latency of single messages from publish to delivery
    Lat(Lat),
}

impl Bench {
    /// What both have.
    pub fn common(&self) -> &Common {
        match self {
            Self::Bw(bw) => &bw.common,
            Self::Lat(lat) => &lat.common,
        }
    }

    pub(super) fn flags(&self, flags: &mut Flags) {
        self.common().flags(flags);
        if let Self::Bw(bw) = self {
            flags.set("bench.batch_bytes", "--batch-bytes", bw.batch_bytes);
            flags.set("bench.publishers", "--publishers", bw.publishers);
        }
    }
}

/// What both benchmarks take.
#[derive(Args, Debug)]
pub struct Common {
    /// How bytes travel
    #[arg(long, value_enum, default_value = "memory")]
    pub transport: words::Transport,
    /// How batches get into the pool over verbs
    #[arg(long, value_enum, default_value = "window")]
    pub grant: words::Grant,
    /// How the subscriber gets its bytes over verbs
    #[arg(long, value_enum, default_value = "pushed")]
    pub read: words::Read,
    /// Bytes of a message [default: 1K; lat: 64]
    #[arg(long, value_name = "SIZE")]
    pub message_bytes: Option<Size>,
    /// Time measured, in seconds [default: 5]
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,
    /// Time before it, in seconds [default: 1]
    #[arg(long, value_name = "S")]
    pub warmup: Option<f64>,
    /// Brokers of its own system [default: 1]
    #[arg(long, value_name = "N")]
    pub brokers: Option<usize>,
    /// Order of its topic [default: total]
    #[arg(long, value_enum)]
    pub order: Option<words::Order>,
    /// Level that messages have to reach
    #[arg(long, value_enum, default_value = "ordered")]
    pub ack: words::Ack,
    /// Bytes of its own system's pool [default: 1G]
    #[arg(long, value_name = "SIZE")]
    pub pool_bytes: Option<Size>,
    /// Brokers of its own system keep replicas below this directory, until the end: --ack durable
    /// and --ack replicated need some
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// How all processes wait [default: backoff]
    #[arg(long, value_enum)]
    pub idle: Option<words::Idle>,
    /// How to print the result
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<words::Format>,
}

impl Common {
    fn flags(&self, flags: &mut Flags) {
        flags.set("bench.message_bytes", "--message-bytes", self.message_bytes);
        flags.set("bench.seconds", "--seconds", self.seconds);
        flags.set("bench.warmup", "--warmup", self.warmup);
        flags.set("bench.brokers", "--brokers", self.brokers);
        flags.set("bench.pool_bytes", "--pool-bytes", self.pool_bytes);
        flags.set("bench.idle", "--idle", self.idle);
        flags.set("topic.order", "--order", self.order);
    }
}

/// `landfall bench bw`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Starts a system of its own unless --control or LANDFALL_CONTROL names one, makes a topic, measures,
and removes the topic. Publishers are threads of this process. The whole path has one subscriber
that checks every payload's checksum, every position, every batch sequence and, from 8 bytes on,
the counter in every message; publishers wait when it is half a pool behind, so that nothing is
lost. --publish-only has no subscriber and counts what was acknowledged.

The limit is measured in the same run, before and after, and the better one counts: over memory
the better of memcpy and a non-temporal copy of the same blocks from one source block into a
faulted mapping as large as the pool; over tcp a bare socket pair on 127.0.0.1 that moves the same
blocks into such a mapping; over verbs the memory limit is printed, and scripts/bench-verbs compares
with ib_write_bw on the same device. bytes_per_second counts message payloads only.

JSON fields: bytes_per_second, messages_per_second, limit, limit_bytes_per_second, ratio, verified,
and the machine and parameters.

Examples:
  landfall bench bw --transport memory --message-bytes 1K --batch-bytes 1M
  landfall bench bw --transport tcp --publish-only -o json
  landfall bench bw --transport verbs --grant open --publishers 2 --depth 16 --publish-only")]
pub struct Bw {
    /// What both benchmarks take
    #[command(flatten)]
    pub common: Common,
    /// Bytes of a batch, its 64-byte preamble included [default: 1M]
    #[arg(long, value_name = "SIZE")]
    pub batch_bytes: Option<Size>,
    /// Publishers, each with a connection (over verbs a queue pair) of its own [default: 1]
    #[arg(long, value_name = "N")]
    pub publishers: Option<usize>,
    /// Batches of a publisher that may be queued or not acknowledged [default: what 64M hold, and
    /// at least 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub depth: Option<u32>,
    /// Fill messages where they are sent from instead of copying them there; each is then a batch
    /// of its own
    #[arg(long)]
    pub reserve: bool,
    /// No subscriber: landed and ordered only
    #[arg(long)]
    pub publish_only: bool,
}

/// `landfall bench lat`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
One message at a time, from publish to delivery at a subscriber in the same process. Without --rate
the next message goes when the last one has come. With --rate they go by a timetable, and a
message's latency counts from the time it should have gone, so that a stall is not hidden by the
messages that were not sent meanwhile (coordinated omission). A rate that was not reached is said,
with the one that was: latencies are then those of a queue that only grows.

JSON fields: p50_ns, p90_ns, p99_ns, p999_ns, max_ns for all of the way, and the same by stage:
sealed, landed, delivered, acknowledged; ordered comes from control's own histogram; rate_reached
and rate_was_reached. A signal ends a benchmark: what was measured so far is printed, with
cut_short, and the status is 1.

Examples:
  landfall bench lat --transport memory --idle spin
  landfall bench lat --transport tcp --rate 10000 -o json")]
pub struct Lat {
    /// What both benchmarks take
    #[command(flatten)]
    pub common: Common,
    /// Messages a second [default: the next when the last one has come]
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
}
