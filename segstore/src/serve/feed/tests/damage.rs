//! What is missing or not as it was.

use super::*;

#[test]
fn wal_from_before_the_archive_is_told_apart_from_a_hole() {
    let wal = wal(21);
    let world = World::with(&wal);
    let next = |view: &ArchiveView, start: u64| {
        let mut feed = view.feed(None, Lsn(start)).unwrap();
        feed.next_step().unwrap_err()
    };
    for view in world.views() {
        let error = next(&view, START.0 - 1);
        assert_eq!(
            error.to_string(),
            "requested WAL segment 000000010000000000000006 has already been removed"
        );
        assert!(matches!(error, FeedError::Removed { .. }));
    }
    let second = SegmentFile::complete(name(1, Lsn(START.0 + MIB)));
    world.disk.remove(Path::new(&path(second))).unwrap();
    for view in world.views() {
        let mut feed = view.feed(None, START).unwrap();
        let error = take_all(&mut feed).unwrap_err();
        assert!(
            matches!(error, FeedError::Hole { segment, .. } if segment == second.name),
            "{error}"
        );
        assert_eq!(feed.position(), Lsn(START.0 + MIB));
    }
    let first = SegmentFile::complete(name(1, START));
    world.disk.remove(Path::new(&path(first))).unwrap();
    for view in world.views() {
        let error = next(&view, START.0 + MIB + 5);
        assert!(
            matches!(error, FeedError::Removed { segment } if segment == second.name),
            "{error}"
        );
    }
}

#[test]
fn a_segment_that_is_not_what_its_name_says_is_not_given() {
    let wal = wal(22);
    let world = World::with(&wal);
    let first = path(SegmentFile::complete(name(1, START)));
    let content = world.disk.content(&first).unwrap();
    for offset in [0, 4, 8, 24, 32] {
        let mut damaged = content.clone();
        damaged[offset] ^= 1;
        world.disk.plant(&first, &damaged).unwrap();
        for view in world.views() {
            let mut feed = view.feed(None, START).unwrap();
            let error = feed.next_step().unwrap_err();
            let FeedError::Archive(ArchiveError::Corrupt {
                path, corruption, ..
            }) = &error
            else {
                panic!("{error}");
            };
            assert_eq!((path.as_path(), corruption.lsn), (Path::new(&first), START));
        }
    }
}

#[test]
fn a_file_that_is_too_short_is_not_given() {
    let wal = wal(23);
    let world = World::with(&wal);
    let growing = path(SegmentFile::partial(name(1, wal.end())));
    let content = world.disk.content(&growing).unwrap();
    let needed = usize::try_from(segment_size().offset_of(wal.end())).unwrap();
    world.disk.plant(&growing, &content[..needed]).unwrap();
    for view in world.views() {
        let mut feed = view.feed(None, START).unwrap();
        assert_goes_on(&mut feed, &wal, wal.end(), Pause::CaughtUp);
    }
    world.disk.plant(&growing, &content[..needed - 1]).unwrap();
    for view in world.views() {
        let mut feed = view.feed(None, START).unwrap();
        let error = take_all(&mut feed).unwrap_err();
        assert!(
            matches!(
                error,
                FeedError::Archive(ArchiveError::Lost { expected, .. }) if expected == wal.end()
            ),
            "{error}"
        );
    }
}

#[test]
fn a_compressed_segment_that_does_not_decompress_is_an_error() {
    let wal = wal(24);
    for method in [
        Compression::gzip(None).unwrap(),
        Compression::LZ4,
        Compression::zstd(None).unwrap(),
    ] {
        let world = World::with(&wal);
        world.compress(name(1, START), method);
        let file = SegmentFile::complete(name(1, START)).encoded(method.encoding());
        let content = world.disk.content(path(file)).unwrap();
        for cut in [0, 10, content.len() / 2] {
            world.disk.plant(path(file), &content[..cut]).unwrap();
            for view in world.views() {
                let mut feed = view.feed(None, START).unwrap();
                let error = take_all(&mut feed).unwrap_err();
                assert!(
                    matches!(
                        error,
                        FeedError::Archive(ArchiveError::Damaged {
                            reason: Damage::Compression(_),
                            ..
                        })
                    ),
                    "{error}"
                );
            }
        }
    }
}
