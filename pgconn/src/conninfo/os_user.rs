//! Who runs this process, and where their home is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::unistd::{Uid, User};

use super::ConninfoError;

/// The user that libpq connects as when none is given: the owner of the process.
///
/// Source: src/interfaces/libpq/fe-auth.c, `pg_fe_getauthname` (PG 15).
pub(super) fn default_user() -> Result<String, ConninfoError> {
    let uid = Uid::effective().as_raw();
    user_name(uid).ok_or(ConninfoError::NoUser { uid })
}

/// The name of a user of this machine, if it has one.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
    Some(user.name)
}

/// The home directory of the user database, which libpq asks when `HOME` is unset or empty.
///
/// Source: src/interfaces/libpq/fe-connect.c, `pqGetHomeDirectory` (PG 15).
pub(super) fn home_directory(home: Option<OsString>) -> Option<PathBuf> {
    match home {
        Some(home) if !home.is_empty() => Some(PathBuf::from(home)),
        _ => {
            let user = User::from_uid(Uid::effective()).ok().flatten()?;
            let home = user.dir.into_os_string().into_vec();
            (!home.is_empty()).then(|| PathBuf::from(OsString::from_vec(home)))
        }
    }
}
