//! Promotions.

use fastrand::Rng;
use segstore::generator::Generator;
use segstore::sim::Survival;
use segstore::{ArchiveError, Preparation};
use walproto::{Lsn, TimelineHistory, TimelineId};

use crate::world::{SEGMENT_SIZE, START, World, facts, path, short_wal, timeline};

/// The end of the record at `part` hundredths of the records.
fn fork(wal: &Generator, part: usize) -> Lsn {
    wal.records()[wal.records().len() * part / 100].end
}

fn promoted(wal: &Generator, switch_point: Lsn) -> Generator {
    let mut wal = wal.promoted(timeline(2), switch_point).unwrap();
    wal.fill(30_000);
    wal
}

/// An archive of timeline 1 up to `end`, whose primary was promoted at `switch_point`.
fn world(seed: u64, switch_point: Lsn, end: Lsn) -> World {
    let first = short_wal(seed);
    let second = promoted(&first, switch_point);
    let mut world = World::new(first);
    world.batch_max = 300_000;
    world.live_until(&mut Rng::with_seed(seed), end).unwrap();
    world.wal = second;
    world.acknowledged = world.acknowledged.min(switch_point);
    world
}

#[test]
fn a_new_timeline_begins_with_a_copy_wherever_the_power_is_cut() {
    let switch_point = fork(&short_wal(31), 95);
    let prepare = || world(31, switch_point, switch_point);
    crate::power::cut_everywhere(31, prepare, |cut| [Survival::Chance(cut)]);
}

#[test]
fn a_tail_beyond_the_fork_is_kept_under_its_timeline() {
    let wal = short_wal(32);
    let switch_point = fork(&wal, 90);
    let mut world = world(32, switch_point, wal.end());
    let growing = path(1, wal.end()) + ".partial";
    let before = world.disk.content(&growing).unwrap();
    let (archive, recovery) = world.recover().unwrap();
    // The tip is still the old timeline's.
    let tip = recovery.tip().unwrap();
    assert_eq!(
        (tip.timeline, tip.record_end.lsn()),
        (timeline(1), wal.end())
    );
    let start = facts().segment_size.start_of(switch_point);
    let history = world.wal.history().clone();
    let mut writer = archive
        .writer(recovery, &history, start, Preparation::Inline)
        .unwrap();
    let end = world.wal.end();
    world
        .stream(&mut writer, &mut Rng::with_seed(32), end)
        .unwrap();
    world.acknowledge(writer.close().unwrap());
    drop(archive);
    world.assert_complete();
    assert_eq!(world.disk.content(&growing), Some(before));
    // From now on the new timeline is where to go on.
    let (_archive, recovery) = world.recover().unwrap();
    let tip = recovery.tip().unwrap();
    assert_eq!((tip.timeline, tip.record_end.lsn()), (timeline(2), end));
}

#[test]
fn a_timeline_without_its_history_or_of_another_line_is_refused() {
    let wal = short_wal(33);
    let switch_point = fork(&wal, 50);
    let world = world(33, switch_point, wal.end());
    let start = facts().segment_size.start_of(switch_point);

    // Not stored yet.
    let archive = crate::world::open(&world.disk).unwrap();
    let recovery = archive.recover().unwrap();
    let error = archive
        .writer(recovery, world.wal.history(), start, Preparation::Inline)
        .unwrap_err();
    assert!(matches!(error, ArchiveError::HistoryMissing { timeline } if timeline.number() == 2));
    drop(archive);

    // Past the fork, so that bytes would be missing in between.
    let (archive, recovery) = world.recover().unwrap();
    let past = Lsn(switch_point.0.next_multiple_of(8192));
    let error = archive
        .writer(recovery, world.wal.history(), past, Preparation::Inline)
        .unwrap_err();
    assert!(
        matches!(error, ArchiveError::Hole { expected, .. } if expected == switch_point),
        "{error}"
    );

    // Not descending from timeline 1.
    let foreign = TimelineHistory::without_ancestors(timeline(3));
    let mut archive = archive;
    archive.store_history(&foreign).unwrap();
    let recovery = archive.recover().unwrap();
    let error = archive
        .writer(recovery, &foreign, START, Preparation::Inline)
        .unwrap_err();
    assert!(
        matches!(error, ArchiveError::NotDescendant { newest, found }
            if newest == TimelineId::FIRST && found.number() == 3),
        "{error}"
    );
}

#[test]
fn an_older_timeline_is_not_written_again() {
    let switch_point = fork(&short_wal(34), 50);
    let mut world = world(34, switch_point, switch_point);
    world.live(&mut Rng::with_seed(34)).unwrap();
    let (archive, recovery) = world.recover().unwrap();
    let first = TimelineHistory::without_ancestors(TimelineId::FIRST);
    let error = archive
        .writer(recovery, &first, START, Preparation::Inline)
        .unwrap_err();
    assert!(
        matches!(error, ArchiveError::NotDescendant { newest, .. } if newest.number() == 2),
        "{error}"
    );
}

#[test]
fn a_promotion_at_the_end_of_a_segment_needs_no_copy() {
    let wal = short_wal(35);
    let border = Lsn(START.0 + SEGMENT_SIZE);
    let mut world = world(35, border, border);
    world.live(&mut Rng::with_seed(35)).unwrap();
    world.assert_complete();
    world.disk.reboot(Survival::Nothing);
    let (_archive, recovery) = world.recover().unwrap();
    assert_eq!(recovery.tip().unwrap().timeline, timeline(2));
    assert!(world.disk.content(path(1, wal.start())).is_some());
}

#[test]
fn a_stream_that_starts_in_the_middle_of_an_empty_archives_segment_is_refused() {
    let world = World::new(short_wal(36));
    let (archive, recovery) = world.recover().unwrap();
    let start = Lsn(START.0 + 8192);
    let error = archive
        .writer(recovery, world.wal.history(), start, Preparation::Inline)
        .unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::Hole {
                expected: START,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_stream_that_starts_inside_a_page_is_refused() {
    let mut world = World::new(short_wal(37));
    let end = fork(&world.wal, 50);
    world.live_until(&mut Rng::with_seed(37), end).unwrap();
    let (archive, recovery) = world.recover().unwrap();
    let start = Lsn(recovery.tip().unwrap().resume_at.0 + 8);
    let error = archive
        .writer(recovery, world.wal.history(), start, Preparation::Inline)
        .unwrap_err();
    assert!(matches!(error, ArchiveError::NotPageAligned(_)), "{error}");
}
