use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use walproto::{Lsn, TimelineId, WalPosition};

use super::*;
use crate::archive::Archive;
use crate::archive::checked_json::Refusal;
use crate::archive::prepare::Preparation;
use crate::disk::Disk;
use crate::disk::sim::{Fault, SimDisk, Survival};
use crate::error::Damage;
use crate::wal::sample::{self, MIB, START};

mod crash;

const UNLIMITED: SlotLimits = SlotLimits {
    max_slots: 10,
    max_keep_bytes: None,
};
const RESERVED: NewSlot = NewSlot {
    temporary: false,
    reserve_wal: true,
};
const TEMPORARY: NewSlot = NewSlot {
    temporary: true,
    reserve_wal: true,
};

fn name(text: &str) -> SlotName {
    text.parse().unwrap()
}

/// An archive of `segments` segments and a bit.
fn archive(disk: &SimDisk, segments: u64) -> Archive {
    let archive = sample::archive(disk.clone(), Path::new("/a"), true);
    let mut wal = sample::generator(1);
    wal.fill(segments * MIB + 10_000);
    let recovery = archive.recover().unwrap();
    let writer = archive.writer(recovery, wal.history(), START, Preparation::Inline);
    let mut writer = writer.unwrap();
    writer
        .append(START, &[sample::bytes(&wal, START, wal.end())])
        .unwrap();
    writer.close().unwrap();
    archive
}

fn view(disk: &SimDisk) -> ArchiveView {
    ArchiveView::open(Arc::new(disk.clone()), Path::new("/a")).unwrap()
}

fn store(disk: &SimDisk, limits: SlotLimits) -> SlotStore {
    SlotStore::open(view(disk), limits).unwrap()
}

fn world(segments: u64) -> (SimDisk, SlotStore) {
    let disk = SimDisk::new("/a");
    drop(archive(&disk, segments));
    let store = store(&disk, UNLIMITED);
    (disk, store)
}

fn slot(store: &SlotStore, text: &str) -> Slot {
    store.get(&name(text)).unwrap().unwrap()
}

fn at(lsn: u64) -> Option<WalPosition> {
    Some(WalPosition {
        timeline: TimelineId::FIRST,
        lsn: Lsn(lsn),
    })
}

fn xid(epoch: u32, xid: u32) -> EpochXid {
    EpochXid { epoch, xid }
}

const NO_XID: EpochXid = EpochXid { epoch: 0, xid: 0 };

#[test]
fn a_slot_is_there_as_soon_as_it_is_created_and_gone_as_soon_as_it_is_dropped() {
    let (disk, store) = world(1);
    let end = store.view().durable().unwrap().record_end;
    let session = store.session(100);
    let created = session.create(&name("a"), RESERVED).unwrap();
    assert_eq!(created.restart, at(end.0));
    assert_eq!(created.wal_status, Some(WalStatus::Reserved));
    assert_eq!((created.active_pid, created.temporary), (None, false));
    let created = session.create(&name("b"), NewSlot::default()).unwrap();
    assert_eq!((created.restart, created.wal_status), (None, None));
    drop((session, store));
    disk.reboot(Survival::Nothing);

    let store = self::store(&disk, UNLIMITED);
    let names = |store: &SlotStore| {
        let slots = store.list().unwrap();
        let names = slots.iter().map(|slot| slot.name.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&store), ["a", "b"]);
    assert_eq!(slot(&store, "a").restart, at(end.0));
    store.session(1).drop_slot(&name("a")).unwrap();
    let error = store.session(1).drop_slot(&name("a")).unwrap_err();
    assert_eq!(error.to_string(), "replication slot \"a\" does not exist");
    drop(store);
    disk.reboot(Survival::Nothing);
    assert_eq!(names(&self::store(&disk, UNLIMITED)), ["b"]);
}

#[test]
fn the_nonce_is_the_first_one_for_ever() {
    let (disk, store) = world(1);
    let first = [7; MOCK_NONCE_LENGTH];
    let nonce = |store: &SlotStore, random| store.mock_authentication_nonce(random).unwrap();
    assert_eq!(nonce(&store, first), first);
    assert_eq!(nonce(&store, [8; MOCK_NONCE_LENGTH]), first);
    drop(store);
    disk.reboot(Survival::Nothing);
    let store = self::store(&disk, UNLIMITED);
    assert_eq!(nonce(&store, [9; MOCK_NONCE_LENGTH]), first);
}

