//! What the table of a leader says that another has claimed the lead from.

use std::fs::File;
use std::path::Path;

use landfall_layout::TopicId;
use landfall_layout::pool::{LeaderLine, Term};
use landfall_layout::topic::TopicState;
use landfall_pool::Pool;
use landfall_pool::clock::boot_ns;
use landfall_replica::names::list;

use super::{Bench, Forgotten, delete, work};

/// Another control that has claimed the lead, and has copied the tables, and does not serve yet.
fn claimed(bench: &Bench) -> Pool {
    let file = File::from(bench.pool.fd().try_clone_to_owned().unwrap());
    let next = Pool::attach_file(file, Path::new("the pool"), true).unwrap();
    let term = Term { epoch: 2, serves: false }.pack();
    assert!(next.claim(1, &LeaderLine { term, ..LeaderLine::default() }));
    next.copy_tables(Some(0));
    next
}

/// The next leader serves the topic, and its files are all there is of what memory let go of.
#[test]
fn a_deletion_of_a_deposed_leader_takes_no_files() {
    let mut bench = Bench::new("deposed-deletes", 0);
    bench.land(5, 100);
    let mut worker = bench.worker();
    work(&mut worker);
    let next = claimed(&bench);
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    for state in [TopicState::Deleting, TopicState::Absent] {
        delete(&mut entry, state);
        bench.pool.set_topic(&entry);
        work(&mut worker);
        // So does one that was away.
        assert_eq!(bench.forgotten(), Forgotten { may_be_more: true, ..Forgotten::default() });
        assert_eq!(list(&bench.directory).unwrap().topics.len(), 1);
    }
    assert!(next.serve(2));
    work(&mut worker);
    assert_eq!(bench.survey().files[0].batches, 5);
}

/// The next leader may give its id to another topic.
#[test]
fn a_topic_of_a_deposed_leader_is_nobodys() {
    let mut bench = Bench::new("deposed-creates", 0);
    let mut worker = bench.worker();
    work(&mut worker);
    let next = claimed(&bench);
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    entry.id = TopicId::new(1, 1).0;
    entry.created_ns += 1;
    bench.pool.set_topic(&entry);
    worker.look_at_table(boot_ns());
    assert_eq!(list(&bench.directory).unwrap().topics.len(), 1);
    next.set_topic(&entry);
    assert!(next.serve(2));
    worker.look_at_table(boot_ns());
    assert_eq!(list(&bench.directory).unwrap().topics.len(), 2, "it is the next one's now");
}
