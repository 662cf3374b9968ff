//! How a client shows who it is, and makes sure that the server knows the password too.
//!
//! Source: src/interfaces/libpq/fe-auth.c (PG 15), and of PG 16 for `require_auth`.

use std::fmt;
use std::io;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

use super::require_auth::{AuthMethod, RequireAuth};
use crate::ForeignText;
use crate::backend::AuthenticationRequest;

/// The most SCRAM iterations that `postgres_protocol` does for a server, which has proved nothing
/// yet when it asks for them. PostgreSQL's default is 4096; from 16 on `scram_iterations` allows
/// any number.
const MAX_ITERATIONS: u64 = 100_000;

/// Whether the password exchange has to prove that the server holds the certificate of this very
/// TLS connection (`channel_binding`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChannelBindingPolicy {
    /// Never.
    Disable,
    /// If the connection uses TLS and the server offers it.
    #[default]
    Prefer,
    /// Always; a server that does not do it is refused.
    Require,
}

/// What protects the connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Transport {
    /// Nothing, or a Unix socket.
    #[default]
    Plain,
    /// TLS.
    Tls {
        /// The hash of the server's certificate that channel binding uses
        /// (`tls-server-end-point`, RFC 5929), `None` where it cannot be computed.
        server_end_point: Option<Vec<u8>>,
    },
}

/// What a client may and must do to show who it is.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The password, if there is one. An empty one counts as none, as in libpq.
    pub password: Option<Vec<u8>>,
    /// Whether the exchange has to be bound to the TLS connection.
    pub channel_binding: ChannelBindingPolicy,
    /// Which methods the server may ask for.
    pub require_auth: RequireAuth,
    /// What protects the connection.
    pub transport: Transport,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("password", &self.password.as_ref().map(|_| "..."))
            .field("channel_binding", &self.channel_binding)
            .field("require_auth", &self.require_auth)
            .field("transport", &self.transport)
            .finish()
    }
}

/// Why the two sides do not come to trust each other.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The server asks for a password and there is none.
    #[error("the server asks for a password, and none was given")]
    PasswordMissing,
    /// The password contains a zero byte.
    #[error("the password contains a zero byte")]
    PasswordWithZero(#[source] io::Error),
    /// The server wants what this client does not have.
    #[error(
        "the server asks for {method} authentication, which is not supported; allow \
         scram-sha-256 for this role in pg_hba.conf"
    )]
    Unsupported {
        /// The method.
        method: &'static str,
    },
    /// The server offers SASL mechanisms, and none that this client has.
    #[error(
        "the server offers only the SASL mechanisms {}, supported are SCRAM-SHA-256 and \
         SCRAM-SHA-256-PLUS",
        ForeignText::new(mechanisms)
    )]
    NoMechanism {
        /// What the server offers.
        mechanisms: String,
    },
    /// The server asks for a method that `require_auth` does not allow.
    #[error("require_auth=\"{required}\" does not allow what the server asks for: {method}")]
    NotAllowed {
        /// What is allowed.
        required: RequireAuth,
        /// What the server asks for.
        method: AuthMethod,
    },
    /// The server let us in without authentication, and `require_auth` asks for one.
    #[error("require_auth=\"{required}\" asks for authentication, and the server did none")]
    NotAuthenticated {
        /// What is required.
        required: RequireAuth,
    },
    /// `channel_binding=require` on a connection without TLS.
    #[error("channel_binding=require needs TLS, and the connection does not use it")]
    ChannelBindingWithoutTls,
    /// `channel_binding=require` and a server that does not do it.
    #[error("channel_binding=require, and the server authenticates without channel binding")]
    ChannelBindingMissing,
    /// `channel_binding=require` and a certificate without a hash to bind to.
    #[error(
        "channel_binding=require, and the signature of the server's certificate has no hash to \
         bind to"
    )]
    ChannelBindingImpossible,
    /// The server offers channel binding where there is no TLS: somebody in between may have
    /// taken the TLS away.
    #[error("the server offers SCRAM-SHA-256-PLUS on a connection without TLS")]
    PlusWithoutTls,
    /// The password was stored on the server with more iterations than are done here.
    #[error(
        "the server asks for {found} SCRAM iterations, at most {limit} are done; lower \
         scram_iterations for this role and set its password again"
    )]
    Iterations {
        /// How many the server asks for.
        found: u64,
        /// The most that are done.
        limit: u64,
    },
    /// The server's side of the SCRAM exchange is wrong: it does not know the password, or
    /// somebody is in between.
    #[error("the server did not prove that it knows the password")]
    Scram(#[source] io::Error),
}

