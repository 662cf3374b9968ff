//! Golden tables were captured from servers of 13.23, 14.23, 15.18, 16.14, 17.10 and 18.4.

use proptest::prelude::*;

use super::*;
use crate::{Lsn, SegmentSize, ServerVersion, SystemId, TimelineId, WalPosition};

type Columns<'a> = &'a [(&'a str, u32)];

fn golden(columns: Columns<'_>, row: &[Option<&'static str>]) -> ResultSet {
    let column = |(name, oid): &(&str, u32)| Column {
        name: (*name).to_owned(),
        data_type: DataType(*oid),
    };
    let mut result = ResultSet::new(columns.iter().map(column).collect());
    let value = |v: &Option<&'static str>| v.map(|v| Bytes::from_static(v.as_bytes()));
    result.push_row(row.iter().map(value).collect()).unwrap();
    result
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

const V13: ServerVersion = ServerVersion(130_023);
const V15: ServerVersion = ServerVersion(150_018);
const V16: ServerVersion = ServerVersion(160_014);

#[test]
fn a_row_has_one_value_for_each_column() {
    let mut table = golden(&[("wal_segment_size", 25)], &[Some("16MB")]);
    let value = || Some(Bytes::from_static(b"16MB"));
    let error = RowWidthError {
        row: 2,
        expected: 1,
        found: 2,
    };
    assert_eq!(table.push_row(vec![value(), None]), Err(error));
    assert_eq!(table.rows(), [vec![value()]]);
}

#[test]
fn the_identity_of_a_system_has_its_timeline_as_int4_up_to_15() {
    let columns = |oid| {
        [
            ("systemid", 25),
            ("timeline", oid),
            ("xlogpos", 25),
            ("dbname", 25),
        ]
    };
    let row = [
        Some("7711455605241114181"),
        Some("2"),
        Some("0/15C4AA0"),
        None,
    ];
    let identity = IdentifySystem {
        system_id: SystemId(7_711_455_605_241_114_181),
        timeline: timeline(2),
        xlogpos: Lsn(0x15C_4AA0),
        dbname: None,
    };
    for (server, oid) in [(V13, 23), (V15, 23), (V16, 20)] {
        let table = golden(&columns(oid), &row);
        assert_eq!(IdentifySystem::decode(&table).as_ref(), Ok(&identity));
        assert_eq!(identity.encode(server), table);
    }
    let upper_half = [Some("1"), Some("-1"), Some("0/0"), Some("db")];
    let identity = IdentifySystem::decode(&golden(&columns(23), &upper_half)).unwrap();
    assert_eq!(identity.timeline, timeline(u32::MAX));
    assert_eq!(identity.dbname.as_deref(), Some("db"));
    let future = [&row[..], &[Some("more")]].concat();
    let columns = [&columns(20)[..], &[("new", 25)]].concat();
    assert!(IdentifySystem::decode(&golden(&columns, &future)).is_ok());
}

#[test]
fn a_slot_that_the_server_does_not_have_is_a_row_of_nulls() {
    let columns = [("slot_type", 25), ("restart_lsn", 25), ("restart_tli", 20)];
    let slot = |restart_lsn, restart_tli| SlotInfo {
        slot_type: SlotType::Physical,
        restart_lsn,
        restart_tli,
    };
    let reserved = slot(Some(Lsn(0x15C_4AA0)), Some(timeline(2)));
    for (row, info) in [
        ([None, None, None], None),
        ([Some("physical"), None, None], Some(slot(None, None))),
        (
            [Some("physical"), Some("0/15C4AA0"), Some("2")],
            Some(reserved),
        ),
    ] {
        let table = golden(&columns, &row);
        assert_eq!(SlotInfo::decode(&table), Ok(info));
        assert_eq!(SlotInfo::encode(info.as_ref()), table);
    }
}

#[test]
fn a_created_slot_tells_its_name() {
    let columns = [
        ("slot_name", 25),
        ("consistent_point", 25),
        ("snapshot_name", 25),
        ("output_plugin", 25),
    ];
    let table = golden(&columns, &[Some("s1"), Some("0/0"), None, None]);
    let created = CreatedSlot::decode(&table).unwrap();
    assert_eq!(created.slot_name, "s1");
    assert_eq!(created.consistent_point, Lsn::INVALID);
    assert_eq!(created.encode(), table);
}

#[test]
fn the_content_of_a_history_file_is_bytes_under_either_type() {
    let row = [
        Some("00000002.history"),
        Some("1\t0/15C49C0\tno recovery target specified \\x41\n"),
    ];
    for (server, oid) in [(V13, 17), (ServerVersion::V14, 25), (V16, 25)] {
        let table = golden(&[("filename", 25), ("content", oid)], &row);
        let file = TimelineHistoryFile::decode(&table).unwrap();
        assert_eq!(file.file_name, "00000002.history");
        assert_eq!(file.content, row[1].unwrap());
        assert_eq!(file.encode(server), table);
    }
}

#[test]
fn the_end_of_a_timeline_names_the_next() {
    let columns = [("next_tli", 20), ("next_tli_startpos", 25)];
    let table = golden(&columns, &[Some("5"), Some("0/3000060")]);
    let end = TimelineEnd::decode(&table).unwrap();
    assert_eq!(end.next_timeline, timeline(5));
    assert_eq!(end.switch_point, Lsn(0x300_0060));
    assert_eq!(end.encode(), table);
}

#[test]
fn settings_are_read_with_their_units() {
    let setting = |value: &str| Setting {
        name: "x".to_owned(),
        value: value.to_owned(),
    };
    let size = |text| setting(text).segment_size().ok().map(SegmentSize::bytes);
    assert_eq!(size("16MB"), Some(16 << 20));
    assert_eq!(size("1GB"), Some(1 << 30));
    for bad in [
        "",
        "MB",
        "16",
        "16 MB",
        "3MB",
        "2GB",
        "+1MB",
        "16777216B",
        "99999999999MB",
    ] {
        assert_eq!(size(bad), None, "{bad}");
    }
    assert_eq!(setting("0700").directory_mode(), Ok(0o700));
    assert_eq!(setting("0750").directory_mode(), Ok(0o750));
    for bad in ["", "0x1", "-700", "0800", "1777"] {
        assert!(setting(bad).directory_mode().is_err(), "{bad}");
    }
    assert_eq!(setting("on").boolean(), Ok(true));
    assert_eq!(setting("off").boolean(), Ok(false));
    assert_eq!(
        setting("yes").boolean().unwrap_err().to_string(),
        "invalid reply to SHOW: value is \"yes\", expected on or off"
    );
    let table = golden(&[("data_directory_mode", 25)], &[Some("0700")]);
    assert_eq!(Setting::of_directory_mode(0o700).encode(), table);
    let table = golden(&[("wal_segment_size", 25)], &[Some("16MB")]);
    assert_eq!(
        Setting::of_segment_size(SegmentSize::DEFAULT).encode(),
        table
    );
}

#[test]
fn a_base_backup_begins_with_its_position_and_its_tablespaces() {
    let table = golden(
        &[("recptr", 25), ("tli", 20)],
        &[Some("0/2000028"), Some("2")],
    );
    let position = BackupPosition::decode(&table).unwrap();
    assert_eq!(position.0.lsn, Lsn(0x200_0028));
    assert_eq!(position.encode(), table);
    let columns = [("spcoid", 26), ("spclocation", 25), ("size", 20)];
    let data_directory = golden(&columns, &[None, None, None]);
    let tablespaces = BackupTablespaces::decode(&data_directory).unwrap();
    assert_eq!(tablespaces.encode(), data_directory);
    for row in [
        [Some("1"), None, None],
        [None, Some("/x"), None],
        [Some("1"), Some("/x"), Some("-1")],
    ] {
        assert!(BackupTablespaces::decode(&golden(&columns, &row)).is_err());
    }
}

#[test]
fn a_reply_of_another_form_says_what_is_wrong_with_it() {
    let columns = [("next_tli", 20), ("next_tli_startpos", 25)];
    let reason = |row: &[Option<&'static str>]| {
        let columns = columns.get(..row.len()).unwrap();
        let error = TimelineEnd::decode(&golden(columns, row)).unwrap_err();
        assert_eq!(error.reply, Reply::StartReplication);
        error.reason
    };
    assert_eq!(
        reason(&[Some("2")]),
        ResultFault::Columns {
            expected: 2,
            found: 1
        }
    );
    assert_eq!(
        reason(&[Some("2"), None]),
        ResultFault::Null {
            column: "next_tli_startpos"
        }
    );
    for bad in ["0", "", "4294967296", "-2147483649", "1x"] {
        assert!(
            matches!(
                reason(&[Some(bad), Some("0/0")]),
                ResultFault::Value { column: "next_tli", found, .. } if found == bad
            ),
            "{bad}"
        );
    }
    let empty = ResultSet::new(Vec::new());
    let error = IdentifySystem::decode(&empty).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid reply to IDENTIFY_SYSTEM: expected 1 row, found 0"
    );
    let mut two = golden(&columns, &[Some("2"), Some("0/0")]);
    two.push_row(vec![None, None]).unwrap();
    let error = TimelineEnd::decode(&two).unwrap_err();
    assert_eq!(error.reason, ResultFault::Rows { found: 2 });
}

fn any_timeline() -> impl Strategy<Value = TimelineId> {
    (1u32..).prop_map(timeline)
}

proptest! {
    #[test]
    fn an_identity_is_decoded_as_it_was_encoded(
        system_id: u64,
        timeline in any_timeline(),
        xlogpos: u64,
        dbname: Option<String>,
        version in 130_000u32..190_000,
    ) {
        let (system_id, xlogpos) = (SystemId(system_id), Lsn(xlogpos));
        let identity = IdentifySystem { system_id, timeline, xlogpos, dbname };
        let table = identity.encode(ServerVersion(version));
        prop_assert_eq!(IdentifySystem::decode(&table), Ok(identity));
    }

    #[test]
    fn a_slot_is_decoded_as_it_was_encoded(
        logical: bool,
        restart_lsn: Option<u64>,
        restart_tli in prop::option::of(any_timeline()),
    ) {
        let slot_type = if logical { SlotType::Logical } else { SlotType::Physical };
        let restart_lsn = restart_lsn.map(Lsn);
        let slot = SlotInfo { slot_type, restart_lsn, restart_tli };
        prop_assert_eq!(SlotInfo::decode(&SlotInfo::encode(Some(&slot))), Ok(Some(slot)));
    }

    #[test]
    fn a_created_slot_is_decoded_as_it_was_encoded(
        slot_name: String,
        lsn: u64,
        snapshot_name: Option<String>,
        output_plugin: Option<String>,
    ) {
        let consistent_point = Lsn(lsn);
        let created = CreatedSlot { slot_name, consistent_point, snapshot_name, output_plugin };
        prop_assert_eq!(CreatedSlot::decode(&created.encode()), Ok(created));
    }

    #[test]
    fn a_history_file_is_decoded_as_it_was_encoded(
        file_name: String,
        content: Vec<u8>,
        version in 130_000u32..190_000,
    ) {
        let file = TimelineHistoryFile { file_name, content: content.into() };
        let table = file.encode(ServerVersion(version));
        prop_assert_eq!(TimelineHistoryFile::decode(&table), Ok(file));
    }

    #[test]
    fn ends_of_timelines_and_positions_are_decoded_as_they_were_encoded(
        next_timeline in any_timeline(),
        lsn: u64,
    ) {
        let end = TimelineEnd { next_timeline, switch_point: Lsn(lsn) };
        prop_assert_eq!(TimelineEnd::decode(&end.encode()), Ok(end));
        let position = BackupPosition(WalPosition { lsn: Lsn(lsn), timeline: next_timeline });
        prop_assert_eq!(BackupPosition::decode(&position.encode()), Ok(position));
    }

    #[test]
    fn settings_are_decoded_as_they_were_encoded(
        name: String,
        value: String,
        shift in 20u32..=30,
        mode in 0u32..=0o777,
    ) {
        let setting = Setting { name, value };
        prop_assert_eq!(Setting::decode(&setting.encode()), Ok(setting));
        let size = SegmentSize::new(1 << shift).unwrap();
        prop_assert_eq!(Setting::of_segment_size(size).segment_size(), Ok(size));
        prop_assert_eq!(Setting::of_directory_mode(mode).directory_mode(), Ok(mode));
    }

    #[test]
    fn tablespaces_are_decoded_as_they_were_encoded(
        rows: Vec<(Option<(u32, String)>, Option<u64>)>,
    ) {
        let tablespaces = rows
            .into_iter()
            .map(|(directory, size_kib)| BackupTablespace { directory, size_kib })
            .collect();
        let tablespaces = BackupTablespaces { tablespaces };
        prop_assert_eq!(BackupTablespaces::decode(&tablespaces.encode()), Ok(tablespaces));
    }

    #[test]
    fn any_table_is_decoded_or_refused(
        width in 0usize..6,
        rows in prop::collection::vec(
            prop::collection::vec(
                prop::option::of(prop_oneof!["[0-9/a-f-]{0,8}".prop_map(String::into_bytes), any::<Vec<u8>>()]),
                6,
            ),
            0..3,
        ),
    ) {
        let column = Column { name: "c".to_owned(), data_type: DataType::TEXT };
        let mut table = ResultSet::new(vec![column; width]);
        for row in rows {
            let row = row.into_iter().take(width).map(|v| v.map(Bytes::from)).collect();
            table.push_row(row).unwrap();
        }
        // What is taken for a reply says the same when it is sent on.
        if let Ok(identity) = IdentifySystem::decode(&table) {
            prop_assert_eq!(IdentifySystem::decode(&identity.encode(V16)), Ok(identity));
        }
        if let Ok(slot) = SlotInfo::decode(&table) {
            prop_assert_eq!(SlotInfo::decode(&SlotInfo::encode(slot.as_ref())), Ok(slot));
        }
        if let Ok(created) = CreatedSlot::decode(&table) {
            prop_assert_eq!(CreatedSlot::decode(&created.encode()), Ok(created));
        }
        if let Ok(file) = TimelineHistoryFile::decode(&table) {
            prop_assert_eq!(TimelineHistoryFile::decode(&file.encode(V16)), Ok(file));
        }
        if let Ok(end) = TimelineEnd::decode(&table) {
            prop_assert_eq!(TimelineEnd::decode(&end.encode()), Ok(end));
        }
        if let Ok(tablespaces) = BackupTablespaces::decode(&table) {
            prop_assert_eq!(BackupTablespaces::decode(&tablespaces.encode()), Ok(tablespaces));
        }
    }
}
