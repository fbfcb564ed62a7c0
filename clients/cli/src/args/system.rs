//! Commands that start a system of their own.

use std::path::PathBuf;

use clap::Args;

use crate::config::Flags;
use crate::units::{Size, Time};
use crate::words;

/// `landfall up`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Prints `ready http://127.0.0.1:7400` on stdout when every broker is accepted, and stays in the
foreground. SIGINT, SIGTERM or SIGHUP stops all of it, with status 0, or 1 where a process had to
be killed.
A second one says what a third does: 2 s later or more, it ends all at once, as a power cut would.
A process that dies is started again after 100 ms, then after twice as long each time, up to 5 s,
and stderr says so. The pool is anonymous memory unless --pool names a file, so nothing is left
behind.

Examples:
  landfall up --brokers 4
  landfall up --verbs 10.0.0.1
  landfall up --control 127.0.0.1:0 --pool /dev/shm/landfall --pool-bytes 4G")]
pub struct Up {
    /// Brokers [default: 1]
    #[arg(long, value_name = "N")]
    pub brokers: Option<usize>,
    /// The pool: a file on tmpfs or hugetlbfs, or a devdax device; an existing pool is opened
    /// [default: anonymous memory]
    #[arg(long, value_name = "PATH")]
    pub pool: Option<PathBuf>,
    /// Bytes of a new pool [default: 1G]
    #[arg(long, value_name = "SIZE")]
    pub pool_bytes: Option<Size>,
    /// Bytes of a segment, a power of two from 2M [default: 8M]
    #[arg(long, value_name = "SIZE")]
    pub segment_bytes: Option<Size>,
    /// Publisher sessions that the pool has room for [default: 16384]
    #[arg(long, value_name = "N")]
    pub sessions: Option<u32>,
    /// How control and brokers wait [default: backoff]
    #[arg(long, value_enum)]
    pub idle: Option<words::Idle>,
    /// Touch every page of the pool at the start
    #[arg(long)]
    pub prefault: bool,
    /// Take the room of a new pool only as it is used: what is not there then is lost
    #[arg(long, conflicts_with = "prefault")]
    pub sparse: bool,
    /// Brokers also take clients over RDMA, on this IP address of an RDMA device; auto finds one
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "auto")]
    pub verbs: Option<String>,
    /// The most trusting way in which publishers may write over RDMA [default: window]
    #[arg(long, value_enum)]
    pub verbs_grant: Option<words::Grant>,
    /// A Unix socket for control as well: a path, or @NAME
    #[arg(long, value_name = "PATH")]
    pub unix: Option<String>,
    /// Names besides this machine's own by which control's HTTP API is asked; IP addresses always
    /// are
    #[arg(long, value_name = "NAME,...")]
    pub host: Option<String>,
    /// Files and sockets are for this group too, a name or a number [default: this user alone]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Directory for the sockets by which the processes wake each other [default: /run/landfall for
    /// root, else landfall in $XDG_RUNTIME_DIR or in /tmp]
    #[arg(long, value_name = "DIR")]
    pub sockets: Option<PathBuf>,
    /// Brokers keep replicas here: broker N in DIR/broker-N
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// How long a broker that keeps a copy on disk is away before another takes it over
    /// [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub copy_move: Option<Time>,
    /// The longest wait for one process at its start, as for a large pool or slow disks
    /// [default: 5m]
    #[arg(long, value_name = "TIME")]
    pub start_timeout: Option<Time>,
    /// The longest wait for a process at its end, as for slow disks: then it is killed
    /// [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub stop_timeout: Option<Time>,
    /// Go on without what only data directories have that are not there: it is lost, and they must
    /// never come back
    #[arg(long)]
    pub forget_lost: bool,
}

impl Up {
    pub(super) fn flags(&self, flags: &mut Flags) {
        flags.set("up.brokers", "--brokers", self.brokers);
        flags.set("up.pool", "--pool", self.pool.as_ref());
        flags.set("up.data", "--data", self.data.as_ref());
        flags.set("up.unix", "--unix", self.unix.as_ref());
        flags.set("up.host", "--host", self.host.as_ref());
        flags.set("up.group", "--group", self.group.as_ref());
        flags.set("up.sockets", "--sockets", self.sockets.as_ref());
        flags.set("up.verbs", "--verbs", self.verbs.as_ref());
        flags.set("up.pool_bytes", "--pool-bytes", self.pool_bytes);
        flags.set("up.segment_bytes", "--segment-bytes", self.segment_bytes);
        flags.set("up.sessions", "--sessions", self.sessions);
        flags.set("up.idle", "--idle", self.idle);
        flags.set("up.verbs_grant", "--verbs-grant", self.verbs_grant);
        flags.set("up.copy_move", "--copy-move", self.copy_move);
        flags.set("up.start_timeout", "--start-timeout", self.start_timeout);
        flags.set("up.stop_timeout", "--stop-timeout", self.stop_timeout);
        flags.set("up.prefault", "--prefault", self.prefault.then_some(true));
        flags.set("up.sparse", "--sparse", self.sparse.then_some(true));
    }
}

/// `landfall demo`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Starts a system with 4 brokers, publishes every regular file under DIR from 4 publishers (two over
memory, two over tcp, order strong), and reads it all back with two subscribers (one over memory,
one over tcp) at the same time. Then it checks every file's SHA-256 at both subscribers, that both
saw the same order, and that every publisher's order was kept, and prints throughput, latency by
stage, and PASS or what failed.

Example:
  landfall demo /usr/share/doc")]
pub struct Demo {
    /// Folder whose files are published
    #[arg(value_name = "DIR", default_value = "/usr/share/doc")]
    pub dir: PathBuf,
    /// Bytes of the pool [default: 512M]
    #[arg(long, value_name = "SIZE")]
    pub pool_bytes: Option<Size>,
    /// Bytes of a file in one message [default: 32K]
    #[arg(long, value_name = "SIZE")]
    pub chunk_bytes: Option<Size>,
    /// How to print the result
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<words::Format>,
}

impl Demo {
    pub(super) fn flags(&self, flags: &mut Flags) {
        flags.set("demo.pool_bytes", "--pool-bytes", self.pool_bytes);
        flags.set("demo.chunk_bytes", "--chunk-bytes", self.chunk_bytes);
    }
}
