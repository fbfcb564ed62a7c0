//! Holes that a topic's directory says of its own copies: memory had let go of what they lack, and
//! no other copy could be read that had it. Its files go on behind it, and do not say whether the
//! source landed anything there.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::FileError;
use crate::topic::TopicFile;

/// Log indexes of which a copy may lack what its source landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hole {
    /// Broker whose batches they are.
    pub source: u8,
    /// The first.
    pub from: u64,
    /// The one behind the last.
    pub to: u64,
}

impl Hole {
    /// Says it in the topic's directory whose copy it is.
    pub fn say(self, topic: &Path) -> Result<(), FileError> {
        let covers =
            |it: &Self| it.source == self.source && it.from <= self.from && self.to <= it.to;
        change(topic, |holes| {
            if !holes.iter().any(covers) {
                holes.insert(self);
            }
        })
    }

    /// Takes words back in the topic's directory: what they name is there.
    pub fn strike(topic: &Path, filled: &[Self]) -> Result<(), FileError> {
        change(topic, |holes| holes.retain(|hole| !filled.contains(hole)))
    }
}

fn change(topic: &Path, change: impl FnOnce(&mut BTreeSet<Hole>)) -> Result<(), FileError> {
    TopicFile::change(topic, |file| {
        let said = file.map(|mut file| {
            change(&mut file.holes);
            file
        });
        (said, ())
    })
}

/// What of some log indexes others leave.
pub fn left(range: (u64, u64), others: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut left = vec![range];
    left.retain(|(from, to)| from < to);
    for (start, end) in others {
        let cut = |(from, to): (u64, u64)| [(from, to.min(start)), (from.max(end), to)];
        left = left.into_iter().flat_map(cut).filter(|(from, to)| from < to).collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_is_left_out() {
        assert_eq!(left((3, 9), []), [(3, 9)]);
        assert_eq!(left((3, 9), [(4, 6), (8, 20)]), [(3, 4), (6, 8)]);
        assert_eq!(left((3, 9), [(0, 5), (5, 9)]), []);
        assert_eq!(left((3, 3), []), []);
    }
}
