use walproto::{Major, SegmentSize, SystemId, TimelineHistory, TimelineId};

use super::*;
use crate::wal::generator::Generator;
use crate::wal::validator::{Validator, WalFormat};

const START: Lsn = Lsn(7 << 20);

fn format(version: u32) -> WalFormat {
    WalFormat {
        system_id: SystemId(7_000_000_000_000_000_001),
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        page_magic: Major::numbered(version).map(|major| major.page_magic),
        server_version_num: Some(version * 10_000),
    }
}

fn generator(version: u32) -> Generator {
    let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
    Generator::new(format(version), history, START, 1).unwrap()
}

/// A body of main data alone.
fn short(data: &[u8]) -> Vec<u8> {
    [&[DATA_SHORT, u8::try_from(data.len()).unwrap()], data].concat()
}

fn parameter_change(wal_level: u32) -> Vec<u8> {
    let mut data = [7; 28];
    data[20..24].copy_from_slice(&wal_level.to_le_bytes());
    short(&data)
}

fn checkpoint(full_page_writes: u8, wal_level: u32) -> Vec<u8> {
    let mut data = [7; 88];
    data[16] = full_page_writes;
    data[20..24].copy_from_slice(&wal_level.to_le_bytes());
    short(&data)
}

/// The changes in all of the WAL, which comes in pieces of this length.
fn changes(wal: &Generator, version: u32, piece: usize) -> Vec<SettingChange> {
    let history = wal.history().clone();
    let mut validator = Validator::new(format(version), history, START).unwrap();
    let mut watch = SettingsWatch::default();
    let mut found = Vec::new();
    for bytes in wal.bytes().chunks(piece) {
        let mut visitor = watch.visitor(validator.page_magic());
        validator.push_with(bytes, &mut visitor).unwrap();
        drop(visitor);
        found.extend(watch.take_changes());
    }
    found
}

#[test]
fn changes_are_found_wherever_a_record_is_cut() {
    use WeakSetting::{MinimalWalLevel, NoFullPageWrites};
    let mut wal = generator(15);
    let mut expected = Vec::new();
    let mut note = |lsn, setting, begins| {
        expected.push(SettingChange {
            setting,
            lsn,
            begins,
        });
    };
    // No news.
    wal.append(RM_XLOG, XLOG_PARAMETER_CHANGE, &parameter_change(1));
    wal.append(RM_XLOG, XLOG_FPW_CHANGE, &short(&[1]));
    for length in [0, 30, 8_100, 100] {
        wal.record(length);
        let at = wal.append(RM_XLOG, XLOG_PARAMETER_CHANGE, &parameter_change(0));
        note(at.start, MinimalWalLevel, true);
        wal.append(RM_XLOG, XLOG_CHECKPOINT_SHUTDOWN, &checkpoint(1, 0));
        let at = wal.append(RM_XLOG, XLOG_PARAMETER_CHANGE, &parameter_change(2));
        note(at.start, MinimalWalLevel, false);
        wal.fill(12_000);
        let at = wal.append(RM_XLOG, XLOG_CHECKPOINT_ONLINE, &checkpoint(0, 1));
        note(at.start, NoFullPageWrites, true);
        let at = wal.append(RM_XLOG, XLOG_FPW_CHANGE, &short(&[1]));
        note(at.start, NoFullPageWrites, false);
    }
    // What is not one of these, or is too short to say anything.
    wal.append(RM_XLOG, 0x30, &parameter_change(0));
    wal.append(10, XLOG_PARAMETER_CHANGE, &parameter_change(0));
    wal.append(RM_XLOG, XLOG_PARAMETER_CHANGE, &short(&[0; 23]));
    wal.append(RM_XLOG, XLOG_PARAMETER_CHANGE, &[0; 30]);
    wal.append(RM_XLOG, XLOG_FPW_CHANGE, &[]);
    for piece in [1, 5, 24, 8192, 1 << 20] {
        // As many as are kept at once.
        let found = changes(&wal, 15, piece);
        if piece <= 8192 {
            assert_eq!(found, expected, "{piece}");
        } else {
            assert_eq!(found, expected[..MAX_CHANGES], "{piece}");
        }
    }
}

#[test]
fn checkpoints_say_wal_level_from_17_on() {
    for (version, expected) in [(16, 0), (17, 2), (18, 2)] {
        let mut wal = generator(version);
        wal.append(RM_XLOG, XLOG_CHECKPOINT_SHUTDOWN, &checkpoint(1, 0));
        wal.append(RM_XLOG, XLOG_CHECKPOINT_REDO, &short(&1u32.to_le_bytes()));
        assert_eq!(changes(&wal, version, 100).len(), expected, "{version}");
    }
}
