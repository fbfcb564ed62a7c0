//! A broker that is told to stop copies what its logs have, and what others land meanwhile.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use landfall_dataplane::{Data, Faults, Idle, Plan};
use landfall_layout::pool::{BrokerAddress, BrokerLine, BrokerState};
use landfall_layout::replica::{ReplicaLine, ReplicaState};
use landfall_layout::topic::Order;
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::clock::boot_ns;

use crate::client::{Client, publisher};
use crate::rig::{Rig, until};

/// Longer than any test.
const STOP_WAIT_NS: u64 = 3_600_000_000_000;

/// A data directory that goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("landfall-drain-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is the system's to clear.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Brokers of which the first keeps a copy of what each lands, on a disk with these faults.
fn rig(folder: &Folder, brokers: usize, faults: Plan) -> (Rig, TopicId) {
    let mut rig = Rig::with(brokers, Idle::Backoff);
    let plan = Faults::default();
    plan.set(faults);
    rig.brokers[0].stop();
    rig.data = Some(Data { faults: Some(plan), ..Data::new(&folder.0) });
    rig.stop_wait_ns = STOP_WAIT_NS;
    let topic = rig.control().topic("a", Order::Strong, 64, 0);
    let mut entry = rig.pool.topic(topic).unwrap();
    (entry.replicas, entry.replica_brokers) = (2, 1);
    rig.pool.set_topic(&entry);
    rig.brokers[0] = rig.serve(0, Idle::Backoff);
    (rig, topic)
}

fn broker(number: usize) -> BrokerId {
    BrokerId::new(number).unwrap()
}

fn state(rig: &Rig) -> BrokerState {
    BrokerState::from_raw(rig.pool.broker(broker(0)).state)
}

/// Log index below which the copy of what that broker landed has everything.
fn durable(rig: &Rig, topic: TopicId, source: usize) -> (u64, ReplicaState) {
    let line: ReplicaLine = rig.pool.replica(topic, broker(source), 0);
    (line.durable, line.state())
}

#[test]
fn what_was_ordered_is_on_a_slow_disk_when_its_broker_has_left() {
    const BATCHES: u64 = 24;
    let folder = Folder::new("slow");
    // A write takes at most 8 MiB and one batch more.
    let slow = Plan { write_us: Some(400_000), ..Plan::default() };
    let (mut rig, topic) = rig(&folder, 1, slow);
    let mut client = Client::welcomed(rig.tcp(), publisher(1), "a");
    let payload = vec![7; 1 << 20];
    for seq in 0..BATCHES {
        client.publish(1, seq, &payload);
        assert_eq!(client.receipt().position, seq);
    }
    rig.brokers[0].stop();
    assert_eq!(state(&rig), BrokerState::Absent);
    assert_eq!(durable(&rig, topic, 0), (BATCHES, ReplicaState::Well));
}

/// Says of a broker, again and again until it goes, that it is leaving.
struct Leaving {
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Leaving {
    fn begin(rig: &Rig, number: usize) -> Self {
        let id = broker(number);
        let line = BrokerLine {
            incarnation: 1,
            heartbeat_ns: boot_ns(),
            state: BrokerState::Leaving.raw(),
            ..BrokerLine::default()
        };
        rig.pool.set_broker(id, &line, &BrokerAddress::new("", "", "").unwrap());
        let is_over = Arc::new(AtomicBool::new(false));
        let (pool, over) = (rig.pool.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            while !over.load(Relaxed) {
                pool.beat_broker(id, boot_ns(), 1, BrokerState::Leaving.raw());
                std::thread::sleep(Duration::from_millis(5));
            }
            pool.beat_broker(id, boot_ns(), 1, BrokerState::Landed.raw());
        });
        Self { is_over, thread: Some(thread) }
    }
}

/// It says at its end that it has landed its last batch.
impl Drop for Leaving {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// As of those that are told to stop together, one may land its last batch when another has none
/// left.
#[test]
fn what_another_lands_before_it_leaves_is_copied() {
    const BATCHES: u64 = 50;
    let folder = Folder::new("others");
    let (mut rig, topic) = rig(&folder, 2, Plan::default());
    let leaving = Leaving::begin(&rig, 2);
    rig.brokers[0].tell_to_stop();
    until("it leaves", || state(&rig) != BrokerState::Serving);
    let mut client = Client::welcomed(&rig.brokers[1].tcp, publisher(1), "a");
    for seq in 0..BATCHES {
        client.publish(1, seq, b"late");
        assert_eq!(client.receipt().position, seq);
    }
    assert_eq!(state(&rig), BrokerState::Landed, "it waits for broker 2");
    drop(leaving);
    rig.brokers[0].stop();
    assert_eq!(state(&rig), BrokerState::Absent);
    assert_eq!(durable(&rig, topic, 1), (BATCHES, ReplicaState::Well));
}

/// Neither a full disk nor one that fails is waited for as long as it may be.
#[test]
fn a_disk_that_does_not_get_on_is_not_waited_for_for_long() {
    let full = Plan { full_after: Some(0), ..Plan::default() };
    // The first one begins the file.
    let fails = Plan { write_fails: Some(2), ..Plan::default() };
    for (plan, is) in [(full, ReplicaState::Full), (fails, ReplicaState::Failed)] {
        let folder = Folder::new("stuck");
        let (mut rig, topic) = rig(&folder, 1, plan);
        let mut client = Client::welcomed(rig.tcp(), publisher(1), "a");
        client.publish(1, 0, b"m");
        client.receipt();
        until("the disk is known", || durable(&rig, topic, 0).1 == is);
        rig.brokers[0].stop();
        assert_eq!(state(&rig), BrokerState::Absent);
        assert_eq!(durable(&rig, topic, 0), (0, is));
    }
}
