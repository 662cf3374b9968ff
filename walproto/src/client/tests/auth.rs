//! How the two sides come to trust each other, or do not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::*;

const PASSWORD: &str = "pencil";
const SALT: &[u8] = b"16 bytes of salt";
const ROUNDS: u32 = 3;

/// The server's half of a SCRAM exchange (RFC 5802), written from its keys alone.
struct ScramServer {
    stored_key: [u8; 32],
    server_key: [u8; 32],
    /// `client-first-message-bare`, then `server-first-message`.
    transcript: String,
    nonce: String,
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(data);
    mac.finalize().into_bytes().into()
}

impl ScramServer {
    fn new(password: &str) -> Self {
        let mut block = hmac(password.as_bytes(), &[SALT, &[0, 0, 0, 1]].concat());
        let mut salted = block;
        for _ in 1..ROUNDS {
            block = hmac(password.as_bytes(), &block);
            salted.iter_mut().zip(block).for_each(|(s, b)| *s ^= b);
        }
        Self {
            stored_key: Sha256::digest(hmac(&salted, b"Client Key")).into(),
            server_key: hmac(&salted, b"Server Key"),
            transcript: String::new(),
            nonce: String::new(),
        }
    }

    /// The challenge to the client's first message without its header.
    fn challenge(&mut self, bare: &str) -> AuthenticationRequest {
        self.nonce = format!("{}server", bare.strip_prefix("n=,r=").unwrap());
        let challenge = format!("r={},s={},i={ROUNDS}", self.nonce, STANDARD.encode(SALT));
        self.transcript = format!("{bare},{challenge}");
        AuthenticationRequest::SaslContinue(challenge.into())
    }

    /// The server's proof, once the client's last message has proven what it should.
    fn check(&self, response: &str, binding: &[u8]) -> AuthenticationRequest {
        let (without_proof, proof) = response.split_once(",p=").unwrap();
        let expected = format!("c={},r={}", STANDARD.encode(binding), self.nonce);
        assert_eq!(without_proof, expected);
        let message = format!("{},{without_proof}", self.transcript);
        let mut key = hmac(&self.stored_key, message.as_bytes());
        let proof = STANDARD.decode(proof).unwrap();
        key.iter_mut().zip(proof).for_each(|(k, p)| *k ^= p);
        assert_eq!(Sha256::digest(key)[..], self.stored_key);
        let signature = hmac(&self.server_key, message.as_bytes());
        AuthenticationRequest::SaslFinal(format!("v={}", STANDARD.encode(signature)).into())
    }
}

fn credentials(policy: ChannelBindingPolicy, transport: Transport) -> Credentials {
    Credentials {
        password: Some(PASSWORD.into()),
        channel_binding: policy,
        transport,
        ..Credentials::default()
    }
}

fn plain() -> Credentials {
    credentials(ChannelBindingPolicy::Prefer, Transport::Plain)
}

fn tls(hash: Option<&[u8]>) -> Transport {
    Transport::Tls {
        server_end_point: hash.map(<[u8]>::to_vec),
    }
}

fn begin(credentials: Credentials) -> Script {
    let mut script = Script::new(credentials);
    script.sent();
    script
}

fn ask(script: &mut Script, request: AuthenticationRequest) -> Result<(), ClientError> {
    script.try_say(BackendMessage::Authentication(request))
}

fn offer(mechanisms: &[&str]) -> AuthenticationRequest {
    AuthenticationRequest::Sasl {
        mechanisms: mechanisms.iter().map(|&m| m.to_owned()).collect(),
    }
}

const BOTH: &[&str] = &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
const SCRAM: &[&str] = &["SCRAM-SHA-256"];

/// The body of the one password message that the session sends.
fn answer(script: &mut Script) -> Bytes {
    let mut sent = script.sent();
    let frame = Frame::take(&mut sent, |_| 1000).unwrap().unwrap();
    assert!(sent.is_empty());
    assert_eq!(frame.tag, Tag(b'p'));
    frame.body
}

