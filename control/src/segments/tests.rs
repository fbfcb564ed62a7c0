use std::os::fd::AsRawFd;

use landfall_layout::pool::{Coherence, LeaderLine, Term};
use landfall_pool::pool::Shape;

use super::*;

fn purpose() -> Purpose {
    let what = What {
        kind: SegmentKind::Payload,
        state: SegmentState::Open,
        owner: 3,
        log: 0,
        topic: TopicId::new(0, 1),
    };
    Purpose { what, base_index: 0, previous: None }
}

fn segments(coherence: Coherence) -> Segments {
    let file = landfall_pool::map::memfd("segments", 0).unwrap();
    let shape = Shape {
        pool_bytes: 64 << 20,
        segment_bytes: 2 << 20,
        sessions: 64,
        coherence,
        uuid: [1; 16],
        now_ns: 1,
        sparse: true,
    };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let pool = Arc::new(Pool::create_or_attach(path.as_ref(), shape).unwrap());
    let term = Term { epoch: 1, serves: false }.pack();
    assert!(pool.claim(0, &LeaderLine { term, ..LeaderLine::default() }) && pool.serve(1));
    Segments::read(pool, 1).0
}

#[test]
fn in_flush_mode_segments_are_written_back_and_freed_one_a_turn() {
    let mut segments = segments(Coherence::Flush);
    let taken: Vec<SegmentId> = std::iter::from_fn(|| segments.take(purpose(), 1)).collect();
    for segment in &taken {
        (0..2).for_each(|_| segments.give_back(*segment));
        assert!(segments.is_waiting(*segment) && segments.get(*segment).is_some());
    }
    for (done, segment) in taken.iter().enumerate() {
        assert_eq!(segments.free() as usize, done);
        assert!(segments.finish_return());
        assert!(!segments.is_waiting(*segment) && segments.get(*segment).is_none());
    }
    assert!(!segments.finish_return());
    assert_eq!(segments.free(), segments.total());
}

#[test]
fn a_segment_goes_back_when_the_last_reason_is_gone() {
    let mut segments = segments(Coherence::Coherent);
    let [broker, other] = [3, 4].map(|number| BrokerId::new(number).unwrap());
    for last in Reason::ALL {
        let segment = segments.take(purpose(), 1).unwrap();
        let generation = segments.get(segment).unwrap().generation;
        segments.name(broker, segment, generation);
        segments.name(broker, segment, generation + 1);
        segments.name(other, segment, generation);
        segments.unname(other, segment, generation);
        for reason in Reason::ALL {
            segments.withhold(broker, reason, |_| true);
        }
        segments.give_back(segment);
        for reason in Reason::ALL.into_iter().filter(|reason| *reason != last) {
            segments.release(broker, reason);
            assert!(segments.get(segment).is_some(), "{reason:?} was not the last");
        }
        segments.release(other, last);
        assert_eq!(segments.withheld(broker, last), [segment]);
        segments.turn(broker, last, &[Reason::Ghost, Reason::Writers]);
        segments.release(broker, Reason::Writers);
        assert!(segments.is_withheld(segment));
        segments.release(broker, Reason::Ghost);
        assert!(segments.get(segment).is_none() && !segments.is_withheld(segment));
    }
    assert_eq!(segments.free(), segments.total());
}

#[test]
fn a_wall_clock_that_is_set_makes_no_batch_older_or_younger() {
    const HOUR: u64 = 3_600_000_000_000;
    let settled = Settled {
        last: Some(7),
        end_position: 8,
        end_bytes: 0,
        landed_ns: 100 * HOUR,
        landed_age_ns: 5,
        settled_ns: 1_000,
    };
    // Nothing of the wall clock is asked again: what a step does to it is not seen.
    assert_eq!(settled.age_ns(1_000), 5);
    assert_eq!(settled.age_ns(1_000 + HOUR), HOUR + 5);
    assert_eq!(settled.age_ns(0), 5);
}
