//! Taking a broker's number: one process has it, and the one before it is known to be gone.

use std::io;
use std::time::Duration;

use landfall_layout::BrokerId;
use landfall_layout::limits::ELSEWHERE_GONE_NS;
use landfall_layout::pool::BrokerState;
use landfall_pool::clock::boot_ns;
use landfall_pool::lock::{Byte, Locks};
use landfall_pool::stderr;
use landfall_pool::{Memory, Pool};

use crate::broker::{StartError, failed};

/// How often a number is looked at that is waited for.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// Takes the lock that makes this process broker `me`, on this host.
pub(crate) fn take_lock(pool: &Pool, me: BrokerId) -> Result<Locks, StartError> {
    let locks = Locks::open(pool).map_err(failed("open the pool again for its locks"))?;
    if locks.take(Byte::Broker(me)).map_err(failed(format!("lock the number {me}")))? {
        return Ok(locks);
    }
    let pid = pool.broker(me).pid;
    let held = io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("it is held, by process {pid} as that names itself; choose another number"),
    );
    Err(failed(format!("another process is broker {me} of this pool"))(held))
}

/// Whether the process that had number `me` is known to be gone: it left in good order, or this
/// process holds the very lock that it held. One of another host may still write into the pool, and
/// where hosts do not see each other's caches, even one that was killed may still have lines that
/// it stored; they would leave its caches over what this one writes.
fn is_known_gone(pool: &Pool, locks: &Locks, me: BrokerId) -> bool {
    let line = pool.broker(me);
    let has_left = BrokerState::from_raw(line.state) == BrokerState::Absent;
    line.incarnation == 0 || has_left || locks.is_here(line.host, line.locked)
}

/// Whether this process may take number `me`.
pub(crate) fn check_number(
    pool: &Pool,
    locks: &Locks,
    me: BrokerId,
    host_is_down: bool,
) -> io::Result<()> {
    if host_is_down || is_known_gone(pool, locks, me) {
        return Ok(());
    }
    let line = pool.broker(me);
    Err(io::Error::other(format!(
        "broker {me} was process {} on host {:#018x}, which has not ended it in good order: it may \
         still write, and have some of its lines in caches; this is host {:#018x}: start it there, \
         or choose another number, or, when that host is down, say --host-is-down",
        line.pid,
        line.host,
        landfall_pool::host::id()
    )))
}

/// Waits until a number may be taken from a process of another host that did not end in good order
/// and is silent: `Some(true)` when it has been so for as long as makes it count as gone,
/// `Some(false)` when there is nothing to wait for, or waiting does not help; `None` when `stop`
/// says so.
pub fn wait_for_number(
    pool: &Pool,
    me: BrokerId,
    stop: impl Fn() -> bool,
) -> io::Result<Option<bool>> {
    watch(pool, me, ELSEWHERE_GONE_NS, stop)
}

fn watch(
    pool: &Pool,
    me: BrokerId,
    gone_ns: u64,
    stop: impl Fn() -> bool,
) -> io::Result<Option<bool>> {
    let locks = Locks::open(pool)?;
    // Where hosts do not see each other's caches, what was left in them does not go by waiting.
    let waits = |pool: &Pool| {
        !pool.flushes()
            && !is_known_gone(pool, &locks, me)
            && !locks.is_taken(Byte::Broker(me)).unwrap_or(true)
    };
    let (first, since_ns) = (pool.broker(me), boot_ns());
    if !waits(pool) {
        return Ok(Some(false));
    }
    stderr::note(format_args!(
        "landfall-broker {me}: process {} on host {:#018x} had this number and has not ended in \
         good order; it counts as gone when it has been silent for {} s, or at once with \
         --host-is-down",
        first.pid,
        first.host,
        gone_ns / 1_000_000_000
    ));
    while boot_ns() - since_ns < gone_ns {
        if stop() {
            return Ok(None);
        }
        let line = pool.broker(me);
        if (line.incarnation, line.heartbeat_ns) != (first.incarnation, first.heartbeat_ns) {
            return Err(io::Error::other(format!(
                "process {} on host {:#018x} has this number, and beats; choose another number",
                line.pid, line.host
            )));
        }
        std::thread::sleep(WATCH_EVERY);
    }
    Ok(Some(true))
}

#[cfg(test)]
mod tests {
    use landfall_layout::pool::{BrokerAddress, BrokerLine, Coherence};
    use landfall_pool::idle::Idle;

    use super::*;
    use crate::broker::{Broker, Config};
    use crate::rig::pool_of;

