//! The rig: pool, scripted control, brokers, each on its thread.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use landfall_dataplane::{Broker, Config, Data, Ended, Idle};
use landfall_layout::counters::Counter;
use landfall_layout::limits::SESSION_LEASE_NS;
use landfall_layout::pool::Coherence;
use landfall_layout::{BrokerId, SegmentId};
use landfall_pool::Pool;
use landfall_pool::counters::{Counters, ErrorLog};
use landfall_pool::map::memfd;
use landfall_pool::pool::Shape;

use crate::control::Control;

pub struct Rig {
    pub pool: Arc<Pool>,
    control: Arc<Mutex<Control>>,
    pub brokers: Vec<Served>,
    session_lease_ns: u64,
    /// Of brokers that are started after it is set.
    pub stop_wait_ns: u64,
    /// Where one keeps replicas that is started after it is set.
    pub data: Option<Data>,
    over: Arc<AtomicBool>,
    driver: Option<JoinHandle<()>>,
    memory: OwnedFd,
}

pub struct Served {
    pub tcp: String,
    pub unix: String,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Ended>>,
}

impl Served {
    /// Tells the broker to stop, and does not wait until it has.
    pub fn tell_to_stop(&self) {
        self.over.store(true, Relaxed);
    }

    pub fn stop(&mut self) {
        self.tell_to_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the broker ends without a panic");
        }
    }

    /// How the broker ended, which it does by itself.
    pub fn ended(&mut self) -> Ended {
        until("the broker ends", || self.thread.as_ref().is_some_and(JoinHandle::is_finished));
        let thread = self.thread.take().expect("it was asked once");
        thread.join().expect("the broker ends without a panic")
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(1, Idle::Backoff)
    }

    pub fn with(brokers: usize, idle: Idle) -> Self {
        Self::leasing(brokers, idle, SESSION_LEASE_NS)
    }

    /// Brokers whose lost publishers have a lease of that length.
    pub fn leasing(brokers: usize, idle: Idle, session_lease_ns: u64) -> Self {
        static RIGS: AtomicU64 = AtomicU64::new(0);
        let memory = memfd("broker-test", 96 << 20).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
        uuid[8..].copy_from_slice(&RIGS.fetch_add(1, Relaxed).to_le_bytes());
        let shape = Shape {
            pool_bytes: 96 << 20,
            segment_bytes: 2 << 20,
            sessions: 256,
            coherence: Coherence::Coherent,
            uuid,
            now_ns: 1,
            sparse: true,
        };
        let pool = Arc::new(Pool::create_or_attach(&path, shape).unwrap());
        let control = Arc::new(Mutex::new(Control::new(pool.clone(), brokers)));
        let over = Arc::new(AtomicBool::new(false));
        let driver = std::thread::spawn({
            let (control, over) = (control.clone(), over.clone());
            move || {
                while !over.load(Relaxed) {
                    let busy = control.lock().unwrap().step();
                    if !busy {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
            }
        });
        let mut rig = Self {
            pool,
            control,
            brokers: Vec::new(),
            session_lease_ns,
            stop_wait_ns: 0,
            data: None,
            over,
            driver: Some(driver),
            memory,
        };
        for number in 0..brokers {
            let served = rig.serve(number, idle);
            rig.brokers.push(served);
        }
        rig
    }

    /// Starts a broker on its own thread and waits until it is ready.
    pub fn serve(&self, number: usize, idle: Idle) -> Served {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.memory.as_raw_fd()));
        let pool = Pool::attach(&path).unwrap();
        let config = Config {
            number: BrokerId::new(number).unwrap(),
            listen: "127.0.0.1:0".into(),
            unix: None,
            idle,
            verbs: None,
            session_lease_ns: self.session_lease_ns,
            data: self.data.clone(),
            read_data: Vec::new(),
            host_is_down: false,
            stop_wait_ns: self.stop_wait_ns,
        };
        let over = Arc::new(AtomicBool::new(false));
        let (said, heard) = channel();
        let stop = over.clone();
        let thread = std::thread::spawn(move || {
            let mut broker = Broker::start(pool, &config).unwrap();
            broker.run(
                || stop.load(Relaxed),
                |broker| {
                    let at = (broker.tcp_address().to_owned(), broker.unix_address().to_owned());
                    said.send(at).unwrap();
                },
            )
        });
        let (tcp, unix) = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        Served { tcp, unix, over, thread: Some(thread) }
    }

    pub fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap()
    }

    /// Takes the pool's pages from that segment on away: who loads from them faults.
    pub fn lose_from(&self, segment: u32) {
        let start = self.pool.geometry().segment(SegmentId(segment)).unwrap();
        nix::unistd::ftruncate(&self.memory, start as i64).unwrap();
    }

    pub fn tcp(&self) -> &str {
        &self.brokers[0].tcp
    }

    pub fn unix(&self) -> &str {
        &self.brokers[0].unix
    }

    pub fn counter(&self, counter: Counter) -> u64 {
        Counters::new(&self.pool, 0).get(&self.pool, counter)
    }

    /// Distinct errors that broker 0 noted.
    pub fn errors(&self) -> Vec<String> {
        self.errors_of_0()()
    }

    /// The same, for another thread.
    pub fn errors_of_0(&self) -> impl Fn() -> Vec<String> + Send + use<> {
        let pool = self.pool.clone();
        move || {
            let entries = ErrorLog::new(&pool, 0).entries(&pool);
            entries.iter().filter(|e| e.count > 0).map(|e| e.text().to_owned()).collect()
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for served in &mut self.brokers {
            served.over.store(true, Relaxed);
        }
        for served in &mut self.brokers {
            if let Some(thread) = served.thread.take()
                && thread.join().is_err()
                && !std::thread::panicking()
            {
                panic!("a broker panicked");
            }
        }
        self.over.store(true, Relaxed);
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

/// Waits until `what` holds; the bound only ends a test that would never end.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(20), "never came true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
