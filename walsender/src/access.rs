//! Whether a client may come in, and how it has to show who it is.

use std::path::PathBuf;

use walproto::error::{ServerMessage, SqlState};
use walproto::scram::ScramSecret;

use crate::config::AccessFiles;
use crate::hba::{ClientCertificate, ClientOrigin, HbaError, HbaMethod, HbaRules};
use crate::tls::{ClientIdentity, ServerTls, TlsError};
use crate::users::{Users, UsersError};

/// Files that do not say who may connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The access rules.
    #[error(transparent)]
    Rules(#[from] HbaError),
    /// The users.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// Certificates and keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Passwords are asked for, and nobody has one.
    #[error(
        "access rules \"{}\" ask for passwords, and there is no users file to check them against",
        path.display()
    )]
    NoUsers {
        /// The file of the rules.
        path: PathBuf,
    },
    /// Certificates of clients are asked for, and none is trusted.
    #[error(
        "access rules \"{}\" ask for certificates of clients, and there is no file of authorities \
         to check them against",
        path.display()
    )]
    NoAuthorities {
        /// The file of the rules.
        path: PathBuf,
    },
}

/// What the salts of users who do not exist are made of.
pub(crate) type MockNonce = [u8; segstore::MOCK_NONCE_LENGTH];

/// The rules, the users and TLS, as they were last read.
#[derive(Debug)]
pub(crate) struct Access {
    rules: HbaRules,
    users: Option<Users>,
    tls: Option<ServerTls>,
    mock_nonce: MockNonce,
}

/// What has to be known of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client<'a> {
    pub(crate) origin: ClientOrigin,
    pub(crate) identity: &'a ClientIdentity,
    /// The operating system's user at the other end of a Unix socket.
    pub(crate) uid: Option<u32>,
    pub(crate) user: &'a str,
}

/// How a client goes on.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is who it says it is.
    Believed,
    /// It has to know the password.
    Password(Box<ScramSecret>),
    /// It is, if the operating system's user with that number has the user's name.
    IfNamed(u32),
    /// It may not come in.
    Refused(Box<ServerMessage>),
}

impl Access {
    /// Reads the files. Not for a thread that does network input and output.
    pub(crate) fn load(files: &AccessFiles, mock_nonce: MockNonce) -> Result<Self, AccessError> {
        let mut rules = match &files.hba {
            Some(path) => HbaRules::load(path)?,
            None => HbaRules::same_user(),
        };
        let users = files.users.as_deref().map(Users::load).transpose()?;
        let tls = files.tls.as_ref().map(ServerTls::load).transpose()?;
        if let Some(path) = &files.hba {
            if rules.need_passwords() && users.is_none() {
                return Err(AccessError::NoUsers { path: path.clone() });
            }
            let authorities = files.tls.as_ref();
            let authorities = authorities.and_then(|tls| tls.client_authorities.as_ref());
            if rules.need_client_certificates() && authorities.is_none() {
                return Err(AccessError::NoAuthorities { path: path.clone() });
            }
            note_unused(path, &rules, tls.is_some());
        }
        if files.trust_loopback {
            rules = rules.and_trust_loopback();
        }
        Ok(Self {
            rules,
            users,
            tls,
            mock_nonce,
        })
    }

    pub(crate) const fn tls(&self) -> Option<&ServerTls> {
        self.tls.as_ref()
    }

    /// Says how a client goes on. The messages are PostgreSQL's.
    ///
    /// Source: src/backend/libpq/auth.c, `ClientAuthentication` (PG 15).
    pub(crate) fn admit(&self, client: Client<'_>) -> Admission {
        let user = client.user;
        let Some(rule) = self.rules.find(client.origin, user) else {
            return Admission::refused(format!(
                "no pg_hba.conf entry for replication connection from host \"{}\", user \
                 \"{user}\", {}",
                host(client.origin),
                encryption(client.origin)
            ));
        };
        let in_the_users_name = match client.identity {
            ClientIdentity::Unknown if rule.client_certificate > ClientCertificate::NotNeeded => {
                return Admission::refused("connection requires a valid client certificate");
            }
            ClientIdentity::Unknown => false,
            ClientIdentity::Verified { common_name } => common_name.as_deref() == Some(user),
        };
        if rule.client_certificate == ClientCertificate::InTheUsersName && !in_the_users_name {
            return failed("certificate", user);
        }
        match rule.method {
            HbaMethod::Trust | HbaMethod::Cert => Admission::Believed,
            HbaMethod::Reject => Admission::refused(format!(
                "pg_hba.conf rejects replication connection for host \"{}\", user \"{user}\", {}",
                host(client.origin),
                encryption(client.origin)
            )),
            HbaMethod::ScramSha256 => match &self.users {
                Some(users) => Admission::Password(Box::new(users.secret(user, &self.mock_nonce))),
                None => failed("password", user),
            },
            HbaMethod::Peer => match client.uid {
                Some(uid) => Admission::IfNamed(uid),
                None => peer_failed(user),
            },
            HbaMethod::SameUser => match client.uid {
                Some(uid) if uid == rustix::process::geteuid().as_raw() => Admission::Believed,
                Some(_) | None => peer_failed(user),
            },
        }
    }
}

impl Admission {
    fn refused(message: impl Into<String>) -> Self {
        let sqlstate = SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
        Self::Refused(Box::new(ServerMessage::fatal(sqlstate, message)))
    }
}