    fn start(pool: Pool, host_is_down: bool) -> Result<Broker, StartError> {
        let config = Config {
            number: BrokerId::new(3).unwrap(),
            listen: "127.0.0.1:0".into(),
            unix: None,
            idle: Idle::Backoff,
            verbs: None,
            session_lease_ns: 1,
            data: None,
            read_data: Vec::new(),
            host_is_down,
            stop_wait_ns: 0,
        };
        Broker::start(pool, &config)
    }

    #[test]
    fn a_start_that_fails_leaves_no_broker() {
        let directory =
            std::env::temp_dir().join(format!("landfall-number-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let taken = landfall_replica::owner::take(&directory, "another").unwrap();
        let (pool, me) = (pool_of(Coherence::Coherent), BrokerId::new(3).unwrap());
        let file = std::fs::File::from(pool.fd().try_clone_to_owned().unwrap());
        let seen = Pool::attach_file(file, "the pool".as_ref(), true).unwrap();
        let config = Config {
            number: me,
            listen: "127.0.0.1:0".into(),
            unix: None,
            idle: Idle::Backoff,
            verbs: None,
            session_lease_ns: 1,
            data: Some(crate::replica::Data::new(&directory)),
            read_data: Vec::new(),
            host_is_down: false,
            stop_wait_ns: 0,
        };
        let Err(refused) = Broker::start(pool, &config) else { panic!("two in one directory") };
        assert!(refused.to_string().contains("give each its own"), "{refused}");
        assert_eq!(seen.broker(me).incarnation, 0, "nobody ever was that broker");
        drop(taken);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// A pool in which broker 3 was on another host.
    fn left_by(coherence: Coherence, state: BrokerState) -> Pool {
        let pool = pool_of(coherence);
        let line = BrokerLine {
            incarnation: 9,
            pid: 77,
            state: state.raw(),
            host: !landfall_pool::host::id(),
            ..BrokerLine::default()
        };
        let address = BrokerAddress::new("127.0.0.1:9", "", "").unwrap();
        pool.set_broker(BrokerId::new(3).unwrap(), &line, &address);
        pool
    }

    #[test]
    fn a_number_that_was_killed_on_another_host_is_not_taken_from_it() {
        for coherence in [Coherence::Flush, Coherence::Coherent] {
            let killed = || left_by(coherence, BrokerState::Serving);
            let Err(refused) = start(killed(), false) else { panic!("it was taken") };
            let said = refused.to_string();
            assert!(said.contains("--host-is-down") && said.contains("process 77"), "{said}");
            assert!(start(killed(), true).is_ok(), "what is down writes nothing");
        }
    }

    #[test]
    fn a_number_that_was_left_in_good_order_is_anybodys() {
        for coherence in [Coherence::Flush, Coherence::Coherent] {
            assert!(start(left_by(coherence, BrokerState::Absent), false).is_ok());
        }
    }

    #[test]
    fn one_of_another_host_that_beats_has_its_number_and_a_silent_one_has_it_for_a_while() {
        let me = BrokerId::new(3).unwrap();
        let pool = left_by(Coherence::Coherent, BrokerState::Serving);
        assert_eq!(watch(&pool, me, 50_000_000, || false).unwrap(), Some(true));
        assert_eq!(watch(&pool, me, u64::MAX, || true).unwrap(), None, "a signal");
        let beats = std::cell::Cell::new(0);
        let beat = || {
            beats.set(beats.get() + 1);
            pool.beat_broker(me, beats.get(), 1, BrokerState::Serving.raw());
            false
        };
        let refused = watch(&pool, me, u64::MAX, beat).unwrap_err().to_string();
        assert!(refused.contains("process 77") && refused.contains("beats"), "{refused}");
    }

    #[test]
    fn nobody_waits_for_a_number_that_is_free_or_that_waiting_does_not_free() {
        let me = BrokerId::new(3).unwrap();
        for pool in [
            left_by(Coherence::Coherent, BrokerState::Absent),
            left_by(Coherence::Flush, BrokerState::Serving),
            pool_of(Coherence::Coherent),
        ] {
            let never = || panic!("nothing is waited for");
            assert_eq!(watch(&pool, me, u64::MAX, never).unwrap(), Some(false));
        }
    }

    #[test]
    fn a_second_process_of_a_number_is_refused() {
        let pool = pool_of(Coherence::Coherent);
        let again = || {
            let file = std::fs::File::from(pool.fd().try_clone_to_owned().unwrap());
            Pool::attach_file(file, "the pool".as_ref(), true).unwrap()
        };
        let first = start(again(), false).ok().unwrap();
        // Not even one that says that the other is gone.
        let Err(refused) = start(again(), true) else { panic!("two are one broker") };
        assert!(refused.to_string().contains("another process is broker 3"), "{refused}");
        drop(first);
        assert!(start(again(), false).is_ok());
    }
}
