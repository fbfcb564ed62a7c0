use landfall_replica::{Row, Unkept};

use super::*;
use crate::replicas::SourceKept;

/// Files that a copy begins with.
fn row((start, end): &(u64, u64)) -> Row {
    Row { start: *start, end: *end, is_behind: false, is_cut: false }
}

/// Files of which bounds let go of those before this log index.
fn cut(start: u64) -> Row {
    Row { is_behind: true, is_cut: true, ..row(&(start, 10)) }
}

/// A copy of what a broker landed that has everything in these ranges of the log.
fn source(source: u8, covers: &[(u64, u64)]) -> Source {
    Source {
        kept: SourceKept {
            path: format!("b{source}").into(),
            source,
            files: 1,
            batches: 0,
            bytes: 0,
            covers: covers.iter().map(|(start, end)| *start..*end).collect(),
            torn_bytes: 0,
        },
        log: Some(32),
        order: None,
        ordered: None,
        entries: Vec::new(),
        is_whole: true,
        is_unread: false,
        ordinal: 0,
        present: 0,
        taken: Vec::new(),
        made_at: 0,
        rows: covers.iter().map(row).collect(),
        lost: Vec::new(),
        is_strange: false,
    }
}

/// Entries, one position each.
fn seen(indexes: &[u64]) -> Vec<Seen> {
    let of = |index: &u64| Seen {
        index: *index,
        position: *index,
        count: 1,
        source: 0,
        client: 1,
        batch_seq: 0,
        session_epoch: 1,
        checksum: Some(0),
        is_lost: false,
    };
    indexes.iter().map(of).collect()
}

/// Brokers 0 and 1 wrote the log, and these are their copies.
fn known<'a>(skips: &'a Skips, sources: &'a [&'a Source]) -> Known<'a> {
    Known {
        skips,
        writers: &[0, 1],
        sources,
        is_unread: false,
        homes: BTreeMap::new(),
        tails: BTreeMap::new(),
        pools: Pools::default(),
        gone_from: None,
    }
}

fn judged(here: &[u64], sources: &[Source], skips: &Skips) -> Vec<(Range<u64>, Missing)> {
    let sources: Vec<&Source> = sources.iter().collect();
    let from = retired(&sources);
    let gaps = gaps(&seen(here), from, Some((10, 10)), &known(skips, &sources));
    gaps.into_iter().map(|gap| (gap.entries, gap.why)).collect()
}

#[test]
fn one_source_that_begins_late_hides_nothing_that_is_missing_before_it() {
    let none = Skips::default();
    let here = [0, 2, 8, 9];
    let mut late = source(1, &[(8, 10)]);
    let found = judged(&here, &[source(0, &[(0, 10)]), late.clone()], &none);
    assert_eq!(found, [(1..2, Missing::Gone), (3..8, Missing::Gone)]);
    // Another copy has it.
    let other = source(1, &[(0, 7)]);
    let found = judged(&here, &[source(0, &[(0, 10)]), late.clone(), other], &none);
    assert_eq!(found, [(1..2, Missing::Lost), (3..7, Missing::Lost), (7..8, Missing::Memory)]);
    // Bounds let go of it.
    late.rows[0] = cut(8);
    assert_eq!(judged(&here, &[source(0, &[(0, 10)]), late], &none), []);
}

#[test]
fn what_every_copy_of_a_broker_goes_on_behind_was_not_in_memory_alone() {
    let none = Skips::default();
    let (here, other) = ([0, 1, 2, 8, 9], source(0, &[(0, 10)]));
    let hole = source(1, &[(0, 3), (8, 10)]);
    let found = judged(&here, &[other.clone(), hole.clone()], &none);
    assert_eq!(found, [(3..8, Missing::Gone)]);
    // A stand-in has nothing of it either, or was not there.
    let found = judged(&here, &[other.clone(), hole.clone(), source(1, &[(5, 7)])], &none);
    assert_eq!(found, [(3..5, Missing::Gone), (5..7, Missing::Lost), (7..8, Missing::Memory)]);
    // It was in no file when a pool was lost.
    let mut skips = Skips::default();
    skips.add(Skipped { index: 5, to_index: 8, position: 5, to_position: 8 });
    assert_eq!(judged(&here, &[other.clone(), hole], &skips), [(3..5, Missing::Past)]);
    // It was in files that are gone.
    let mut taken = source(1, &[(8, 10)]);
    taken.taken.push(0..8);
    assert_eq!(judged(&[8, 9], &[other, taken], &skips), [(0..5, Missing::Gone)]);
}

