//! Where a subscriber is in each log. It outlives connections: after a reconnect nothing is shown
//! twice, and what was missed meanwhile is counted.

use landfall_layout::frame::{From, LogPlace};
use landfall_layout::limits::{BROKERS_MAX, LOGS_PER_TOPIC, SEQUENCED_LOG};

/// A place in one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Index of the next entry, once one was seen.
    pub(crate) next: Option<u64>,
    /// Position expected next, once it is known: a later one is a gap.
    pub(crate) position: Option<u64>,
}

/// The places in all logs of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    logs: [Seen; LOGS_PER_TOPIC],
}

/// What a batch at some place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// What comes next.
    Next,
    /// Seen before, or before the position that was asked for.
    Old,
    /// Messages before it are missing.
    AfterGap {
        /// How many.
        missed: u64,
    },
}

impl Places {
    pub(crate) fn new() -> Self {
        Self { logs: [Seen::default(); LOGS_PER_TOPIC] }
    }

    /// The place in `log`; `None` for a log that no topic has.
    pub(crate) fn get(&self, log: u8) -> Option<Seen> {
        self.logs.get(usize::from(log)).copied()
    }

    /// Sets the position expected in each log before anything was seen. `start` is where the
    /// sequenced log begins, where the topic has it; where others do is not known.
    pub(crate) fn expect_start(&mut self, from: From, start: Option<u64>) {
        match from {
            // What retention has taken of what was asked for is a gap.
            From::Position(position) => {
                self.logs.iter_mut().for_each(|log| log.position = Some(position));
            }
            _ => self.logs[SEQUENCED_LOG].position = start,
        }
    }

    /// Judges the batch of `index` in `log`, whose messages have the positions from `first` to
    /// below `end`, and does not move.
    pub(crate) fn judge(&self, log: u8, index: u64, first: u64, end: u64) -> Arrival {
        let place = self.get(log).unwrap_or_default();
        match place {
            Seen { next: Some(next), .. } if index < next => Arrival::Old,
            // Not by its index alone: a gap that was told of moves the position and no index.
            Seen { position: Some(position), .. } if end <= position => Arrival::Old,
            Seen { position: Some(position), .. } if first > position => {
                Arrival::AfterGap { missed: first - position }
            }
            _ => Arrival::Next,
        }
    }

    /// The batch of `index` in `log`, which ends at position `end`, was shown.
    pub(crate) fn shown(&mut self, log: u8, index: u64, end: u64) {
        if let Some(place) = self.logs.get_mut(usize::from(log)) {
            *place = Seen { next: Some(index.saturating_add(1)), position: Some(end) };
        }
    }

    /// The batch of `index` in `log`, which begins at `position`, is to be shown after all.
    pub(crate) fn go_back(&mut self, log: u8, index: u64, position: u64) {
        if let Some(place) = self.logs.get_mut(usize::from(log)) {
            *place = Seen { next: Some(index), position: Some(position) };
        }
    }

    /// A gap in `log` was shown: it goes on at position `resume`.
    pub(crate) fn resumed(&mut self, log: u8, resume: u64) {
        if let Some(place) = self.logs.get_mut(usize::from(log)) {
            place.position = Some(resume);
        }
    }

    /// Where it is in each log that something was seen of.
    pub(crate) fn seen(&self) -> Vec<LogPlace> {
        let seen = |(log, place): (usize, &Seen)| {
            let (next, position) = (place.next?, place.position?);
            Some(LogPlace { log: log as u8, next, position })
        };
        self.logs.iter().enumerate().filter_map(seen).collect()
    }

    /// A subscription from the latest has begun where the brokers' own logs end. What is not named
    /// has nothing yet, and everything that comes there is new.
    pub(crate) fn begin(&mut self, ends: &[LogPlace]) {
        self.logs[..BROKERS_MAX].fill(Seen { next: Some(0), position: Some(0) });
        for LogPlace { log, next, position } in ends {
            self.go_back(*log, *next, *position);
        }
    }

