//! Who keeps each copy on disk while its home is away. Pure: the keeper says what there is and
//! writes down the answer.
//!
//! A copy whose keeper has been away for longer than a setting goes to another broker with a disk
//! that keeps no copy of the same batches. A home that comes back follows its log again by itself;
//! it is given its copy back once it has everything that its stand-in had a moment ago, and has it
//! out of memory or from files, so that nothing waits for it.

use landfall_layout::BrokerId;
use landfall_layout::keepers::{Keepers, StandIn};
use landfall_layout::limits::{BROKERS_MAX, STAND_INS_MAX};
use landfall_layout::replica::ReplicaState;

/// A broker, as far as it may keep copies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    /// It is live, and not leaving, and its disk answers.
    pub is_live: bool,
    /// It has a disk for replicas.
    pub has_disk: bool,
    /// Since when it has not been live, or its disk hangs, nanoseconds; nothing while it keeps up.
    pub away_ns: Option<u64>,
    /// Copies that it keeps in place of others, in all topics.
    pub stand_ins: u32,
}

/// A copy, and how far its keepers are.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// Which of its source's copies it is.
    pub replica: usize,
    /// Its home.
    pub home: BrokerId,
    /// Log index below which the home has it, or what it was told is nowhere any more.
    pub home_durable: u64,
    /// How its home says that it is.
    pub home_state: ReplicaState,
    /// How the present stand-in says that it is.
    pub stand_in_state: ReplicaState,
    /// What its home has to have before it is given the copy back: how far the stand-in was a
    /// moment ago. Nothing while that is not known.
    pub mark: Option<u64>,
}

/// All there is to know for moving the copies of what one broker landed for one topic.
#[derive(Debug)]
pub struct View<'a> {
    /// Brokers by number.
    pub peers: &'a [Peer; BROKERS_MAX],
    /// The copies of that broker's batches.
    pub copies: &'a [Copy],
    /// Who keeps them now.
    pub keepers: Keepers,
    /// Lines of each broker that are in use for this topic, a bit each.
    pub lines: &'a [u8; BROKERS_MAX],
    /// Oldest index of their log in memory.
    pub oldest: u64,
    /// How long a keeper has to be away.
    pub move_ns: u64,
}

/// A copy that gets another keeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// Which copy.
    pub replica: usize,
    /// Who keeps it from now on; none: its home.
    pub to: Option<StandIn>,
}

/// The copy that is to move next, if there is one.
pub fn decide(view: &View<'_>) -> Option<Move> {
    view.copies.iter().find_map(|copy| decide_one(view, copy))
}

fn decide_one(view: &View<'_>, copy: &Copy) -> Option<Move> {
    let Copy { replica, home, .. } = *copy;
    let present = view.keepers.stand_in(replica);
    let keeper = present.map_or(home, |stand_in| stand_in.broker);
    let is_away = |broker: BrokerId| {
        view.peers[broker.index()].away_ns.is_some_and(|away_ns| away_ns >= view.move_ns)
    };
    let failed = present.is_some() && copy.stand_in_state == ReplicaState::Failed;
    let is_lost = is_away(keeper) || failed;
    if present.is_some() {
        // What its home lacks is in memory, and retention waits for it from now on.
        let home_follows = view.peers[home.index()].is_live
            && copy.home_state == ReplicaState::Well
            && copy.home_durable >= view.oldest;
        let caught_up = copy.mark.is_some_and(|mark| copy.home_durable >= mark);
        if home_follows && (caught_up || is_lost) {
            return Some(Move { replica, to: None });
        }
    }
    if !is_lost {
        return None;
    }
    let to = candidate(view, copy, keeper)?;
    Some(Move { replica, to: Some(to) })
}

