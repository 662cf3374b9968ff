//! Which password is given to a server.

use std::error::Error;
use std::path::{Path, PathBuf};

use super::connect::blocking;
use crate::conninfo::{ConnectionConfig, HostCandidate, Password, PasswordPrompt};
use crate::passfile::{self, PasswordKey};

/// The password, and the file it came from if it did.
#[derive(Clone, Default)]
pub(super) struct FoundPassword {
    pub(super) password: Option<Password>,
    pub(super) file: Option<PathBuf>,
}

impl FoundPassword {
    /// The password: as given, else from the password file, else as typed before.
    pub(super) async fn find(config: &ConnectionConfig, host: &HostCandidate) -> Self {
        if let Some(password) = &config.password {
            return Self {
                password: Some(password.clone()),
                file: None,
            };
        }
        if let Some(path) = config.password_file.clone() {
            let name = host.password_file_host().to_owned();
            let (port, user) = (host.port, config.user.clone());
            let found = blocking(move || look_up(&path, &name, port, &user)).await;
            if found.password.is_some() {
                return found;
            }
        }
        Self {
            password: config
                .password_prompt
                .as_ref()
                .and_then(PasswordPrompt::answer),
            file: None,
        }
    }
}

/// Asks the password file. One that must not be used is warned about and passed over, as libpq
/// does.
fn look_up(path: &Path, host: &str, port: u16, user: &str) -> FoundPassword {
    let key = PasswordKey {
        host,
        port,
        database: ConnectionConfig::DATABASE,
        user,
    };
    match passfile::look_up(path, key) {
        Ok(password) => FoundPassword {
            file: password.is_some().then(|| path.to_owned()),
            password,
        },
        Err(warning) => {
            match warning.source() {
                Some(cause) => tracing::warn!("{warning}: {cause}"),
                None => tracing::warn!("{warning}"),
            }
            FoundPassword::default()
        }
    }
}