/// The mechanism that the session chose, its header and the rest of its first message.
fn first_message(script: &mut Script) -> (String, String, String) {
    let body = String::from_utf8(answer(script).to_vec()).unwrap();
    let (mechanism, rest) = body.split_once('\0').unwrap();
    let (header, bare) = rest.split_at(rest.find("n=,r=").unwrap());
    // The length of the rest, which is less than 256 here.
    let header = header.strip_prefix("\0\0\0").unwrap().get(1..).unwrap();
    (mechanism.to_owned(), header.to_owned(), bare.to_owned())
}

fn reason(result: Result<(), ClientError>) -> AuthError {
    match result.unwrap_err() {
        ClientError::Auth(reason) => reason,
        other => panic!("{other}"),
    }
}

fn finish_setup(script: &mut Script) {
    script.say(BackendMessage::Authentication(AuthenticationRequest::Ok));
    script.say(ready());
    assert_eq!(script.events(), [Event::Ready]);
}

/// A whole exchange: which mechanism and header, and with which binding.
fn scram(credentials: Credentials, offered: &[&str], expected: (&str, &str, &[u8])) {
    let mut script = begin(credentials);
    ask(&mut script, offer(offered)).unwrap();
    let (mechanism, header, bare) = first_message(&mut script);
    assert_eq!(
        (mechanism.as_str(), header.as_str()),
        (expected.0, expected.1)
    );
    let mut server = ScramServer::new(PASSWORD);
    ask(&mut script, server.challenge(&bare)).unwrap();
    let response = String::from_utf8(answer(&mut script).to_vec()).unwrap();
    let binding = [header.as_bytes(), expected.2].concat();
    ask(&mut script, server.check(&response, &binding)).unwrap();
    assert!(script.sent().is_empty());
    finish_setup(&mut script);
}

#[test]
fn scram_proves_the_password_both_ways_with_and_without_channel_binding() {
    use ChannelBindingPolicy::{Disable, Prefer, Require};
    const PLUS: (&str, &str, &[u8]) = ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", b"hash");
    let bound = || tls(Some(b"hash"));
    scram(plain(), SCRAM, ("SCRAM-SHA-256", "n,,", b""));
    scram(credentials(Prefer, bound()), BOTH, PLUS);
    scram(credentials(Require, bound()), BOTH, PLUS);
    scram(
        credentials(Disable, bound()),
        BOTH,
        ("SCRAM-SHA-256", "n,,", b""),
    );
    // "We could, you seem not to": a server that offered it refuses this.
    scram(
        credentials(Prefer, bound()),
        SCRAM,
        ("SCRAM-SHA-256", "y,,", b""),
    );
    scram(
        credentials(Prefer, tls(None)),
        BOTH,
        ("SCRAM-SHA-256", "n,,", b""),
    );
}

#[test]
fn required_channel_binding_is_never_gone_without() {
    let require = |transport| credentials(ChannelBindingPolicy::Require, transport);
    let refused = |credentials, request| {
        let mut script = begin(credentials);
        let refused = reason(ask(&mut script, request));
        assert!(script.sent().is_empty(), "nothing leaks");
        refused
    };
    let hash = || tls(Some(b"hash"));
    assert!(matches!(
        refused(require(Transport::Plain), offer(SCRAM)),
        AuthError::ChannelBindingWithoutTls
    ));
    assert!(matches!(
        refused(require(tls(None)), offer(BOTH)),
        AuthError::ChannelBindingImpossible
    ));
    for request in [
        offer(SCRAM),
        AuthenticationRequest::Ok,
        AuthenticationRequest::CleartextPassword,
        AuthenticationRequest::Md5Password { salt: *b"salt" },
    ] {
        let refused = refused(require(hash()), request);
        assert!(
            matches!(refused, AuthError::ChannelBindingMissing),
            "{refused}"
        );
    }
}

#[test]
fn an_offer_of_channel_binding_without_tls_is_suspicious() {
    let mut script = begin(plain());
    let refused = reason(ask(&mut script, offer(BOTH)));
    assert!(matches!(refused, AuthError::PlusWithoutTls));
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    let mut script = begin(plain());
    ask(&mut script, offer(SCRAM)).unwrap();
    let (_, _, bare) = first_message(&mut script);
    let mut server = ScramServer::new("another");
    ask(&mut script, server.challenge(&bare)).unwrap();
    let signature = STANDARD.encode([7; 32]);
    let last = AuthenticationRequest::SaslFinal(format!("v={signature}").into());
    assert!(matches!(
        reason(ask(&mut script, last)),
        AuthError::Scram(_)
    ));
}

