use proptest::prelude::*;

use super::*;

fn span(index: u64, first: u64, end: u64) -> Span {
    Span { index, first, end, is_hole: false, is_lost: false }
}

fn at(index: u64, position: u64) -> Resumed {
    Resumed { index, position }
}

fn seen(index: u64, position: u64) -> Told<'static> {
    Told { seen: Some(at(index, position)), ..Told::default() }
}

#[test]
fn nothing_is_lost_when_everything_ordered_is_on_disk() {
    let mut spans = vec![span(1, 10, 20), span(0, 0, 10), span(1, 10, 20)];
    let plan = plan(&mut spans, &Told { pool_bytes: 1 << 20, ..seen(2, 20) });
    assert_eq!((plan.batches, plan.oldest), (2, 0));
    assert_eq!(plan.lost, []);
    assert_eq!((plan.index, plan.position), (2 + (1 << 13), 20 + (1 << 16)));
    let to = (plan.index, plan.position);
    let skipped = Skipped { index: 2, position: 20, to_index: to.0, to_position: to.1 };
    assert_eq!(plan.skipped, Some(skipped), "nobody knows of anything there");
}

#[test]
fn what_ended_in_good_order_goes_on_right_there() {
    let told = Told { pool_bytes: 1 << 30, ended: Some(at(2, 20)), ..seen(2, 20) };
    let plan = plan(&mut vec![span(0, 0, 10), span(1, 10, 20)], &told);
    assert_eq!((plan.index, plan.position, plan.skipped), (2, 20, None));
    assert_eq!(plan.lost, []);
    // A file that does not hold any more changes nothing about where it ended.
    let unread = Unread { entries: 9, positions: 99 };
    let plan = super::plan(&mut vec![span(0, 0, 10)], &Told { unread, ..told });
    assert_eq!((plan.index, plan.position, plan.skipped), (2, 20, None));
    assert_eq!(plan.lost, [Lost { first: 10, end: 20 }]);
}

#[test]
fn an_end_that_something_lies_behind_is_none() {
    let told = Told { pool_bytes: 128, ended: Some(at(1, 10)), ..seen(2, 20) };
    let plan = plan(&mut vec![span(0, 0, 10), span(1, 10, 20)], &told);
    assert_eq!((plan.index, plan.position), (3, 28));
    assert!(plan.skipped.is_some());
}

#[test]
fn what_was_ordered_behind_the_last_batch_is_lost_with_its_range() {
    // Bounds let go of what came before.
    let told = Told { retired_below: 7, ..seen(12, 130) };
    let plan = plan(&mut vec![span(7, 70, 80)], &told);
    assert_eq!(plan.lost, [Lost { first: 80, end: 130 }]);
    assert_eq!((plan.oldest, plan.index, plan.position), (70, 12, 130));
}

#[test]
fn what_was_in_front_of_all_that_is_left_is_lost_unless_bounds_let_go_of_it() {
    let mut spans = vec![span(7, 70, 80)];
    let plan = plan(&mut spans, &seen(8, 80));
    assert_eq!(plan.lost, [Lost { first: 0, end: 70 }]);
    let plan = super::plan(&mut spans, &Told { retired_below: 5, ..seen(8, 80) });
    assert_eq!((plan.lost, plan.retired), (vec![], 0), "nobody knows where that began");
}

#[test]
fn what_bounds_let_go_of_in_one_copy_while_another_goes_further_back_is_not_lost() {
    // Every second entry is a broker's whose files begin at 720, and one of the others is lost.
    let here = |n: &u64| *n != 790 && (*n >= 720 || n % 2 == 1);
    let mut spans: Vec<Span> = (0..800).filter(here).map(|n| span(n, n, n + 1)).collect();
    let told = Told { retired_below: 720, ..seen(800, 800) };
    let with = plan(&mut spans, &told);
    assert_eq!(with.lost, [Lost { first: 790, end: 791 }]);
    assert_eq!((with.oldest, with.retired), (1, 359));
    // Nothing was let go of: all of that was lost.
    let plan = plan(&mut spans, &Told { retired_below: 0, ..told });
    assert_eq!((plan.lost.len(), plan.retired), (361, 0));
}

#[test]
fn a_batch_that_does_not_hold_is_lost_although_bounds_let_go_of_another_brokers_there() {
    let broken = Span { is_lost: true, ..span(4, 40, 50) };
    let mut spans = vec![span(2, 20, 30), broken, span(8, 80, 90)];
    let told = Told { retired_below: 7, ..seen(9, 90) };
    let with = plan(&mut spans.clone(), &told);
    assert_eq!((with.lost, with.retired), (vec![Lost { first: 40, end: 50 }], 40));
    assert_eq!((with.batches, with.oldest), (2, 20));
    // In another copy it holds.
    spans.push(span(4, 40, 50));
    let with = plan(&mut spans, &told);
    assert_eq!((with.lost, with.retired, with.batches), (vec![], 40, 3));
}

