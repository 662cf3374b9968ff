//! What a server asks of who connects.

use bytes::{BufMut, Bytes, BytesMut};

use super::put_cstr;
use crate::reader::{MalformedMessage, MessageFault, Reader};

/// The content of an `R` message.
///
/// Source: the PostgreSQL manual, "Message Formats"; src/include/libpq/pqcomm.h (PG 15).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AuthenticationRequest {
    /// 0: the server is content.
    Ok,
    /// 2
    KerberosV5,
    /// 3: the password as it is.
    CleartextPassword,
    /// 5: the password under MD5.
    Md5Password {
        /// What the server chose so that the answer works only once.
        salt: [u8; 4],
    },
    /// 6: the credentials of a Unix socket's peer; no server sends it any more.
    ScmCredential,
    /// 7
    Gss,
    /// 8: more of a GSS or SSPI exchange.
    GssContinue(Bytes),
    /// 9
    Sspi,
    /// 10: one of these SASL mechanisms, the one that the server likes best first.
    Sasl {
        /// The names of the mechanisms.
        mechanisms: Vec<String>,
    },
    /// 11: more of a SASL exchange.
    SaslContinue(Bytes),
    /// 12: the end of a SASL exchange.
    SaslFinal(Bytes),
}

/// The most SASL mechanisms that are taken from a server, which has three so far.
const MAX_MECHANISMS: usize = 32;

impl AuthenticationRequest {
    pub(super) fn decode(body: Bytes) -> Result<Self, MalformedMessage> {
        let mut reader = Reader::new("Authentication", body);
        let request = match reader.i32("kind")? {
            0 => Self::Ok,
            2 => Self::KerberosV5,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password {
                salt: reader.u32("salt")?.to_be_bytes(),
            },
            6 => Self::ScmCredential,
            7 => Self::Gss,
            8 => return Ok(Self::GssContinue(reader.rest())),
            9 => Self::Sspi,
            10 => Self::Sasl {
                mechanisms: mechanisms(&mut reader)?,
            },
            11 => return Ok(Self::SaslContinue(reader.rest())),
            12 => return Ok(Self::SaslFinal(reader.rest())),
            kind => {
                let value = i64::from(kind);
                return Err(reader.fault("kind", MessageFault::UnknownValue { value }));
            }
        };
        reader.finish("last one")?;
        Ok(request)
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Ok => out.put_i32(0),
            Self::KerberosV5 => out.put_i32(2),
            Self::CleartextPassword => out.put_i32(3),
            Self::Md5Password { salt } => {
                out.put_i32(5);
                out.put_slice(salt);
            }
            Self::ScmCredential => out.put_i32(6),
            Self::Gss => out.put_i32(7),
            Self::GssContinue(content) => {
                out.put_i32(8);
                out.put_slice(content);
            }
            Self::Sspi => out.put_i32(9),
            Self::Sasl { mechanisms } => {
                out.put_i32(10);
                for mechanism in mechanisms {
                    put_cstr(mechanism.as_bytes(), out);
                }
                out.put_u8(0);
            }
            Self::SaslContinue(content) => {
                out.put_i32(11);
                out.put_slice(content);
            }
            Self::SaslFinal(content) => {
                out.put_i32(12);
                out.put_slice(content);
            }
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ok => "AuthenticationOk",
            Self::KerberosV5 => "AuthenticationKerberosV5",
            Self::CleartextPassword => "AuthenticationCleartextPassword",
            Self::Md5Password { .. } => "AuthenticationMD5Password",
            Self::ScmCredential => "AuthenticationSCMCredential",
            Self::Gss => "AuthenticationGSS",
            Self::GssContinue(_) => "AuthenticationGSSContinue",
            Self::Sspi => "AuthenticationSSPI",
            Self::Sasl { .. } => "AuthenticationSASL",
            Self::SaslContinue(_) => "AuthenticationSASLContinue",
            Self::SaslFinal(_) => "AuthenticationSASLFinal",
        }
    }
}

fn mechanisms(reader: &mut Reader) -> Result<Vec<String>, MalformedMessage> {
    let mut mechanisms = Vec::new();
    loop {
        let name = reader.text("mechanism")?;
        if name.is_empty() {
            return Ok(mechanisms);
        }
        if mechanisms.len() == MAX_MECHANISMS {
            let limit = MAX_MECHANISMS;
            return Err(reader.fault("mechanism", MessageFault::TooMany { limit }));
        }
        mechanisms.push(name);
    }
}