#[test]
fn what_postgresql_refuses_is_refused() {
    let (disk, store) = world(1);
    let limits = SlotLimits {
        max_slots: 2,
        ..UNLIMITED
    };
    drop(store);
    let store = self::store(&disk, limits);
    let (one, two) = (store.session(1), store.session(2));
    one.create(&name("a"), RESERVED).unwrap();
    one.create(&name("t"), TEMPORARY).unwrap();
    let before = disk.operations();
    for (refused, expected) in [
        (
            two.create(&name("a"), RESERVED).unwrap_err(),
            "replication slot \"a\" already exists",
        ),
        (
            two.create(&name("c"), RESERVED).unwrap_err(),
            "all 2 replication slots are in use; drop one, or allow more of them",
        ),
        (
            two.acquire(&name("c")).unwrap_err(),
            "replication slot \"c\" does not exist",
        ),
        (
            two.acquire(&name("t")).unwrap_err(),
            "replication slot \"t\" is active for PID 1",
        ),
        (
            two.drop_slot(&name("t")).unwrap_err(),
            "replication slot \"t\" is active for PID 1",
        ),
    ] {
        assert_eq!(refused.to_string(), expected);
    }
    let held = one.acquire(&name("a")).unwrap();
    for refused in [
        two.acquire(&name("a")).map(drop),
        two.drop_slot(&name("a")),
        one.acquire(&name("a")).map(drop),
    ] {
        assert!(matches!(refused, Err(SlotError::Active { pid: 1, .. })));
    }
    drop(held);
    assert_eq!(disk.operations(), before);
    two.drop_slot(&name("a")).unwrap();
}

/// `pg_receivewal` tells at once where it wants to begin, be it that the WAL there is gone.
#[test]
fn a_slot_is_not_set_back_to_wal_that_is_gone() {
    let (_disk, store) = world(3);
    let session = store.session(1);
    let created = session.create(&name("a"), RESERVED).unwrap();
    crate::prune(&store, Lsn(u64::MAX)).unwrap();
    let held = session.acquire(&name("a")).unwrap();
    held.advance(TimelineId::FIRST, START).unwrap();
    assert_eq!(slot(&store, "a").restart, created.restart);
    // What is still there may be asked for again.
    let kept = 9 * MIB;
    held.advance(TimelineId::FIRST, Lsn(kept)).unwrap();
    assert_eq!(slot(&store, "a").restart, at(kept));
    assert_eq!(slot(&store, "a").wal_status, Some(WalStatus::Reserved));
}

#[test]
fn a_stream_begins_to_keep_wal_durably_and_goes_on_without_a_write() {
    let (disk, store) = world(3);
    let session = store.session(1);
    session.create(&name("a"), NewSlot::default()).unwrap();
    let held = session.acquire(&name("a")).unwrap();
    let start = 9 * MIB + 100;
    held.set_back(TimelineId::FIRST, Lsn(start)).unwrap();
    assert_eq!(slot(&store, "a").restart, at(start));
    let before = disk.operations();
    for lsn in [start, 9 * MIB, 10 * MIB] {
        held.set_back(TimelineId::FIRST, Lsn(lsn)).unwrap();
        assert_eq!(slot(&store, "a").restart, at(start));
    }
    assert_eq!(disk.operations(), before);
    // It takes back what it reported, and nobody has saved that yet.
    held.advance(TimelineId::FIRST, Lsn(8 * MIB + 1)).unwrap();
    held.set_back(TimelineId::FIRST, Lsn(8 * MIB)).unwrap();
    drop((held, session, store));
    disk.reboot(Survival::Nothing);
    let restart = || slot(&self::store(&disk, UNLIMITED), "a").restart;
    assert_eq!(restart(), at(8 * MIB + 1));
}

