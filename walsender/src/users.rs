//! The users who have passwords.
//!
//! ```text
//! # name      verifier, as PostgreSQL stores it
//! "standby"   "SCRAM-SHA-256$4096:eF4C8mcCmpVABiZtB25lXA==$rY8F6M+169...=:YSWp6Sp2A1eY...="
//! ```
//!
//! A verifier is what `SELECT rolpassword FROM pg_authid` shows; it lets nobody log in, but who
//! has it can try passwords and pretend to be the server. So a file that everybody may read, or
//! another than its owner write, is not used. It is the form of PgBouncer's `auth_file`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use walproto::scram::{ParseVerifierError, ScramSecret, ScramVerifier};

use crate::hba::HbaFault;
use crate::hba::tokens;

/// The users and what their passwords are checked against.
#[derive(Clone, Debug)]
pub struct Users {
    verifiers: BTreeMap<String, ScramVerifier>,
}

/// A file of users that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// It cannot be read.
    #[error("reading users file \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read or change it.
    #[error(
        "users file \"{}\" has group write or world access; permissions should be u=rw,g=r \
         (0640) or less",
        path.display()
    )]
    Access {
        /// The file.
        path: PathBuf,
    },
    /// A line is wrong.
    #[error("users file \"{}\", line {line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong.
        fault: Box<UsersFault>,
    },
}

/// What is wrong with a line. Nothing of a verifier is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsersFault {
    /// It cannot be split into fields.
    #[error(transparent)]
    Fields(HbaFault),
    /// Not a name and a verifier.
    #[error("expected a name and a verifier, found {found} values")]
    Count {
        /// How many values there are.
        found: usize,
    },
    /// A name that no client can have.
    #[error("the name is empty")]
    NoName,
    /// The verifier is none.
    #[error("user \"{name}\": {fault}")]
    Verifier {
        /// The user.
        name: String,
        /// What is wrong.
        fault: ParseVerifierError,
    },
    /// The user was there before.
    #[error("user \"{name}\" is named twice")]
    Twice {
        /// The user.
        name: String,
    },
}

impl Users {
    /// Reads a file.
    ///
    /// # Errors
    /// When the file cannot be read, others may read or change it, or a line of it is wrong.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let read_error = |source| UsersError::Read {
            path: path.to_owned(),
            source,
        };
        let metadata = fs::metadata(path).map_err(read_error)?;
        if metadata.permissions().mode() & 0o027 != 0 {
            return Err(UsersError::Access {
                path: path.to_owned(),
            });
        }
        Self::parse(path, &fs::read(path).map_err(read_error)?)
    }

    /// Reads the content of a file; `path` is for messages.
    ///
    /// # Errors
    /// When a line is wrong.
    pub fn parse(path: &Path, content: &[u8]) -> Result<Self, UsersError> {
        let mut verifiers = BTreeMap::new();
        for (line, text) in tokens::lines(content) {
            let parsed = user(&text).and_then(|user| match user {
                Some((name, _)) if verifiers.contains_key(&name) => Err(UsersFault::Twice { name }),
                user => Ok(user),
            });
            match parsed {
                Ok(user) => verifiers.extend(user),
                Err(fault) => {
                    return Err(UsersError::Line {
                        path: path.to_owned(),
                        line,
                        fault: Box::new(fault),
                    });
                }
            }
        }
        Ok(Self { verifiers })
    }

    /// What the password of a user is checked against. For one that is not here no password is
    /// right, but all else is as for the others.
    ///
    /// Its salt is made of `mock_nonce`, which clients do not know: the same one each time, so that
    /// the salt stays whatever becomes of others.
    #[must_use]
    pub fn secret(&self, user: &str, mock_nonce: &[u8]) -> ScramSecret {
        match self.verifiers.get(user) {
            Some(verifier) => verifier.clone().into(),
            None => {
                let mut iterations = self.verifiers.values().map(ScramVerifier::iterations);
                let iterations = iterations.next();
                let iterations = iterations.unwrap_or(ScramVerifier::DEFAULT_ITERATIONS);
                ScramSecret::mock(user, mock_nonce, iterations)
            }
        }
    }

    /// The users' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.verifiers.keys().map(String::as_str)
    }
}

