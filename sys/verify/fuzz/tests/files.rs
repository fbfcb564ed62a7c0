//! Replica files as they should be, and as crashes, disks and people leave them.

mod scratch;

use std::fs;
use std::path::{Path, PathBuf};

use landfall_layout::BrokerId;
use landfall_layout::limits::SEQUENCED_LOG;
use landfall_replica::names::{TOPIC_FILE, list, replica_file, topic_directory};
use landfall_replica::numbers::{NUMBERS_COPY, NUMBERS_FILE};
use landfall_replica::there::Part;
use landfall_replica::{Ended, EndedLog, Resumed, Skipped, Skips, TopicFile, numbers};
use landfall_verify::Severity::{Error, Note, Warning};
use landfall_verify::replicas::{Kept, Missing, look_at_rest as look};
use landfall_verify_fuzz::files::{ENTRIES, Odd, SECOND_FILE};
use scratch::{Scratch, copy, has};

#[test]
fn who_keeps_a_part_and_is_not_there_is_named_and_so_is_a_directory_that_says_nothing() {
    let scratch = Scratch::new("keepers", Odd::default());
    let topic = scratch.replicas[0].parent().unwrap();
    let mut file = TopicFile::read(topic).unwrap();
    let name = file.name.clone();
    // Of two copies the other would be whole.
    file.replicas = 2;
    file.places.add(Part { source: 0, copy: 0, keeper: 2, from: 3 });
    file.write(topic).unwrap();
    assert!(has(&scratch.look(), "keeper", Error, "kept by broker 2, and no such directory"));
    let stand_in = scratch.data.join("broker-2");
    fs::create_dir_all(&stand_in).unwrap();
    assert!(has(&scratch.look(), "keeper", Error, "kept by broker 2"), "an empty mount point");
    let own = topic_directory(&stand_in, &name, file.created_ns);
    fs::create_dir_all(&own).unwrap();
    file.write(&own).unwrap();
    // Its home is not there either.
    let away = scratch.data.join("away");
    fs::rename(scratch.data.join("broker-0"), &away).unwrap();
    let home = scratch.data.join("broker-1");
    numbers::name(&home, BrokerId::new(1).unwrap(), "a pool").unwrap();
    let other = list(&home).unwrap().topics.remove(0).path;
    file.write(&other).unwrap();
    fs::rename(&own, stand_in.join("away")).unwrap();
    assert!(has(&scratch.look(), "keeper", Error, "kept by broker 0 and 2, and no such"));
    fs::rename(stand_in.join("away"), &own).unwrap();
    fs::rename(&away, scratch.data.join("broker-0")).unwrap();
    let is_named = |kept: &Kept, check: &str| kept.findings.kept().iter().any(|f| f.check == check);
    let kept = scratch.look();
    assert!(!is_named(&kept, "keeper") && !is_named(&kept, "brokers"));
    // Whose it is.
    numbers::name(&stand_in, BrokerId::new(2).unwrap(), "a pool").unwrap();
    let (file, copy) = (stand_in.join(NUMBERS_FILE), stand_in.join(NUMBERS_COPY));
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole.replace("broker 2", "broker 3")).unwrap();
    assert!(has(&scratch.look(), "brokers", Error, "its other copy is read"));
    fs::copy(&file, &copy).unwrap();
    assert!(has(&scratch.look(), "brokers", Error, "it is not known whose"));
    // Who wrote them died between the two.
    fs::write(&copy, &whole).unwrap();
    fs::remove_file(&file).unwrap();
    let kept = scratch.look();
    assert_eq!(kept.findings.count(Error), 0, "{:?}", kept.findings.kept());
    assert!(has(&kept, "brokers", Warning, "its copy is later and holds"));
}