/// Where an exchange with the server is.
///
/// ```text
/// Start --password--> PasswordSent ------------------------------> Ok
///   |-----SASL------> ScramStarted -Continue> ScramProven -Final> ScramDone -> Ok
///   +----------------------------------------------------------> Ok (trust)
/// ```
enum Exchange {
    Start,
    PasswordSent,
    ScramStarted(Box<Scram>),
    ScramProven(Box<Scram>),
    ScramDone { bound: bool },
}

struct Scram {
    exchange: ScramSha256,
    bound: bool,
}

/// A client's side of the authentication.
pub(super) struct Authentication {
    user: String,
    credentials: Credentials,
    exchange: Exchange,
}

/// What comes of a request of the server.
pub(super) enum Step {
    /// More requests follow.
    Continue(Box<Authentication>),
    /// The server has let us in, and we have checked it as was asked.
    Authenticated,
    /// The server may not ask this now.
    Unexpected,
}

impl Authentication {
    pub(super) const fn new(user: String, credentials: Credentials) -> Self {
        Self {
            user,
            credentials,
            exchange: Exchange::Start,
        }
    }

    /// Where the exchange is, for errors.
    pub(super) const fn name(&self) -> &'static str {
        match self.exchange {
            Exchange::Start => "authentication",
            Exchange::PasswordSent => "authentication, password sent",
            Exchange::ScramStarted(_) => "SCRAM authentication, nonce sent",
            Exchange::ScramProven(_) => "SCRAM authentication, proof sent",
            Exchange::ScramDone { .. } => "SCRAM authentication, server checked",
        }
    }

    /// Answers a request by a message in `out`.
    pub(super) fn step(
        mut self: Box<Self>,
        request: &AuthenticationRequest,
        out: &mut BytesMut,
    ) -> Result<Step, AuthError> {
        use AuthenticationRequest as Request;
        self.check_allowed(request)?;
        self.exchange = match (self.exchange, request) {
            (Exchange::Start, Request::Ok) => {
                if !self.credentials.require_auth.allows(AuthMethod::None) {
                    let required = self.credentials.require_auth;
                    return Err(AuthError::NotAuthenticated { required });
                }
                return Ok(Step::Authenticated);
            }
            (Exchange::PasswordSent | Exchange::ScramDone { .. }, Request::Ok) => {
                return Ok(Step::Authenticated);
            }
            (Exchange::Start, Request::CleartextPassword) => {
                let password = password(&self.credentials)?;
                frontend::password_message(password, out).map_err(AuthError::PasswordWithZero)?;
                Exchange::PasswordSent
            }
            (Exchange::Start, Request::Md5Password { salt }) => {
                let password = password(&self.credentials)?;
                let hash = md5_hash(self.user.as_bytes(), password, *salt);
                frontend::password_message(hash.as_bytes(), out)
                    .map_err(AuthError::PasswordWithZero)?;
                Exchange::PasswordSent
            }
            (Exchange::Start, Request::Sasl { mechanisms }) => {
                Exchange::ScramStarted(Box::new(start_scram(&self.credentials, mechanisms, out)?))
            }
            (Exchange::ScramStarted(mut scram), Request::SaslContinue(challenge)) => {
                check_iterations(challenge)?;
                scram.exchange.update(challenge).map_err(AuthError::Scram)?;
                frontend::sasl_response(scram.exchange.message(), out).map_err(AuthError::Scram)?;
                Exchange::ScramProven(scram)
            }
            (Exchange::ScramProven(mut scram), Request::SaslFinal(signature)) => {
                scram.exchange.finish(signature).map_err(AuthError::Scram)?;
                Exchange::ScramDone { bound: scram.bound }
            }
            _ => return Ok(Step::Unexpected),
        };
        Ok(Step::Continue(self))
    }

    /// Refuses what the user does not allow before anything is answered.
    fn check_allowed(&self, request: &AuthenticationRequest) -> Result<(), AuthError> {
        use AuthenticationRequest as Request;
        let method = match request {
            Request::Ok => None,
            Request::CleartextPassword => Some(AuthMethod::Password),
            Request::Md5Password { .. } => Some(AuthMethod::Md5),
            Request::Sasl { mechanisms } if only_oauth(mechanisms) => Some(AuthMethod::OAuth),
            Request::Sasl { .. } | Request::SaslContinue(_) | Request::SaslFinal(_) => {
                Some(AuthMethod::ScramSha256)
            }
            Request::Gss | Request::GssContinue(_) => Some(AuthMethod::Gss),
            Request::Sspi => Some(AuthMethod::Sspi),
            Request::ScmCredential => Some(AuthMethod::Creds),
            Request::KerberosV5 => {
                return Err(AuthError::Unsupported {
                    method: "Kerberos 5",
                });
            }
        };
        if let Some(method) = method
            && !self.credentials.require_auth.allows(method)
        {
            let required = self.credentials.require_auth;
            return Err(AuthError::NotAllowed { required, method });
        }
        let unsupported = |method| Err(AuthError::Unsupported { method });
        match method {
            Some(AuthMethod::Gss) => return unsupported("GSSAPI"),
            Some(AuthMethod::Sspi) => return unsupported("SSPI"),
            Some(AuthMethod::Creds) => return unsupported("SCM credential"),
            Some(AuthMethod::OAuth) => return unsupported("OAuth (OAUTHBEARER)"),
            Some(AuthMethod::Password | AuthMethod::Md5 | AuthMethod::ScramSha256)
            | Some(AuthMethod::None)
            | None => {}
        }
        // A password must not leak to a server that does not bind the channel, nor may the
        // server skip it and let us in.
        let bound = matches!(self.exchange, Exchange::ScramDone { bound: true });
        let may_bind = matches!(method, Some(AuthMethod::ScramSha256)) || bound;
        if self.credentials.channel_binding == ChannelBindingPolicy::Require && !may_bind {
            return Err(AuthError::ChannelBindingMissing);
        }
        Ok(())
    }
}

