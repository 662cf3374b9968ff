//! How the two sides come to trust each other, or do not.

use postgres_protocol::message::frontend;

use super::*;
use crate::backend::BackendMessage;
use crate::client::{ChannelBindingPolicy, Transport};
use crate::error::SqlState;
use crate::scram::{RAW_NONCE_LENGTH, ScramError, ScramSecret, ScramVerifier};

const NONCE: [u8; RAW_NONCE_LENGTH] = [7; RAW_NONCE_LENGTH];

fn secret() -> ScramSecret {
    ScramVerifier::from_password(b"pencil", b"sixteen bytes...", 3).into()
}

fn hash(hash: &'static [u8]) -> Option<Bytes> {
    Some(Bytes::from_static(hash))
}

/// A pair whose client has the password, and is asked to show it over TLS.
fn asked(password: &[u8], secret: ScramSecret, certificate: Option<Bytes>) -> Pair {
    let transport = Transport::Tls {
        server_end_point: Some(b"hash".to_vec()),
    };
    let credentials = Credentials {
        password: Some(password.to_vec()),
        channel_binding: ChannelBindingPolicy::Prefer,
        transport,
        ..Credentials::default()
    };
    let mut pair = Pair::new(V15, credentials);
    assert!(matches!(pair.server_events()[..], [Event::Startup(_)]));
    pair.server
        .authenticate_scram(secret, NONCE, certificate)
        .unwrap();
    pair
}

#[test]
fn a_client_that_knows_the_password_is_let_in() {
    for certificate in [None, hash(b"hash")] {
        let mut pair = asked(b"pencil", secret(), certificate);
        assert_eq!(pair.server_events(), [Event::Authenticated]);
        pair.welcome();
        assert_eq!(pair.client_events(), [client::Event::Ready]);
        pair.execute(&Command::IdentifySystem);
    }
}

/// Lets both sides go on until the server refuses the client.
fn refused(pair: &mut Pair) -> (ScramError, ClientError) {
    loop {
        pair.client.poll_transmit(&mut pair.to_server);
        if let Err(error) = pair.server.handle_input(pair.now, &mut pair.to_server) {
            let ServerError::Scram { user, source } = error else {
                panic!("{error}");
            };
            assert_eq!(user, "rep");
            assert!(pair.server.is_over());
            assert_eq!(pair.server.next_timeout(), None);
            return (source, pair.client_error());
        }
        pair.server.poll_transmit(&mut pair.to_client);
        let client = &mut pair.client;
        client.handle_input(pair.now, &mut pair.to_client).unwrap();
    }
}

#[test]
fn a_wrong_password_and_an_unknown_role_are_refused_alike() {
    let mock = ScramSecret::mock("rep", b"key", 3);
    let mut messages = Vec::new();
    for secret in [secret(), mock] {
        let mut pair = asked(b"pen", secret, hash(b"hash"));
        let (error, told) = refused(&mut pair);
        assert_eq!(error, ScramError::WrongProof);
        let ClientError::Refused(message) = told else {
            panic!("{told}");
        };
        assert_eq!(message.sqlstate, SqlState::INVALID_PASSWORD);
        messages.push(message);
    }
    assert_eq!(messages[0], messages[1]);
}

#[test]
fn a_client_that_is_bound_to_another_certificate_is_refused() {
    let mut pair = asked(b"pencil", secret(), hash(b"other"));
    let (error, told) = refused(&mut pair);
    assert_eq!(error, ScramError::BindingMismatch);
    assert_eq!(
        told.to_string(),
        "FATAL: SCRAM channel binding check failed [SQLSTATE 28000]"
    );
}

/// A session that has asked for a password.
fn asking() -> ServerSession {
    let mut pair = asked(b"pencil", secret(), None);
    pair.server.poll_transmit(&mut pair.to_client);
    pair.server
}

/// What the session tells a client that sends `bytes` then.
fn told(bytes: &[u8]) -> String {
    let mut session = asking();
    let now = session.now;
    let error = session.handle_input(now, &mut BytesMut::from(bytes));
    assert!(error.is_err());
    let mut out = BytesMut::new();
    session.poll_transmit(&mut out);
    let frame = Frame::take(&mut out, |_| 1000).unwrap().unwrap();
    match BackendMessage::decode(frame).unwrap() {
        BackendMessage::ErrorResponse(message) => message.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_part_of_the_exchange_is_refused_as_by_postgresql() {
    assert_eq!(
        told(b"Q\0\0\0\x05\0"),
        "FATAL: expected SASL response, got message type 81 [SQLSTATE 08P01]"
    );
    assert_eq!(
        told(b"p\0\0\0\x1bSCRAM-SHA-256-PLUS\0\0\0\0\0"),
        "FATAL: client selected an invalid SASL authentication mechanism [SQLSTATE 08P01]"
    );
    assert!(told(b"p\0\0\0\x12SCRAM-SHA-256\0").contains("08P01"));
    let too_long = u32::try_from(MAX_SASL_LENGTH + 5).unwrap();
    assert!(told(&[b"p", &too_long.to_be_bytes()[..]].concat()).contains("08P01"));
}

#[test]
fn a_client_without_a_first_message_is_asked_for_one() {
    let mut session = asking();
    let now = session.now;
    let mut input = BytesMut::from(&b"p\0\0\0\x16SCRAM-SHA-256\0\xFF\xFF\xFF\xFF"[..]);
    session.handle_input(now, &mut input).unwrap();
    let mut out = BytesMut::new();
    session.poll_transmit(&mut out);
    // PostgreSQL 15.18's answer.
    assert_eq!(&out[..], b"R\0\0\0\x08\0\0\0\x0b");
    frontend::sasl_response(b"n,,n=,r=abc", &mut input).unwrap();
    session.handle_input(now, &mut input).unwrap();
    out.clear();
    session.poll_transmit(&mut out);
    assert_eq!(&out[5..9], b"\0\0\0\x0b");
    assert!(out[9..].starts_with(b"r=abcBwcH"));
}
