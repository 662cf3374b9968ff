use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

use super::*;
use crate::error::SqlState;
use crate::scram::ScramVerifier;

/// What PostgreSQL 15.18 stored for the password "pencil".
const STORED: &str = "SCRAM-SHA-256$4096:NzNZ3VJFznxjqiEiQzgCLQ==$\
    slNysFj9SqLbfhaVXnPTosJHrlzmNH5DwPONt3A3TgU=:EeQpku6DP4rZeKcLw/jVmONCWd2GYfgHoBfmsuhg3Vs=";

/// An exchange of it with a client: the second half of the nonce, then the last three messages.
const NONCE: &str = "zSYvTaB8d+HI54xfvhn8yAMd";
const FIRST: &[u8] = b"n,,n=,r=rOprNGfwEbeRWgbNEkqO";
const CHALLENGE: &str =
    "r=rOprNGfwEbeRWgbNEkqOzSYvTaB8d+HI54xfvhn8yAMd,s=NzNZ3VJFznxjqiEiQzgCLQ==,i=4096";
const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqOzSYvTaB8d+HI54xfvhn8yAMd,\
    p=Hs+dTZfwYuRsTtR0/03krwBy2LSuz+JyvythJdWobgQ=";
const SIGNATURE: &str = "v=qCSkROixe4nikqMc462VnbdlDQrEV9lJTQopc4lCtno=";

/// The proof of a client with the password "wrong", in another exchange with the nonce below.
const WRONG_NONCE: &str = "NlxZP/R0M5yDR7IO/QjVAiH6";
const WRONG: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqONlxZP/R0M5yDR7IO/QjVAiH6,\
    p=gXR2XnYaoAlTpiX2jQ3MHdVgTc8ixmfZ2D8Pf8w5zNE=";

const SHA: &[u8] = b"SCRAM-SHA-256";
const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";

fn server(nonce: &str, binding: Option<&'static [u8]>) -> ScramServer {
    let stored: ScramVerifier = STORED.parse().unwrap();
    let nonce = STANDARD.decode(nonce).unwrap().try_into().unwrap();
    ScramServer::new(stored.into(), nonce, binding.map(Bytes::from_static))
}

fn challenged() -> Challenged {
    server(NONCE, None).challenge(SHA, FIRST).unwrap().0
}

#[test]
fn an_exchange_goes_as_postgresql_goes() {
    let (challenged, challenge) = server(NONCE, None).challenge(SHA, FIRST).unwrap();
    assert_eq!(challenge, CHALLENGE);
    assert_eq!(challenged.finish(LAST.as_bytes()).as_deref(), Ok(SIGNATURE));
}

#[test]
fn a_wrong_password_is_found_out() {
    let (challenged, _) = server(WRONG_NONCE, None).challenge(SHA, FIRST).unwrap();
    let error = challenged.finish(WRONG).unwrap_err();
    assert_eq!(error, ScramError::WrongProof);
    let message = error.for_client("scr");
    assert_eq!(message.sqlstate, SqlState::INVALID_PASSWORD);
    assert_eq!(
        message.message,
        "password authentication failed for user \"scr\""
    );
    let flipped = LAST.replace("p=Hs", "p=Gs");
    let error = challenged_with(&flipped);
    assert_eq!(error, ScramError::WrongProof);
}

fn challenged_with(last: impl AsRef<[u8]>) -> ScramError {
    challenged().finish(last.as_ref()).unwrap_err()
}

#[test]
fn a_mock_looks_like_a_wrong_password() {
    let nonce = STANDARD.decode(NONCE).unwrap().try_into().unwrap();
    let mock = ScramSecret::mock("nobody", b"key", 4096);
    let (challenged, challenge) = ScramServer::new(mock, nonce, None)
        .challenge(SHA, FIRST)
        .unwrap();
    let form = |text: &str| {
        let parts: Vec<_> = text
            .split(',')
            .map(|part| (part.get(..2), part.len()))
            .collect();
        format!("{parts:?}")
    };
    assert_eq!(form(&challenge), form(CHALLENGE));
    let error = challenged.finish(LAST.as_bytes()).unwrap_err();
    assert_eq!(error, ScramError::WrongProof);
}

