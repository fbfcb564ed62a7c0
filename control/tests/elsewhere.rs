//! An older pool that is started again on directories which another pool has taken up since.

mod fake;

use std::fs;

use fake::Memory;
use fake::homes::{Two, entry, lead, name, said};
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_layout::topic::Order;
use landfall_replica::{Resumed, TopicFile};

/// Directories of brokers 0 and 1 with topic t, of which both keep everything.
fn two(name_of: &str) -> Two {
    let two = Two::new(name_of);
    for (number, (data, topic)) in two.data().iter().zip(two.topics()).enumerate() {
        fs::create_dir_all(&topic).unwrap();
        name(data, number);
        said(&entry(Order::Total, 3)).write(&topic).unwrap();
    }
    two
}

#[test]
fn a_pool_whose_topics_went_on_in_another_is_not_served_again() {
    let two = two("elsewhere");
    let [first, second] = [Memory::new(), Memory::new()];
    for close in [false, true, false] {
        let control = lead(&first, &two.data()).unwrap();
        if close {
            control.close(&two.data());
        }
    }
    lead(&second, &two.data()).unwrap().stop();
    for _ in 0..2 {
        let why = lead(&first, &two.data()).map(|_| ()).unwrap_err();
        assert!(why.contains("topic t went on in another pool since"), "{why}");
        assert!(why.contains(&second.pool(48).uuid_text()), "{why}");
    }
    lead(&second, &two.data()).unwrap();
}

/// One of its directories went on elsewhere: a control that ends for that would end all others.
#[test]
fn a_pool_that_still_has_a_directory_is_served() {
    let two = two("one-elsewhere");
    let [first, second] = [Memory::new(), Memory::new()];
    lead(&first, &two.data()).unwrap().stop();
    lead(&second, &two.data()[1..]).unwrap().stop();
    let pools = two.topics().map(|topic| TopicFile::read(&topic).unwrap().pool_uuid);
    assert_eq!(pools, [first.pool(48).uuid_text(), second.pool(48).uuid_text()]);
    lead(&first, &two.data()).unwrap();
}

/// A copy of the pool's file from before was put back.
#[test]
fn a_pool_that_is_behind_its_directories_is_not_served() {
    let two = two("behind");
    let memory = Memory::new();
    let control = lead(&memory, &two.data()).unwrap();
    assert!(control.close(&two.data()).is_empty());
    for topic in two.topics() {
        let whole = TopicFile::read(&topic).unwrap();
        let ended = whole.ended.as_ref().unwrap().logs[&SEQUENCED_LOG].index;
        let (mut further, mut reached) = (whole.clone(), whole.clone());
        let end = further.ended.as_mut().unwrap().logs.get_mut(&SEQUENCED_LOG).unwrap();
        end.index += 1;
        let place = Resumed { index: ended + 1, position: 0 };
        reached.reached.insert(SEQUENCED_LOG, place);
        for said in [further, reached] {
            said.write(&topic).unwrap();
            let why = lead(&memory, &two.data()).map(|_| ()).unwrap_err();
            assert!(why.contains("this pool is older than"), "{why}");
            assert!(
                why.contains(&format!("at index {} there and is at {ended}", ended + 1)),
                "{why}"
            );
        }
        whole.write(&topic).unwrap();
    }
    lead(&memory, &two.data()).unwrap();
}