#[test]
fn a_stream_that_begins_later_leaves_a_slot_where_it_is() {
    let (disk, store) = world(3);
    let session = store.session(1);
    session.create(&name("a"), NewSlot::default()).unwrap();
    let held = session.acquire(&name("a")).unwrap();
    held.set_back(TimelineId::FIRST, Lsn(10 * MIB)).unwrap();
    held.advance(TimelineId::FIRST, Lsn(8 * MIB)).unwrap();
    // What its file holds is later than where it begins.
    held.set_back(TimelineId::FIRST, Lsn(9 * MIB)).unwrap();
    assert_eq!(slot(&store, "a").restart, at(8 * MIB));
    // Nobody knows what its file holds.
    held.advance(TimelineId::FIRST, Lsn(9 * MIB)).unwrap();
    disk.set_full(true);
    assert!(held.set_back(TimelineId::FIRST, Lsn(8 * MIB)).is_err());
    disk.set_full(false);
    held.set_back(TimelineId::FIRST, Lsn(10 * MIB)).unwrap();
    assert_eq!(slot(&store, "a").restart, at(8 * MIB));
    drop((held, session, store));
    disk.reboot(Survival::Nothing);
    let restart = slot(&self::store(&disk, UNLIMITED), "a").restart;
    assert_eq!(restart, at(8 * MIB));
}

#[test]
fn a_temporary_slot_ends_with_its_session_and_its_file_soon_after() {
    let (disk, store) = world(1);
    let session = store.session(7);
    session.create(&name("t"), TEMPORARY).unwrap();
    assert_eq!(slot(&store, "t").active_pid, Some(7));
    let held = session.acquire(&name("t")).unwrap();
    held.advance(TimelineId::FIRST, START).unwrap();
    drop(held);
    assert_eq!(slot(&store, "t").active_pid, Some(7));
    session.create(&name("u"), TEMPORARY).unwrap();
    session.drop_slot(&name("u")).unwrap();
    store.save().unwrap();
    let file = |slot: &str| disk.content(format!("/a/.wal-receiver/slots/{slot}"));
    assert!(file("t").is_some());
    assert_eq!(file("u"), None);
    let before = disk.operations();
    drop(session);
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(disk.operations(), before);
    store.save().unwrap();
    assert_eq!(file("t"), None);
    // One that takes the name before that keeps its file.
    let session = store.session(8);
    session.create(&name("t"), TEMPORARY).unwrap();
    drop(session);
    store.session(9).create(&name("t"), RESERVED).unwrap();
    store.save().unwrap();
    assert!(file("t").is_some());
}

#[test]
fn a_temporary_slot_does_not_outlive_a_crash() {
    let (disk, store) = world(1);
    let session = store.session(7);
    session.create(&name("t"), TEMPORARY).unwrap();
    session.create(&name("a"), RESERVED).unwrap();
    disk.reboot(Survival::Everything);
    let store = self::store(&disk, UNLIMITED);
    let names: Vec<_> = store.list().unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, [name("a")]);
    assert_eq!(disk.content("/a/.wal-receiver/slots/t"), None);
}

#[test]
fn who_waits_for_a_slot_is_told_when_it_is_free() {
    let (_, store) = world(1);
    let calls = Arc::new(AtomicU32::new(0));
    let count = || calls.load(Ordering::Relaxed);
    let _subscription = {
        let calls = Arc::clone(&calls);
        store.on_release(move || {
            calls.fetch_add(1, Ordering::Relaxed);
        })
    };
    let session = store.session(1);
    session.create(&name("a"), RESERVED).unwrap();
    let held = session.acquire(&name("a")).unwrap();
    assert_eq!(count(), 0);
    drop(held);
    assert_eq!((count(), slot(&store, "a").active_pid), (1, None));
    session.drop_slot(&name("a")).unwrap();
    assert_eq!(count(), 2);
    session.create(&name("t"), TEMPORARY).unwrap();
    drop(session);
    assert_eq!(count(), 3);
}

