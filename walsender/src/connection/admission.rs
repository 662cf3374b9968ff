//! Whether a client may come in, and what it is told then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use walproto::error::{ServerMessage, SqlState};
use walproto::server::{ReplicationMode, StartupRequest};

use super::{Connection, ConnectionError};
use crate::access::{self, Admission, Client};
use crate::chain::one_line;
use crate::commands::no_databases;
use crate::hba::ClientOrigin;
use crate::random::random;
use crate::recurring::{self, Before, Request};
use crate::registry::{KEY_LENGTH, Newcomer, NoRoom};
use crate::repeat::Repeated;
use crate::settings;
use crate::tls::ClientIdentity;

/// What is known of a client beside what it says.
#[derive(Clone, Debug)]
pub(super) struct OpenedFacts {
    pub(super) address: Option<SocketAddr>,
    pub(super) uid: Option<u32>,
    pub(super) identity: ClientIdentity,
    pub(super) encrypted: bool,
    pub(super) channel_binding: Option<Bytes>,
}

impl Connection {
    /// Looks who the client is, or has it show that.
    pub(super) async fn admit(
        &mut self,
        request: Box<StartupRequest>,
    ) -> Result<(), ConnectionError> {
        for (name, value) in &request.settings {
            if name.eq_ignore_ascii_case("wal_sender_timeout") {
                match settings::wal_sender_timeout(value) {
                    Ok(timeout) => {
                        self.wal_sender_timeout = timeout;
                        self.session()?.set_wal_sender_timeout(timeout);
                    }
                    Err(message) => {
                        self.session()?.reject(message);
                        return Ok(());
                    }
                }
            }
        }
        let client = Client {
            origin: self.opened.origin(),
            identity: &self.opened.identity,
            uid: self.opened.uid,
            user: &request.user,
        };
        let mut admission = self.shared.access().admit(client);
        if let Admission::IfNamed(uid) = admission {
            let name = tokio::task::spawn_blocking(move || access::user_name(uid));
            let name = name.await.map_err(|_panic| ConnectionError::Fault)?;
            admission = if name.as_deref() == Some(request.user.as_str()) {
                Admission::Believed
            } else {
                access::peer_failed(&request.user)
            };
        }
        self.request = Some(request);
        let channel_binding = self.opened.channel_binding.clone();
        let session = self.session()?;
        match admission {
            Admission::Believed => session.authenticate_trust()?,
            Admission::Password(secret) => {
                let nonce = random().ok_or(ConnectionError::Fault)?;
                session.authenticate_scram(*secret, nonce, channel_binding)?;
            }
            Admission::Refused(message) => self.refuse(*message)?,
            Admission::IfNamed(_) => return Err(ConnectionError::Fault),
        }
        Ok(())
    }

    /// Does not let the client in, for a reason that the log tells, too.
    pub(super) fn refuse(&mut self, message: ServerMessage) -> Result<(), ConnectionError> {
        let client = self.opened.shown();
        let text = one_line(&message.to_string());
        let text = format_args!("connection from {client} refused: {text}");
        self.shared.repeats.warn(Repeated::Refused, &client, text);
        self.session()?.reject(message);
        Ok(())
    }

