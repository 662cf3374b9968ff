//! How often memory is asked for on the hot paths: not once for a record or a message, and a few
//! times for a batch at most.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its work fails by a panic"
)]

use std::path::PathBuf;
use std::sync::Arc;

use allocation_counter::measure;
use benches::{Pair, START, generate, stream};
use bytes::Bytes;
use segstore::generator::RecordMix;
use segstore::sim::SimDisk;
use segstore::{Archive, ArchiveOptions, Compression, Preparation, ServerFacts, Validator, Writer};

/// The allocations of this thread meanwhile.
fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

#[test]
fn an_allocation_is_counted() {
    assert_eq!(allocations(|| drop(Vec::<u8>::with_capacity(10))), 1);
}

#[test]
fn no_record_allocates_when_it_is_checked() {
    for mix in RecordMix::ALL {
        let wal = generate(mix, 1 << 20);
        let mut validator = Validator::new(wal.format(), wal.history().clone(), START).unwrap();
        let count = allocations(|| {
            for piece in wal.bytes().chunks(10_000) {
                validator.push(piece).unwrap();
            }
        });
        assert_eq!(count, 0, "{mix:?}");
        assert!(validator.progress().last_record.is_some());
    }
}

#[test]
fn no_record_allocates_when_it_is_made() {
    for mix in RecordMix::ALL {
        let mut stream = stream(mix);
        let mut buffer = vec![0; 128 << 10];
        // The first ones make room for all.
        for _ in 0..500 {
            stream.fill(&mut buffer);
        }
        let count = allocations(|| {
            for _ in 0..50 {
                stream.fill(&mut buffer);
            }
        });
        assert_eq!(count, 0, "{mix:?}");
    }
}

#[test]
fn no_message_allocates_when_it_is_framed() {
    let mut pair = Pair::streaming(START);
    let count = allocations(|| {
        for _ in 0..1_000 {
            pair.frame(8 << 10);
        }
    });
    assert_eq!(count, 0);
}

/// The allocations while a batch of messages, read at once, is taken and acknowledged.
fn of_batch(pair: &mut Pair, messages: usize) -> u64 {
    for _ in 0..messages {
        pair.send(&[0x5A; 200]);
    }
    let mut received = 0;
    let count = allocations(|| {
        received = pair.receive();
        pair.acknowledge();
    });
    assert_eq!(received, 200 * messages as u64);
    assert_eq!(pair.acknowledged(), Some(pair.sent()));
    count
}

#[test]
fn no_message_allocates_when_it_is_received_and_acknowledged() {
    let mut pair = Pair::streaming(START);
    // The queue of events, and the buffers, get as large as they have to be.
    for _ in 0..10 {
        of_batch(&mut pair, 1_000);
    }
    for _ in 0..10 {
        let (one, many) = (of_batch(&mut pair, 1), of_batch(&mut pair, 1_000));
        // Memory that is read into at once becomes shared once, however many messages share it.
        assert!(one <= 2 && many <= 2, "{one} and {many}");
    }
}

fn writer(archive: &mut Archive) -> Writer {
    let wal = benches::generator();
    let format = wal.format();
    archive
        .bind(&ServerFacts {
            system_id: format.system_id,
            segment_size: format.segment_size,
            block_size: 8192,
            server_version_num: 150_018,
            data_directory_mode: 0o700,
        })
        .unwrap();
    let recovery = archive.recover().unwrap();
    let history = wal.history();
    archive
        .writer(recovery, history, START, Preparation::Inline)
        .unwrap()
}

/// A new archive on a simulated disk, with some WAL, and where it goes on.
fn archive() -> (SimDisk, Archive) {
    let disk = SimDisk::new("/wal");
    let options = ArchiveOptions {
        directory: PathBuf::from("/wal"),
        sync: true,
        compression: Compression::NONE,
    };
    let archive = Archive::open(Arc::new(disk.clone()), options).unwrap();
    (disk, archive)
}

#[test]
fn a_batch_costs_one_write_one_sync_and_one_notice_however_many_messages_it_has() {
    let (disk, mut archive) = archive();
    let mut writer = writer(&mut archive);
    let mut stream = stream(RecordMix::Small);
    for messages in [1, 2, 10, 100] {
        let at = stream.position();
        let pieces: Vec<Bytes> = (0..messages)
            .map(|_| Bytes::copy_from_slice(stream.next_record()))
            .collect();
        let before = disk.log().len();
        writer.append(at, &pieces).unwrap();
        let durable = writer.sync().unwrap();
        assert_eq!(durable.record_end.lsn(), stream.position());
        let log = disk.log();
        let operations = log.get(before..).unwrap();
        if messages == 1 {
            // The first batch makes the segment, too.
            continue;
        }
        let [write, sync, told] = operations else {
            unreachable!("{messages} messages: {operations:?}");
        };
        assert!(
            write.contains(": write ") && write.contains(".partial"),
            "{write}"
        );
        assert!(
            sync.contains(": sync ") && sync.contains(".partial"),
            "{sync}"
        );
        // For other processes.
        assert!(
            told.contains(": write ") && told.contains("/position"),
            "{told}"
        );
    }
}
