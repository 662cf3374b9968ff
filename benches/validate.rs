//! How fast WAL is checked, by the kind of WAL and the length of the pieces it comes in.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run has nothing to report"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use segstore::Validator;
use segstore::generator::{Generator, RecordMix};

use benches::{generate, name};

const LENGTH: u64 = 16 << 20;

fn check(generated: &Generator, piece: usize) {
    let (format, history) = (generated.format(), generated.history().clone());
    let mut validator = Validator::new(format, history, generated.start()).expect("a page");
    for piece in generated.bytes().chunks(piece) {
        black_box(validator.push(black_box(piece)).expect("valid WAL"));
    }
}

fn validate(c: &mut Criterion) {
    let mut group = c.benchmark_group("validate");
    for mix in RecordMix::ALL {
        let generated = generate(mix, LENGTH);
        group.throughput(Throughput::Bytes(generated.bytes().len() as u64));
        // What one message of a PostgreSQL server holds, and what many of a burst hold.
        for piece in [8 << 10, 128 << 10] {
            let id = BenchmarkId::new(name(mix), format!("{} KiB", piece >> 10));
            group.bench_function(id, |b| b.iter(|| check(&generated, piece)));
        }
    }
    group.finish();
}

criterion_group!(benches, validate);
criterion_main!(benches);
