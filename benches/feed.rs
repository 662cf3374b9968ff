//! How fast durable WAL is found, and read, for who asks for it: the sender's disk path without a
//! network. The files are in the page cache.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run has nothing to report"
)]

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use segstore::generator::RecordMix;
use segstore::{ArchiveView, Feed, FeedStep, Writer};
use walproto::Lsn;

use benches::{archive, generate};

const LENGTH: u64 = 48 << 20;
/// Less than is kept in memory for feeds.
const TAIL: usize = 8 << 20;
const BATCH: usize = 256 << 10;

/// Takes all that a feed has, up to `end`, and reads it into memory if `reads`.
fn take(feed: &mut Feed, end: Lsn, reads: bool) {
    let mut buffer = BytesMut::new();
    loop {
        match feed.next_step().expect("an archive") {
            FeedStep::Chunk(chunk) if reads => {
                buffer.clear();
                chunk.append_to(&mut buffer).expect("a disk");
            }
            FeedStep::Chunk(_) => {}
            FeedStep::CaughtUp => break,
            FeedStep::EndOfTimeline { .. } => unreachable!("it is the only one"),
        }
    }
    assert_eq!(feed.position(), end);
}

fn append(writer: &mut Writer, start: Lsn, mut wal: Bytes) -> Lsn {
    let mut at = start;
    while !wal.is_empty() {
        let batch = wal.split_to(BATCH.min(wal.len()));
        let length = batch.len() as u64;
        writer.append(at, &[batch]).expect("valid WAL");
        at = at.checked_add(length).expect("an LSN");
    }
    writer.sync().expect("a disk");
    at
}

fn feed(view: &ArchiveView, start: Lsn) -> Feed {
    view.feed(None, start).expect("an archive")
}

fn feeds(c: &mut Criterion) {
    let generated = generate(RecordMix::Varied, LENGTH);
    let wal = Bytes::copy_from_slice(generated.bytes());
    let directory = tempfile::tempdir().expect("a directory");
    let (archive, mut writer) = archive(directory.path(), &generated, true);
    let view = archive.view().expect("an archive");
    let start = generated.start();
    let before_tail = wal.len() - TAIL;
    let middle = append(&mut writer, start, wal.slice(..before_tail));
    // From here on it is kept in memory too, as long as this lives.
    let at_end = feed(&view, middle);
    let end = append(&mut writer, middle, wal.slice(before_tail..));

    let mut group = c.benchmark_group("feed");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(wal.len() as u64));
    for (name, reads) in [("files found", false), ("files read", true)] {
        group.bench_function(name, |b| {
            b.iter(|| take(&mut feed(&view, start), end, reads));
        });
    }
    group.throughput(Throughput::Bytes(TAIL as u64));
    group.bench_function("memory", |b| {
        b.iter(|| take(&mut feed(&view, middle), end, true));
    });
    group.finish();
    drop(at_end);
}

criterion_group!(benches, feeds);
criterion_main!(benches);