#[test]
fn what_a_copy_lost_is_lost_although_bounds_let_go_of_another_brokers_there() {
    let mut spans = vec![span(4, 40, 50), span(6, 60, 70)];
    let told = Told { retired_below: 9, torn: &[(5, 6)], ..seen(7, 70) };
    let with = plan(&mut spans, &told);
    assert_eq!((with.lost, with.retired), (vec![Lost { first: 50, end: 60 }], 0));
    let with = plan(&mut spans, &Told { torn: &[(0, 2)], ..told });
    assert_eq!((with.lost, with.retired), (vec![Lost { first: 0, end: 40 }], 10));
}

#[test]
fn ranges_that_are_lost_side_by_side_are_one() {
    let told = Told { ended: Some(at(9, 90)), ..seen(7, 70) };
    let plan = plan(&mut vec![span(0, 0, 10)], &told);
    assert_eq!(plan.lost, [Lost { first: 10, end: 90 }]);
}

#[test]
fn a_batch_of_another_broker_that_is_missing_between_two_is_lost() {
    let mut spans = vec![span(0, 0, 31), span(2, 35, 36)];
    let plan = plan(&mut spans, &Told::default());
    assert_eq!(plan.lost, [Lost { first: 31, end: 35 }]);
    assert_eq!((plan.index, plan.position), (3, 36));
}

#[test]
fn a_hole_is_there_and_is_neither_a_batch_nor_lost() {
    let hole = Span { is_hole: true, ..span(1, 31, 35) };
    let mut spans = vec![span(0, 0, 31), hole, span(2, 35, 36), hole];
    let plan = plan(&mut spans, &Told::default());
    assert_eq!((plan.batches, plan.unwritten, plan.lost.len()), (2, 4, 0));
    let plan = super::plan(&mut vec![hole], &Told { retired_below: 1, ..seen(6, 37) });
    assert_eq!((plan.oldest, plan.unwritten), (31, 4));
    assert_eq!(plan.lost, [Lost { first: 35, end: 37 }]);
}

#[test]
fn a_log_of_which_nothing_is_left_goes_on_behind_what_was_seen() {
    let plan = plan(&mut Vec::new(), &Told { pool_bytes: 128, ..seen(4, 9) });
    assert_eq!(plan.lost, [Lost { first: 0, end: 9 }]);
    assert_eq!((plan.index, plan.position), (5, 17));
    let none = super::plan(&mut Vec::new(), &Told::default());
    assert_eq!((none.index, none.position), (0, 0));
}

#[test]
fn what_a_replica_saw_earlier_takes_nothing_back() {
    let told = Told { retired_below: 8, ..seen(3, 30) };
    let plan = plan(&mut vec![span(8, 80, 99)], &told);
    assert_eq!((plan.lost.len(), plan.index, plan.position), (0, 9, 99));
}

#[test]
fn a_log_goes_on_behind_all_that_a_file_that_does_not_hold_may_have_had() {
    let mut unread = Unread::default();
    unread.add(1000, false);
    assert_eq!(unread, Unread { entries: 8, positions: 63 });
    let plan = plan(&mut vec![span(0, 0, 10)], &Told { unread, ..Told::default() });
    assert_eq!((plan.index, plan.position), (9, 73));
    // How far it was when a file was begun is known from elsewhere.
    let told = Told { reached: Some(at(500, 5000)), unread, ..Told::default() };
    let plan = super::plan(&mut Vec::new(), &told);
    assert_eq!((plan.index, plan.position), (508, 5063));
    let mut holes = Unread::default();
    holes.add(1, true);
    assert_eq!(holes, Unread { entries: 1, positions: 65_535 });
}

#[test]
fn a_control_that_died_before_it_served_costs_nothing_more() {
    let told =
        Told { resumed: Some(at(90, 900)), is_same_pool: true, pool_bytes: 1 << 20, ..seen(2, 20) };
    let plan = plan(&mut vec![span(0, 0, 10), span(1, 10, 20)], &told);
    assert_eq!((plan.index, plan.position, plan.skipped), (90, 900, None));
    // A directory that it was not given tells of more.
    let told = Told { seen: Some(at(95, 905)), ..told };
    let plan = super::plan(&mut vec![span(0, 0, 10)], &told);
    assert_eq!((plan.index, plan.position), (95 + (1 << 13), 905 + (1 << 16)));
}

/// A pool's life: batches that are ordered in it, how many of them a replica has and how many it
/// has seen, and how it ends.
#[derive(Clone, Copy, Debug)]
struct Life {
    ordered: u64,
    on_disk: u64,
    seen: u64,
    in_good_order: bool,
}

fn life() -> impl Strategy<Value = Life> {
    (0..8_u64, 0..8_u64, 0..8_u64, any::<bool>()).prop_map(|(ordered, disk, seen, good)| {
        let on_disk = if good { ordered } else { disk.min(ordered) };
        Life { ordered, on_disk, seen: seen.clamp(on_disk, ordered), in_good_order: good }
    })
}

