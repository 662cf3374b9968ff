//! Whether an archive's directory can be read, and whose it is.
//!
//! A file that one user leaves in another's archive locks that one out. Root gives what it creates
//! to the owner of the directory (segstore does so for all of its files); anybody else is refused
//! by name.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use nix::unistd::{Uid, User, geteuid};
use segstore::OWN_DIRECTORY;

use crate::error::MainError;

/// Refuses to write into an archive that belongs to another user, unless it is root who asks.
pub(crate) fn check(archive: &Path) -> Result<(), MainError> {
    let user = geteuid();
    // An archive that is not there yet has no owner.
    let Ok(own) = fs::metadata(archive.join(OWN_DIRECTORY)) else {
        return Ok(());
    };
    if user.is_root() || own.uid() == user.as_raw() {
        return Ok(());
    }
    Err(MainError::OtherUser {
        directory: archive.to_owned(),
        owner: name_of(Uid::from_raw(own.uid())),
        user: name_of(user),
    })
}

fn name_of(user: Uid) -> String {
    let known = User::from_uid(user).ok().flatten();
    known.map_or_else(|| user.to_string(), |known| known.name)
}

/// Finds out before anything else, as `pg_receivewal` does, whether the directory is there.
pub(crate) fn check_directory(path: &Path) -> Result<(), MainError> {
    match fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(MainError::Directory {
            path: path.to_owned(),
            error,
        }),
    }
}

/// Gives what root has created in an archive's own subdirectory to its owner.
pub(crate) fn give_to_owner(created: &Path, archive: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let own = fs::metadata(archive.join(OWN_DIRECTORY))?;
    lchown(created, Some(own.uid()), Some(own.gid()))
}
