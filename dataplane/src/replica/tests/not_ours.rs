//! Files that look like a deleted topic's, and whether they are.

use landfall_layout::TopicId;
use landfall_replica::{deletions, numbers};

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
        let unsure = Forgotten { may_be_more: true, ..Forgotten::default() };
        assert_eq!(look(), unsure, "nobody serves");
    }
    lead(&source);
    // The control that wrote it died before it served, and the next one did not bring it back.
    file.write(&topic).unwrap();
    let found = look();
    assert_eq!((found.removed.len(), found.may_be_more, topic.exists()), (0, false, true));
    assert!(found.strangers[0].contains("start control with --restore"), "{found:?}");
    live.write(&topic).unwrap();
    source.set_topic(&TopicEntry { state: 0, deleted_ns: 1, ..entry });
    assert_eq!(look(), Forgotten { removed: vec!["t".into()], ..Forgotten::default() });
}

/// The bench's entry as another topic of the same slot.
fn other_topic(bench: &Bench, generation: u32, state: TopicState) -> TopicEntry {
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    (entry.id, entry.state) = (TopicId::new(0, generation).0, state as u8);
    (entry.created_ns, entry.name[0], entry.deleted_ns) = (CREATED_NS + 1, b'u', 1);
    entry
}

/// A table that is older than the files, as that of a pool which was copied back over a newer one,
/// or of a leader slot that only damage makes the latest.
#[test]
fn a_topic_that_the_table_has_not_come_to_is_kept_and_told_of() {
    let empty = TopicEntry::from_words([0; TopicEntry::WORDS]);
    let mut bench = Bench::new("older", 0);
    bench.land(5, 100);
    let live = bench.pool.topic_in_slot(0).unwrap();
    let (flipped, twin) = (TopicEntry { state: 0, ..live }, TopicEntry { created_ns: 1, ..live });
    let topic = topic_directory(&bench.directory, "t", CREATED_NS);
    for (table, reached) in [(empty, "id 0x0 "), (flipped, "id 0x100 "), (twin, "id 0x100 ")] {
        bench.pool.set_topic(&live);
        let mut worker = bench.worker();
        worker.look_at_table(boot_ns());
        work(&mut worker);
        assert_eq!(TopicFile::read(&topic).unwrap().live_in, bench.pool.uuid_text());
        bench.pool.set_topic(&table);
        let found = bench.forgotten();
        assert_eq!((found.removed.len(), found.may_be_more), (0, false));
        let text = &found.strangers[0];
        let directory = topic.display().to_string();
        for says in ["topic t, id 0x100", &directory, reached, "landfall verify", "--restore"] {
            assert!(text.contains(says), "{says} in {text}");
        }
        // It runs while the table goes back.
        bench.pool.set_topic(&live);
        work(&mut worker);
        bench.pool.set_topic(&table);
        work(&mut worker);
        worker.forget();
        assert_eq!(bench.survey().files[0].batches, 5);
        // An older pool goes on to give out the ids that were given out already.
        bench.pool.set_topic(&other_topic(&bench, 2, TopicState::Live));
        assert_eq!(bench.forgotten().removed.len(), 0);
        assert_eq!(bench.survey().files[0].batches, 5);
    }
    // Its own pool came back after all.
    bench.pool.set_topic(&live);
    work(&mut bench.worker());
    assert_eq!(bench.forgotten().strangers.len(), 0);
    assert_eq!(TopicFile::read(&topic).unwrap().live_in, bench.pool.uuid_text());
}

#[test]
fn a_topic_whose_slot_went_on_to_a_later_one_was_deleted() {
    for state in [TopicState::Live, TopicState::Deleting, TopicState::Absent] {
        let mut bench = Bench::new("went-on", 0);
        bench.land(5, 100);
        work(&mut bench.worker());
        bench.pool.set_topic(&other_topic(&bench, 2, state));
        let removed = vec!["t".to_owned()];
        assert_eq!(bench.forgotten(), Forgotten { removed, ..Forgotten::default() });
        assert!(!bench.directory.join("t").exists());
    }
}

/// Control was started on a new pool without the directories.
#[test]
fn a_broker_says_once_which_of_its_topics_the_pool_does_not_have() {
    let mut bench = Bench::new("strangers", 0);
    let entry = bench.pool.topic_in_slot(0).unwrap();
    let file = TopicFile::of(&entry, "another pool", 1 << 30).unwrap();
    for i in 0..20 {
        let name = format!("old-{i:02}");
        let topic = topic_directory(&bench.directory, &name, 5);
        fs::create_dir_all(&topic).unwrap();
        TopicFile { name, created_ns: 5, ..file.clone() }.write(&topic).unwrap();
    }
    let mut worker = bench.worker();
    worker.forget();
    let notes = worker.notes();
    assert_eq!(notes.len(), 17, "{notes:?}");
    for (i, note) in notes[..16].iter().enumerate() {
        let says = format!("topic old-{i:02} is in {}", bench.directory.display());
        assert!(note.starts_with(&says) && note.contains("--restore"), "{note}");
    }
    assert!(notes[16].ends_with("4 more topics that the pool has not"), "{notes:?}");
    worker.forget();
    assert_eq!(worker.notes(), [""; 0]);
}