/// The broker that has the fewest copies of others, and of those the next behind the home.
fn candidate(view: &View<'_>, copy: &Copy, keeper: BrokerId) -> Option<StandIn> {
    let keeps = |broker: BrokerId| {
        view.copies.iter().any(|other| {
            // A home has a copy of these batches in its directory wherever the copy is kept now.
            other.home == broker
                || view.keepers.stand_in(other.replica).is_some_and(|s| s.broker == broker)
        })
    };
    let distance =
        |broker: BrokerId| (broker.index() + BROKERS_MAX - copy.home.index()) % BROKERS_MAX;
    let fits = |broker: &BrokerId| {
        let peer = &view.peers[broker.index()];
        peer.is_live && peer.has_disk && *broker != keeper && !keeps(*broker)
    };
    let with_line = |broker: BrokerId| {
        let used = view.lines[broker.index()];
        let line = (0..STAND_INS_MAX).find(|line| used >> line & 1 == 0)?;
        Some(StandIn { broker, line })
    };
    let all = BrokerId::all().filter(fits).filter_map(with_line);
    all.min_by_key(|to| (view.peers[to.broker.index()].stand_ins, distance(to.broker)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVE_NS: u64 = 30;

    fn broker(number: usize) -> BrokerId {
        BrokerId::new(number).unwrap()
    }

    fn peers(live: &[usize]) -> [Peer; BROKERS_MAX] {
        std::array::from_fn(|number| match live.contains(&number) {
            true => Peer { is_live: true, has_disk: true, ..Peer::default() },
            false => Peer { has_disk: true, away_ns: Some(MOVE_NS), ..Peer::default() },
        })
    }

    fn copy(replica: usize, home: usize) -> Copy {
        Copy {
            replica,
            home: broker(home),
            home_durable: 100,
            home_state: ReplicaState::Well,
            stand_in_state: ReplicaState::Well,
            mark: None,
        }
    }

    fn view<'a>(peers: &'a [Peer; BROKERS_MAX], copies: &'a [Copy], keepers: Keepers) -> View<'a> {
        View { peers, copies, keepers, lines: &[0; BROKERS_MAX], oldest: 50, move_ns: MOVE_NS }
    }

    fn stand_in(number: usize) -> Option<StandIn> {
        Some(StandIn { broker: broker(number), line: 0 })
    }

    #[test]
    fn a_copy_whose_home_is_away_for_long_goes_to_one_who_has_none() {
        let copies = [copy(0, 1), copy(1, 2)];
        let mut all = peers(&[0, 2, 3]);
        let keepers = Keepers::default();
        let moved = decide(&view(&all, &copies, keepers));
        assert_eq!(moved, Some(Move { replica: 0, to: stand_in(3) }), "2 has the other copy");
        all[1].away_ns = Some(MOVE_NS - 1);
        assert_eq!(decide(&view(&all, &copies, keepers)), None, "not yet");
        all[1].away_ns = Some(MOVE_NS);
        (all[3].has_disk, all[0].is_live) = (false, false);
        assert_eq!(decide(&view(&all, &copies, keepers)), None, "nobody can");
    }

    #[test]
    fn who_stands_in_for_the_fewest_is_asked_first_and_needs_a_line() {
        let copies = [copy(0, 1)];
        let mut all = peers(&[0, 2, 3]);
        all[2].stand_ins = 1;
        let mut lines = [0; BROKERS_MAX];
        lines[3] = 0b0101;
        let view = View { lines: &lines, ..view(&all, &copies, Keepers::default()) };
        let to = Some(StandIn { broker: broker(3), line: 1 });
        assert_eq!(decide(&view), Some(Move { replica: 0, to }));
        let full = [0b1111; BROKERS_MAX];
        assert_eq!(decide(&View { lines: &full, ..view }), None);
    }

    #[test]
    fn nobody_keeps_two_copies_of_the_same_batches() {
        // The home of copy 1 is away too, and its stand-in has a directory of these batches.
        let copies = [copy(0, 1), copy(1, 2)];
        let all = peers(&[0, 3]);
        let keepers = Keepers::default().with(1, stand_in(3));
        let moved = decide(&view(&all, &copies, keepers));
        assert_eq!(moved, Some(Move { replica: 0, to: stand_in(0) }));
        let all = peers(&[3]);
        assert_eq!(decide(&view(&all, &copies, keepers)), None);
    }

    #[test]
    fn a_home_gets_its_copy_back_once_it_has_what_its_stand_in_had() {
        let all = peers(&[0, 1, 2]);
        let keepers = Keepers::default().with(0, stand_in(2));
        let back = Some(Move { replica: 0, to: None });
        let ask = |copy: Copy| decide(&view(&all, &[copy], keepers));
        assert_eq!(ask(copy(0, 1)), None, "nobody knows how far the stand-in was");
        assert_eq!(ask(Copy { mark: Some(101), ..copy(0, 1) }), None);
        assert_eq!(ask(Copy { mark: Some(100), ..copy(0, 1) }), back);
        let failed = Copy { home_state: ReplicaState::Failed, mark: Some(100), ..copy(0, 1) };
        assert_eq!(ask(failed), None);
        let behind = Copy { home_durable: 49, mark: Some(0), ..copy(0, 1) };
        assert_eq!(ask(behind), None, "memory has no more what it lacks");
    }

    #[test]
    fn a_stand_in_that_goes_away_or_fails_is_replaced() {
        let keepers = Keepers::default().with(0, stand_in(2));
        let all = peers(&[0, 3]);
        assert_eq!(
            decide(&view(&all, &[copy(0, 1)], keepers)),
            Some(Move { replica: 0, to: stand_in(3) }),
            "the next behind the home"
        );
        // The home is back, and memory has what it lacks.
        let all = peers(&[0, 1, 3]);
        let back = Some(Move { replica: 0, to: None });
        assert_eq!(decide(&view(&all, &[copy(0, 1)], keepers)), back);
        let all = peers(&[0, 2, 3]);
        assert_eq!(decide(&view(&all, &[copy(0, 1)], keepers)), None, "it is well");
        let failed = Copy { stand_in_state: ReplicaState::Failed, ..copy(0, 1) };
        let moved = decide(&view(&all, &[failed], keepers));
        assert_eq!(moved, Some(Move { replica: 0, to: stand_in(3) }));
    }
}
