//! Makes what fails smaller.

/// The smallest of `all`, dropping one at a time, of which `fails` still says so. It is asked at
/// most `budget` times; what is then left fails, but may not be the smallest.
pub fn shrink<T: Clone>(
    all: Vec<T>,
    mut budget: u32,
    mut fails: impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    let mut kept = all;
    let mut at = 0;
    // What could be dropped makes others droppable that could not be before it: from the start.
    while at < kept.len() && budget > 0 {
        let mut fewer = kept.clone();
        fewer.remove(at);
        budget -= 1;
        if fails(&fewer) {
            kept = fewer;
            at = 0;
        } else {
            at += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_left() {
        let needed = |kept: &[u32]| [2, 5].iter().all(|n| kept.contains(n));
        assert_eq!(shrink((0..8).collect(), 1000, needed), [2, 5]);
        assert_eq!(shrink(vec![2, 5], 1000, needed), [2, 5]);
        assert_eq!(shrink(vec![1], 1000, |_| true), [0_u32; 0]);
    }

    #[test]
    fn what_can_only_go_after_another_goes_too() {
        // 1 is needed only as long as 3 is there.
        let fails = |kept: &[u32]| kept.contains(&2) && (!kept.contains(&3) || kept.contains(&1));
        assert_eq!(shrink(vec![1, 2, 3], 1000, fails), [2]);
    }

    #[test]
    fn the_budget_bounds_the_runs_and_what_is_left_fails() {
        let mut asked = 0;
        let left = shrink((0..100_u32).collect(), 7, |kept| {
            asked += 1;
            kept.contains(&99)
        });
        assert_eq!(asked, 7);
        assert!(left.contains(&99) && left.len() == 93);
    }
}