proptest! {
    /// However many pools are lost: no position is given out twice, what is on disk or was seen is
    /// where it was, and what is said to be lost is just what was seen ordered and is on no disk.
    #[test]
    fn over_many_lives(lives in prop::collection::vec(life(), 1..8)) {
        const POOL_BYTES: u64 = 8 * 128;
        let (mut index, mut position) = (0, 0);
        let (mut disk, mut skips) = (Vec::new(), Skips::default());
        let (mut last_seen, mut resumed) = (None, None);
        let mut lost: Vec<Lost> = Vec::new();
        for life in lives {
            let began = position;
            for n in 0..life.ordered {
                let batch = span(index, position, position + 3);
                (index, position) = (index + 1, position + 3);
                if n < life.on_disk {
                    disk.push(batch);
                }
                if n < life.seen {
                    last_seen = Some(at(index, position));
                }
            }
            if life.seen > life.on_disk {
                lost.push(Lost { first: began + 3 * life.on_disk, end: began + 3 * life.seen });
            }
            let told = Told {
                seen: last_seen,
                resumed,
                skips: Some(&skips),
                ended: life.in_good_order.then_some(at(index, position)),
                pool_bytes: POOL_BYTES,
                ..Told::default()
            };
            let after = plan(&mut disk.clone(), &told);
            prop_assert!(after.index >= index && after.position >= position, "{after:?}");
            if life.in_good_order {
                prop_assert_eq!((after.index, after.position), (index, position));
                prop_assert_eq!(after.skipped, None);
            }
            let told_lost: u64 = after.lost.iter().map(|lost| lost.end - lost.first).sum();
            let ever: u64 = lost.iter().map(|lost| lost.end - lost.first).sum();
            prop_assert_eq!(told_lost, ever, "{:?} {:?}", after.lost, lost);
            if let Some(skipped) = after.skipped {
                skips.add(skipped);
            }
            (index, position) = (after.index, after.position);
            resumed = Some(at(index, position));
            let messages = position - skips.positions();
            let kept: u64 = disk.iter().map(|span| span.end - span.first).sum();
            prop_assert_eq!(messages, kept + ever, "only what is known of counts as messages");
        }
    }
}

#[test]
fn a_log_with_holes_goes_on_behind_all_the_holes_that_a_pool_can_have() {
    // As many entries of holes as fit the pool were ordered, and one batch was shown behind them.
    let told = Told { pool_bytes: 1 << 20, has_holes: true, ..seen(1, 10) };
    let plan = plan(&mut vec![span(0, 0, 10)], &told);
    let entries = (1 << 20) / 64;
    assert_eq!((plan.index, plan.position), (1 + entries, 10 + entries * 65_535));
    let skipped = plan.skipped.unwrap();
    assert_eq!((skipped.position, skipped.to_position), (10, plan.position));
}

#[test]
fn two_batches_at_one_place_are_no_log() {
    let mut whole = vec![span(2, 20, 30), span(0, 0, 10), span(0, 0, 10), span(5, 90, 95)];
    assert_eq!(clash(&mut whole), None);
    for other in [span(0, 0, 9), span(1, 5, 12), span(4, 85, 91), span(2, 21, 30)] {
        let mut spans = whole.clone();
        spans.push(other);
        let (one, two) = clash(&mut spans).unwrap();
        assert!(one == other || two == other, "{one:?} {two:?}");
    }
}

#[test]
fn the_last_index_that_is_lost_is_neither_passed_over_nor_let_go_of() {
    let of = |indexes: &[u64]| -> Vec<Span> {
        indexes.iter().map(|index| span(*index, 10 * index, 10 * index + 10)).collect()
    };
    let spans = of(&[1, 2, 5, 9]);
    let told = Told::default();
    assert_eq!(lost_below(&of(&[0, 1, 2]), &told), 0);
    assert_eq!(lost_below(&spans, &told), 9);
    assert_eq!(lost_below(&spans, &Told { retired_below: 9, ..told }), 0);
    assert_eq!(lost_below(&spans, &seen(14, 140)), 14);
    let mut skips = Skips::default();
    for (index, to_index) in [(6, 9), (12, 20)] {
        let (position, to_position) = (10 * index, 10 * to_index);
        skips.add(Skipped { position, to_position, index, to_index });
    }
    let told = Told { skips: Some(&skips), ..told };
    assert_eq!(lost_below(&spans, &told), 5, "index 3 and 4");
    // It went on behind what it passed over: only what came before that was there.
    assert_eq!(lost_below(&spans, &Told { reached: Some(at(20, 200)), ..told }), 12);
    assert_eq!(lost_below(&of(&[0, 1]), &Told { ended: Some(at(6, 60)), ..told }), 6);
}
