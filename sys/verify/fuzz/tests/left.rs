//! What is missing in files and is no error, and what looks like it and is one.

mod scratch;

use std::fs;

use landfall_layout::BrokerId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_replica::holes::Hole;
use landfall_replica::names::{replica_file, topic_directory};
use landfall_replica::there::Part;
use landfall_replica::{Ended, EndedLog, TopicFile, Unkept, numbers};
use landfall_verify::Severity::{Error, Note, Warning};
use landfall_verify::replicas::{Kept, Missing};
use landfall_verify_fuzz::files::{MIDDLE_FILE, Odd, SECOND_FILE};
use scratch::{Scratch, copy, has};

/// A copy that had failed when a pool was stopped goes on in the next one, behind what was in that
/// pool alone.
#[test]
fn what_only_a_pool_had_is_missed_by_nobody_and_what_files_had_is() {
    let scratch = Scratch::new("alone", Odd { is_anew: true, ..Odd::default() });
    let copies = &scratch.replicas[..2];
    let topic = copies[0].parent().unwrap();
    let plain = TopicFile::read(topic).unwrap();
    let missing = |kept: &Kept| -> Vec<(u64, Missing)> {
        let gaps = kept.topics[0].logs[0].gaps.iter();
        gaps.flat_map(|gap| gap.entries.clone().map(|index| (index, gap.why))).collect()
    };
    let all = |why| [(16, why), (18, why)];
    assert_eq!(missing(&scratch.look()), all(Missing::Gone));
    // The place behind the last entry that a file had, by the end of that pool.
    let unkept = Unkept { index: 15, to_index: SECOND_FILE, log: SEQUENCED_LOG, source: 0 };
    let mut file = plain.clone();
    file.places.add_unkept([unkept].into_iter());
    file.write(topic).unwrap();
    let kept = scratch.look();
    assert_eq!((kept.findings.count(Error), missing(&kept)), (0, all(Missing::Past).into()));
    assert!(has(&kept, "gap", Note, "the pool that had them is gone"));
    // Files that were there are missed all the same: one in the middle, and the end of the last one
    // before the other pool.
    let middle = copies.iter().map(|copy| replica_file(copy, MIDDLE_FILE));
    let whole: Vec<_> = middle.map(|path| (fs::read(&path).unwrap(), path)).collect();
    whole.iter().for_each(|(_, path)| fs::remove_file(path).unwrap());
    let kept = scratch.look();
    assert!(has(&kept, "row", Error, "3 entries of broker 0 stood before it"));
    assert_eq!(missing(&kept)[2..].first(), Some(&(14, Missing::Gone)));
    for (bytes, path) in &whole {
        // Its header and the first of its three batches.
        fs::write(path, &bytes[..4096 + 256]).unwrap();
    }
    let kept = scratch.look();
    assert!(kept.findings.count(Error) > 0, "{:?}", kept.findings.kept());
    let gone = [(12, Missing::Gone), (14, Missing::Gone)];
    assert_eq!(missing(&kept)[..2], gone);
    whole.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    // That pool stands still: it has them.
    let log = EndedLog { index: SECOND_FILE, position: 2 * SECOND_FILE, ..EndedLog::default() };
    let log = EndedLog { unkept: [(0, 15)].into(), ..log };
    let ended = Some(Ended { logs: [(SEQUENCED_LOG, log)].into() });
    let said = TopicFile { ended, life: 2, ..plain.clone() };
    said.write(topic).unwrap();
    let kept = scratch.look();
    assert_eq!((kept.findings.count(Error), missing(&kept)), (0, all(Missing::Memory).into()));
    // It went on behind that end, as a later directory says: its files had them then.
    let later = copies[1].parent().unwrap();
    TopicFile { life: 3, ..plain }.write(later).unwrap();
    assert_eq!(missing(&scratch.look()), all(Missing::Gone));
}

/// Broker 2 stood in once for broker 0 and gave the copy back: it opens these files no more.
#[test]
fn what_is_missing_in_files_of_who_stood_in_is_an_error_only_while_a_home_lacks_it() {
    let scratch = Scratch::new("left", Odd::default());
    let topic = scratch.replicas[1].parent().unwrap();
    let mut file = TopicFile::read(topic).unwrap();
    file.places.add(Part { source: 0, copy: 0, keeper: 2, from: 0 });
    let left = topic_directory(&scratch.data.join("broker-2"), &file.name, file.created_ns);
    copy(&scratch.replicas[1], &left.join("b0"));
    file.write(&left).unwrap();
    for broker in 0..3 {
        let data = scratch.data.join(format!("broker-{broker}"));
        numbers::name(&data, BrokerId::new(broker).unwrap(), "a pool").unwrap();
    }
    let errors = || scratch.look().findings.count(Error);
    let said = |check| {
        let kept = scratch.look();
        let more = "the homes of the copies have all that is missing here";
        assert_eq!(kept.findings.count(Error), 0, "{:?}", kept.findings.kept());
        assert!(has(&kept, check, Note, more), "{check}");
        let mut notes = kept.findings.kept().iter().filter(|found| found.check == check);
        assert!(notes.all(|it| it.mend.contains("may be removed") && it.of.contains("broker-2")));
    };
    assert_eq!(errors(), 0);
    let [first, last] = [0, SECOND_FILE].map(|index| replica_file(&left.join("b0"), index));
    let whole = [&first, &last].map(|path| fs::read(path).unwrap());
    // Bytes of it do not hold.
    let mut bytes = whole[0].clone();
    bytes[4096 + 600] ^= 1;
    fs::write(&first, &bytes).unwrap();
    said("record");
    // Nor do its headers.
    bytes[..4096 + 256].fill(7);
    fs::write(&last, &bytes[..4096 + 256]).unwrap();
    said("file");
    fs::write(&last, &whole[1]).unwrap();
    fs::remove_file(&first).unwrap();
    said("row");
    // A home lacks it too, and whoever mends that one may need this.
    let home = replica_file(&scratch.replicas[0], 0);
    let its = fs::read(&home).unwrap();
    fs::remove_file(&home).unwrap();
    assert_eq!(errors(), 2);
    fs::write(&home, &its).unwrap();
    // A home is not here.
    fs::rename(scratch.data.join("broker-0"), scratch.data.join("away")).unwrap();
    assert!(has(&scratch.look(), "row", Error, "entries of broker 0 stood before it"));
    fs::rename(scratch.data.join("away"), scratch.data.join("broker-0")).unwrap();
    // What is no file of it is wrong wherever it lies.
    fs::write(&first, &whole[0]).unwrap();
    fs::copy(replica_file(&scratch.replicas[2], SECOND_FILE), &last).unwrap();
    assert!(has(&scratch.look(), "file", Error, "it is of broker 1 and lies with 0's"));
    fs::remove_dir_all(left.join("b0")).unwrap();
    assert_eq!(errors(), 0, "they may be removed");
}

/// No file of a copy says that it has a hole in front of its first one.
#[test]
fn a_hole_that_a_directory_says_of_its_copy_is_said() {
    let scratch = Scratch::new("said", Odd::default());
    let topic = scratch.replicas[0].parent().unwrap();
    Hole { source: 0, from: 0, to: 7 }.say(topic).unwrap();
    let kept = scratch.look();
    let found = "its copy of what broker 0 landed may lack entries 0 to 7";
    assert!(has(&kept, "hole", Warning, found));
    assert_eq!(kept.findings.count(Error), 0);
}