#[test]
fn what_one_source_lost_is_missing_although_bounds_let_go_of_anothers() {
    let late = Source { rows: vec![cut(8)], ..source(0, &[(8, 10)]) };
    let broken = Source { is_whole: false, ..source(1, &[(0, 3), (5, 10)]) };
    let here = seen(&[1, 2, 5, 6, 8, 9]);
    let found = |sources: &[&Source]| -> Vec<(Range<u64>, Missing)> {
        let gaps = torn(&here, 8, sources);
        gaps.into_iter().map(|gap| (gap.entries, gap.why)).collect()
    };
    assert_eq!(found(&[&late, &broken]), [(3..5, Missing::Damaged)]);
    let whole = Source { is_whole: true, ..broken.clone() };
    assert_eq!(found(&[&late, &whole]), [], "it was begun anew");
    let other = source(1, &[(0, 10)]);
    assert_eq!(found(&[&late, &broken, &other]), [], "0, 3, 4 and 7 were the other broker's");
}

#[test]
fn what_was_in_no_file_when_a_pool_was_lost_is_gone_only_with_its_disk() {
    let mut skips = Skips::default();
    skips.add(Skipped { index: 4, to_index: 8, position: 4, to_position: 8 });
    let mut late = source(1, &[(8, 10)]);
    let found = judged(&[0, 1, 2, 8, 9], &[source(0, &[(0, 3), (8, 10)]), late.clone()], &skips);
    assert_eq!(found, [(3..4, Missing::Past)]);
    late.made_at = 8;
    let found = judged(&[0, 2, 8, 9], &[source(0, &[(0, 4), (8, 10)]), late], &skips);
    assert_eq!(found, [(1..2, Missing::Gone), (3..4, Missing::Gone)]);
}

#[test]
fn what_the_topics_file_says_was_there_is_gone_where_no_record_saw_it() {
    let (none, copy) = (Skips::default(), source(0, &[(0, 3)]));
    let (other, sources) = (source(1, &[(0, 4)]), |known: &Known<'_>| {
        let gaps = gaps(&seen(&[0, 1, 2]), 0, Some((10, 10)), known);
        gaps.into_iter().map(|gap| (gap.entries, gap.why)).collect::<Vec<_>>()
    });
    let both = [&copy, &other];
    let mut known = known(&none, &both);
    assert_eq!(sources(&known), [(3..10, Missing::Memory)]);
    known.gone_from = Some(6);
    assert_eq!(sources(&known), [(3..6, Missing::Memory), (6..10, Missing::Gone)]);
    // Broker 1 had come further when the log ended in good order.
    (known.gone_from, known.tails) = (None, [(0, 3), (1, 8)].into());
    assert_eq!(
        sources(&known),
        [(3..4, Missing::Memory), (4..8, Missing::Gone), (8..10, Missing::Memory)]
    );
    // A pool was lost before that, and this with it.
    let mut skips = Skips::default();
    skips.add(Skipped { position: 5, to_position: 7, index: 5, to_index: 7 });
    known.skips = &skips;
    assert_eq!(
        sources(&known),
        [(3..5, Missing::Past), (7..8, Missing::Gone), (8..10, Missing::Memory)]
    );
}

#[test]
fn a_broker_that_never_landed_anything_hides_no_loss() {
    let none = Skips::default();
    let hole = source(0, &[(0, 3), (5, 10)]);
    let alone = [&hole];
    let mut known = known(&none, &alone);
    let here = [0, 1, 2, 5, 6, 7, 9];
    let found = |known: &Known<'_>| {
        let gaps = gaps(&seen(&here), 0, Some((10, 10)), known);
        gaps.into_iter().map(|gap| (gap.entries, gap.why)).collect::<Vec<_>>()
    };
    assert_eq!(found(&known), [(3..5, Missing::Elsewhere), (8..9, Missing::Elsewhere)]);
    // Its directory is here.
    known.homes = [(0, 0), (1, 0)].into();
    assert_eq!(found(&known), [(3..5, Missing::Gone), (8..9, Missing::Memory)]);
    // What another one of it had is not known of one that was made later.
    known.homes = [(0, 0), (1, 5)].into();
    assert_eq!(found(&known), [(3..5, Missing::Elsewhere), (8..9, Missing::Memory)]);
}

