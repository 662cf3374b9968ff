//! What a session tells its driver.

use bytes::Bytes;

use crate::command::Command;
use crate::copy_data::{HotStandbyFeedback, StandbyStatusUpdate};
use crate::startup::ProtocolVersion;

/// What happened on the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The client asks for TLS. The driver answers by
    /// [`accept_tls`](super::ServerSession::accept_tls) or
    /// [`refuse_tls`](super::ServerSession::refuse_tls).
    TlsRequested,
    /// The client asks to cancel what another connection is doing, and nothing else: nothing is
    /// answered, and the connection is over.
    Cancel {
        /// The process that serves the other connection.
        process_id: i32,
        /// The key that the other connection was [welcomed](super::ServerSession::welcome) with.
        secret_key: Bytes,
    },
    /// The client asks for a session. The driver answers by
    /// [`authenticate_trust`](super::ServerSession::authenticate_trust),
    /// [`authenticate_scram`](super::ServerSession::authenticate_scram) or
    /// [`reject`](super::ServerSession::reject). A client that asks for what the server does not
    /// have is authenticated first, as PostgreSQL does it: health checks ask for no more.
    Startup(Box<StartupRequest>),
    /// The client is who it says it is. The driver answers by
    /// [`welcome`](super::ServerSession::welcome) or [`reject`](super::ServerSession::reject).
    Authenticated,
    /// The client sends a command that the server's version has. The driver answers by
    /// [`answer`](super::ServerSession::answer), [`complete`](super::ServerSession::complete) or
    /// [`fail`](super::ServerSession::fail), and START_REPLICATION also by
    /// [`start_streaming`](super::ServerSession::start_streaming) or
    /// [`timeline_already_ended`](super::ServerSession::timeline_already_ended).
    Command(Command),
    /// The client sends what is no replication command of the server's version, but may be SQL.
    /// The driver answers by [`fail`](super::ServerSession::fail).
    Sql(String),
    /// The client says how far it is. No position is greater than what was sent on this stream,
    /// whatever the client said; a keepalive that it asks for is already on its way.
    Status(StandbyStatusUpdate),
    /// The client says which transactions it still needs, or by 0 twice that it does not.
    Feedback(HotStandbyFeedback),
    /// The stream of WAL came to its end; all of its ending is already on its way, and the client
    /// may send the next command.
    CopyFinished,
    /// The stream of WAL came to its end in a shutdown. The driver closes the connection once
    /// what there is for transmission is sent.
    Stopped,
    /// The client is gone. Nothing more is sent.
    Terminated,
}

/// What a client asks a session for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartupRequest {
    /// The protocol that is spoken from now on.
    pub protocol: ProtocolVersion,
    /// The role, at most 63 bytes of it as in PostgreSQL.
    pub user: String,
    /// The database, as the client gave it.
    pub database: Option<String>,
    /// Which kind of replication the client wants, if any.
    pub replication: ReplicationMode,
    /// What `pg_stat_replication` shows and `synchronous_standby_names` refers to, as the server's
    /// version shortens and cleans it; empty if there is none.
    pub application_name: String,
    /// Other parameters of the server that the client sets, as in `wal_sender_timeout`, whether
    /// by name or as options of the server process. In their order: the last value counts. Upper
    /// and lower case of a name are the same. What is not UTF-8 in them is replaced.
    pub settings: Vec<(String, String)>,
}

/// Which kind of replication a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicationMode {
    /// `replication=true`: physical replication, without a database.
    Physical,
    /// `replication=database`: a database's changes. Replication commands are understood too.
    Database,
    /// An ordinary connection to a database.
    Off,
}