#[test]
fn where_a_slot_stands_is_durable_once_it_is_saved() {
    let (disk, store) = world(2);
    let session = store.session(1);
    session.create(&name("a"), RESERVED).unwrap();
    let created = slot(&store, "a").restart;
    let held = session.acquire(&name("a")).unwrap();
    let before = disk.operations();
    held.advance(TimelineId::FIRST, START).unwrap();
    held.set_xmin(xid(1, 750), xid(1, 740));
    assert_eq!(disk.operations(), before);
    let moved = slot(&store, "a");
    assert_eq!(moved.restart, at(START.0));
    assert_eq!(
        (moved.xmin, moved.catalog_xmin),
        (Some(xid(1, 750)), Some(xid(1, 740)))
    );
    // A crash comes before it is saved.
    drop((held, session, store));
    disk.reboot(Survival::Everything);
    let store = self::store(&disk, UNLIMITED);
    assert_eq!(slot(&store, "a").restart, created);
    let session = store.session(1);
    let held = session.acquire(&name("a")).unwrap();
    held.advance(TimelineId::FIRST, START).unwrap();
    held.set_xmin(xid(1, 750), NO_XID);
    store.save().unwrap();
    let before = disk.operations();
    store.save().unwrap();
    assert_eq!(disk.operations(), before, "nothing new, nothing written");
    drop((held, session, store));
    disk.reboot(Survival::Nothing);
    let saved = slot(&self::store(&disk, UNLIMITED), "a");
    assert_eq!(
        (saved.restart, saved.xmin),
        (at(START.0), Some(xid(1, 750)))
    );
    assert_eq!(saved.catalog_xmin, None);
}

#[test]
fn the_oldest_transaction_only_advances_until_it_is_withdrawn() {
    let (_, store) = world(1);
    let session = store.session(1);
    session.create(&name("a"), NewSlot::default()).unwrap();
    let held = session.acquire(&name("a")).unwrap();
    for (told, expected) in [
        (xid(0, 4_000_000_000), Some(xid(0, 4_000_000_000))),
        (xid(0, 3_000_000_000), Some(xid(0, 4_000_000_000))),
        // The number has run over.
        (xid(1, 5), Some(xid(1, 5))),
        (xid(0, 4_100_000_000), Some(xid(1, 5))),
        (NO_XID, None),
        (xid(1, 4), Some(xid(1, 4))),
        // `FrozenTransactionId` is no transaction's.
        (xid(1, 2), None),
    ] {
        held.set_xmin(told, told);
        let slot = slot(&store, "a");
        assert_eq!((slot.xmin, slot.catalog_xmin), (expected, expected));
    }
}

#[test]
fn a_slot_whose_wal_is_gone_is_lost() {
    let (disk, store) = world(4);
    let session = store.session(1);
    for (text, segment) in [("a", 8), ("b", 9)] {
        session.create(&name(text), NewSlot::default()).unwrap();
        let held = session.acquire(&name(text)).unwrap();
        held.advance(TimelineId::FIRST, Lsn(segment * MIB + 5))
            .unwrap();
    }
    store.save().unwrap();
    drop((session, store));
    // Somebody makes room; what is left before the gap leads nowhere.
    let gone = Path::new("/a/000000010000000000000008");
    disk.remove(gone).unwrap();
    let store = self::store(&disk, UNLIMITED);
    assert_eq!(slot(&store, "a").wal_status, Some(WalStatus::Lost));
    assert_eq!(slot(&store, "b").wal_status, Some(WalStatus::Reserved));
    let error = store.session(1).acquire(&name("a")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "can no longer access replication slot \"a\": WAL from 0/800005 on timeline 1 on has been \
         removed; drop the slot"
    );
    assert!(matches!(error, SlotError::Lost { .. }));
    store.session(1).acquire(&name("b")).unwrap();
    store.session(1).drop_slot(&name("a")).unwrap();
}

#[test]
fn more_than_a_slot_may_keep_is_not_reserved() {
    let (disk, store) = world(5);
    let end = store.view().durable().unwrap().record_end;
    drop(store);
    let limits = SlotLimits {
        max_keep_bytes: Some(2 * MIB + 7),
        ..UNLIMITED
    };
    let store = self::store(&disk, limits);
    let session = store.session(1);
    session.create(&name("a"), NewSlot::default()).unwrap();
    assert_eq!(slot(&store, "a").safe_wal_size, None);
    let held = session.acquire(&name("a")).unwrap();
    for (segment, status) in [
        (12, WalStatus::Reserved),
        (10, WalStatus::Reserved),
        (9, WalStatus::Unreserved),
        (7, WalStatus::Unreserved),
    ] {
        let restart = Lsn(segment * MIB + 100);
        held.advance(TimelineId::FIRST, restart).unwrap();
        let slot = slot(&store, "a");
        assert_eq!(slot.wal_status, Some(status));
        let safe = slot.safe_wal_size.unwrap();
        let expected = i128::from((segment + 3) * MIB) - i128::from(end.0);
        assert_eq!(i128::from(safe), expected);
        assert_eq!(safe < 0, status == WalStatus::Unreserved);
    }
    assert_eq!(status_words(), ["reserved", "unreserved", "lost"]);
}