#[test]
fn a_topic_that_nobody_has_published_to_has_its_file_here() {
    let mut bench = Bench::new("unpublished", 0);
    let topic = topic_directory(&bench.directory, "t", CREATED_NS);
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    let file = TopicFile::read(&topic).unwrap();
    assert_eq!((file.name.as_str(), file.live_in), ("t", bench.pool.uuid_text()));
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    delete(&mut entry, TopicState::Deleting);
    bench.pool.set_topic(&entry);
    worker.look_at_table(boot_ns());
    assert!(!bench.directory.join("t").exists(), "it goes with its topic");
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

/// This pool is older than what the directory says: what it wrote there would have positions that
/// the other pool has used.
#[test]
fn nothing_is_written_where_the_topic_went_on_in_another_pool() {
    let mut bench = Bench::new("elsewhere", 0);
    bench.land(5, 100);
    work(&mut bench.worker());
    let topic = topic_directory(&bench.directory, "t", CREATED_NS);
    let entry = bench.pool.topic_in_slot(0).unwrap();
    let own = TopicFile::read(&topic).unwrap();
    let lives = [(0, 1, true), (2, 2, true), (2, 3, true), (2, 1, false), (0, 0, false)];
    for (had, life, is_elsewhere) in lives {
        bench.pool.set_topic(&TopicEntry { life: had, ..entry });
        let there = TopicFile { pool_uuid: "another pool".to_owned(), life, ..own.clone() };
        there.write(&topic).unwrap();
        bench.land(1, 100);
        let before = bench.batches();
        let mut worker = bench.worker();
        worker.look_at_table(boot_ns());
        work(&mut worker);
        let file = TopicFile::read(&topic).unwrap();
        assert_eq!(file.pool_uuid == "another pool", is_elsewhere, "{had} and {life}");
        assert_eq!(bench.batches() == before, is_elsewhere, "{had} and {life}");
        let says = |note: &String| note.contains("went on in another pool since, another pool");
        assert_eq!(worker.notes().iter().any(says), is_elsewhere);
        if is_elsewhere {
            assert_eq!((file, bench.state().1), (there, ReplicaState::Failed));
        }
    }
}

/// It was deleted in the later pool, and would be there again at the next start from disk.
#[test]
fn a_topic_is_not_made_again_where_a_later_pool_was_served() {
    let mut bench = Bench::new("gone-since", 0);
    let uuid = bench.pool.uuid_text();
    let me = broker(0);
    bench.land(2, 100);
    numbers::name(&bench.directory, me, &uuid).unwrap();
    numbers::name(&bench.directory, me, "a later pool").unwrap();
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    work(&mut worker);
    let topic = topic_directory(&bench.directory, "t", CREATED_NS);
    assert!(!topic.exists());
    assert_eq!(bench.state().1, ReplicaState::Failed);
    assert!(worker.notes().concat().contains("since, a later pool: it was deleted there"));
    // A directory that is new to the pool.
    fs::remove_dir_all(&bench.directory).unwrap();
    fs::create_dir_all(&bench.directory).unwrap();
    numbers::name(&bench.directory, me, "a later pool").unwrap();
    work(&mut bench.worker());
    assert_eq!((bench.batches(), bench.state().1), (2, ReplicaState::Well));
}

/// A disk that is away may have it still. Where it is served again, as in a pool that was put back
/// from before, what is landed is to come back.
#[test]
fn that_a_topic_was_deleted_is_said_here_until_it_is_opened_again() {
    let mut bench = Bench::new("said-deleted", 0);
    bench.land(5, 100);
    let deletion = ("t".to_owned(), CREATED_NS);
    deletions::say(&bench.directory, [&deletion]).unwrap();
    let mut worker = bench.worker();
    worker.look_at_table(boot_ns());
    assert!(deletions::heard(&bench.directory).unwrap().is_empty());
    let mut entry = bench.pool.topic_in_slot(0).unwrap();
    delete(&mut entry, TopicState::Deleting);
    bench.pool.set_topic(&entry);
    worker.look_at_table(boot_ns());
    assert!(!bench.directory.join("t").exists());
    assert_eq!(deletions::heard(&bench.directory).unwrap(), [deletion].into());
}