    /// What to ask a broker for when the connection is replaced.
    ///
    /// With one log it is the position. With several, each is at its own position ([`seen`]), and a
    /// log that nothing came from yet may have batches that were never shown: for those everything
    /// that was asked for at first is asked for again. What was seen is passed over by its index,
    /// should it come once more. From the latest each log has a place from the
    /// [beginning](Self::begin): no clock says what came since, since the logs' are others.
    ///
    /// [`seen`]: Self::seen
    pub(crate) fn resume_from(&self, sequenced: bool, from: From) -> From {
        if sequenced && let Some(position) = self.logs[SEQUENCED_LOG].position {
            return From::Position(position);
        }
        match from {
            From::Latest => From::Earliest,
            from => from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: u8 = SEQUENCED_LOG as u8;

    #[test]
    fn what_was_seen_is_old_and_what_is_missing_is_counted() {
        let mut places = Places::new();
        assert_eq!(places.judge(LOG, 5, 50, 60), Arrival::Next);
        places.shown(LOG, 5, 60);
        assert_eq!(places.judge(LOG, 5, 50, 60), Arrival::Old);
        assert_eq!(places.judge(LOG, 6, 60, 61), Arrival::Next);
        assert_eq!(places.judge(LOG, 9, 75, 80), Arrival::AfterGap { missed: 15 });
        places.resumed(LOG, 75);
        assert_eq!(places.judge(LOG, 9, 75, 80), Arrival::Next);
    }

    #[test]
    fn a_batch_that_was_passed_over_is_next_again() {
        let mut places = Places::new();
        places.shown(LOG, 5, 60);
        places.go_back(LOG, 5, 50);
        assert_eq!(places.judge(LOG, 4, 40, 50), Arrival::Old);
        assert_eq!(places.judge(LOG, 5, 50, 60), Arrival::Next);
        assert_eq!(places.resume_from(true, From::Earliest), From::Position(50));
    }

    #[test]
    fn a_batch_that_was_told_of_as_a_gap_does_not_come_again() {
        let mut places = Places::new();
        places.shown(LOG, 4, 50);
        places.go_back(LOG, 5, 50);
        places.resumed(LOG, 60);
        assert_eq!(places.judge(LOG, 5, 50, 60), Arrival::Old);
        assert_eq!(places.judge(LOG, 6, 60, 61), Arrival::Next);
    }

    #[test]
    fn a_position_in_mid_batch_shows_the_whole_batch_and_nothing_before() {
        let mut places = Places::new();
        places.expect_start(From::Position(55), Some(50));
        assert_eq!(places.judge(LOG, 4, 40, 50), Arrival::Old);
        assert_eq!(places.judge(LOG, 5, 50, 60), Arrival::Next);
        assert_eq!(places.judge(LOG, 6, 60, 70), Arrival::AfterGap { missed: 5 });
    }

    #[test]
    fn a_reconnect_goes_on_where_it_was() {
        let mut places = Places::new();
        assert_eq!(places.resume_from(true, From::Earliest), From::Earliest);
        places.expect_start(From::Latest, Some(100));
        assert_eq!(places.resume_from(true, From::Latest), From::Position(100));
        places.shown(LOG, 7, 130);
        assert_eq!(places.resume_from(true, From::Latest), From::Position(130));
        assert_eq!(places.resume_from(false, From::Earliest), From::Earliest);
        assert_eq!(places.resume_from(false, From::Time(9)), From::Time(9));
    }

    #[test]
    fn from_the_latest_each_log_has_a_place_from_the_beginning() {
        let mut places = Places::new();
        places.begin(&[LogPlace { log: 3, next: 7, position: 70 }]);
        assert_eq!(places.resume_from(false, From::Latest), From::Earliest);
        assert_eq!(places.judge(3, 6, 60, 70), Arrival::Old);
        assert_eq!(places.judge(3, 7, 70, 71), Arrival::Next);
        assert_eq!(places.judge(3, 9, 75, 80), Arrival::AfterGap { missed: 5 });
        assert_eq!(places.judge(4, 0, 0, 5), Arrival::Next);
        assert_eq!(places.judge(4, 1, 5, 6), Arrival::AfterGap { missed: 5 });
        let seen = places.seen();
        assert_eq!(seen.len(), BROKERS_MAX);
        assert_eq!(seen[3], LogPlace { log: 3, next: 7, position: 70 });
        assert_eq!(seen[4], LogPlace { log: 4, next: 0, position: 0 });
    }

    #[test]
    fn a_log_that_cannot_be_is_no_place() {
        let mut places = Places::new();
        places.shown(200, 1, 1);
        places.resumed(200, 1);
        assert_eq!(places.get(200), None);
    }
}
