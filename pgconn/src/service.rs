//! The connection service file.
//!
//! Source: the PostgreSQL manual, "The Connection Service File";
//! src/interfaces/libpq/fe-connect.c, `parseServiceInfo`, `parseServiceFile` (PG 15).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::conninfo::Keyword;

/// Where Debian's libpq looks for the system's `pg_service.conf` unless `PGSYSCONFDIR` says
/// otherwise.
pub(crate) const SYSTEM_DIRECTORY: &str = "/etc/postgresql-common";

/// A service that is named and cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// No file has the service.
    #[error("definition of service \"{service}\" not found")]
    NotFound {
        /// The service.
        service: String,
    },
    /// `PGSERVICEFILE` names no file.
    #[error("service file \"{}\" not found", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("reading service file \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line without `=`, or with a key word that libpq does not know.
    #[error("syntax error in service file \"{}\", line {line}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A service that names a service.
    #[error(
        "nested service specifications not supported in service file \"{}\", line {line}",
        path.display()
    )]
    Nested {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A service that is looked up in LDAP.
    #[error(
        "LDAP lookup in service file \"{}\", line {line} is not supported: write the parameters \
         into the file",
        path.display()
    )]
    Ldap {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// The files that may define a service.
pub(crate) struct ServiceFiles {
    /// `PGSERVICEFILE`: must exist, and stands in for the user's own.
    pub(crate) named: Option<PathBuf>,
    /// The user's home directory.
    pub(crate) home: Option<PathBuf>,
    /// `PGSYSCONFDIR`.
    pub(crate) system_directory: PathBuf,
}

impl ServiceFiles {
    /// What the first file that has `service` says about it. Of repeated key words the first
    /// counts.
    pub(crate) fn look_up(&self, service: &str) -> Result<Vec<(Keyword, String)>, ServiceError> {
        let own = match (&self.named, &self.home) {
            (Some(path), _) => {
                let text =
                    read(path)?.ok_or_else(|| ServiceError::NoFile { path: path.clone() })?;
                find(path, &text, service)?
            }
            (None, Some(home)) => {
                let path = home.join(".pg_service.conf");
                match read(&path)? {
                    Some(text) => find(&path, &text, service)?,
                    None => None,
                }
            }
            (None, None) => None,
        };
        if let Some(found) = own {
            return Ok(found);
        }
        let path = self.system_directory.join("pg_service.conf");
        let found = match read(&path)? {
            Some(text) => find(&path, &text, service)?,
            None => None,
        };
        found.ok_or_else(|| ServiceError::NotFound {
            service: service.to_owned(),
        })
    }
}

fn read(path: &Path) -> Result<Option<String>, ServiceError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ServiceError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// What a service file says about `service`, `None` when it does not have it. Of repeated key words
/// the first counts.
///
/// # Errors
/// When what it says cannot be used. `path` is named in the message, and not looked at.
pub fn find(
    path: &Path,
    text: &str,
    service: &str,
) -> Result<Option<Vec<(Keyword, String)>>, ServiceError> {
    let mut found: Option<Vec<(Keyword, String)>> = None;
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let content = raw.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if let Some(header) = content.strip_prefix('[') {
            if found.is_some() {
                return Ok(found);
            }
            let rest = header.strip_prefix(service);
            found = rest
                .is_some_and(|rest| rest.starts_with(']'))
                .then(Vec::new);
            continue;
        }
        let Some(values) = &mut found else { continue };
        let (keyword, value) = assignment(path, line, content)?;
        if values.iter().all(|(known, _)| *known != keyword) {
            values.push((keyword, value.to_owned()));
        }
    }
    Ok(found)
}

fn assignment<'a>(
    path: &Path,
    line: usize,
    content: &'a str,
) -> Result<(Keyword, &'a str), ServiceError> {
    let path = || path.to_owned();
    if content.starts_with("ldap") {
        return Err(ServiceError::Ldap { path: path(), line });
    }
    let Some((name, value)) = content.split_once('=') else {
        return Err(ServiceError::Syntax { path: path(), line });
    };
    match Keyword::from_name(name) {
        Some(Keyword::Service) => Err(ServiceError::Nested { path: path(), line }),
        Some(keyword) => Ok((keyword, value)),
        None => Err(ServiceError::Syntax { path: path(), line }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n[other]\nhost=wrong\n\n  [mine]  \n host=a \nport=1\nhost=b\n\
                        options=-c x=y\n[mine]\nuser=late\n";

    fn files(directory: &Path) -> ServiceFiles {
        ServiceFiles {
            named: None,
            home: Some(directory.join("home")),
            system_directory: directory.join("system"),
        }
    }

    #[test]
    fn the_first_section_and_the_first_value_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("service.conf");
        fs::write(&path, FILE).unwrap();
        let files = ServiceFiles {
            named: Some(path),
            ..files(directory.path())
        };
        assert_eq!(
            files.look_up("mine").unwrap(),
            [
                (Keyword::Host, "a".to_owned()),
                (Keyword::Port, "1".to_owned()),
                (Keyword::Options, "-c x=y".to_owned()),
            ]
        );
        assert!(matches!(
            files.look_up("min"),
            Err(ServiceError::NotFound { .. })
        ));
    }

    #[test]
    fn the_users_file_goes_before_the_systems_and_a_named_file_must_exist() {
        let directory = tempfile::tempdir().unwrap();
        for (folder, name, user) in [
            ("home", ".pg_service.conf", "own"),
            ("system", "pg_service.conf", "sys"),
        ] {
            fs::create_dir(directory.path().join(folder)).unwrap();
            let text = format!("[both]\nuser={user}\n[{user}]\nuser={user}\n");
            fs::write(directory.path().join(folder).join(name), text).unwrap();
        }
        let mut files = files(directory.path());
        for (service, user) in [("both", "own"), ("own", "own"), ("sys", "sys")] {
            let expected = [(Keyword::User, user.to_owned())];
            assert_eq!(files.look_up(service).unwrap(), expected);
        }
        files.named = Some(directory.path().join("missing"));
        assert!(matches!(
            files.look_up("sys"),
            Err(ServiceError::NoFile { .. })
        ));
    }

    #[test]
    fn bad_lines_are_named_by_file_and_line() {
        let path = Path::new("/f");
        let messages = [
            "[s]\nhost\n",
            "[s]\n\nnonsense=1\n",
            "[s]\nservice=t\n",
            "[s]\nldap://x\n",
        ]
        .map(|text| find(path, text, "s").unwrap_err().to_string());
        assert_eq!(messages[0], "syntax error in service file \"/f\", line 2");
        assert_eq!(messages[1], "syntax error in service file \"/f\", line 3");
        assert!(messages[2].starts_with("nested service"), "{}", messages[2]);
        assert!(messages[3].starts_with("LDAP lookup"), "{}", messages[3]);
    }
}
