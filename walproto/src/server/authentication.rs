//! How a client shows that it knows a password.
//!
//! Source: src/backend/libpq/auth-sasl.c, `CheckSASLAuth` (PG 15).

use bytes::Bytes;

use super::ServerSession;
use super::error::ServerError;
use super::state::State;
use crate::backend::{AuthenticationRequest, BackendMessage};
use crate::frontend::{DecodeError, SaslInitialResponse};
use crate::scram::{Challenged, RAW_NONCE_LENGTH, ScramError, ScramSecret, ScramServer};

/// Where an exchange with the client is.
///
/// ```text
/// offered --first message--> challenged --proof--> done
///    |                           ^
///    +-mechanism-> chosen -------+
/// ```
pub(super) enum Exchange {
    /// The client has to choose a mechanism.
    Offered(ScramServer),
    /// The client has chosen one, and was asked for its first message.
    Chosen(ScramServer, Bytes),
    /// The client has to prove that it knows the password.
    Challenged(Challenged),
}

/// A server's side of the authentication.
pub(super) struct Authentication {
    user: String,
    exchange: Exchange,
}

impl ServerSession {
    /// Answers [`Event::Startup`](super::Event::Startup): the client has to show by SCRAM that it
    /// knows the password. [`Event::Authenticated`](super::Event::Authenticated) follows if it
    /// does. `secret`, `nonce` and `channel_binding` are those of
    /// [`ScramServer::new`].
    ///
    /// # Errors
    /// When the client does not wait for it.
    pub fn authenticate_scram(
        &mut self,
        secret: ScramSecret,
        nonce: [u8; RAW_NONCE_LENGTH],
        channel_binding: Option<Bytes>,
    ) -> Result<(), ServerError> {
        let State::Admitting { user } = &mut self.state else {
            return Err(self.misuse("authenticate_scram"));
        };
        let user = std::mem::take(user);
        let server = ScramServer::new(secret, nonce, channel_binding);
        let mechanisms = server.mechanisms().iter().map(|&name| name.to_owned());
        self.ask(AuthenticationRequest::Sasl {
            mechanisms: mechanisms.collect(),
        });
        let exchange = Exchange::Offered(server);
        self.state = State::Authenticating(Box::new(Authentication { user, exchange }));
        Ok(())
    }

    fn ask(&mut self, request: AuthenticationRequest) {
        self.put(&BackendMessage::Authentication(request));
    }

    /// Takes the client's part of the exchange.
    pub(super) fn handle_password(&mut self, body: Bytes) -> Result<(), ServerError> {
        let state = self.state.name();
        let Authentication { user, exchange } =
            match std::mem::replace(&mut self.state, State::Broken) {
                State::Authenticating(authentication) => *authentication,
                other => {
                    self.state = other;
                    return Ok(());
                }
            };
        let step = match exchange {
            Exchange::Offered(server) => {
                let initial = SaslInitialResponse::decode(body).map_err(|source| {
                    let source = DecodeError::Malformed(source);
                    ServerError::Decode { state, source }
                })?;
                match initial.response {
                    Some(response) => challenge(server, &initial.mechanism, &response),
                    None => Ok((
                        AuthenticationRequest::SaslContinue(Bytes::new()),
                        Some(Exchange::Chosen(server, initial.mechanism)),
                    )),
                }
            }
            Exchange::Chosen(server, mechanism) => challenge(server, &mechanism, &body),
            Exchange::Challenged(challenged) => challenged
                .finish(&body)
                .map(|signature| (AuthenticationRequest::SaslFinal(signature.into()), None)),
        };
        match step {
            Ok((request, Some(exchange))) => {
                self.ask(request);
                self.state = State::Authenticating(Box::new(Authentication { user, exchange }));
            }
            Ok((request, None)) => {
                self.ask(request);
                self.authenticated();
            }
            Err(source) => return Err(ServerError::Scram { user, source }),
        }
        Ok(())
    }
}

fn challenge(
    server: ScramServer,
    mechanism: &[u8],
    message: &[u8],
) -> Result<(AuthenticationRequest, Option<Exchange>), ScramError> {
    let (challenged, challenge) = server.challenge(mechanism, message)?;
    Ok((
        AuthenticationRequest::SaslContinue(challenge.into()),
        Some(Exchange::Challenged(challenged)),
    ))
}