#[test]
fn a_server_that_replays_another_nonce_or_asks_for_endless_work_is_refused() {
    for (challenge, endless) in [
        ("r=other,s=AAAA,i=4096", false),
        ("r=NONCE,s=AAAA,i=100001", true),
        ("r=NONCE,s=AAAA,i=4000000000", true),
        ("r=NONCE,s=AAAA,i=-1", false),
        ("e=no", false),
        ("", false),
    ] {
        let mut script = begin(plain());
        ask(&mut script, offer(SCRAM)).unwrap();
        let (_, _, bare) = first_message(&mut script);
        let challenge = challenge.replace("NONCE", bare.strip_prefix("n=,r=").unwrap());
        let request = AuthenticationRequest::SaslContinue(challenge.clone().into());
        let reason = reason(ask(&mut script, request));
        match reason {
            AuthError::Iterations { .. } => assert!(endless, "{challenge}"),
            AuthError::Scram(_) => assert!(!endless, "{challenge}"),
            other => panic!("{challenge}: {other}"),
        }
    }
}

#[test]
fn being_let_in_before_the_server_proved_anything_is_an_error() {
    let mut script = begin(plain());
    ask(&mut script, offer(SCRAM)).unwrap();
    let (_, _, bare) = first_message(&mut script);
    let mut server = ScramServer::new(PASSWORD);
    let unexpected = |script: &mut Script| match ask(script, AuthenticationRequest::Ok) {
        Err(ClientError::Unexpected { state, message }) => (state, message),
        other => panic!("{other:?}"),
    };
    ask(&mut script, server.challenge(&bare)).unwrap();
    assert_eq!(
        unexpected(&mut script),
        ("SCRAM authentication, proof sent", "AuthenticationOk")
    );
    let mut script = begin(plain());
    ask(&mut script, offer(SCRAM)).unwrap();
    assert_eq!(
        unexpected(&mut script),
        ("SCRAM authentication, nonce sent", "AuthenticationOk")
    );
}

#[test]
fn requests_out_of_order_are_refused() {
    for request in [
        AuthenticationRequest::SaslContinue(Bytes::new()),
        AuthenticationRequest::SaslFinal(Bytes::new()),
    ] {
        let mut script = begin(plain());
        let error = ask(&mut script, request).unwrap_err();
        assert!(matches!(error, ClientError::Unexpected { .. }));
    }
    let mut script = begin(plain());
    ask(&mut script, AuthenticationRequest::CleartextPassword).unwrap();
    let error = ask(&mut script, AuthenticationRequest::CleartextPassword).unwrap_err();
    assert!(matches!(error, ClientError::Unexpected { .. }));
    let mut script = begin(plain());
    let error = script.try_say(ready()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "protocol violation: unexpected ReadyForQuery message from the server during \
         authentication"
    );
}

#[test]
fn a_password_is_sent_as_it_is_or_hashed() {
    let mut script = begin(plain());
    ask(&mut script, AuthenticationRequest::CleartextPassword).unwrap();
    assert_eq!(answer(&mut script), "pencil\0");
    finish_setup(&mut script);

    let credentials = Credentials {
        password: Some(b"password".to_vec()),
        ..Credentials::default()
    };
    let startup = StartupParameters {
        user: "md5_user".to_owned(),
        ..startup()
    };
    let mut script = begin(plain());
    let session = ClientSession::new(script.now, PgTimestamp(0), &startup, credentials, TIMES);
    script.session = session.unwrap();
    script.sent();
    let salt = [0x2a, 0x3d, 0x8f, 0xe0];
    ask(&mut script, AuthenticationRequest::Md5Password { salt }).unwrap();
    assert_eq!(answer(&mut script), "md562af4dd09bbb41884907a838a3233294\0");
    finish_setup(&mut script);
}