/// Looks for the count in a challenge, `r=..,s=..,i=4096`, for the sake of the message. What has
/// none is left to who takes it apart.
fn check_iterations(challenge: &[u8]) -> Result<(), AuthError> {
    let mut fields = challenge.split(|byte| *byte == b',');
    let count = fields.find_map(|field| field.strip_prefix(b"i="));
    let count = count.and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
    match count {
        Some(found) if found > MAX_ITERATIONS => Err(AuthError::Iterations {
            found,
            limit: MAX_ITERATIONS,
        }),
        _ => Ok(()),
    }
}

fn only_oauth(mechanisms: &[String]) -> bool {
    !mechanisms.is_empty() && mechanisms.iter().all(|name| name == "OAUTHBEARER")
}

fn password(credentials: &Credentials) -> Result<&[u8], AuthError> {
    match credentials.password.as_deref() {
        Some(password) if !password.is_empty() => Ok(password),
        _ => Err(AuthError::PasswordMissing),
    }
}

/// Chooses the mechanism as libpq's `pg_SASL_init` does, and sends the first message.
fn start_scram(
    credentials: &Credentials,
    mechanisms: &[String],
    out: &mut BytesMut,
) -> Result<Scram, AuthError> {
    let offered = |mechanism: &str| mechanisms.iter().any(|name| name == mechanism);
    let policy = credentials.channel_binding;
    let required = policy == ChannelBindingPolicy::Require;
    let plus = offered(SCRAM_SHA_256_PLUS);
    let (binding, bound) = match &credentials.transport {
        Transport::Plain if required => return Err(AuthError::ChannelBindingWithoutTls),
        Transport::Plain if plus => return Err(AuthError::PlusWithoutTls),
        Transport::Plain => (ChannelBinding::unsupported(), false),
        Transport::Tls { .. } if policy == ChannelBindingPolicy::Disable => {
            (ChannelBinding::unsupported(), false)
        }
        Transport::Tls { .. } if !plus && required => {
            return Err(AuthError::ChannelBindingMissing);
        }
        Transport::Tls {
            server_end_point: Some(hash),
        } if plus => (ChannelBinding::tls_server_end_point(hash.clone()), true),
        // We could and the server seems not to: it is told so, which shows it if somebody in
        // between took the mechanism out of its list.
        Transport::Tls {
            server_end_point: Some(_),
        } => (ChannelBinding::unrequested(), false),
        Transport::Tls {
            server_end_point: None,
        } if required => return Err(AuthError::ChannelBindingImpossible),
        Transport::Tls {
            server_end_point: None,
        } => (ChannelBinding::unsupported(), false),
    };
    let mechanism = if bound {
        SCRAM_SHA_256_PLUS
    } else {
        SCRAM_SHA_256
    };
    if !offered(mechanism) {
        let mechanisms = mechanisms.join(", ");
        return Err(AuthError::NoMechanism { mechanisms });
    }
    let exchange = ScramSha256::new(password(credentials)?, binding);
    frontend::sasl_initial_response(mechanism, exchange.message(), out)
        .map_err(AuthError::Scram)?;
    Ok(Scram { exchange, bound })
}