/// Even who knows what a mock is made of is not let in.
#[test]
fn no_proof_is_right_for_a_mock() {
    let mut mock = ScramSecret::mock("nobody", b"key", 4096);
    mock.verifier = STORED.parse().unwrap();
    let nonce = STANDARD.decode(NONCE).unwrap().try_into().unwrap();
    let (challenged, _) = ScramServer::new(mock, nonce, None)
        .challenge(SHA, FIRST)
        .unwrap();
    let error = challenged.finish(LAST.as_bytes()).unwrap_err();
    assert_eq!(error, ScramError::WrongProof);
}

#[test]
fn channel_binding_has_to_be_what_both_sides_can_do() {
    use ScramError as E;
    let first = |binding, mechanism, message: &[u8]| {
        server(NONCE, binding)
            .challenge(mechanism, message)
            .map(|_| ())
    };
    let hash = Some(&b"hash"[..]);
    let plus = b"p=tls-server-end-point,,n=,r=a";
    let malformed = |result| matches!(result, Err(E::Malformed { .. }));
    assert_eq!(first(None, SHA, b"n,,n=,r=a"), Ok(()));
    assert_eq!(first(None, SHA, b"y,,n=,r=a"), Ok(()));
    assert_eq!(first(None, PLUS, plus), Err(E::Mechanism));
    assert!(malformed(first(None, SHA, plus)));
    assert_eq!(first(hash, SHA, b"n,,n=,r=a"), Ok(()));
    assert_eq!(first(hash, SHA, b"y,,n=,r=a"), Err(E::BindingNegotiation));
    assert_eq!(first(hash, PLUS, plus), Ok(()));
    assert!(malformed(first(hash, SHA, plus)));
    assert!(malformed(first(hash, PLUS, b"n,,n=,r=a")));
    assert!(malformed(first(hash, PLUS, b"y,,n=,r=a")));
    let unique = b"p=tls-unique,,n=,r=a";
    assert_eq!(first(hash, PLUS, unique), Err(E::BindingType));
    assert_eq!(first(None, b"SCRAM-SHA-1", b"n,,n=,r=a"), Err(E::Mechanism));
    assert_eq!(
        E::BindingNegotiation.for_client("x").sqlstate,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION
    );
}

/// Whether postgres-protocol's client and a server come to trust each other.
fn trusts(password: &[u8], client: ChannelBinding, mechanism: &[u8]) -> Result<(), ScramError> {
    let verifier = ScramVerifier::from_password(b"pencil", b"salt", 3);
    let hash = Some(Bytes::from_static(b"hash"));
    let server = ScramServer::new(verifier.into(), [9; RAW_NONCE_LENGTH], hash);
    let mut client = ScramSha256::new(password, client);
    let (challenged, challenge) = server.challenge(mechanism, client.message())?;
    client.update(challenge.as_bytes()).unwrap();
    let signature = challenged.finish(client.message())?;
    client.finish(signature.as_bytes()).unwrap();
    Ok(())
}

#[test]
fn the_client_has_to_be_bound_to_the_certificate_of_the_server() {
    let bound = |hash: &[u8]| ChannelBinding::tls_server_end_point(hash.to_vec());
    assert_eq!(trusts(b"pencil", bound(b"hash"), PLUS), Ok(()));
    assert_eq!(
        trusts(b"pencil", ChannelBinding::unsupported(), SHA),
        Ok(())
    );
    assert_eq!(
        trusts(b"pencil", bound(b"other"), PLUS),
        Err(ScramError::BindingMismatch)
    );
    assert_eq!(
        trusts(b"pen", bound(b"hash"), PLUS),
        Err(ScramError::WrongProof)
    );
}