#[test]
fn a_missing_or_empty_password_is_told_apart_from_a_wrong_one() {
    for password in [None, Some(Vec::new())] {
        for request in [
            AuthenticationRequest::CleartextPassword,
            AuthenticationRequest::Md5Password { salt: *b"salt" },
            offer(SCRAM),
        ] {
            let password = password.clone();
            let mut script = begin(Credentials {
                password,
                ..plain()
            });
            assert!(matches!(
                reason(ask(&mut script, request)),
                AuthError::PasswordMissing
            ));
        }
    }
    let mut script = begin(plain());
    let wrong = error(Severity::Fatal, SqlState::INVALID_PASSWORD);
    let refused = script.try_say(BackendMessage::ErrorResponse(wrong.clone()));
    assert!(matches!(refused, Err(ClientError::Refused(message)) if message == wrong));
}

#[test]
fn a_password_with_a_zero_byte_is_not_cut_short() {
    let password = Some(b"pen\0cil".to_vec());
    let mut script = begin(Credentials {
        password,
        ..plain()
    });
    let refused = reason(ask(&mut script, AuthenticationRequest::CleartextPassword));
    assert!(matches!(refused, AuthError::PasswordWithZero(_)));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (request, name) in [
        (AuthenticationRequest::Gss, "GSSAPI"),
        (AuthenticationRequest::Sspi, "SSPI"),
        (AuthenticationRequest::KerberosV5, "Kerberos 5"),
        (AuthenticationRequest::ScmCredential, "SCM credential"),
        (offer(&["OAUTHBEARER"]), "OAuth (OAUTHBEARER)"),
    ] {
        let mut script = begin(plain());
        let refused = reason(ask(&mut script, request));
        assert!(matches!(refused, AuthError::Unsupported { method } if method == name));
    }
    let mut script = begin(plain());
    let refused = reason(ask(&mut script, offer(&["SCRAM-SHA-512", "EXTERNAL"])));
    assert!(
        refused.to_string().contains("SCRAM-SHA-512, EXTERNAL"),
        "{refused}"
    );
}

#[test]
fn require_auth_is_checked_before_anything_is_answered() {
    let requests = || {
        [
            ("password", AuthenticationRequest::CleartextPassword),
            ("md5", AuthenticationRequest::Md5Password { salt: *b"salt" }),
            ("scram-sha-256", offer(SCRAM)),
            ("none", AuthenticationRequest::Ok),
        ]
    };
    for (allowed, _) in requests() {
        for (asked, request) in requests() {
            for required in [allowed.to_owned(), format!("!{allowed}")] {
                let require_auth = required.parse().unwrap();
                let mut script = begin(Credentials {
                    require_auth,
                    ..plain()
                });
                let result = ask(&mut script, request.clone());
                let wanted = (asked == allowed) != required.starts_with('!');
                assert_eq!(result.is_ok(), wanted, "{required} {asked}");
                if !wanted {
                    let refused = reason(result);
                    let right = match refused {
                        AuthError::NotAllowed { method, .. } => method.as_str() == asked,
                        AuthError::NotAuthenticated { .. } => asked == "none",
                        _ => false,
                    };
                    assert!(right, "{refused}");
                    assert!(script.sent().is_empty());
                }
            }
        }
    }
}

#[test]
fn a_server_with_only_the_oldest_protocol_version_is_taken() {
    let negotiation = |unknown_options| BackendMessage::NegotiateProtocolVersion {
        newest: 0x3_0000,
        unknown_options,
    };
    let mut script = begin(plain());
    script.say(negotiation(vec![]));
    finish_setup(&mut script);
    let mut script = begin(plain());
    let error = script
        .try_say(negotiation(vec!["_pq_.x".to_owned()]))
        .unwrap_err();
    assert!(matches!(error, ClientError::UnknownOptions { options } if options == ["_pq_.x"]));
}

#[test]
fn an_error_after_the_password_refuses_the_connection_too() {
    let mut script = begin(Credentials::default());
    ask(&mut script, AuthenticationRequest::Ok).unwrap();
    let no_right = error(Severity::Fatal, SqlState::INSUFFICIENT_PRIVILEGE);
    let refused = script.try_say(BackendMessage::ErrorResponse(no_right));
    assert!(matches!(
        refused,
        Err(ClientError::Refused(message)) if message.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE
    ));
}

#[test]
fn a_password_is_never_printed() {
    assert!(!format!("{:?}", plain()).contains(PASSWORD));
}
