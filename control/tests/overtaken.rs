//! A control that is stopped while it brings topics back, and wakes when another one leads or
//! another pool has its topics.

mod fake;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fake::homes::{self, Two, lead, said};
use fake::{Memory, eventually};
use landfall_control::cold::{ColdError, restore};
use landfall_control::messages::Ask;
use landfall_layout::TopicId;
use landfall_layout::order::FrontierLine;
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::topic::{Order, TopicEntry};
use landfall_pool::{Memory as _, Pool};
use landfall_replica::names::TOPIC_FILE;
use landfall_replica::{Resumed, TopicFile};

/// A data directory with topic t, which has logs of brokers, gone with this value.
struct Data(Two);

impl Data {
    fn new(name: &str) -> Self {
        let data = Self(Two::new(&format!("overtaken-{name}")));
        fs::create_dir_all(data.topic()).unwrap();
        homes::name(&data.0.data()[0], 0);
        let mut file = said(&entry());
        file.resumed.insert(0, Resumed { index: 50, position: 500 });
        file.write(&data.topic()).unwrap();
        data
    }

    fn topic(&self) -> PathBuf {
        self.0.topics()[0].clone()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.topic().join(TOPIC_FILE)).unwrap()
    }

    /// Brings the topic back.
    fn restore(&self, pool: &Pool) -> Result<(), ColdError> {
        restore(pool, &self.0.data()[..1], false, 1).map(drop)
    }
}

fn entry() -> TopicEntry {
    TopicEntry { replica_brokers: 1, ..homes::entry(Order::None, 2) }
}

fn topic() -> TopicId {
    TopicId(entry().id)
}

fn claim(pool: &Pool, epoch: u64) {
    let term = Term { epoch, serves: false }.pack();
    assert!(pool.claim(epoch as usize, &LeaderLine { term, ..LeaderLine::default() }));
    pool.copy_tables(None);
}

#[test]
fn a_brokers_own_log_goes_on_where_the_leader_says_and_the_broker_writes_its_line() {
    let data = Data::new("own");
    let memory = Memory::new();
    let (control, broker) = (memory.pool(48), memory.pool(48));
    claim(&control, 1);
    data.restore(&control).unwrap();
    assert_eq!(broker.frontier(topic(), 0).entries, 0, "nobody follows it yet");
    assert!(control.serve(1));
    let at = broker.geometry().frontier(topic().slot(), 0);
    assert_eq!(broker.load_words::<8>(at), [0; 8], "the line is its broker's");
    broker.follow();
    let chain = broker.chain(topic(), 0).unwrap();
    let begin = (chain.oldest_index, chain.oldest_position);
    assert!(begin > (50, 500), "{begin:?}");
    let place = |pool: &Pool| {
        let line = pool.frontier(topic(), 0);
        (line.entries, line.position)
    };
    assert_eq!((place(&broker), place(&control)), (begin, begin));
    broker.start_frontier(topic(), 0);
    let words = FrontierLine::from_words(broker.load_words(at));
    assert_eq!((words.topic, words.entries), (topic().0.into(), begin.0));
    // Control moves the oldest entry only behind what was landed.
    let (entries, position) = (begin.0 + 7, begin.1 + 70);
    broker.advance_frontier(topic(), 0, &FrontierLine { entries, position, ..words });
    control.raise_oldest(topic(), 0, begin.0 + 3, begin.1 + 30);
    assert_eq!((place(&broker), place(&control)), ((entries, position), (entries, position)));
}

#[test]
fn one_that_wakes_when_another_serves_writes_neither_lines_nor_files() {
    let data = Data::new("serves");
    let memory = Memory::new();
    let (stopped, next) = (memory.pool(48), memory.pool(48));
    claim(&stopped, 1);
    claim(&next, 2);
    data.restore(&next).unwrap();
    assert!(next.serve(2));
    next.start_frontier(topic(), 0);
    let begin = next.frontier(topic(), 0);
    let (entries, position) = (begin.entries + 9, begin.position + 9);
    let landed = FrontierLine { entries, position, ..begin };
    next.advance_frontier(topic(), 0, &landed);
    let (line, text) = (next.frontier(topic(), 0), data.text());
    let error = data.restore(&stopped).unwrap_err();
    assert!(matches!(error, ColdError::Overtaken { epoch: 2 }), "{error}");
    assert_eq!(next.frontier(topic(), 0), line, "what a broker landed is there");
    assert_eq!(data.text(), text);
}

/// Stops a control where it wants to write into the topic's directory, lets `meanwhile` happen,
/// and says how it ended.
fn stopped(data: &Data, pool: &Arc<Pool>, meanwhile: impl FnOnce()) -> ColdError {
    let lock = fs::File::open(data.topic()).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let restoring = scope.spawn(|| data.restore(pool));
        while pool.chain(topic(), 0).is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        meanwhile();
        drop(lock);
        restoring.join().unwrap().unwrap_err()
    })
}

#[test]
fn whether_it_leads_is_looked_at_under_the_lock_of_what_it_writes() {
    let data = Data::new("lock");
    let memory = Memory::new();
    let (pool, next) = (memory.pool(48), memory.pool(48));
    claim(&pool, 1);
    let text = data.text();
    let error = stopped(&data, &pool, || claim(&next, 2));
    assert!(matches!(error, ColdError::Overtaken { epoch: 2 }), "{error}");
    assert_eq!(data.text(), text);
}

#[test]
fn a_topic_that_another_pool_took_up_meanwhile_is_left_to_it() {
    let data = Data::new("elsewhere");
    let pool = Memory::new().pool(48);
    claim(&pool, 1);
    let other = TopicFile::of(&entry(), "a pool made since", 48 << 20).unwrap();
    let error = stopped(&data, &pool, || other.write(&data.topic()).unwrap());
    assert!(matches!(error, ColdError::Elsewhere { .. }), "{error}");
    assert!(error.to_string().contains("another pool has taken this topic up"), "{error}");
    assert_eq!(TopicFile::read(&data.topic()).unwrap(), other);
}

/// Waits for the thread that says deletions in directories: nobody else does, once control stopped.
fn await_graves() {
    let is_it = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "graves")
    };
    eventually("no thread that says deletions", || {
        let mut tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        (!tasks.any(is_it)).then_some(())
    });
}

/// A deletion that one begins when another has its tables is none.
#[test]
fn a_deletion_that_nobody_takes_over_is_said_in_no_directory() {
    // The control may hear of the other one first: then there is nothing to begin.
    for turn in 0..12 {
        let data = Data::new(&format!("deletion-{turn}"));
        let memory = Memory::new();
        let control = lead(&memory, &data.0.data()[..1]).unwrap();
        let next = memory.pool(48);
        let asker = control.asker().unwrap();
        let (slot, _) = next.serving().unwrap();
        let term = Term { epoch: next.highest_epoch() + 1, serves: false }.pack();
        assert!(next.claim(slot + 1, &LeaderLine { term, ..LeaderLine::default() }));
        assert!(asker.ask_now(|reply| Ask::Delete("t".into(), reply)).is_none_or(|it| it.is_err()));
        control.stop();
        await_graves();
        assert!(!TopicFile::read(&data.topic()).unwrap().deleted);
    }
}
