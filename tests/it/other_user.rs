//! Commands that another user calls than the one whom an archive belongs to.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tests::{GeneratedArchive, Receiver, Serving, Version, segment_name, unprivileged_user};
use walproto::{SegmentSize, TimelineId};

/// All files and directories in a directory, and it.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn what_prune_creates_as_root_belongs_to_the_owner_of_the_archive() {
    let archive = GeneratedArchive::new(5 << 20, 150_018);
    if let Some((user, group)) = unprivileged_user() {
        for path in tree(archive.path()) {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }
    let owner = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    };
    let before = tree(archive.path()).len();
    let size = SegmentSize::new(1 << 20).unwrap();
    let newest = segment_name(TimelineId::FIRST, archive.end(), size);
    let (status, said) = Receiver::bare()
        .args(["prune", "-D"])
        .arg(archive.path())
        .arg(newest)
        .run();
    assert!(status.success(), "{said}");
    let removed = said.lines().filter(|line| line.contains("removed file"));
    let after = tree(archive.path());
    assert!(after.len() > before - removed.count(), "{after:?}");
    for path in after {
        assert_eq!(owner(&path), owner(archive.path()), "{}", path.display());
    }

    // The owner of the archive can still use it.
    let program = tempfile::tempdir().unwrap();
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let serve = Receiver::bare()
        .args(["serve", "--listen", "127.0.0.1:0", "--trust-loopback", "-D"])
        .arg(archive.path())
        .as_postgres(program.path());
    let serving = Serving::listening(serve);
    let create = "CREATE_REPLICATION_SLOT kept PHYSICAL RESERVE_WAL";
    let (status, said) = Receiver::psql(Version::V15, &serving.conninfo(), create).run();
    assert!(status.success(), "{said}");
}

#[test]
fn another_user_than_the_owner_is_refused_by_name() {
    if unprivileged_user().is_none() {
        println!("not run as root: there is no other user to run the program as");
        return;
    }
    let archive = GeneratedArchive::new(1 << 20, 150_018);
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(archive.path(), everybody.clone()).unwrap();
    let program = tempfile::tempdir().unwrap();
    fs::set_permissions(program.path(), everybody).unwrap();
    let directory = archive.path().to_str().unwrap();
    let newest = "000000010000000000000005";
    for arguments in [
        vec!["serve", "--listen", "127.0.0.1:0", "-D", directory],
        vec!["prune", "-D", directory, newest],
        vec!["-D", directory, "-d", "host=/nonexistent"],
    ] {
        let program = Receiver::bare()
            .args(&arguments)
            .as_postgres(program.path());
        let (status, said) = program.run();
        assert_eq!(status.code(), Some(1), "{arguments:?}: {said}");
        let expected = format!(
            "archive \"{directory}\" belongs to user \"root\", but this program runs as \
             \"postgres\"; run it as \"root\""
        );
        assert!(said.contains(&expected), "{arguments:?}: {said}");
    }
}
