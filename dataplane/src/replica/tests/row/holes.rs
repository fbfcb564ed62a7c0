//! Files that are written again beside a hole, in front of them or between two of them.

use super::*;

/// Two copies of a source, of which each has its own line in turn.
struct Copies {
    two: Two,
    lines: [ReplicaLine; 2],
}

impl Copies {
    fn new(name: &str) -> Self {
        let two = Two { disks: Disks::new(name), source: Source::new(pool(), 0) };
        Self { two, lines: [ReplicaLine::default(); 2] }
    }

    /// Lands a batch, which the copies in these directories get.
    fn keep(&mut self, which: &[usize]) {
        let Self { two: Two { disks, source }, lines } = self;
        land(source, 1);
        let at = source.pool.copy_line(source.topic, broker(0), 0, None);
        for which in which {
            source.pool.start_copy(at, &lines[*which]);
            // A file has room for one.
            let data = Data { file_bytes: 4200, ..disks.data(*which, false) };
            work(&mut source.worker(data, Box::new(Plain), 1).unwrap());
            lines[*which] = source.pool.copy_state(at);
        }
    }
}

fn holes(disks: &Disks) -> Vec<(u64, u64)> {
    let holes = TopicFile::read(&disks.topic(0)).unwrap().holes;
    holes.into_iter().map(|hole| (hole.from, hole.to)).collect()
}

/// Starts the broker twice and looks on: the copy is incomplete, and its directory says of a hole.
fn lacks(two: &Two, hole: (u64, u64)) {
    for incarnation in 2..4 {
        let mut worker = two.worker(0, true, incarnation);
        work(&mut worker);
        rest(&mut worker);
        look_again(&mut worker, 0);
        let said = worker.notes();
        assert_eq!((line(&two.source).3, holes(&two.disks)), (ENODATA, vec![hole]), "{said:?}");
    }
}

/// The hole is in front of the first file, in which nothing holds: another copy has what was in it.
#[test]
fn a_first_file_that_is_written_again_fills_no_hole_in_front_of_it() {
    for is_gone in [false, true] {
        let mut copies = Copies::new(&format!("row-behind-hole-{is_gone}"));
        (0..2).for_each(|_| copies.keep(&[1]));
        move_on(&copies.two.source);
        (0..3).for_each(|_| copies.keep(&[1, 0]));
        let two = copies.two;
        move_on(&two.source);
        let files = two.files(0);
        assert_eq!((files.len(), holes(&two.disks)), (3, vec![(0, 2)]));
        match is_gone {
            true => fs::remove_file(&files[0]).unwrap(),
            false => zero(&files[0]),
        }
        for which in 0..2 {
            // Whose line it was in turn lacks nothing of the other's.
            let mut file = TopicFile::read(&two.disks.topic(which)).unwrap();
            file.places = Default::default();
            file.replace(&two.disks.topic(which)).unwrap();
        }
        lacks(&two, (0, 2));
        assert_eq!(two.files(0).len(), if is_gone { 2 } else { 3 });
    }
}

/// A file behind a hole is gone, and as many entries of the hole would fit in its place.
#[test]
fn a_file_that_is_gone_behind_a_hole_is_not_made_of_the_holes_entries() {
    let mut copies = Copies::new("row-of-the-hole");
    copies.keep(&[1, 0]);
    copies.keep(&[1]);
    move_on(&copies.two.source);
    copies.keep(&[1, 0]);
    assert_eq!(holes(&copies.two.disks), [(1, 2)]);
    // A power cut: both copies are begun anew behind what the log passed over.
    copies.two.source = next_pool(9);
    copies.lines = [ReplicaLine::default(); 2];
    let Two { disks, source } = &copies.two;
    source.pool.set_tail_on_disk(source.topic, broker(0), 3);
    for which in 0..2 {
        let mut file = TopicFile::read(&disks.topic(which)).unwrap();
        file.pool_uuid = source.pool.uuid_text();
        let passed = Skipped { position: 9, to_position: 27, index: 3, to_index: 9 };
        file.skipped.entry(0).or_default().add(passed);
        file.resumed.insert(0, Resumed { index: 9, position: 27 });
        file.made_at.clear();
        file.replace(&disks.topic(which)).unwrap();
    }
    copies.keep(&[1, 0]);
    let two = copies.two;
    move_on(&two.source);
    let files = two.files(0);
    assert_eq!(files.len(), 3);
    fs::remove_file(&files[1]).unwrap();
    lacks(&two, (1, 2));
    let survey = two.survey(0).unwrap();
    assert!(survey.files.iter().all(|file| file.first != Some(1)), "{survey:?}");
}
