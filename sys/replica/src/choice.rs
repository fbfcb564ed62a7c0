//! Which of the copies of a log has what comes next, and what none of them has. A pure value.

use landfall_layout::BrokerId;

use crate::copy::Says;

/// What comes next, and what is not there before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    /// Which of the sayings it is, and its log index; none: nothing is there.
    pub next: Option<(usize, u64)>,
    /// Brokers whose files do not say that there is nothing in between: of theirs it may be on a
    /// disk that cannot be read here. None: it was lost, or never was.
    pub open: Vec<BrokerId>,
    /// The first log index from which on a broker that does not say so lost some of what it had:
    /// of what lies in between, retention did not take all. None: nothing says that.
    pub torn: Option<u64>,
}

/// The next entry at or above log index `want`, of what the copies say.
pub(crate) fn choose(want: u64, until: u64, says: &[Says], sources: &[BrokerId]) -> Choice {
    let nexts = says.iter().enumerate().filter_map(|(i, says)| Some((i, says.next?)));
    // What one copy has lost another may have.
    let next = nexts
        .min_by_key(|(i, index)| (*index, says[*i].is_lost))
        .filter(|(_, index)| *index < until);
    let end = next.map_or(until, |(_, index)| index);
    let covers = |says: &Says| says.known_from <= want && says.known_to >= end;
    let of = |source: BrokerId| says.iter().filter(move |says| says.source == source);
    let open = sources.iter().copied().filter(|source| !of(*source).any(covers));
    let open: Vec<BrokerId> = open.collect();
    let torn = open.iter().flat_map(|source| of(*source)).map(|says| says.torn);
    let torn = torn.filter(|(from, to)| *from < end && want < *to);
    let torn = torn.map(|(from, _)| from).min();
    Choice { next, open, torn }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(number: usize) -> BrokerId {
        BrokerId::new(number).unwrap()
    }

    fn says(source: usize, known_from: u64, next: Option<u64>, known_to: u64) -> Says {
        Says { source: broker(source), known_from, next, known_to, is_lost: false, torn: (0, 0) }
    }

    #[test]
    fn the_lowest_index_comes_first() {
        let all = [broker(0), broker(1)];
        let here = [says(0, 0, Some(7), 7), says(1, 0, Some(5), 5)];
        let choice = choose(5, 100, &here, &all);
        assert_eq!(choice, Choice { next: Some((1, 5)), open: vec![], torn: None });
        let choice = choose(4, 100, &here, &all);
        assert_eq!(choice, Choice { next: Some((1, 5)), open: vec![], torn: None }, "4 is nowhere");
    }

    #[test]
    fn what_a_copy_left_out_may_be_elsewhere() {
        let all = [broker(0), broker(1)];
        let here = [says(0, 6, Some(7), 7), says(1, 0, Some(9), 9)];
        assert_eq!(
            choose(5, 100, &here, &all),
            Choice { next: Some((0, 7)), open: vec![broker(0)], torn: None }
        );
        // Another copy of the same broker has it, or knows that there is nothing.
        let other = [here[0], here[1], says(0, 0, Some(5), 5)];
        assert_eq!(
            choose(5, 100, &other, &all),
            Choice { next: Some((2, 5)), open: vec![], torn: None }
        );
        let other = [here[0], here[1], says(0, 0, None, 8)];
        assert_eq!(
            choose(5, 100, &other, &all),
            Choice { next: Some((0, 7)), open: vec![], torn: None }
        );
    }

    #[test]
    fn a_broker_without_a_copy_here_leaves_everything_open() {
        let here = [says(0, 0, Some(7), 7)];
        let all = [broker(0), broker(1)];
        assert_eq!(
            choose(7, 100, &here, &all),
            Choice { next: Some((0, 7)), open: vec![broker(1)], torn: None }
        );
        assert!(choose(7, 100, &here, &all[..1]).open.is_empty());
    }

    #[test]
    fn what_one_copy_has_lost_is_taken_from_another() {
        let lost = Says { is_lost: true, ..says(0, 0, Some(5), 5) };
        let choice = choose(5, 20, &[lost, says(0, 0, Some(5), 5)], &[broker(0)]);
        assert_eq!(choice.next, Some((1, 5)));
        let choice = choose(5, 20, &[lost, says(0, 0, Some(6), 6)], &[broker(0)]);
        assert_eq!(choice.next, Some((0, 5)), "it is told of before what comes behind it");
    }

    #[test]
    fn what_a_copy_had_and_lost_was_not_let_go_of_unless_another_copy_has_all_of_it() {
        let all = [broker(0), broker(1)];
        let torn = Says { torn: (3, 6), ..says(1, 6, Some(6), 6) };
        let late = says(0, 50, Some(50), 50);
        let of = |want, says: &[Says]| choose(want, 100, says, &all).torn;
        assert_eq!(of(5, &[late, torn]), Some(3));
        assert_eq!(of(6, &[late, torn]), None, "it is behind that");
        assert_eq!(of(5, &[late, torn, says(1, 0, Some(9), 9)]), None);
        assert_eq!(of(5, &[late, says(1, 6, Some(6), 6)]), None, "it began there");
    }

    #[test]
    fn nothing_is_taken_from_beyond_the_bound() {
        let all = [broker(0)];
        let choice = choose(5, 20, &[says(0, 0, Some(20), 20)], &all);
        assert_eq!(choice, Choice { next: None, open: vec![], torn: None });
        let choice = choose(5, 20, &[says(0, 0, None, 9)], &all);
        assert_eq!(
            choice,
            Choice { next: None, open: vec![broker(0)], torn: None },
            "it may come yet"
        );
    }
}