fn status_words() -> [&'static str; 3] {
    [WalStatus::Reserved, WalStatus::Unreserved, WalStatus::Lost].map(WalStatus::as_str)
}

#[test]
fn one_process_keeps_the_slots_while_another_streams() {
    let disk = SimDisk::new("/a");
    let archive = archive(&disk, 1);
    let store = store(&disk, UNLIMITED);
    let error = SlotStore::open(view(&disk), UNLIMITED).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the replication slots of archive \"/a\" are in use by process {}, which serves it; \
             stop that one first",
            std::process::id()
        )
    );
    drop(store);
    drop(SlotStore::open(archive.view().unwrap(), UNLIMITED).unwrap());
}

#[test]
fn a_slot_cannot_keep_wal_of_an_archive_without_any() {
    let disk = SimDisk::new("/a");
    let archive = archive(&disk, 0);
    let options = sample::options(Path::new("/a"), true);
    drop(archive);
    let archive = Archive::open(Arc::new(disk.clone()), options).unwrap();
    let store = SlotStore::open(archive.view().unwrap(), UNLIMITED).unwrap();
    let session = store.session(1);
    let error = session.create(&name("a"), RESERVED).unwrap_err();
    assert!(matches!(error, SlotError::NothingDurable { .. }), "{error}");
    assert_eq!(store.list().unwrap(), []);
    archive.recover().unwrap();
    session.create(&name("a"), RESERVED).unwrap();
}

#[test]
fn a_slot_that_cannot_be_written_is_none() {
    let (disk, store) = world(1);
    let session = store.session(1);
    // The first one makes the file of a lock, which stays.
    session.create(&name("x"), RESERVED).unwrap();
    session.drop_slot(&name("x")).unwrap();
    let before = disk.operations();
    session.create(&name("x"), RESERVED).unwrap();
    let steps = disk.operations() - before;
    for fault in [Fault::Io, Fault::NoSpace] {
        for step in 0..steps {
            disk.fail_at(disk.operations() + step, fault);
            let error = session.create(&name("a"), RESERVED).unwrap_err();
            assert!(matches!(error, SlotError::Archive(_)), "{error}");
            assert_eq!(store.get(&name("a")).unwrap(), None);
            session.create(&name("a"), RESERVED).unwrap();
            session.drop_slot(&name("a")).unwrap();
        }
    }
    // A slot that could not be dropped is one.
    disk.fail_at(disk.operations(), Fault::Io);
    session.drop_slot(&name("x")).unwrap_err();
    assert_eq!(slot(&store, "x").active_pid, None);
    store.save().unwrap();
    session.drop_slot(&name("x")).unwrap();
}

#[test]
fn a_damaged_slot_is_named_and_never_left_out() {
    let (disk, store) = world(1);
    store.session(1).create(&name("a"), RESERVED).unwrap();
    drop(store);
    let path = "/a/.wal-receiver/slots/a";
    let content = disk.content(path).unwrap();
    let open = || SlotStore::open(view(&disk), UNLIMITED);
    let mut flipped = content.clone();
    let digit = flipped.len() / 2;
    flipped[digit] ^= 1;
    for damaged in [&flipped[..], &content[..content.len() - 5], b"", b"{}"] {
        disk.plant(path, damaged).unwrap();
        match open().unwrap_err() {
            ArchiveError::Damaged { path: found, .. } => assert_eq!(found, Path::new(path)),
            error => panic!("{error}"),
        }
    }
    let newer = b"{\"format_version\":2,\"crc32c\":1,\"slots\":[]}";
    disk.plant(path, newer).unwrap();
    let error = open().unwrap_err();
    assert!(matches!(
        error,
        ArchiveError::UnknownFormat { found: 2, .. }
    ));
    disk.plant(path, &content).unwrap();
    // Under another name it is another slot's.
    let copy = "/a/.wal-receiver/slots/b";
    disk.plant(copy, &content).unwrap();
    let error = open().unwrap_err();
    assert!(
        error.to_string().contains("name is out of range"),
        "{error}"
    );
    disk.remove(Path::new(copy)).unwrap();
    for other in ["a.bak", "A"] {
        let other = format!("/a/.wal-receiver/slots/{other}");
        disk.plant(&other, &content).unwrap();
        assert_eq!(
            open().unwrap_err().to_string(),
            format!(
                "\"{other}\" is damaged: no replication slot has that name; put back a good copy, \
                 or move it away if there is none"
            )
        );
        disk.remove(Path::new(&other)).unwrap();
    }
    // What a crash left unfinished is nobody's.
    let unfinished = "/a/.wal-receiver/slots/a.tmp";
    disk.plant(unfinished, &flipped).unwrap();
    open().unwrap();
    assert_eq!(disk.content(unfinished), None);
}

