//! Replicated throughput, beside a bare loop of io_uring writes and fdatasync of the same blocks
//! on the same disk: rounds of both in turn, and the ratio of their medians.
//!
//! Expected: at least 0.85, and above 1 where another core is free: the bare loop looks at nothing
//! and waits for each sync, the replicator checks every batch and writes the next ones meanwhile.
//! Each round begins with memory of the system's that was in use before.
//!
//! `LANDFALL_BENCH_DIR` says on which disk; otherwise it is that of the temporary directory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use landfall_dataplane::rig::ReplicaRig;

/// Bytes of a burst, and rounds of each kind.
const BURST_BYTES: usize = 48 << 20;
const ROUNDS: usize = 15;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    // Cargo runs benchmarks as tests too: then one small round shows that it works.
    let is_test = !std::env::args().any(|word| word == "--bench");
    let (burst, rounds) = if is_test { (1 << 20, 1) } else { (BURST_BYTES, ROUNDS) };
    let directory =
        std::env::var_os("LANDFALL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    println!("disk of {}, {} MiB a round, {rounds} rounds", directory.display(), burst >> 20);
    for bytes in [1 << 20, 64 << 10, 4 << 10] {
        let mut rig = match ReplicaRig::new(&directory, burst / bytes, bytes) {
            Ok(rig) => rig,
            Err(error) => return println!("SKIPPED: {error}"),
        };
        let (mut replicated, mut bare) = (Vec::new(), Vec::new());
        // The first round of each is not counted: its memory is fresh.
        for round in 0..=rounds {
            rig.order();
            let since = Instant::now();
            rig.replicate();
            let took = since.elapsed();
            rig.give_memory_back().expect("the files can be read");
            let since = Instant::now();
            rig.write_bare().expect("the disk takes the same blocks");
            let alone = since.elapsed();
            rig.give_memory_back().expect("the files can be read");
            if round > 0 {
                replicated.push(took);
                bare.push(alone);
            }
        }
        let (replicated, bare) = (median(replicated), median(bare));
        let rate = |took: Duration| rig.bytes() as f64 / took.as_secs_f64() / 1e6;
        println!(
            "batches of {bytes:>8} bytes: replicated {:7.1} MB/s, bare {:7.1} MB/s, ratio {:.2}",
            rate(replicated),
            rate(bare),
            bare.as_secs_f64() / replicated.as_secs_f64()
        );
    }
}
