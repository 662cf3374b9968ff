use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::disk::Disk;
use crate::disk::os_disk::OsDisk;
use crate::disk::sim::SimDisk;
use crate::disk::tampered::{Tamper, Tampered};

#[test]
fn a_lock_that_is_held_for_ever_is_not_waited_for() {
    let disk = SimDisk::new("/a");
    let directory = ArchiveDirectory::new(Arc::new(disk), Path::new("/a"));
    directory.create_own().unwrap();
    let held = RemovalLock::take(&directory).unwrap();
    let refused = RemovalLock::take_within(&directory, Duration::ZERO).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "could not lock \"/a/.wal-receiver/removal.lock\""
    );
    drop(held);
    drop(RemovalLock::take_within(&directory, Duration::ZERO).unwrap());
}

/// A disk that locks no directories, as NFS.
#[derive(Debug)]
struct FilesOnly;

impl Tamper for FilesOnly {
    fn locks_directories(&self) -> bool {
        false
    }
}

fn open(disk: Arc<dyn Disk>, path: &Path) -> ArchiveDirectory {
    let directory = ArchiveDirectory::new(disk, path);
    directory.create_own().unwrap();
    directory
}

#[test]
fn without_its_file_a_lock_is_held_all_the_same() {
    let archive = tempfile::tempdir().unwrap();
    let directory = open(Arc::new(OsDisk::new()), archive.path());
    type Take = fn(&ArchiveDirectory) -> Result<ProcessLock, ArchiveError>;
    let locks: [(Take, Place); 2] = [
        (ProcessLock::to_stream, Place::StreamLock),
        (ProcessLock::to_keep_slots, Place::SlotsLock),
    ];
    for (take, place) in locks {
        let held = take(&directory).unwrap();
        let pid = std::process::id();
        let refused = take(&directory).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {pid}")), "{refused}");
        fs::remove_file(directory.own(place)).unwrap();
        let refused = take(&directory).unwrap_err().to_string();
        assert!(refused.contains("another process"), "{refused}");
        held.check().unwrap();
        drop(held);
        take(&directory).unwrap();
    }
    let held = RemovalLock::take(&directory).unwrap();
    fs::remove_file(directory.own(Place::RemovalLock)).unwrap();
    RemovalLock::take_within(&directory, Duration::ZERO).unwrap_err();
    drop(held);
}

#[test]
fn a_lock_goes_with_the_directory_that_was_locked() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("archive");
    fs::create_dir(&path).unwrap();
    let directory = open(Arc::new(OsDisk::new()), &path);
    let held = ProcessLock::to_stream(&directory).unwrap();
    held.check().unwrap();
    fs::rename(&path, parent.path().join("aside")).unwrap();
    let lost = held.check().unwrap_err();
    assert!(matches!(lost, ArchiveError::LockLost { path: lost, .. } if lost == path));
    fs::create_dir(&path).unwrap();
    assert!(held.check().is_err());
}

#[test]
fn where_directories_cannot_be_locked_a_lost_file_is_noticed() {
    let archive = tempfile::tempdir().unwrap();
    let disk = Tampered {
        disk: OsDisk::new(),
        tamper: FilesOnly,
    };
    let directory = open(Arc::new(disk), archive.path());
    let held = ProcessLock::to_stream(&directory).unwrap();
    held.check().unwrap();
    let file = directory.own(Place::StreamLock);
    fs::remove_file(&file).unwrap();
    let lost = held.check().unwrap_err();
    assert!(matches!(&lost, ArchiveError::LockLost { path, .. } if *path == file));
    // A second one is not kept out there.
    let second = ProcessLock::to_stream(&directory).unwrap();
    assert!(held.check().is_err());
    second.check().unwrap();
}

#[test]
fn creates_and_locks_a_lost_file_again_while_the_directory_is_locked() {
    let archive = tempfile::tempdir().unwrap();
    let directory = open(Arc::new(OsDisk::new()), archive.path());
    let held = ProcessLock::to_stream(&directory).unwrap();
    let path = directory.own(Place::StreamLock);
    let another = || NamedFile::open_if_exists(directory.disk(), path.clone(), OpenMode::ReadWrite);
    fs::remove_file(&path).unwrap();
    held.check().unwrap();
    // A process on another machine, which sees no lock of the directory, is refused.
    let file = another().unwrap().unwrap();
    assert!(!file.try_lock().unwrap());
    assert_eq!(holder(&file).unwrap(), Some(std::process::id()));
    held.check().unwrap();
    // A file that another process created and locked before the check.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "1").unwrap();
    let file = another().unwrap().unwrap();
    assert!(file.try_lock().unwrap());
    let lost = held.check().unwrap_err();
    assert!(matches!(&lost, ArchiveError::LockLost { path: lost, .. } if *lost == path));
    assert_eq!(holder(&file).unwrap(), Some(1));
}
