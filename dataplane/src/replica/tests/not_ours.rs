//! Files that look like a deleted topic's, and whether they are.

use super::*;
use crate::replica::rig::lead;

/// A broker that starts while control brings a topic back finds its files before its table has the
/// topic, or after a control that died there, and must leave them alone.
#[test]
fn files_of_a_topic_that_is_not_in_the_table_yet_are_left_alone() {
    let mut bench = Bench::new("not-yet", 0);
    bench.land(5, 100);
    work(&mut bench.worker());
    let entry = bench.pool.topic_in_slot(0).unwrap();
    let topic = topic_directory(&bench.directory, "t", CREATED_NS);
    let source = pool();
    let file = TopicFile::of(&entry, &source.uuid_text(), 1 << 30).unwrap();
    // As control leaves it, before any leader served; and after one that had the topic did.
    let live = TopicFile { live_in: source.uuid_text(), ..file.clone() };
    let look = || remove_forgotten(&source, &bench.directory, |_, _| false).unwrap();
    for file in [&file, &live] {
        file.write(&topic).unwrap();
        assert_eq!(look(), Forgotten { removed: vec![], may_be_more: true }, "nobody serves");
    }
    lead(&source);
    // The control that wrote it died before it served, and the next one did not bring it back.
    file.write(&topic).unwrap();
    assert_eq!((look(), topic.exists()), (Forgotten::default(), true));
    live.write(&topic).unwrap();
    assert_eq!(look(), Forgotten { removed: vec!["t".into()], may_be_more: false });
}

#[test]
fn a_removal_that_was_begun_is_finished_also_in_another_pool() {
    let other = pool();
    let mut bench = Bench::new("tombstone", 0);
    bench.land(5, 100);
    work(&mut bench.worker());
    let topic = topic_directory(&bench.directory, "t", CREATED_NS);
    let file = TopicFile::read(&topic).unwrap();
    assert_eq!((&file.live_in, file.deleted), (&bench.pool.uuid_text(), false));
    TopicFile { deleted: true, ..file }.write(&topic).unwrap();
    lead(&other);
    let forgotten = remove_forgotten(&other, &bench.directory, |_, _| false).unwrap();
    assert_eq!((forgotten.removed, topic.exists()), (vec!["t".to_owned()], false));
}