#[test]
fn nothing_is_wrong_with_whole_files() {
    let scratch = Scratch::new("whole", Odd::default());
    let kept = scratch.look();
    assert!(kept.findings.is_empty(), "{:?}", kept.findings.kept());
    assert_eq!((kept.tally.directories, kept.tally.files), (2, 8));
    assert_eq!(kept.tally.batches, 2 * ENTRIES);
    let [topic] = &kept.topics[..] else { panic!("{:?}", kept.topics) };
    assert_eq!((topic.name.as_str(), topic.order), ("kept", Some("strong")));
    let [log] = &topic.logs[..] else { panic!("{:?}", topic.logs) };
    assert_eq!((log.log, log.batches), (32, ENTRIES));
    assert_eq!((log.entries.clone(), log.positions.clone()), (0..ENTRIES, 0..2 * ENTRIES));
    assert_eq!(log.ordered, Some((ENTRIES, 2 * ENTRIES)));
    assert!(log.gaps.is_empty());
    for source in &topic.sources {
        assert_eq!((source.covers.len(), source.covers[0].clone()), (1, 0..ENTRIES));
    }
}

#[test]
fn one_brokers_directory_says_what_it_cannot_know() {
    let scratch = Scratch::new("one", Odd::default());
    // It has replicas of both brokers, so nothing is elsewhere.
    assert!(look(&scratch.data.join("broker-1")).unwrap().findings.is_empty());
    fs::remove_dir_all(&scratch.replicas[3]).unwrap();
    let kept = look(&scratch.data.join("broker-1")).unwrap();
    assert_eq!(kept.findings.count(Error), 0);
    assert!(has(&kept, "gap", Note, "may be of brokers whose replicas are not"));
    let gaps = &kept.topics[0].logs[0].gaps;
    assert!(gaps.iter().all(|gap| gap.why == Missing::Elsewhere), "{gaps:?}");
    assert_eq!(gaps.len() as u64, ENTRIES / 2);
}

