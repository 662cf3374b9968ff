use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::disk::sim::SimDisk;

fn directory(disk: &SimDisk) -> ArchiveDirectory {
    let directory = ArchiveDirectory::new(Arc::new(disk.clone()), Path::new("/a"));
    directory.create_own().unwrap();
    directory
}

fn identity() -> Identity {
    let facts = ServerFacts {
        system_id: SystemId(u64::MAX - 1),
        segment_size: SegmentSize::DEFAULT,
        block_size: 8192,
        server_version_num: 150_018,
        data_directory_mode: 0o750,
    };
    let mut identity = Identity::new(&facts, Some(0xD110));
    let content = Bytes::from_static(b"1\t0/3000060\tno recovery target specified\n");
    let history = TimelineHistory::parse(TimelineId::new(2).unwrap(), content).unwrap();
    identity.record_history(&history);
    identity
}

const GOLDEN: &str = "{\"format_version\":1,\"crc32c\":CRC,\"identity\":INNER}\n";
const INNER: &str = "{\"system_identifier\":\"18446744073709551614\",\
    \"wal_segment_size\":16777216,\"wal_block_size\":8192,\"xlog_page_magic\":53520,\
    \"server_version_num\":150018,\"data_directory_mode\":\"0750\",\
    \"histories\":[{\"timeline\":2,\"length\":41,\"crc32c\":HISTORY}]}";

fn golden() -> String {
    let history = crc32c::crc32c(b"1\t0/3000060\tno recovery target specified\n");
    let inner = INNER.replace("HISTORY", &history.to_string());
    golden_of(&inner)
}

fn golden_of(inner: &str) -> String {
    let checksum = crc32c::crc32c(inner.as_bytes());
    GOLDEN
        .replace("CRC", &checksum.to_string())
        .replace("INNER", inner)
}

#[test]
fn an_identity_is_read_back_and_its_form_does_not_change() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    assert_eq!(Identity::load(&directory).unwrap(), None);
    identity().save(&directory).unwrap();
    assert_eq!(Identity::load(&directory).unwrap(), Some(identity()));
    let content = disk.content(directory.own(Place::Identity)).unwrap();
    assert_eq!(String::from_utf8(content).unwrap(), golden());
    assert_eq!(identity().access(), Access::Group);
}

#[test]
fn a_newer_format_is_refused_by_name_whatever_else_it_holds() {
    let disk = SimDisk::new("/a");
    let directory = directory(&disk);
    let content = b"{\"format_version\": 2, \"cluster\": {}}";
    disk.plant(directory.own(Place::Identity), content).unwrap();
    let error = Identity::load(&directory).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"/a/.wal-receiver/identity.json\" has format version 2, this version knows up to 1; use \
         a newer version"
    );
}

#[test]
fn values_out_of_range_are_named() {
    for (from, to, field) in [
        ("16777216", "16777217", "wal_segment_size"),
        ("8192", "4096", "wal_block_size"),
        ("\"0750\"", "\"0799\"", "data_directory_mode"),
        ("\"18446744073709551614\"", "\"-1\"", "system_identifier"),
        ("\"timeline\":2", "\"timeline\":0", "histories"),
    ] {
        let inner = INNER.replace("HISTORY", "1").replace(from, to);
        match decode(golden_of(&inner).as_bytes()) {
            Err(Refusal::Damage(Damage::Value { field: found })) => assert_eq!(found, field),
            _ => panic!("{field}"),
        }
    }
}

proptest! {
    #[test]
    fn a_changed_byte_is_noticed(position in 0usize..1000, byte: u8) {
        let golden = golden();
        let mut content = golden.clone().into_bytes();
        let position = position % content.len();
        content[position] = byte;
        // White space may change, and the name of a field cannot without being missed.
        if let Ok(decoded) = decode(&content) {
            prop_assert!(decoded == identity());
            let changed = golden.as_bytes()[position];
            prop_assert!(byte == changed || (changed.is_ascii_whitespace()));
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_identity(content: Vec<u8>) {
        prop_assert!(decode(&content).is_err());
    }

    #[test]
    fn a_truncated_identity_is_damaged(length in 0usize..1000) {
        let golden = golden();
        let whole = golden.trim_end();
        let length = length % whole.len();
        prop_assert!(matches!(
            decode(&whole.as_bytes()[..length]),
            Err(Refusal::Damage(Damage::Json(_)))
        ));
    }
}
