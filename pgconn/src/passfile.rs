//! The password file, `~/.pgpass`.
//!
//! Source: the PostgreSQL manual, "The Password File"; src/interfaces/libpq/fe-connect.c,
//! `passwordFromFile`, `pwdfMatchesString` (PG 15).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::conninfo::Password;

/// A password file that is not used. libpq warns, and goes on without a password; so does this
/// program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassfileWarning {
    /// A directory, pipe or device.
    #[error("password file \"{}\" is not a plain file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or write it.
    #[error(
        "password file \"{}\" has group or world access; permissions should be u=rw (0600) or \
         less",
        path.display()
    )]
    Access {
        /// The file.
        path: PathBuf,
    },
    /// It is there and cannot be read.
    #[error("could not read password file \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a password is looked up for.
#[derive(Clone, Copy, Debug)]
pub struct PasswordKey<'a> {
    /// The host's name or address as it was given; `localhost` for the default socket directory.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The database.
    pub database: &'a str,
    /// The user.
    pub user: &'a str,
}

/// The password of the first line of the file that fits, `None` if none does or there is no file.
///
/// # Errors
/// When there is a file that must not or cannot be used.
pub fn look_up(path: &Path, key: PasswordKey<'_>) -> Result<Option<Password>, PassfileWarning> {
    let read_error = |source| PassfileWarning::Read {
        path: path.to_owned(),
        source,
    };
    // One that cannot even be looked at, as in the home directory of the user that a service was
    // started by, is as good as none, for libpq too.
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(None);
    };
    if !metadata.is_file() {
        return Err(PassfileWarning::NotAFile {
            path: path.to_owned(),
        });
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(PassfileWarning::Access {
            path: path.to_owned(),
        });
    }
    let mut text = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut text))
        .map_err(read_error)?;
    Ok(find(&text, key))
}

/// The password of the first line that fits of what a password file holds, `None` if none does.
#[must_use]
pub fn find(text: &[u8], key: PasswordKey<'_>) -> Option<Password> {
    let port = key.port.to_string();
    let wanted = [key.host, &port, key.database, key.user];
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"#"))
        .find_map(|line| {
            let mut rest = line.strip_suffix(b"\r").unwrap_or(line);
            for field in wanted {
                rest = after_field(rest, field.as_bytes())?;
            }
            Some(Password::new(unescaped(rest)))
        })
}

/// The line after a field and its colon, if the field is `wanted` or a lone `*`.
fn after_field<'a>(line: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut rest = line;
    for expected in wanted {
        let (byte, after) = match rest.split_first()? {
            (b'\\', after) => after.split_first()?,
            (b':', _) => return None,
            (byte, after) => (byte, after),
        };
        if byte != expected {
            return None;
        }
        rest = after;
    }
    rest.strip_prefix(b":")
}

/// The password, which ends at a colon or with the line.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut password = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next().filter(|byte| *byte != b':') {
        match byte {
            b'\\' => password.push(bytes.next().unwrap_or(b'\\')),
            other => password.push(other),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn password(text: &str, host: &str, user: &str) -> Option<String> {
        let key = PasswordKey {
            host,
            port: 5432,
            database: "replication",
            user,
        };
        let found = find(text.as_bytes(), key)?;
        Some(String::from_utf8(found.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let file = "#h:5432:replication:u:comment\nh:5433:*:*:port\nh:5432:postgres:u:database\n\
                    h:*:replication:v:user\nh:5432:replication:u:first\r\n*:*:*:*:any\n";
        assert_eq!(password(file, "h", "u").as_deref(), Some("first"));
        assert_eq!(password(file, "h", "v").as_deref(), Some("user"));
        assert_eq!(password(file, "other", "u").as_deref(), Some("any"));
        assert_eq!(password("h:5432:replication:u", "h", "u"), None);
        assert_eq!(password("", "h", "u"), None);
    }

    #[test]
    fn a_backslash_takes_away_the_meaning_of_colon_and_backslash() {
        let file = "\\:\\:1:5432:replication:a\\\\b:p\\:\\\\q\\x:rest";
        assert_eq!(password(file, "::1", "a\\b").as_deref(), Some("p:\\qx"));
        assert_eq!(password("::1:*:*:*:p", "::1", "u"), None);
        assert_eq!(password("*x:*:*:*:p", "*x", "u").as_deref(), Some("p"));
        assert_eq!(
            password("h:*:*:*:end\\", "h", "u").as_deref(),
            Some("end\\")
        );
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        let key = PasswordKey {
            host: "h",
            port: 1,
            database: "d",
            user: "u",
        };
        assert_eq!(look_up(&path, key).unwrap(), None);
        fs::write(&path, "*:*:*:*:secret").unwrap();
        for (mode, usable) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match look_up(&path, key) {
                Ok(password) => {
                    assert!(usable, "{mode:o}");
                    assert_eq!(password, Some(Password::new("secret")));
                }
                Err(error) => {
                    assert!(
                        !usable && matches!(error, PassfileWarning::Access { .. }),
                        "{mode:o}"
                    );
                }
            }
        }
        let error = look_up(directory.path(), key).unwrap_err();
        assert!(matches!(error, PassfileWarning::NotAFile { .. }));
    }

    proptest! {
        #[test]
        fn any_file_is_searched_without_panic(text: Vec<u8>, host: String) {
            let key = PasswordKey { host: &host, port: 1, database: "", user: "u" };
            let _ = find(&text, key);
        }

        #[test]
        fn an_escaped_line_is_found(host in "[a-z:\\\\*]{1,8}", user in "[a-z:\\\\]{1,8}",
                                    secret in "[ -~]{1,12}") {
            let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
            let line = format!("{}:5432:*:{}:{}", escape(&host), escape(&user), escape(&secret));
            prop_assert_eq!(password(&line, &host, &user), Some(secret));
        }
    }
}