#[test]
fn any_flipped_bit_of_a_file_is_found() {
    let scratch = Scratch::new("flip", Odd { hole: Some(6), ..Odd::default() });
    for file in [0, SECOND_FILE] {
        let path = replica_file(&scratch.replicas[0], file);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7).filter(|at| !(256..4096).contains(at)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let kept = scratch.look();
            // What stands behind the last record that holds is an end that a crash can leave.
            let worst = kept.findings.kept().first().map(|finding| finding.severity);
            assert!(worst >= Some(Warning), "byte {at} of file {file}");
            assert!(kept.topics[0].logs[0].gaps.is_empty(), "the other replica has all of it");
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_hole_is_kept_and_is_no_batch() {
    let odd = Odd { hole: Some(12), ..Odd::default() };
    let scratch = Scratch::new("hole", odd);
    let kept = scratch.look();
    assert!(kept.findings.is_empty(), "{:?}", kept.findings.kept());
    let log = &kept.topics[0].logs[0];
    assert_eq!((log.batches, log.holes), (ENTRIES - 1, 1));
    assert!(log.gaps.is_empty(), "{:?}", log.gaps);
    // What is in no replica is lost in order `token` too: a hole would say so.
    let lost = Scratch::new("holes", Odd { without: Some(14), ..odd });
    let kept = lost.look();
    assert!(has(&kept, "gap", Error, "entries 14 to 15, positions 28 to 30, are in no replica"));
    assert_eq!(kept.topics[0].logs[0].gaps[0].why, Missing::Lost);
    // And only that order has them.
    for replica in &scratch.replicas {
        let path = replica.parent().unwrap().join(TOPIC_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("token", "strong")).unwrap();
    }
    assert!(has(&scratch.look(), "hole", Error, "entry 12 is a hole"));
}

#[test]
fn a_file_may_end_anywhere() {
    let scratch = Scratch::new("end", Odd { hole: Some(26), ..Odd::default() });
    for (file, check) in [(SECOND_FILE, "tail"), (0, "row")] {
        let path = replica_file(&scratch.replicas[0], file);
        let whole = fs::read(&path).unwrap();
        for bytes in (0..whole.len()).step_by(41) {
            fs::write(&path, &whole[..bytes]).unwrap();
            let kept = scratch.look();
            let errors = kept.findings.count(Error);
            let warnings = kept.findings.count(Warning);
            match check {
                "tail" => assert!(errors == 0 && warnings <= 1, "{bytes} bytes of the last file"),
                _ => assert!(errors > 0, "{bytes} bytes of the first file"),
            }
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn random_damage_to_many_files_is_answered() {
    let scratch = Scratch::new("random", Odd { hole: Some(6), ..Odd::default() });
    let mut random = 0x9e37_79b9_u64;
    let mut next = || {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let files: Vec<PathBuf> = scratch
        .replicas
        .iter()
        .flat_map(|replica| [replica_file(replica, 0), replica_file(replica, SECOND_FILE)])
        .collect();
    let whole: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    for round in 0..400 {
        for (path, whole) in files.iter().zip(&whole) {
            let mut bytes = whole.clone();
            for _ in 0..next() % 3 {
                let at = (next() % bytes.len().max(1) as u64) as usize;
                match next() % 5 {
                    _ if bytes.is_empty() => {}
                    0 => bytes[at] ^= 1 << (next() % 8),
                    1 => bytes.truncate(at),
                    2 => bytes.extend_from_within(at..),
                    3 => {
                        let line = at / 64 * 64;
                        let other = (next() % whole.len() as u64) as usize / 64 * 64;
                        for (to, from) in bytes[line..].iter_mut().zip(&whole[other..]).take(64) {
                            *to = *from;
                        }
                    }
                    _ => bytes.resize((bytes.len() + at) % 8192, next() as u8),
                }
            }
            fs::write(path, bytes).unwrap();
        }
        let kept = scratch.look();
        for finding in kept.findings.kept() {
            assert!(!finding.of.is_empty() && !finding.found.is_empty(), "{round}: {finding:?}");
        }
    }
}

#[test]
fn files_that_are_gone_are_missed_unless_retention_takes_them() {
    let scratch = Scratch::new("gone", Odd::default());
    let [own, copied, ..] = &scratch.replicas;
    fs::remove_file(replica_file(own, 0)).unwrap();
    assert!(has(&scratch.look(), "row", Error, "10 entries of broker 0 stood before it"));
    for source in &scratch.replicas {
        let topic = source.parent().unwrap();
        let file = TopicFile::read(topic).unwrap();
        TopicFile { disk_bytes: 1, ..file }.write(topic).unwrap();
    }
    let kept = scratch.look();
    assert!(kept.findings.is_empty(), "bounds may have taken the oldest: {:?}", kept.findings);
    fs::remove_file(replica_file(own, SECOND_FILE)).unwrap();
    let kept = scratch.look();
    assert!(kept.findings.is_empty(), "the other replica has all of it");
    fs::remove_file(replica_file(copied, SECOND_FILE)).unwrap();
    let kept = scratch.look();
    assert_eq!(kept.findings.count(Error), 0);
    assert!(has(&kept, "gap", Note, "were ordered, and no copy that is here reaches them"));
    let gap = &kept.topics[0].logs[0].gaps[0];
    assert_eq!((gap.entries.clone(), gap.why), (20..21, Missing::Memory));
    assert_eq!(gap.positions, Some(40..42));
}

#[test]
fn what_files_cannot_have_together_is_found() {
    let odd = |odd: Odd| Scratch::new(&format!("{odd:?}").replace([' ', '{', '}', ':'], ""), odd);
    let lost = odd(Odd { without: Some(12), ..Odd::default() });
    let kept = lost.look();
    assert!(has(&kept, "gap", Error, "entries 12 to 13, positions 24 to 26, are in no replica"));
    assert_eq!(kept.topics[0].logs[0].gaps[0].why, Missing::Lost);
    let other = odd(Odd { other: Some(12), ..Odd::default() });
    assert!(has(&other.look(), "agree", Error, "entry 12"));
    let moved = odd(Odd { moved: Some(12), ..Odd::default() });
    assert!(has(&moved.look(), "position", Error, "entry 12 begins at position 25"));
    let again = odd(Odd { again: Some(12), ..Odd::default() });
    assert!(has(&again.look(), "sequence", Error, "comes behind"));
}

#[test]
fn what_is_in_the_wrong_place_is_found() {
    let scratch = Scratch::new("place", Odd::default());
    let [own, _, others, _] = &scratch.replicas;
    let path = replica_file(others, SECOND_FILE);
    let whole = fs::read(&path).unwrap();
    fs::copy(replica_file(own, SECOND_FILE), &path).unwrap();
    assert!(has(&scratch.look(), "file", Error, "it is of broker 0 and lies with 1's"));
    assert!(has(&scratch.look(), "row", Error, "not of the same"));
    fs::write(&path, &whole).unwrap();
    fs::rename(&path, replica_file(others, 21)).unwrap();
    assert!(has(&scratch.look(), "file", Error, "called otherwise"));
    fs::rename(replica_file(others, 21), &path).unwrap();
    let topic = own.parent().unwrap();
    let moved = topic.with_file_name("1234");
    fs::rename(topic, &moved).unwrap();
    assert!(has(&scratch.look(), "topic", Error, "it is about topic kept"));
    assert!(has(&scratch.look(), "file", Error, "it is of topic kept, created"));
    fs::rename(&moved, topic).unwrap();
    fs::write(topic.join("notes.txt"), "x").unwrap();
    assert!(has(&scratch.look(), "name", Note, "nothing that a replica has"));
    fs::write(topic.join(TOPIC_FILE), "{}").unwrap();
    assert!(has(&scratch.look(), "topic", Error, "schema_version"));
    fs::remove_file(topic.join(TOPIC_FILE)).unwrap();
    assert!(has(&scratch.look(), "topic", Error, "there is none"));
}

#[test]
fn a_topic_may_be_called_like_a_broker() {
    let scratch = Scratch::new("called", Odd::default());
    let data = scratch.data.with_extension("other");
    copy(&scratch.data.join("broker-0/kept"), &data.join("broker-0"));
    let kept = look(&data).unwrap();
    fs::remove_dir_all(&data).unwrap();
    assert_eq!(kept.topics.len(), 1);
    assert_eq!(kept.topics[0].name, "broker-0");
    assert!(has(&kept, "topic", Error, "it is about topic kept"));
}

#[test]
fn a_directory_that_is_not_there_is_said() {
    let error = look(Path::new("/nonexistent/replicas")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/replicas"), "{error}");
}

#[test]
fn what_the_topics_file_says_was_there_is_missed() {
    let scratch = Scratch::new("reached", Odd::default());
    let topic = scratch.replicas[0].parent().unwrap();
    let log = SEQUENCED_LOG;
    let place = Resumed { index: ENTRIES, position: 2 * ENTRIES };
    let plain = TopicFile { reached: [(log, place)].into(), ..TopicFile::read(topic).unwrap() };
    plain.write(topic).unwrap();
    assert_eq!(scratch.look().findings.count(Error), 0, "all of it is there");
    scratch.replicas.iter().for_each(|replica| {
        fs::remove_file(replica_file(replica, SECOND_FILE)).unwrap();
    });
    let missing = |kept: &Kept| {
        let gaps = kept.topics[0].logs[0].gaps.iter();
        gaps.map(|gap| (gap.entries.clone(), gap.positions.clone(), gap.why)).collect::<Vec<_>>()
    };
    let all = |why| [(SECOND_FILE..ENTRIES, Some(2 * SECOND_FILE..2 * ENTRIES), why)];
    let kept = scratch.look();
    assert!(has(&kept, "gap", Error, "entries 20 to 40, positions 40 to 80, were ordered and are"));
    assert_eq!(missing(&kept), all(Missing::Gone));
    // Its pool may still be at work, or others have it.
    let kept = look(&scratch.data.join("broker-0")).unwrap();
    assert_eq!((kept.findings.count(Error), missing(&kept)), (0, all(Missing::Memory).into()));
    let lock = fs::File::open(scratch.data.join("broker-1")).unwrap();
    lock.try_lock().unwrap();
    let kept = scratch.look();
    assert_eq!((kept.findings.count(Error), missing(&kept)), (0, all(Missing::Memory).into()));
    // It ended in good order, with broker 1's all on disk: no count says that of files of another
    // time.
    let ended = EndedLog { index: ENTRIES, position: 2 * ENTRIES, ..EndedLog::default() };
    let ended = EndedLog { tails: [(0, SECOND_FILE), (1, ENTRIES)].into(), ..ended };
    let ended = Some(Ended { logs: [(log, ended)].into() });
    TopicFile { reached: [].into(), ended, ..plain.clone() }.write(topic).unwrap();
    assert_eq!(missing(&scratch.look()), all(Missing::Gone));
    drop(lock);
    // The log went on behind it when its pool was lost.
    let place = Resumed { index: 1000, position: 2000 };
    let mut skips = Skips::default();
    skips.add(Skipped { index: 30, to_index: 1000, position: 60, to_position: 2000 });
    TopicFile { reached: [(log, place)].into(), skipped: [(log, skips)].into(), ..plain.clone() }
        .write(topic)
        .unwrap();
    let kept = scratch.look();
    assert!(has(
        &kept,
        "gap",
        Note,
        "entries 20 to 30, positions 40 to 60, were ordered and are lost"
    ));
    assert_eq!(missing(&kept), [(20..30, Some(40..60), Missing::Past)]);
}

/// A file that the system refuses to read is in a loop of links here: it does so for root too.
#[test]
fn what_cannot_be_read_is_neither_damaged_nor_lost() {
    let refuse = |path: &Path| {
        let whole = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap();
        whole
    };
    let scratch = Scratch::new("refused", Odd::default());
    let topic = scratch.replicas[0].parent().unwrap();
    let (log, place) = (SEQUENCED_LOG, Resumed { index: ENTRIES, position: 2 * ENTRIES });
    let said = TopicFile { reached: [(log, place)].into(), ..TopicFile::read(topic).unwrap() };
    said.write(topic).unwrap();
    let only_unread = |kept: &Kept, unread: u64| {
        let counts = (kept.findings.count(Error), kept.findings.unread());
        assert_eq!(counts, (unread, unread), "{:?}", kept.findings.kept());
        assert!(has(kept, "unread", Error, "Too many levels of symbolic links"));
    };
    // The first files of both copies of broker 0's batches, then all of them.
    for copy in &scratch.replicas[..2] {
        refuse(&replica_file(copy, 0));
    }
    let kept = scratch.look();
    only_unread(&kept, 2);
    let gaps = &kept.topics[0].logs[0].gaps;
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap.why == Missing::Unread), "{gaps:?}");
    assert!(has(&kept, "gap", Note, "are in no file that could be read"));
    for copy in &scratch.replicas {
        refuse(&replica_file(copy, SECOND_FILE));
        let _ = fs::remove_file(replica_file(copy, 0));
    }
    let kept = scratch.look();
    only_unread(&kept, 4);
    assert!(has(&kept, "gap", Note, "not one file of it could be read"));
    // What a topic's directory says.
    let scratch = Scratch::new("refused-topic", Odd::default());
    let topic = scratch.replicas[0].parent().unwrap();
    let file = refuse(&topic.join(TOPIC_FILE));
    only_unread(&scratch.look(), 1);
    // A loss beside it is one all the same.
    let (copy, other) = (&scratch.replicas[1], &scratch.replicas[2]);
    fs::remove_file(topic.join(TOPIC_FILE)).unwrap();
    fs::write(topic.join(TOPIC_FILE), file).unwrap();
    refuse(&replica_file(copy, 0));
    fs::remove_file(replica_file(other, 0)).unwrap();
    let kept = scratch.look();
    assert_eq!((kept.findings.count(Error), kept.findings.unread()), (2, 1));
    assert!(has(&kept, "row", Error, "10 entries of broker 1 stood before it"));
}

#[test]
fn only_of_a_last_file_its_broker_is_said_to_write_the_header_again() {
    let scratch = Scratch::new("heads", Odd::default());
    for (file, is_last) in [(0, false), (SECOND_FILE, true)] {
        let path = replica_file(&scratch.replicas[0], file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 0xff;
        fs::write(&path, &bytes).unwrap();
        let kept = scratch.look();
        let [finding] = kept.findings.kept() else { panic!("{:?}", kept.findings) };
        assert_eq!((finding.severity, finding.check), (Error, "header"));
        assert!(finding.mend.contains("landfall recover"), "{}", finding.mend);
        assert_eq!(finding.mend.contains("its broker writes it again"), is_last);
        bytes[20] ^= 0xff;
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn a_word_has_no_copy_and_a_strange_thing_with_its_name_is_only_noted() {
    let scratch = Scratch::new("words", Odd::default());
    let topic = scratch.replicas[0].parent().unwrap();
    Part { source: 0, copy: 0, keeper: 0, from: 3 }.tell(topic).unwrap();
    fs::create_dir(topic.join("said-old")).unwrap();
    let kept = scratch.look();
    assert_eq!(kept.findings.count(Error), 0, "{:?}", kept.findings.kept());
    assert!(has(&kept, "name", Note, "nothing that a replica has"));
    let names = fs::read_dir(topic).unwrap().map(|entry| entry.unwrap().path());
    let is_word = |path: &PathBuf| path.is_file() && path.to_string_lossy().contains("/said-");
    let words: Vec<PathBuf> = names.filter(is_word).collect();
    assert_eq!(words.len(), 1);
    fs::write(&words[0], "half").unwrap();
    let kept = scratch.look();
    assert!(has(&kept, "word", Warning, "nothing that it said is read from here"));
    assert_eq!(kept.findings.count(Error), 0, "{:?}", kept.findings.kept());
    // Nobody else is here who was told.
    let kept = look(&scratch.data.join("broker-0")).unwrap();
    assert!(has(&kept, "word", Error, "nothing that it said is read from here"));
}

#[test]
fn who_died_between_a_topics_file_and_its_copy_left_no_damage() {
    let scratch = Scratch::new("between", Odd::default());
    let topic = scratch.replicas[0].parent().unwrap();
    let file = TopicFile::read(topic).unwrap();
    let copy = topic.join("topic.json.copy");
    file.write(topic).unwrap();
    let before = fs::read(&copy).unwrap();
    let later = TopicFile { life: 5, ..file };
    later.write(topic).unwrap();
    assert!(scratch.look().findings.is_empty());
    fs::write(&copy, &before).unwrap();
    let kept = scratch.look();
    assert_eq!(kept.findings.count(Error), 0, "{:?}", kept.findings.kept());
    assert!(has(&kept, "topic", Warning, "or ended in between; the later one is read"));
    // One that was never to stand beside it.
    later.write(topic).unwrap();
    later.write(topic).unwrap();
    fs::write(&copy, &before).unwrap();
    assert!(has(&scratch.look(), "topic", Error, "ought to say the same"));
}

#[test]
fn what_is_said_to_be_done_can_be_done() {
    let scratch = Scratch::new("advice", Odd { without: Some(12), ..Odd::default() });
    let topic = scratch.replicas[0].parent().unwrap();
    let said = |check: &str, advice: &str| {
        let kept = scratch.look();
        let is = |it: &&landfall_verify::Finding| (it.check, it.severity) == (check, Error);
        let found: Vec<_> = kept.findings.kept().iter().filter(is).collect();
        assert!(found.iter().any(|it| it.mend.contains(advice)), "{advice}: {found:?}");
    };
    said("gap", "only the pool as long as it is there, or a backup");
    let path = replica_file(&scratch.replicas[0], 0);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[4096 + 600] ^= 1;
    fs::write(&path, &bytes).unwrap();
    said("record", "its broker writes it again when it starts");
    fs::copy(replica_file(&scratch.replicas[2], 0), &path).unwrap();
    said("file", "move it away, or to where it belongs");
    fs::write(&path, &whole).unwrap();
    let file = TopicFile::read(topic).unwrap();
    file.write(topic).unwrap();
    fs::write(topic.join("topic.json.copy"), "{").unwrap();
    said("topic", "its broker writes both again when it starts");
    fs::write(topic.join(TOPIC_FILE), "{").unwrap();
    said("topic", "put topic.json back from another broker's directory");
}