    /// Takes the client in, if it is for replication and there is room for one more.
    pub(super) fn welcome(&mut self) -> Result<(), ConnectionError> {
        let request = self.request.take().ok_or(ConnectionError::Fault)?;
        if request.replication != ReplicationMode::Physical {
            return self.refuse_database(&request);
        }
        let newcomer = Newcomer {
            user: request.user.clone(),
            application_name: request.application_name.clone(),
            address: self.opened.address,
            encrypted: self.opened.encrypted,
        };
        let key: [u8; KEY_LENGTH] = random().ok_or(ConnectionError::Fault)?;
        let registered = match self.shared.registry.admit(newcomer, key) {
            Ok(registered) => Arc::new(registered),
            Err(no_room) => {
                let text = match no_room {
                    NoRoom::Total => "sorry, too many clients already".to_owned(),
                    NoRoom::User => format!("too many connections for role \"{}\"", request.user),
                };
                return self.refuse(ServerMessage::fatal(SqlState::TOO_MANY_CONNECTIONS, text));
            }
        };
        // It counts among those that are taken in. One that is not goes on counting among the
        // unknown, so that those who are told so are no more than there may be of these.
        self.known = None;
        let shared = Arc::clone(&self.shared);
        let settings = shared.settings(&request, self.wal_sender_timeout);
        let reported = settings.reported();
        let process_id = registered.process_id();
        self.registered = Some(registered);
        self.slots = Some(Arc::new(self.shared.slots.session(process_id)));
        let parameters = reported.iter().map(|(name, value)| (*name, value.as_str()));
        let key = Bytes::copy_from_slice(&key);
        self.session()?.welcome(parameters, process_id, key)?;
        self.request = Some(request);
        self.log_client("replication connection authorized");
        Ok(())
    }

    /// Refuses a connection to a database, once the client is authenticated: only then does
    /// PostgreSQL look for the database, and health checks rely on that (`option pgsql-check` of
    /// HAProxy takes a request for authentication for a good answer, and an error for a bad one).
    /// The rules for replication decide how it is authenticated: no others have an effect here.
    ///
    /// Source: src/backend/utils/init/postinit.c, `InitPostgres` (PG 15).
    fn refuse_database(&mut self, request: &StartupRequest) -> Result<(), ConnectionError> {
        let message = match request.replication {
            ReplicationMode::Database => no_databases("connections to a database"),
            ReplicationMode::Physical | ReplicationMode::Off => only_replication(),
        };
        let client = self.opened.shown();
        let (user, database) = (&request.user, request.database.as_deref());
        let database: String = database.unwrap_or(user).chars().take(63).collect();
        let text = format!(
            "connection from {client} refused: user={user:?} database={database:?}: {}",
            message.message
        );
        let who = self.opened.client(Some(request));
        let shared = &self.shared;
        match shared
            .recurring
            .note(Request::Connection, who, Instant::now())
        {
            Some(before) => {
                let text = format_args!("{text}{}", Before(before));
                shared.repeats.warn(Repeated::Refused, &client, text);
            }
            None => shared.repeats.count(Repeated::Refused),
        }
        self.session()?.reject(message);
        Ok(())
    }

    /// Says what has become of a client that has shown who it is, as PostgreSQL does with
    /// `log_connections` and `log_disconnections`.
    pub(super) fn log_client(&self, what: &str) {
        let (Some(request), Some(_)) = (&self.request, &self.registered) else {
            return;
        };
        let (user, name) = (&request.user, &request.application_name);
        let client = self.opened.shown();
        // Quoted with escapes: names are the client's to choose, and a line is to stay one.
        tracing::debug!(
            user,
            application_name = name,
            client,
            "{what}: user={user:?} application_name={name:?} client={client}"
        );
    }
}

fn only_replication() -> ServerMessage {
    let message = "this server keeps WAL and has no databases: it takes only replication \
                   connections";
    ServerMessage::fatal(SqlState::FEATURE_NOT_SUPPORTED, message)
        .with_hint("Connect with replication=true.")
}

impl OpenedFacts {
    fn origin(&self) -> ClientOrigin {
        match self.address {
            Some(address) => ClientOrigin::Tcp {
                address: address.ip(),
                encrypted: self.encrypted,
            },
            None => ClientOrigin::Local,
        }
    }

    /// The client, to recognize it by.
    pub(super) fn client(&self, request: Option<&StartupRequest>) -> recurring::Client {
        let user = request.map(|request| request.user.clone());
        let application_name = request.map(|request| request.application_name.clone());
        recurring::Client {
            address: self.address.map(|address| address.ip()),
            user: user.unwrap_or_default(),
            application_name: application_name.unwrap_or_default(),
        }
    }

    pub(super) fn shown(&self) -> String {
        self.address
            .map_or_else(|| "[local]".to_owned(), |address| address.to_string())
    }
}
