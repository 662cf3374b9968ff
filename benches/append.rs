//! How fast WAL is checked, written and made durable: the receiver's disk path without a network.
//!
//! The archives lie in the directory for temporary files; set `TMPDIR` to measure another disk.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run has nothing to report"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use segstore::generator::{Generator, RecordMix};

use benches::{archive, generate, name};

const LENGTH: u64 = 48 << 20;
const BATCH: usize = 256 << 10;

/// The time for appending all of `wal` in batches, each of which is synced.
fn append(generated: &Generator, wal: &Bytes, sync: bool) -> Duration {
    let directory = tempfile::tempdir().expect("a directory");
    let (_, mut writer) = archive(directory.path(), generated, sync);
    let (mut at, mut rest) = (generated.start(), wal.clone());
    let started = Instant::now();
    while !rest.is_empty() {
        let batch = rest.split_to(BATCH.min(rest.len()));
        let length = batch.len() as u64;
        writer.append(at, &[batch]).expect("valid WAL");
        writer.sync().expect("a disk");
        at = at.checked_add(length).expect("an LSN");
    }
    started.elapsed()
}

/// The time for appending and syncing `count` short records one by one: what a primary with one
/// client at a time waits for here.
fn commit(count: u64) -> Duration {
    let mut generated = generate(RecordMix::Small, 0);
    let mut records = Vec::new();
    let mut from = generated.start();
    for _ in 0..count {
        let record = generated.record(80);
        records.push((from, record.end));
        from = record.end;
    }
    let wal = Bytes::copy_from_slice(generated.bytes());
    let start = generated.start();
    let offset = |lsn: walproto::Lsn| usize::try_from(lsn.bytes_since(start)).expect("memory");
    let directory = tempfile::tempdir().expect("a directory");
    let (_, mut writer) = archive(directory.path(), &generated, true);
    let started = Instant::now();
    for (from, end) in records {
        let record = wal.slice(offset(from)..offset(end));
        writer.append(from, &[record]).expect("valid WAL");
        let durable = writer.sync().expect("a disk");
        assert_eq!(durable.record_end.lsn(), end);
    }
    started.elapsed()
}

fn appends(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.sample_size(10);
    for mix in RecordMix::ALL {
        let generated = generate(mix, LENGTH);
        let wal = Bytes::copy_from_slice(generated.bytes());
        group.throughput(Throughput::Bytes(wal.len() as u64));
        for (how, sync) in [("synced", true), ("not synced", false)] {
            let id = BenchmarkId::new(name(mix), how);
            group.bench_function(id, |b| {
                b.iter_custom(|count| (0..count).map(|_| append(&generated, &wal, sync)).sum());
            });
        }
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("one record, synced", |b| b.iter_custom(commit));
    group.finish();
}

criterion_group!(benches, appends);
criterion_main!(benches);
