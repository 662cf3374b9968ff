//! What this process has just written.

use super::*;

/// Takes one chunk, and says whether it was in memory.
fn is_in_memory(feed: &mut Feed, wal: &Generator) -> bool {
    let FeedStep::Chunk(chunk) = feed.next_step().unwrap() else {
        panic!("no chunk");
    };
    let mut taken = BytesMut::new();
    chunk.append_to(&mut taken).unwrap();
    assert!(taken == bytes(wal, chunk.start, chunk.end));
    matches!(chunk.data, ChunkData::Memory(_))
}

#[test]
fn who_is_behind_gets_files_and_then_memory() {
    let mut wal = generator(31);
    wal.fill(5 * MIB / 2);
    let mut world = World::new();
    world.archive.set_tail_capacity(300_000);
    let mut writer = world.writer(&wal);
    let first = wal.records()[60].end;
    write(&mut writer, &wal, first);
    let view = world.archive.view().unwrap();
    // Nobody was there to keep it for.
    let mut feed = view.feed(None, START).unwrap();
    while feed.position() < first {
        assert!(!is_in_memory(&mut feed, &wal));
    }
    let mut late = view.feed(None, START).unwrap();
    let mut end = first.0;
    while end < wal.end().0 {
        end = (end + 90_000).min(wal.end().0);
        write(&mut writer, &wal, Lsn(end));
        // Its bytes need no file.
        while feed.position() < view.durable().unwrap().record_end {
            assert!(feed.ready_step().unwrap().is_some());
        }
    }
    let mut kinds = Vec::new();
    while late.position() < wal.end() {
        kinds.push(is_in_memory(&mut late, &wal));
    }
    let files = kinds.iter().take_while(|in_memory| !*in_memory).count();
    assert!(files > 10 && kinds[files..].len() > 1, "{kinds:?}");
    assert!(
        kinds[files..].iter().all(|in_memory| *in_memory),
        "{kinds:?}"
    );
    // For one that is far behind nothing is kept.
    let mut far = view.feed(None, START).unwrap();
    assert!(!is_in_memory(&mut far, &wal));
    assert!(far.reader.is_none() && late.reader.is_some());
    // One that came and went leaves the others' memory alone.
    drop((late, far));
    let mut again = view.feed(None, Lsn(wal.end().0 - 50_000)).unwrap();
    assert!(is_in_memory(&mut again, &wal));
    drop((feed, again));
    let mut alone = view.feed(None, Lsn(wal.end().0 - 50_000)).unwrap();
    assert!(!is_in_memory(&mut alone, &wal));
}

#[test]
fn without_room_everything_comes_from_files() {
    let wal = wal(32);
    let mut world = World::new();
    world.archive.set_tail_capacity(0);
    let mut writer = world.writer(&wal);
    let view = world.archive.view().unwrap();
    let mut feed = view.feed(None, START).unwrap();
    write(&mut writer, &wal, wal.end());
    while feed.position() < wal.end() {
        assert!(!is_in_memory(&mut feed, &wal));
    }
}

#[test]
fn what_is_not_durable_is_in_nobodys_memory() {
    let wal = wal(33);
    let mut world = World::new();
    let mut writer = world.writer(&wal);
    let view = world.archive.view().unwrap();
    let mut feed = view.feed(None, START).unwrap();
    let record = wal.records()[40];
    let batch = bytes(&wal, START, record.end);
    writer.append(START, &[batch]).unwrap();
    assert!(view.live().tail(timeline(1), START..record.end).is_none());
    world
        .disk
        .fail_at(world.disk.operations(), crate::disk::sim::Fault::Io);
    writer.sync().unwrap_err();
    assert_goes_on(&mut feed, &wal, START, Pause::CaughtUp);
    assert!(view.live().tail(timeline(1), START..record.end).is_none());
}

#[test]
fn another_connection_sends_the_end_once_more() {
    let wal = wal(34);
    let mut world = World::new();
    let mut writer = world.writer(&wal);
    let view = world.archive.view().unwrap();
    let mut feed = view.feed(None, START).unwrap();
    // In the middle of a record.
    write(&mut writer, &wal, Lsn(wal.records()[90].end.0 + 9));
    drop(writer);
    let mut writer = world.writer(&wal);
    assert!(writer.position() < wal.records()[90].end);
    for record in [wal.records()[95], *wal.records().last().unwrap()] {
        write(&mut writer, &wal, record.end);
        let mut end_only = view.feed(None, Lsn(record.end.0 - 32)).unwrap();
        assert!(is_in_memory(&mut end_only, &wal));
        assert_goes_on(&mut feed, &wal, record.end, Pause::CaughtUp);
    }
}

/// A primary that crashed after it sent a part of a record, and wrote another, while nobody was
/// there to keep the newest WAL for: it is not the first one's that is given later.
#[test]
fn what_was_kept_of_a_tail_goes_with_its_connection() {
    let mut before = generator(35);
    before.fill(100_000);
    let mut after = before.clone();
    before.record(90_000);
    after.overwritten_record(2);
    after.fill(300_000);
    // One that left before the sync, and one for which there is less room than a piece takes.
    for (stays, room) in [(true, 200_000), (false, 1 << 20)] {
        let mut world = World::new();
        world.archive.set_tail_capacity(room);
        let mut writer = world.writer(&before);
        let view = world.archive.view().unwrap();
        let reader = view.feed(None, START).unwrap();
        let end = Lsn(before.end().0 - 5);
        let batch = bytes(&before, START, end);
        writer.append(START, &[batch]).unwrap();
        let reader = Some(reader).filter(|_| stays);
        writer.sync().unwrap();
        drop(writer);
        let mut writer = world.writer(&after);
        write(&mut writer, &after, after.end());
        let mut feed = view.feed(None, Lsn(START.0 + 2 * BLOCK_SIZE)).unwrap();
        assert_goes_on(&mut feed, &after, after.end(), Pause::CaughtUp);
        drop(reader);
    }
}
