//! Why an exchange fails.

use crate::error::{ServerMessage, SqlState};

/// Why a client is not let in by SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramError {
    /// A mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// A message that is not what the exchange asks for.
    #[error("malformed SCRAM message: {detail}")]
    Malformed {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// A channel binding that PostgreSQL does not have.
    #[error("unsupported SCRAM channel-binding type, expected tls-server-end-point")]
    BindingType,
    /// The client believes that the server has no channel binding, and it has: somebody in between
    /// may have taken it out of the server's offer.
    #[error(
        "SCRAM channel binding negotiation error: the client supports channel binding and thinks \
         that the server does not, but it does"
    )]
    BindingNegotiation,
    /// The client is connected to another TLS certificate than the server's: somebody is in
    /// between.
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// The channel binding is not the one that the client began with.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    BindingChanged,
    /// The client wants to act as somebody else.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// The client asks for something that no server of PostgreSQL has.
    #[error("client requires an unsupported SCRAM extension")]
    Extension,
    /// A nonce of other characters than it may have.
    #[error("non-printable characters in SCRAM nonce")]
    NonceNotPrintable,
    /// The client's last message belongs to another exchange.
    #[error("invalid SCRAM response: nonce does not match")]
    NonceMismatch,
    /// The client does not know the password, or there is none.
    #[error("the client did not prove that it knows the password")]
    WrongProof,
}

impl ScramError {
    /// What the client is told, as PostgreSQL says it. `user` is its role.
    #[must_use]
    pub fn for_client(&self, user: &str) -> ServerMessage {
        let violation = |text| ServerMessage::fatal(SqlState::PROTOCOL_VIOLATION, text);
        let not_authorized =
            |text| ServerMessage::fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, text);
        match self {
            Self::Malformed { detail } => violation("malformed SCRAM message").with_detail(*detail),
            Self::NonceMismatch => {
                violation("invalid SCRAM response").with_detail("Nonce does not match.")
            }
            Self::Mechanism
            | Self::BindingType
            | Self::BindingChanged
            | Self::NonceNotPrintable => {
                ServerMessage::fatal(SqlState::PROTOCOL_VIOLATION, self.to_string())
            }
            Self::BindingNegotiation => not_authorized("SCRAM channel binding negotiation error")
                .with_detail(
                    "The client supports SCRAM channel binding but thinks the server does not.  \
                     However, this server does support channel binding.",
                ),
            Self::BindingMismatch => not_authorized("SCRAM channel binding check failed"),
            Self::AuthorizationIdentity | Self::Extension => {
                ServerMessage::fatal(SqlState::FEATURE_NOT_SUPPORTED, self.to_string())
            }
            Self::WrongProof => ServerMessage::fatal(
                SqlState::INVALID_PASSWORD,
                format!("password authentication failed for user \"{user}\""),
            ),
        }
    }
}
