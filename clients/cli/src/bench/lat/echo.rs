//! The least that a message there and back can take here: an echo with nothing of ours in between.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Instant;

use crate::bench::limit::pair;
use crate::error::{Failure, Outcome};

/// Round trips measured; the median of so many no longer moves.
const ROUNDS: usize = 20_000;

/// Median round trip of `bytes` over a socket pair with an echoing thread, nanoseconds.
pub fn socket(bytes: usize) -> Outcome<u64> {
    let failed = |error: io::Error| Failure::failed("cannot measure the tcp limit", error);
    let (mut near, mut far) = pair().map_err(failed)?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = vec![0; bytes];
            // The end of the connection ends the echo.
            while far.read_exact(&mut buffer).and_then(|()| far.write_all(&buffer)).is_ok() {}
        });
        let mut buffer = vec![0x5a; bytes];
        let times = (0..ROUNDS).map(|_| {
            let started = Instant::now();
            near.write_all(&buffer)?;
            near.read_exact(&mut buffer)?;
            Ok(started.elapsed().as_nanos() as u64)
        });
        let times = times.collect::<io::Result<Vec<u64>>>();
        drop(near);
        times.map(median)
    })
    .map_err(failed)
}

/// Median round trip of a word between two spinning threads, nanoseconds.
pub fn word() -> Outcome<u64> {
    let (ask, answer) = (AtomicU64::new(0), AtomicU64::new(0));
    let rounds = ROUNDS as u64;
    // Relaxed: only the words themselves are of interest.
    let await_word = |word: &AtomicU64, value: u64| {
        let mut looks = 0_u32;
        while word.load(Ordering::Relaxed) != value {
            looks += 1;
            // On a single core the other thread needs its turn.
            if looks.is_multiple_of(4096) {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
        }
    };
    let times = std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                await_word(&ask, round);
                answer.store(round, Ordering::Relaxed);
            }
        });
        (1..=rounds)
            .map(|round| {
                let started = Instant::now();
                ask.store(round, Ordering::Relaxed);
                await_word(&answer, round);
                started.elapsed().as_nanos() as u64
            })
            .collect()
    });
    Ok(median(times))
}

fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_come_back() {
        assert!(socket(64).unwrap() > 0);
        assert!(word().unwrap() > 0);
        assert_eq!(median(vec![3, 1, 2]), 2);
        assert_eq!(median(vec![]), 0);
    }
}