/// The first messages that PostgreSQL 15.18 refused, with what it said of them.
#[test]
fn a_first_message_that_is_none_is_refused_as_by_postgresql() {
    for (message, text) in [
        (&b""[..], "malformed SCRAM message"),
        (b"x,,n=,r=a", "malformed SCRAM message"),
        (b"n", "malformed SCRAM message"),
        (b"n,,n=", "malformed SCRAM message"),
        (b"n,,r=a", "malformed SCRAM message"),
        (b"n,,n=,r=a,1=x", "malformed SCRAM message"),
        (b"n,,n=,r=a\0", "malformed SCRAM message"),
        (
            b"n,a=b,n=,r=a",
            "client uses authorization identity, but it is not supported",
        ),
        (
            b"n,,m=x,n=,r=a",
            "client requires an unsupported SCRAM extension",
        ),
        (b"n,,n=,r=a\x7f", "non-printable characters in SCRAM nonce"),
    ] {
        let error = server(NONCE, None).challenge(SHA, message).unwrap_err();
        assert_eq!(error.for_client("x").message, text, "{message:?}");
    }
    for message in [&b"n,,n=,r="[..], b"n,,n=,r=a,x=", b"n,,n=someone,r=a"] {
        assert!(server(NONCE, None).challenge(SHA, message).is_ok());
    }
}

#[test]
fn a_last_message_that_is_none_is_refused_as_by_postgresql() {
    let malformed = |detail| ScramError::Malformed { detail };
    for (last, error) in [
        (LAST.replace("biws", "eSws"), ScramError::BindingChanged),
        (LAST.replace("r=rO", "r=xx"), ScramError::NonceMismatch),
        (LAST.replace("AMd,", "AM,"), ScramError::NonceMismatch),
        (
            format!("{LAST},z=1"),
            malformed("Garbage found at the end of client-final-message."),
        ),
        (
            LAST.strip_suffix("gQ=").unwrap().to_owned(),
            malformed("Malformed proof in client-final-message."),
        ),
        // What comes before the proof is signed too.
        (LAST.replace(",p=", ",x=1,p="), ScramError::WrongProof),
    ] {
        assert_eq!(challenged_with(&last), error, "{last}");
    }
    let proof = LAST.find(",p=").unwrap();
    for end in 0..LAST.len() {
        let error = challenged_with(&LAST.as_bytes()[..end]);
        let expected = matches!(error, ScramError::Malformed { .. })
            || (end < proof && matches!(error, ScramError::BindingChanged));
        assert!(expected, "{end} {error}");
    }
}

proptest! {
    #[test]
    fn a_client_with_the_password_is_let_in_and_no_other(
        stored: Vec<u8>, given: Vec<u8>, salt in prop::collection::vec(any::<u8>(), 1..20),
        nonce: [u8; RAW_NONCE_LENGTH],
    ) {
        let verifier = ScramVerifier::from_password(&stored, &salt, 2);
        let try_with = |password: &[u8]| {
            let server = ScramServer::new(verifier.clone().into(), nonce, None);
            let mut client = ScramSha256::new(password, ChannelBinding::unsupported());
            let (challenged, challenge) = server.challenge(SHA, client.message()).unwrap();
            client.update(challenge.as_bytes()).unwrap();
            let signature = challenged.finish(client.message())?;
            client.finish(signature.as_bytes()).unwrap();
            Ok::<_, ScramError>(())
        };
        prop_assert_eq!(try_with(&stored), Ok(()));
        let same = ScramVerifier::from_password(&given, &salt, 2) == verifier;
        prop_assert_eq!(try_with(&given).is_ok(), same);
    }

    #[test]
    fn any_messages_are_answered_or_refused(
        plus: bool,
        first in "([nyp],|p=tls-server-end-point,)?,n=,r=\\PC{0,9}|\\PC{0,20}",
        last in "c=(biws|eSws),r=\\PC{0,40},p=[A-Za-z0-9+/=]{0,50}|\\PC{0,20}",
    ) {
        let mechanism = if plus { PLUS } else { SHA };
        let server = server(NONCE, Some(b"hash"));
        if let Ok((challenged, challenge)) = server.challenge(mechanism, first.as_bytes()) {
            prop_assert!(challenge.ends_with(",s=NzNZ3VJFznxjqiEiQzgCLQ==,i=4096"));
            prop_assert!(challenged.finish(last.as_bytes()).is_err());
        }
    }
}
