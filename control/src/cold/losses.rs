//! What a topic's publishers lost with a pool: for brokers in lines, for people in sentences.

use landfall_layout::TopicId;
use landfall_layout::doubt::DoubtLine;
use landfall_layout::limits::DOUBT_LINES;
use landfall_pool::Pool;

use super::sessions::SessionOf;
use super::tell::RANGES_TOLD;

/// What a topic's sessions lost.
#[derive(Debug, Default)]
pub struct Losses {
    /// Doubt lines in use.
    lines: usize,
    told: Vec<String>,
    /// Those that have no sentence of their own.
    clients: u64,
    batches: u64,
}

impl Losses {
    /// Adds a session, which has the line `number`, with as many doubt lines as are left: for the
    /// latest of its batches, since older ones are hardly sent again.
    pub fn add(
        &mut self,
        pool: &Pool,
        (number, topic, client): (u32, u32, u64),
        session: &SessionOf,
    ) {
        let ranges = &session.doubtful;
        let lines = DoubtLine::of(TopicId(topic), number, ranges);
        // One range is what the session's line says by itself.
        let lines = if ranges.len() > 1 { &lines[..] } else { &[] };
        let room = DOUBT_LINES - self.lines;
        let kept = &lines[lines.len().saturating_sub(room)..];
        for line in kept {
            pool.set_doubt(TopicId(topic), self.lines, line);
            self.lines += 1;
        }
        let all: u64 = ranges.iter().map(|(from, to)| to - from).sum();
        if self.told.len() == RANGES_TOLD {
            self.clients += 1;
            self.batches += all;
            return;
        }
        let (floor, end) = (session.floor, session.known_from);
        let mut told = format!(
            "{} batches of client {client:#x} between sequences {floor} and {} are on no disk, and \
             later ones are: sent again, they are told to be lost; publish their messages anew",
            session.lost,
            end - 1
        );
        if all > session.lost {
            told += &format!(
                "; so are {} that may be on no disk because the topic's bounds let go of them",
                all - session.lost
            );
        }
        if kept.len() < lines.len() {
            let exact = kept.first().map_or(end, |line| line.first);
            let below = ranges.iter().map(|(from, to)| exact.min(*to).saturating_sub(*from));
            let whole = exact - floor - below.sum::<u64>();
            told += &format!(
                "; so are {whole} that are on disk, below sequence {exact}: there are {} lines for \
                 which of them are not, and {} are needed",
                kept.len(),
                lines.len()
            );
        }
        self.told.push(told);
    }

    /// What people should know: a sentence for each of some clients, and one for the others.
    pub fn sentences(self) -> impl Iterator<Item = String> {
        let Self { clients, batches, .. } = self;
        let rest = (clients > 0).then(|| {
            format!(
                "{batches} batches of {clients} more clients are on no disk, and later ones are: \
                 sent again, they are told to be lost; publish their messages anew"
            )
        });
        self.told.into_iter().chain(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use landfall_layout::limits::DOUBT_BITS;
    use landfall_layout::pool::Coherence;
    use landfall_pool::map::memfd;
    use landfall_pool::pool::Shape;

    use super::*;

    const TOPIC: TopicId = TopicId(256);

    fn pool() -> Pool {
        let fd = memfd("landfall-losses-test", 0).unwrap();
        let shape = Shape {
            pool_bytes: 48 << 20,
            segment_bytes: 2 << 20,
            sessions: 64,
            coherence: Coherence::Coherent,
            uuid: [7; 16],
            now_ns: 1,
            sparse: true,
        };
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        Pool::create_or_attach(path.as_ref(), shape).unwrap()
    }

    fn session(doubtful: Vec<(u64, u64)>) -> SessionOf {
        let (floor, known_from) = (doubtful[0].0, doubtful[doubtful.len() - 1].1);
        let lost = doubtful.iter().map(|(from, to)| to - from).sum();
        let (epoch, landed_ns, next_seq, had) = (1, 0, known_from + 1, Vec::new());
        SessionOf { epoch, life: 0, landed_ns, next_seq, floor, known_from, had, doubtful, lost }
    }

    fn every_other(ranges: u64) -> Vec<(u64, u64)> {
        (0..ranges).map(|n| (2 * n + 1, 2 * n + 2)).collect()
    }

    fn lost(pool: &Pool, number: u32, seqs: std::ops::Range<u64>) -> Vec<u64> {
        seqs.filter(|seq| DoubtLine::is_lost(pool.doubts(TOPIC, number), *seq)).collect()
    }

    #[test]
    fn what_lies_on_disk_between_two_that_are_lost_is_known_to_every_broker() {
        let (pool, mut losses) = (pool(), Losses::default());
        losses.add(&pool, (3, TOPIC.0, 7), &session(every_other(359)));
        losses.add(&pool, (4, TOPIC.0, 8), &session(vec![(10, 20)]));
        losses.add(&pool, (5, TOPIC.0, 9), &session(vec![(1, 2), (5000, 6000)]));
        let odd: Vec<u64> = (1..718).step_by(2).collect();
        assert_eq!(lost(&pool, 3, 1..718), odd);
        assert_eq!(lost(&pool, 4, 10..20).len(), 10, "its session's line says all of it");
        assert_eq!(lost(&pool, 5, 1..6000).len(), 1001);
        assert_eq!(pool.doubts(TopicId(256 + 1), 3).count(), 0, "another topic of the slot");
        let told: Vec<String> = losses.sentences().collect();
        let first = "359 batches of client 0x7 between sequences 1 and 717 are on no disk";
        assert!(told.len() == 3 && told[0].contains(first), "{told:?}");
        assert!(!told[0].contains("so are"), "{}", told[0]);
    }

    #[test]
    fn what_there_is_no_line_for_is_told_with_its_number() {
        let (pool, mut losses) = (pool(), Losses::default());
        let ranges = (DOUBT_LINES as u64 + 2) * (DOUBT_BITS + 1);
        let of = session((0..ranges).map(|n| (1000 * n, 1000 * n + 1)).collect());
        losses.add(&pool, (3, TOPIC.0, 7), &of);
        let exact = 1000 * (ranges - DOUBT_LINES as u64);
        assert_eq!(lost(&pool, 3, exact..of.known_from).len(), DOUBT_LINES);
        assert_eq!(lost(&pool, 3, 0..exact).len() as u64, exact, "any of it may be lost");
        losses.add(&pool, (4, TOPIC.0, 8), &session(every_other(4)));
        assert_eq!(lost(&pool, 4, 1..8).len(), 7, "no line is left");
        let told: Vec<String> = losses.sentences().collect();
        let whole = exact - (ranges - DOUBT_LINES as u64);
        let on_disk = format!("so are {whole} that are on disk, below sequence {exact}");
        assert!(told[0].contains(&on_disk), "{}", told[0]);
        assert!(told[1].contains("so are 3 that are on disk, below sequence 8"), "{}", told[1]);
    }

    #[test]
    fn of_many_publishers_some_are_named_and_the_rest_is_counted() {
        let (pool, mut losses) = (pool(), Losses::default());
        for client in 0..RANGES_TOLD as u32 + 5 {
            losses.add(&pool, (client, TOPIC.0, client.into()), &session(vec![(1, 4)]));
        }
        let told: Vec<String> = losses.sentences().collect();
        assert_eq!(told.len(), RANGES_TOLD + 1);
        assert!(told[RANGES_TOLD].starts_with("15 batches of 5 more clients"), "{told:?}");
    }
}