#[test]
fn what_only_a_pool_had_is_in_no_file_that_could_be_gone() {
    let (none, here) = (Skips::default(), [0, 1, 2, 8, 9]);
    let alone = |source, index, to_index| Unkept { index, to_index, log: 32, source };
    let found = |sources: &[Source], lost: &[Unkept], in_pool: &[Unkept]| {
        let sources: Vec<&Source> = sources.iter().collect();
        let mut known = known(&none, &sources);
        // It ended in good order behind this, with broker 0's copy whole, and once before.
        known.tails = [(0, 10)].into();
        known.gone_from = Some(3);
        known.pools = Pools { lost: lost.to_vec(), here: in_pool.to_vec() };
        let gaps = gaps(&seen(&here), 0, Some((10, 10)), &known);
        gaps.into_iter().map(|gap| (gap.entries, gap.why)).collect::<Vec<_>>()
    };
    use Missing::{Gone, Memory, Past};
    let (failed, other) = (source(0, &[(0, 3), (8, 10)]), source(1, &[(0, 10)]));
    let both = [failed.clone(), other.clone()];
    assert_eq!(found(&both, &[alone(0, 3, 8)], &[]), [(3..8, Past)]);
    assert_eq!(found(&both, &[alone(0, 2, 8)], &[alone(0, 2, 8)]), [(3..8, Past)]);
    assert_eq!(found(&both, &[], &[]), [(3..8, Gone)]);
    assert_eq!(found(&both, &[], &[alone(0, 3, 8)]), [(3..8, Memory)], "that pool is there");
    // Its last file was cut short since, or a copy that goes on had more and is gone.
    assert_eq!(found(&both, &[alone(0, 5, 8)], &[]), [(3..5, Gone), (5..8, Past)]);
    // Another log index, or another broker, which has all of it.
    assert_eq!(found(&both, &[alone(0, 8, 9)], &[]), [(3..8, Gone)]);
    assert_eq!(found(&both, &[alone(1, 3, 8)], &[]), [(3..8, Gone)]);
    // Both failed, one of them later.
    let late = source(1, &[(0, 6), (8, 10)]);
    let lost = [alone(0, 3, 8), alone(1, 6, 8)];
    assert_eq!(found(&[failed.clone(), late.clone()], &lost, &[]), [(3..8, Past)]);
    assert_eq!(found(&[failed.clone(), late], &lost[..1], &[]), [(3..6, Past), (6..8, Gone)]);
    // A file in the middle was taken: what the other one's pool had does not stand for it.
    let mut taken = source(1, &[(0, 3), (8, 10)]);
    taken.taken.push(3..8);
    assert_eq!(found(&[failed, taken], &lost[..1], &[]), [(3..8, Gone)]);
    // A broker that joined later has no copies of its own.
    let all = [source(0, &[(0, 10)]), other];
    assert_eq!(found(&all, &[alone(5, 3, 8)], &[]), [(3..8, Past)]);
}

/// Of two copies of what broker 0 landed, the other has everything in `covers` by its own word.
fn left_out(here: &[u64], covers: &[(u64, u64)], there: &[u64]) -> Vec<String> {
    let mut kept = Kept::default();
    let with = |covers: &[(u64, u64)], indexes: &[u64], path: &str| {
        let mut source = Source { entries: seen(indexes), ..source(0, covers) };
        source.kept.path = path.into();
        source
    };
    let copies = [with(&[(0, 10)], here, "one"), with(covers, there, "other")];
    // Another broker's says nothing of these.
    let sources = [&copies[0], &copies[1], &source(1, &[(0, 10)])];
    merge("t", &sources, &mut kept);
    kept.findings.kept().iter().map(|finding| finding.to_string()).collect()
}

#[test]
fn a_copy_that_left_out_what_another_one_has_is_wrong() {
    let all = [1, 3, 4, 8];
    for (covers, there) in [
        (&[(0, 10)][..], &all[..]),
        // It ends before, begins behind, or goes on anew, as it says.
        (&[(0, 4)], &[1, 3]),
        (&[(4, 9)], &[4, 8]),
        (&[(0, 3), (8, 10)], &[1, 8]),
    ] {
        assert_eq!(left_out(&all, covers, there), [""; 0], "{covers:?}");
    }
    let found = left_out(&all, &[(2, 9)], &[8]);
    assert_eq!(found.len(), 1, "{found:?}");
    let says = "other has everything of broker 0 from entry 2 to 9, as it says, and not entry 3 \
                and 1 behind it, which one has";
    assert!(found[0].contains("agree") && found[0].contains(says), "{found:?}");
    // Each may have what the other has not.
    assert_eq!(left_out(&all[..3], &[(0, 10)], &all[1..]).len(), 2);
}
