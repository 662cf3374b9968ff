//! Whose the files are that root creates.
//!
//! An administrator calls a command on an archive as root now and then. Files of root would lock
//! out the user whose archive it is; so what root creates belongs to the owner of the directory
//! that it is created in. The same user and group own a whole archive.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Gives a file that root has just created at `path` to the owner of its directory. For anybody
/// else it does nothing.
pub(super) fn give_file(file: &File, path: &Path) -> io::Result<()> {
    match owner_above(path)? {
        Some((user, group)) => fchown(file, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// The same for a directory.
pub(super) fn give_directory(path: &Path) -> io::Result<()> {
    let Some((user, group)) = owner_above(path)? else {
        return Ok(());
    };
    // Its owner-to-be can replace it meanwhile, and must not have a link of theirs followed.
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let directory = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    fchown(directory, Some(user), Some(group))
}

/// The owner of the directory that `path` is in, if root is asking and it is another user.
fn owner_above(path: &Path) -> io::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let Some(parent) = path.parent() else {
        return Ok(None);
    };
    let parent = fs::metadata(parent)?;
    Ok((parent.uid() != 0).then(|| (parent.uid(), parent.gid())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use crate::disk::os_disk::OsDisk;
    use crate::disk::{Disk, OpenMode};

    use super::*;

    fn owner(path: &Path) -> (u32, u32) {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    }

    #[test]
    fn what_root_creates_belongs_to_the_owner_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let expected = if rustix::process::geteuid().is_root() {
            chown(directory.path(), Some(12_345), Some(23_456)).unwrap();
            (12_345, 23_456)
        } else {
            // Only root can give a file away; others own what they create.
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            (user.as_raw(), group.as_raw())
        };
        let disk = OsDisk::new();
        let sub = directory.path().join("sub");
        disk.create_directory(&sub).unwrap();
        assert_eq!(owner(&sub), expected);
        let file = sub.join("file");
        drop(disk.open(&file, OpenMode::CreateNew).unwrap());
        assert_eq!(owner(&file), expected);
    }
}
