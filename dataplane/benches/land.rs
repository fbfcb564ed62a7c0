//! What landing a batch costs the broker's CPU, apart from moving its bytes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use landfall_dataplane::rig::{LandRig, VerbsRig};

/// Batches landed between two moves of the frontier.
const BURST: u64 = 64;

fn landing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("land");
    group.throughput(Throughput::Elements(BURST));
    for (name, bytes, checks) in
        [("small", 4096, false), ("large", 1 << 20, false), ("checked", 4096, true)]
    {
        let mut rig = LandRig::new(bytes, checks);
        group
            .bench_function(BenchmarkId::new(name, bytes), |bench| bench.iter(|| rig.burst(BURST)));
    }
    // The preamble is written in the measured time, as the publisher's NIC would: some 10 ns of it.
    for bytes in [4096, 64 << 10, 1 << 20] {
        let mut rig = VerbsRig::new(bytes);
        group.bench_function(BenchmarkId::new("verbs", bytes), |bench| {
            bench.iter(|| rig.burst(BURST));
        });
    }
    group.finish();
}

criterion_group!(benches, landing);
criterion_main!(benches);
