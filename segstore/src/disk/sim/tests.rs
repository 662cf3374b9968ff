use std::io::IoSlice;
use std::path::{Path, PathBuf};

use super::*;

fn path(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

fn create(disk: &SimDisk, name: &str, content: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.open(&path(name), OpenMode::CreateNew).unwrap();
    file.write_at(&[IoSlice::new(content)], 0).unwrap();
    file
}

fn sync_directory(disk: &SimDisk, directory: impl AsRef<Path>) {
    disk.open_directory(directory.as_ref())
        .unwrap()
        .sync()
        .unwrap();
}

fn disk() -> SimDisk {
    SimDisk::new("/d")
}

#[test]
fn only_what_was_synced_is_sure() {
    let disk = disk();
    let file = create(&disk, "a", b"first");
    file.sync_data().unwrap();
    sync_directory(&disk, Path::new("/d"));
    file.write_at(&[IoSlice::new(b"SECOND")], 0).unwrap();
    drop(create(&disk, "b", b"x"));
    assert_eq!(disk.content(path("a")).unwrap(), b"SECOND");
    disk.reboot(Survival::Nothing);
    assert_eq!(disk.content(path("a")).unwrap(), b"first");
    assert_eq!(disk.content(path("b")), None);
    assert!(file.sync_data().is_err(), "a handle of an earlier life");
}

#[test]
fn a_synced_file_in_an_unsynced_directory_may_vanish_and_the_reverse() {
    let disk = disk();
    create(&disk, "a", b"bytes").sync_data().unwrap();
    disk.reboot(Survival::Nothing);
    assert_eq!(disk.content(path("a")), None);

    drop(create(&disk, "a", b"bytes"));
    sync_directory(&disk, Path::new("/d"));
    disk.reboot(Survival::Nothing);
    assert_eq!(disk.content(path("a")).unwrap(), b"");
}

#[test]
fn torn_writes_leave_whole_sectors() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = disk();
        let file = create(&disk, "a", &[1; 2048]);
        file.sync_data().unwrap();
        sync_directory(&disk, Path::new("/d"));
        file.write_at(&[IoSlice::new(&[2; 1024]), IoSlice::new(&[3; 1000])], 100)
            .unwrap();
        disk.reboot(Survival::Chance(seed));
        let content = disk.content(path("a")).unwrap();
        assert!([2048, 2124].contains(&content.len()));
        let old = [vec![1; 2048], vec![0; 76]].concat();
        let new = [vec![1; 100], vec![2; 1024], vec![3; 1000]].concat();
        for (i, sector) in content.chunks(512).enumerate() {
            let range = i * 512..i * 512 + sector.len();
            assert!(*sector == old[range.clone()] || *sector == new[range]);
        }
        seen.insert(content);
    }
    assert!(seen.len() > 10, "{} outcomes", seen.len());
}

#[test]
fn any_subset_of_unsynced_names_is_possible_but_a_rename_is_whole() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = disk();
        create(&disk, "old", b"x").sync_data().unwrap();
        sync_directory(&disk, Path::new("/d"));
        disk.rename(&path("old"), &path("new")).unwrap();
        create(&disk, "other", b"y").sync_data().unwrap();
        disk.reboot(Survival::Chance(seed));
        let there = ["old", "new", "other"].map(|name| disk.content(path(name)).is_some());
        assert!(there[0] != there[1], "either name, never both or none");
        seen.insert(there);
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_rename_between_directories_needs_both_synced() {
    let disk = disk();
    disk.create_directory(&path("sub")).unwrap();
    create(&disk, "sub/a", b"x").sync_data().unwrap();
    sync_directory(&disk, path("sub"));
    sync_directory(&disk, Path::new("/d"));
    disk.rename(&path("sub/a"), &path("a")).unwrap();
    sync_directory(&disk, Path::new("/d"));
    disk.reboot(Survival::Nothing);
    assert_eq!(disk.content(path("a")).unwrap(), b"x");
    assert_eq!(disk.content(path("sub/a")).unwrap(), b"x");
}

#[test]
fn the_operation_at_which_the_power_is_cut_may_have_happened() {
    for (survival, there) in [(Survival::Nothing, false), (Survival::Everything, true)] {
        let disk = disk();
        disk.cut_power_at(0);
        assert!(disk.open(&path("a"), OpenMode::CreateNew).is_err());
        assert!(disk.is_power_cut() && disk.list(Path::new("/d")).is_err());
        disk.reboot(survival);
        assert_eq!(disk.content(path("a")).is_some(), there);
    }
}

#[test]
fn after_a_failed_sync_reads_show_what_the_reboot_takes() {
    let disk = disk();
    let file = create(&disk, "a", b"old");
    file.sync_data().unwrap();
    sync_directory(&disk, Path::new("/d"));
    file.write_at(&[IoSlice::new(b"new")], 0).unwrap();
    disk.fail_at(disk.operations(), Fault::Io);
    let error = file.sync_data().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    assert_eq!(disk.content(path("a")).unwrap(), b"new");
    file.sync_data().unwrap();
    disk.reboot(Survival::Everything);
    assert_eq!(disk.content(path("a")).unwrap(), b"old");
}

#[test]
fn a_full_disk_takes_writes_only_where_there_was_room_before() {
    let disk = disk();
    let file = create(&disk, "a", b"");
    file.allocate(8).unwrap();
    disk.set_full(true);
    file.write_at(&[IoSlice::new(b"12345678")], 0).unwrap();
    let error = file.write_at(&[IoSlice::new(b"9")], 8).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(disk.open(&path("b"), OpenMode::CreateNew).is_err());
    disk.set_full(false);
    file.write_at(&[IoSlice::new(b"9")], 8).unwrap();
    assert_eq!(disk.content(path("a")).unwrap(), b"123456789");
}

#[test]
fn a_lock_is_free_when_its_handle_or_the_power_is_gone() {
    let disk = disk();
    let first = create(&disk, "a", b"");
    sync_directory(&disk, Path::new("/d"));
    let second = disk.open(&path("a"), OpenMode::ReadWrite).unwrap();
    assert!(first.try_lock().unwrap() && !second.try_lock().unwrap());
    drop(first);
    assert!(second.try_lock().unwrap());
    disk.reboot(Survival::Nothing);
    let third = disk.open(&path("a"), OpenMode::ReadWrite).unwrap();
    assert!(third.try_lock().unwrap());
    drop(second);
    let fourth = disk.open(&path("a"), OpenMode::ReadWrite).unwrap();
    assert!(!fourth.try_lock().unwrap());
}