const GOLDEN: &str = "{\"format_version\":1,\"crc32c\":CRC,\"slot\":INNER}\n";
const INNER: &str = "{\"name\":\"standby_1\",\"restart\":{\"timeline\":3,\"lsn\":\"16/B374D848\"},\
    \"xmin\":{\"epoch\":1,\"xid\":750},\"catalog_xmin\":null}";

fn golden() -> (Stored, String) {
    let data = SlotData {
        restart: Some(WalPosition {
            timeline: TimelineId::new(3).unwrap(),
            lsn: Lsn(0x16_B374_D848),
        }),
        xmin: Some(xid(1, 750)),
        catalog_xmin: None,
    };
    let checksum = crc32c::crc32c(INNER.as_bytes()).to_string();
    let stored = Stored {
        temporary: false,
        data,
    };
    (
        stored,
        GOLDEN.replace("CRC", &checksum).replace("INNER", INNER),
    )
}

#[test]
fn the_form_of_a_slots_file_does_not_change() {
    let (data, golden) = golden();
    let name = name("standby_1");
    let encoded = stored::encode(&name, &data).unwrap();
    assert_eq!(String::from_utf8(encoded).unwrap(), golden);
    let decoded = stored::decode(&name, golden.as_bytes());
    assert_eq!(decoded.ok(), Some(data));
    for (from, to, field) in [
        ("\"timeline\":3", "\"timeline\":0", "restart"),
        ("16/B374D848", "16-B374D848", "restart"),
        ("standby_1", "standby_2", "name"),
    ] {
        let inner = INNER.replace(from, to);
        let checksum = crc32c::crc32c(inner.as_bytes()).to_string();
        let text = GOLDEN.replace("CRC", &checksum).replace("INNER", &inner);
        match stored::decode(&name, text.as_bytes()) {
            Err(Refusal::Damage(Damage::Value { field: found })) => assert_eq!(found, field),
            _ => panic!("{field}"),
        }
    }
}

fn any_xid() -> impl Strategy<Value = Option<EpochXid>> {
    prop::option::of((any::<u32>(), 3u32..).prop_map(|(epoch, number)| xid(epoch, number)))
}

proptest! {
    #[test]
    fn any_slot_is_read_back(
        text in "[a-z0-9_]{1,63}", timeline in 1u32.., lsn: u64, reserved: bool,
        xmin in any_xid(), catalog_xmin in any_xid(), temporary: bool,
    ) {
        let restart = WalPosition { timeline: TimelineId::new(timeline).unwrap(), lsn: Lsn(lsn) };
        let data = SlotData { restart: reserved.then_some(restart), xmin, catalog_xmin };
        let stored = Stored { temporary, data };
        let encoded = stored::encode(&name(&text), &stored).unwrap();
        prop_assert_eq!(stored::decode(&name(&text), &encoded).ok(), Some(stored));
    }

    #[test]
    fn a_changed_byte_is_noticed(position in 0usize..1000, byte: u8) {
        let (data, golden) = golden();
        let mut content = golden.clone().into_bytes();
        let position = position % content.len();
        content[position] = byte;
        if let Ok(decoded) = stored::decode(&name("standby_1"), &content) {
            prop_assert_eq!(decoded, data);
            let before = golden.as_bytes()[position];
            prop_assert!(byte == before || before.is_ascii_whitespace());
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_slot(content: Vec<u8>) {
        prop_assert!(stored::decode(&name("a"), &content).is_err());
    }
}