/// The user of a line, `None` for one that is blank or a comment.
fn user(line: &[u8]) -> Result<Option<(String, ScramVerifier)>, UsersFault> {
    let text = str::from_utf8(line).map_err(|_not_utf8| UsersFault::Fields(HbaFault::NotText))?;
    let fields = tokens::fields(text).map_err(UsersFault::Fields)?;
    let values: Vec<_> = fields.into_iter().flatten().collect();
    match <[_; 2]>::try_from(values) {
        Ok([name, _]) if name.text.is_empty() => Err(UsersFault::NoName),
        Ok([name, verifier]) => match verifier.text.parse() {
            Ok(verifier) => Ok(Some((name.text, verifier))),
            Err(fault) => Err(UsersFault::Verifier {
                name: name.text,
                fault,
            }),
        },
        Err(values) if values.is_empty() => Ok(None),
        Err(values) => Err(UsersFault::Count {
            found: values.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use walproto::scram::{RAW_NONCE_LENGTH, ScramServer};

    const VERIFIER: &str = "SCRAM-SHA-256$4096:eF4C8mcCmpVABiZtB25lXA==$\
        rY8F6M+1699UlBQmBnsnUCxKYXPabOx0OrUvRYSUWc0=:YSWp6Sp2A1eYXNrvHoaF4iUj9KL904rriKOGCKOltBI=";

    fn parse(text: &str) -> Result<Users, UsersError> {
        Users::parse(Path::new("users"), text.as_bytes())
    }

    #[test]
    fn names_and_verifiers_are_read_with_and_without_quotes() {
        let text = format!("# all\n\n\"a b\" \"{VERIFIER}\"\r\nstandby {VERIFIER} # one\n");
        let users = parse(&text).unwrap();
        assert_eq!(users.names().collect::<Vec<_>>(), ["a b", "standby"]);
        let real = format!("{:?}", users.secret("standby", b"nonce"));
        let mock = format!("{:?}", users.secret("nobody", b"nonce"));
        assert!(
            real.contains("Real") && mock.contains("Mock"),
            "{real} {mock}"
        );
    }

    #[test]
    fn an_unknown_user_looks_the_same_whoever_else_there_is() {
        let mock = |text: &str, nonce: &[u8]| {
            let users = parse(text).unwrap();
            let secret = users.secret("nobody", nonce);
            let server = ScramServer::new(secret, [7; RAW_NONCE_LENGTH], None);
            server
                .challenge(b"SCRAM-SHA-256", b"n,,n=,r=abc")
                .unwrap()
                .1
        };
        let one = mock(&format!("a {VERIFIER}\n"), b"nonce");
        let changed = VERIFIER.replace("eF4C8mcC", "AAAAAAAA");
        assert_eq!(mock(&format!("a {changed}\nb {VERIFIER}\n"), b"nonce"), one);
        assert_ne!(mock(&format!("a {VERIFIER}\n"), b"other"), one);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_without_secrets() {
        let twice = format!("a {VERIFIER}\na {VERIFIER}\n");
        for (text, message) in [
            ("a secret", "line 1: user \"a\": invalid SCRAM verifier"),
            ("a md5secret", "it does not begin with SCRAM-SHA-256"),
            (
                "a",
                "line 1: expected a name and a verifier, found 1 values",
            ),
            ("a b secret", "found 3 values"),
            ("\"\" secret", "the name is empty"),
            ("\n\"a secret", "line 2: unterminated quote"),
            (&twice, "line 2: user \"a\" is named twice"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        assert!(matches!(Users::load(&path), Err(UsersError::Read { .. })));
        fs::write(&path, format!("a {VERIFIER}\n")).unwrap();
        for (mode, usable) in [(0o600, true), (0o640, true), (0o660, false), (0o644, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match Users::load(&path) {
                Ok(_) => assert!(usable, "{mode:o}"),
                Err(error) => {
                    assert!(!usable, "{mode:o}");
                    assert!(matches!(error, UsersError::Access { .. }), "{error}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(content: Vec<u8>) {
            let _ = Users::parse(Path::new("users"), &content);
        }

        #[test]
        fn any_name_in_quotes_is_that_user(name in "[ -~é]{1,40}") {
            let text = format!("\"{}\" {VERIFIER}", name.replace('"', "\"\""));
            let users = parse(&text).unwrap();
            prop_assert_eq!(users.names().collect::<Vec<_>>(), [name.as_str()]);
        }
    }
}