/// The rules that are read and do nothing: nobody is to rely on them.
fn note_unused(path: &std::path::Path, rules: &HbaRules, has_tls: bool) {
    let path = path.display();
    if !rules.unused().is_empty() {
        tracing::info!(
            "access rules \"{path}\": lines {:?} are for other databases than replication and \
             have no effect",
            rules.unused()
        );
    }
    if rules.need_tls() && !has_tls {
        tracing::warn!(
            "access rules \"{path}\": hostssl lines cannot match, since there is no certificate \
             for TLS"
        );
    }
}

fn failed(method: &str, user: &str) -> Admission {
    Admission::refused(format!(
        "{method} authentication failed for user \"{user}\""
    ))
}

/// Whoever has another user of the operating system's rights is refused in these words.
pub(crate) fn peer_failed(user: &str) -> Admission {
    failed("Peer", user)
}

/// The name of the operating system's user, if it has one. It may ask a directory service.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    user.ok().flatten().map(|user| user.name)
}

fn host(origin: ClientOrigin) -> String {
    match origin {
        ClientOrigin::Local => "[local]".to_owned(),
        ClientOrigin::Tcp { address, .. } => address.to_canonical().to_string(),
    }
}

const fn encryption(origin: ClientOrigin) -> &'static str {
    match origin {
        ClientOrigin::Tcp {
            encrypted: true, ..
        } => "SSL encryption",
        ClientOrigin::Tcp { .. } | ClientOrigin::Local => "no encryption",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    fn access(rules: &str) -> Access {
        Access {
            rules: HbaRules::parse(Path::new("hba"), rules.as_bytes()).unwrap(),
            users: Some(Users::parse(Path::new("users"), b"").unwrap()),
            tls: None,
            mock_nonce: MockNonce::default(),
        }
    }

    fn tcp(encrypted: bool) -> ClientOrigin {
        ClientOrigin::Tcp {
            address: "192.0.2.1".parse().unwrap(),
            encrypted,
        }
    }

    /// What a client is refused with, `None` if it is not.
    fn refusal(access: &Access, client: Client<'_>) -> Option<String> {
        match access.admit(client) {
            Admission::Refused(message) => {
                assert_eq!(
                    message.sqlstate,
                    SqlState::INVALID_AUTHORIZATION_SPECIFICATION
                );
                Some(message.message)
            }
            Admission::Believed | Admission::Password(_) | Admission::IfNamed(_) => None,
        }
    }

    #[test]
    fn refusals_are_in_postgresqls_words() {
        let access = access(
            "hostnossl replication relay all reject\n\
             hostssl replication relay all cert\n\
             hostssl replication guest all trust clientcert=verify-ca\n",
        );
        let unknown = ClientIdentity::Unknown;
        let named = |name: &str| ClientIdentity::Verified {
            common_name: Some(name.to_owned()),
        };
        let (relay, other) = (named("relay"), named("other"));
        let client = |origin, identity, user| Client {
            origin,
            identity,
            uid: None,
            user,
        };
        for (client, expected) in [
            (
                client(ClientOrigin::Local, &unknown, "relay"),
                Some(
                    "no pg_hba.conf entry for replication connection from host \"[local]\", \
                     user \"relay\", no encryption",
                ),
            ),
            (
                client(tcp(true), &relay, "nobody"),
                Some(
                    "no pg_hba.conf entry for replication connection from host \"192.0.2.1\", \
                     user \"nobody\", SSL encryption",
                ),
            ),
            (
                client(tcp(false), &unknown, "relay"),
                Some(
                    "pg_hba.conf rejects replication connection for host \"192.0.2.1\", user \
                     \"relay\", no encryption",
                ),
            ),
            (
                client(tcp(true), &unknown, "relay"),
                Some("connection requires a valid client certificate"),
            ),
            (
                client(tcp(true), &other, "relay"),
                Some("certificate authentication failed for user \"relay\""),
            ),
            (client(tcp(true), &relay, "relay"), None),
            (client(tcp(true), &other, "guest"), None),
        ] {
            let found = refusal(&access, client);
            assert_eq!(found.as_deref(), expected, "{client:?}");
        }
    }

    #[test]
    fn the_user_at_the_other_end_of_a_unix_socket_counts() {
        let own = rustix::process::geteuid().as_raw();
        let client = |uid| Client {
            origin: ClientOrigin::Local,
            identity: &ClientIdentity::Unknown,
            uid,
            user: "any",
        };
        let same_user = Access {
            rules: HbaRules::same_user(),
            users: None,
            tls: None,
            mock_nonce: MockNonce::default(),
        };
        assert!(matches!(
            same_user.admit(client(Some(own))),
            Admission::Believed
        ));
        for uid in [Some(own + 1), None] {
            let refused = refusal(&same_user, client(uid));
            let message = "Peer authentication failed for user \"any\"";
            assert_eq!(refused.as_deref(), Some(message));
        }
        let peer = access("local replication all peer");
        assert!(matches!(peer.admit(client(Some(7))), Admission::IfNamed(7)));
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }

    #[test]
    fn rules_that_nothing_can_be_checked_against_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let hba = directory.path().join("hba");
        let load = |rules: &str| {
            std::fs::write(&hba, rules).unwrap();
            let files = AccessFiles {
                hba: Some(hba.clone()),
                ..AccessFiles::default()
            };
            Access::load(&files, MockNonce::default())
        };
        let error = load("local replication all scram-sha-256").unwrap_err();
        assert!(matches!(error, AccessError::NoUsers { .. }), "{error}");
        let error = load("hostssl replication all all cert").unwrap_err();
        assert!(
            matches!(error, AccessError::NoAuthorities { .. }),
            "{error}"
        );
        assert!(load("hostssl replication all all trust").is_ok());
    }
}
