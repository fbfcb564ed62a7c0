//! What the command line says.

use std::path::PathBuf;

use clap::Parser;
use landfall_control::Idle;
use landfall_layout::limits::{
    COPY_MOVE_NS, HEARTBEAT_LEASE_NS, POOL_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT, SESSION_LEASE_NS,
    SESSIONS_DEFAULT,
};
use landfall_layout::pool::Coherence;
use landfall_pool::owner::SharedWith;

/// Leads a Landfall pool: topics, segments, sessions and the one order.
#[derive(Debug, Parser)]
#[command(name = "landfall-control", version)]
pub struct Flags {
    /// The pool: a file on tmpfs or hugetlbfs, a devdax device, or /proc/PID/fd/N of a memfd.
    #[arg(long)]
    pub pool: PathBuf,
    /// Bytes of a pool that is created; 0 takes all of a devdax device. K, M and G are KiB and up.
    #[arg(long, value_parser = size, default_value_t = POOL_BYTES_DEFAULT)]
    pub pool_bytes: u64,
    /// Bytes of a segment of a pool that is created, a power of two.
    #[arg(long, value_parser = size, default_value_t = SEGMENT_BYTES_DEFAULT)]
    pub segment_bytes: u64,
    /// Sessions of a pool that is created.
    #[arg(long, default_value_t = SESSIONS_DEFAULT)]
    pub sessions: u32,
    /// Whether hosts see each other's stores: coherent, or flush where lines must be written back.
    #[arg(long, value_parser = coherence, default_value = "coherent")]
    pub coherence: Coherence,
    /// TCP address of the HTTP API; port 0 takes any.
    #[arg(long, default_value = "127.0.0.1:7400")]
    pub listen: String,
    /// Unix socket of the HTTP API: a path, or @ and an abstract name.
    #[arg(long)]
    pub unix: Option<String>,
    /// Names besides this machine's own by which the HTTP API is asked, with commas between. By any
    /// other one, which a web page may have made up, it does not answer; by IP addresses it does.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub host: Vec<String>,
    /// Files, directories and sockets are for this group too, a name or a number; without it for
    /// this user alone.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<SharedWith>,
    /// Directory for the sockets by which the processes of this host wake each other, the same for
    /// all of them. Default: /run/landfall for root, else landfall in $XDG_RUNTIME_DIR or in /tmp.
    #[arg(long, value_name = "DIR")]
    pub sockets: Option<PathBuf>,
    /// How the sequencer waits: spin, or backoff (spin, yield, sleep).
    #[arg(long, default_value_t = Idle::Backoff)]
    pub idle: Idle,
    /// Core that the sequencer is pinned to.
    #[arg(long)]
    pub core: Option<usize>,
    /// Die when the process that started this one dies, which has this id.
    #[arg(long)]
    pub parent: Option<u32>,
    /// Wait, while another control leads the pool, until that one is gone or beats no more.
    #[arg(long)]
    pub standby: bool,
    /// Data directory of a broker, once for each broker, at every start, also the first: topics
    /// come back from there into a pool that is new, and where logs ended is written there at the
    /// end.
    #[arg(long, value_name = "DIR")]
    pub restore: Vec<PathBuf>,
    /// Go on without what is in no directory that --restore names, or although directories that say
    /// where logs ended are missing: it is lost, and they must never be named again.
    #[arg(long)]
    pub forget_lost: bool,
    /// Open a pool that is there, and make none.
    #[arg(long)]
    pub existing: bool,
    /// A leader that has not moved its heartbeat for this long may be deposed.
    #[arg(long, value_name = "MS", default_value_t = HEARTBEAT_LEASE_NS / 1_000_000)]
    pub silent_ms: u64,
    /// Touch every page of the pool at the start.
    #[arg(long)]
    pub prefault: bool,
    /// Take the room of a new pool only as it is used: what is not there then is lost.
    #[arg(long, conflicts_with = "prefault")]
    pub sparse: bool,
    /// How long a dead broker's segments are kept for publishers to read back what they wrote.
    #[arg(long, value_name = "MS", default_value_t = SESSION_LEASE_NS / 1_000_000)]
    pub kept_ms: u64,
    /// How long a publisher's session is kept open when no broker has a connection of it any more.
    #[arg(long, value_name = "MS", default_value_t = SESSION_LEASE_NS / 1_000_000)]
    pub session_lease_ms: u64,
    /// How long a dead broker's memory subscribers have to let go before what they read is reused.
    #[arg(long, value_name = "MS", default_value_t = HEARTBEAT_LEASE_NS / 1_000_000)]
    pub grace_ms: u64,
    /// How long the broker that keeps a copy on disk is away before another one takes it over.
    #[arg(long, value_name = "MS", default_value_t = COPY_MOVE_NS / 1_000_000)]
    pub copy_move_ms: u64,
}

/// Bytes, with K, M or G for powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no size; say bytes, or a number with K, M or G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is more than 64 bits of bytes"))
}

fn coherence(text: &str) -> Result<Coherence, String> {
    match text {
        "coherent" => Ok(Coherence::Coherent),
        "flush" => Ok(Coherence::Flush),
        _ => Err(format!("{text:?} is no coherence mode; say coherent or flush")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_suffixes_of_1024() {
        assert_eq!(size("12"), Ok(12));
        assert_eq!((size("2K"), size("3m"), size("4G")), (Ok(2048), Ok(3 << 20), Ok(4 << 30)));
        assert!(size("1.5G").unwrap_err().contains("1.5G"));
        assert!(size("").is_err() && size("K").is_err());
        assert!(size("99999999999999G").unwrap_err().contains("64 bits"));
    }

    #[test]
    fn the_flags_are_as_agreed() {
        let flags = Flags::try_parse_from([
            "landfall-control",
            "--pool",
            "/dev/shm/a",
            "--pool-bytes",
            "256M",
            "--segment-bytes",
            "2M",
            "--sessions",
            "100",
            "--coherence",
            "flush",
            "--listen",
            "127.0.0.1:0",
            "--unix",
            "@x",
            "--idle",
            "spin",
            "--core",
            "1",
            "--parent",
            "7",
            "--prefault",
        ])
        .unwrap();
        assert_eq!(
            (flags.pool_bytes, flags.segment_bytes, flags.sessions),
            (256 << 20, 2 << 20, 100)
        );
        assert_eq!((flags.coherence, flags.idle), (Coherence::Flush, Idle::Spin));
        assert!(Flags::try_parse_from(["landfall-control"]).is_err(), "a pool has to be named");
    }
}
