//! What directories are told of that were made when the topic's logs had passed something over.

mod fake;

use std::path::PathBuf;
use std::sync::Arc;

use fake::{Broker, Memory, create_on_disk, eventually, spec};
use landfall_control::answers::TopicSpec;
use landfall_control::election::Candidate;
use landfall_control::{Control, Options};
use landfall_layout::command::Request;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::order::ChainLine;
use landfall_layout::pool::{BrokerAddress, BrokerLine, BrokerState};
use landfall_layout::{BrokerId, SegmentId, TopicId};
use landfall_pool::Pool;
use landfall_pool::clock::boot_ns;
use landfall_replica::names::topic_directory;
use landfall_replica::{Skipped, TopicFile};

fn with_disk(pool: &Arc<Pool>, number: usize) -> Broker {
    let broker = Broker::register(pool, number, number as u64 + 1);
    let line = BrokerLine { disk: 1, ..pool.broker(broker.id) };
    let address = BrokerAddress::new("127.0.0.1:9", "@nowhere", "").unwrap();
    pool.set_broker(broker.id, &line, &address);
    broker
}

/// A broker that can read no other directory may have to be believed alone some day.
#[test]
fn a_directory_that_is_made_anew_is_told_what_its_logs_passed_over() {
    let folder = std::env::temp_dir().join(format!("landfall-passed-{}", std::process::id()));
    let data: Vec<_> = (0..2).map(|number| folder.join(format!("broker-{number}"))).collect();
    data.iter().for_each(|data| std::fs::create_dir_all(data).unwrap());
    let memory = Memory::new();
    let pool = memory.pool(64);
    let Ok(elected) = Candidate::new(&pool, 1).unwrap().stand(&pool) else { panic!("alone") };
    let options = Options::default();
    let control = Control::lead(Arc::clone(&pool), &memory.path(), options, elected, &data);
    let control = control.unwrap();
    let asker = control.asker().unwrap();
    let mut brokers: Vec<_> = (0..2).map(|number| with_disk(&pool, number)).collect();
    let beat = || {
        for broker in (0..2).filter_map(BrokerId::new) {
            let state = BrokerState::Serving.raw();
            pool.beat_broker(broker, boot_ns(), pool.epoch_number(), state);
        }
    };
    let two = TopicSpec { replicas: Some(2), ..spec("a", "total") };
    let topic = eventually("the topic", || {
        beat();
        create_on_disk(&asker, &two, &mut brokers[0]).ok()
    });
    let id = TopicId(topic.id);
    let entry = pool.topic(id).unwrap();
    let own = |data: &PathBuf| topic_directory(data, "a", entry.created_ns);
    // As after a cold start, behind which the second broker was given another disk.
    let range = Skipped { index: 9, to_index: 500, position: 90, to_position: 5000 };
    let chain = ChainLine {
        oldest_index: range.to_index,
        oldest_position: range.to_position,
        head: SegmentId::NONE.0,
        tail: SegmentId::NONE.0,
        topic: id.0.into(),
        skipped_from: range.position,
        skipped_to: range.to_position,
        ..ChainLine::default()
    };
    pool.set_chain(id, SEQUENCED_LOG, &chain);
    let mut file = TopicFile::of(&entry, &pool.uuid_text(), 64 << 20).unwrap();
    data.iter().for_each(|data| std::fs::create_dir_all(own(data)).unwrap());
    file.write(&own(&data[1])).unwrap();
    file.skipped.entry(SEQUENCED_LOG).or_default().add(range);
    file.write(&own(&data[0])).unwrap();
    brokers[1].ask(Request::TopicSaid { topic: id });
    let told = eventually("what it is told", || {
        beat();
        let told = TopicFile::read(&own(&data[1])).unwrap();
        (!told.skipped.is_empty()).then_some(told)
    });
    assert_eq!((told.skipped, told.places), (file.skipped, file.places));
    control.stop();
    std::fs::remove_dir_all(&folder).unwrap();
}
