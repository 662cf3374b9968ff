//! How long every hot path takes: checking and making WAL, messages, sessions, commands.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("paths");
    for mut path in benches::hot::paths() {
        group.throughput(Throughput::Bytes(path.bytes));
        group.bench_function(path.name, |b| b.iter(&mut path.run));
    }
    group.finish();
}

criterion_group!(benches, paths);
criterion_main!(benches);
