//! The beginning of a connection: whether it is encrypted, and who is at the other end.
//!
//! Source: src/backend/postmaster/postmaster.c, `ProcessStartupPacket` (PG 15);
//! src/backend/tcop/backend_startup.c, `ProcessSSLStartup` (PG 17).

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use walproto::server::{Event, ServerError, ServerSession};

use super::{ConnectionError, OpenedFacts, new_session};
use crate::shared::Shared;
use crate::socket::{Accepted, Plain, Reader, Writer};
use crate::tls::{ClientIdentity, Negotiation, ServerTls, client_identity};

/// The first byte of a TLS handshake, which no packet of the protocol begins with.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection whose encryption is settled.
pub(super) struct Opened {
    pub(super) session: ServerSession,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) facts: OpenedFacts,
    /// What was read and not yet looked at.
    pub(super) input: BytesMut,
    /// What the client asked for, if it went on without encryption.
    pub(super) asked: Option<Event>,
    /// Why that cannot be answered; the session knows what the client is told.
    pub(super) failure: Option<ServerError>,
}

/// Settles encryption; `None` when the client is gone without a word.
pub(super) async fn open(
    shared: &Arc<Shared>,
    accepted: Accepted,
) -> Result<Option<Opened>, ConnectionError> {
    let session = new_session(shared);
    let mut facts = OpenedFacts {
        address: None,
        uid: None,
        identity: ClientIdentity::Unknown,
        encrypted: false,
        channel_binding: None,
    };
    match accepted {
        Accepted::Unix(stream) => {
            facts.uid = Some(stream.peer_cred()?.uid());
            let plain = Plain::Unix(Arc::new(stream));
            Ok(Some(Opened::plain(session, plain, facts)))
        }
        Accepted::Tcp(stream, address) => {
            facts.address = Some(address);
            let due = session.next_timeout();
            let opening = open_tcp(shared, session, stream, facts);
            let Some(due) = due else {
                return opening.await;
            };
            let timed = tokio::time::timeout_at(due.into(), opening).await;
            timed.unwrap_or_else(|_elapsed| {
                let limit = shared.config.limits.authentication_timeout;
                let state = "the beginning of the connection";
                Err(ServerError::StartupTimeout { limit, state }.into())
            })
        }
    }
}

async fn open_tcp(
    shared: &Arc<Shared>,
    mut session: ServerSession,
    mut stream: TcpStream,
    facts: OpenedFacts,
) -> Result<Option<Opened>, ConnectionError> {
    let access = shared.access();
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        // A health check only looks whether it can connect, and may end by a reset.
        Err(error) => {
            tracing::debug!("a connection was closed before its first byte: {error}");
            return Ok(None);
        }
    }
    if first == [TLS_HANDSHAKE]
        && let Some(tls) = access.tls()
    {
        return encrypted(tls, Negotiation::Direct, session, stream, facts).await;
    }
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        let now = Instant::now();
        let failure = match stream.read_buf(&mut input).await? {
            0 => session.handle_eof(now).err(),
            _ => session.handle_input(now, &mut input).err(),
        };
        let asked = session.poll_event();
        match (asked, access.tls()) {
            (Some(Event::TlsRequested), Some(tls)) => {
                session.accept_tls()?;
                session.poll_transmit(&mut out);
                stream.write_all_buf(&mut out).await?;
                return encrypted(tls, Negotiation::Requested, session, stream, facts).await;
            }
            (Some(Event::TlsRequested), None) => session.refuse_tls()?,
            (asked, _) if asked.is_some() || failure.is_some() => {
                let plain = Plain::Tcp(Arc::new(stream));
                let opened = Opened::plain(session, plain, facts);
                return Ok(Some(Opened {
                    input,
                    asked,
                    failure,
                    ..opened
                }));
            }
            // More is to come, perhaps after an answer.
            _ => {}
        }
        session.poll_transmit(&mut out);
        stream.write_all_buf(&mut out).await?;
    }
}

async fn encrypted(
    tls: &ServerTls,
    negotiation: Negotiation,
    session: ServerSession,
    stream: TcpStream,
    facts: OpenedFacts,
) -> Result<Option<Opened>, ConnectionError> {
    let stream = tls.accept(stream, negotiation).await?;
    let facts = OpenedFacts {
        encrypted: true,
        identity: client_identity(&stream),
        channel_binding: tls.channel_binding().map(Bytes::copy_from_slice),
        ..facts
    };
    let (reader, writer) = tokio::io::split(stream);
    Ok(Some(Opened {
        session,
        reader: Reader::Tls(reader),
        writer: Writer::tls(writer),
        facts,
        input: BytesMut::new(),
        asked: None,
        failure: None,
    }))
}

impl Opened {
    fn plain(session: ServerSession, plain: Plain, facts: OpenedFacts) -> Self {
        Self {
            session,
            reader: Reader::Plain(plain.clone()),
            writer: Writer::Plain(plain),
            facts,
            input: BytesMut::new(),
            asked: None,
            failure: None,
        }
    }
}
