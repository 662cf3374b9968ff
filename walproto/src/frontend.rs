//! The messages of the client, as far as a server of physical replication has to tell them
//! apart.
//!
//! `postgres-protocol` writes them; here they are read.
//!
//! Source: the PostgreSQL manual, "Message Formats"; src/backend/tcop/postgres.c,
//! `SocketBackend` (PG 15).

use bytes::Bytes;

use crate::frame::{Frame, Tag};
use crate::reader::{MalformedMessage, MessageFault, Reader};

/// A message from the client.
///
/// Those of the extended query protocol are only named: a replication connection refuses them,
/// whatever is in them.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FrontendMessage {
    /// `B`
    Bind,
    /// `C`
    Close,
    /// `d`: a payload of [`copy_data`](crate::copy_data).
    CopyData(Bytes),
    /// `c`: the client sends no more `CopyData`.
    CopyDone,
    /// `f`: the same, because something went wrong.
    CopyFail {
        /// What went wrong.
        reason: String,
    },
    /// `D`
    Describe,
    /// `E`
    Execute,
    /// `H`
    Flush,
    /// `F`
    FunctionCall,
    /// `P`
    Parse,
    /// `p`: a password or a part of a SASL exchange. What it is depends on what was asked for:
    /// see [`SaslInitialResponse`].
    Password(Bytes),
    /// `Q`: the text of a command, without the zero byte that ends it.
    Query(Bytes),
    /// `S`
    Sync,
    /// `X`: the client goes.
    Terminate,
}

impl FrontendMessage {
    /// Reads a message.
    ///
    /// # Errors
    /// When the body is not what the tag promises, or the tag is none of a client's.
    pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
        let Frame { tag, body } = frame;
        Ok(match tag.0 {
            b'B' => Self::Bind,
            b'C' => Self::Close,
            b'd' => Self::CopyData(body),
            b'c' => Self::CopyDone,
            b'f' => {
                let mut reader = Reader::new("CopyFail", body);
                let reason = reader.text("reason")?;
                reader.finish("reason")?;
                Self::CopyFail { reason }
            }
            b'D' => Self::Describe,
            b'E' => Self::Execute,
            b'H' => Self::Flush,
            b'F' => Self::FunctionCall,
            b'P' => Self::Parse,
            b'p' => Self::Password(body),
            b'Q' => {
                let mut reader = Reader::new("Query", body);
                let text = reader.cstr("command")?;
                reader.finish("command")?;
                Self::Query(text)
            }
            b'S' => Self::Sync,
            b'X' => Self::Terminate,
            _ => return Err(DecodeError::UnknownTag { tag }),
        })
    }

    /// The message's name in the manual.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bind => "Bind",
            Self::Close => "Close",
            Self::CopyData(_) => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::CopyFail { .. } => "CopyFail",
            Self::Describe => "Describe",
            Self::Execute => "Execute",
            Self::Flush => "Flush",
            Self::FunctionCall => "FunctionCall",
            Self::Parse => "Parse",
            Self::Password(_) => "PasswordMessage",
            Self::Query(_) => "Query",
            Self::Sync => "Sync",
            Self::Terminate => "Terminate",
        }
    }
}

/// Why a message from the client cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body is not what the tag promises.
    #[error(transparent)]
    Malformed(#[from] MalformedMessage),
    /// The tag is none of a client's.
    #[error("invalid frontend message type {tag}")]
    UnknownTag {
        /// The tag.
        tag: Tag,
    },
}

/// The content of the first [`FrontendMessage::Password`] of a SASL exchange
/// (`SASLInitialResponse`).
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | . | `mechanism`, and a zero byte |
/// | . | 4 | length of `response`, -1 for none |
/// | . | . | `response` |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaslInitialResponse {
    /// The mechanism that the client has chosen.
    pub mechanism: Bytes,
    /// The client's first message of the exchange. Without one the server asks for it by an empty
    /// challenge.
    pub response: Option<Bytes>,
}

impl SaslInitialResponse {
    /// Reads the body of the message.
    ///
    /// # Errors
    /// When it is no such message.
    pub fn decode(body: Bytes) -> Result<Self, MalformedMessage> {
        let mut reader = Reader::new("SASLInitialResponse", body);
        let mechanism = reader.cstr("mechanism")?;
        let length = reader.i32("response length")?;
        let response = match usize::try_from(length) {
            Ok(length) => Some(reader.bytes("response", length)?),
            Err(_) if length == -1 => None,
            Err(_) => {
                let value = i64::from(length);
                return Err(reader.fault("response length", MessageFault::UnknownValue { value }));
            }
        };
        reader.finish("response")?;
        Ok(Self {
            mechanism,
            response,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use postgres_protocol::message::frontend;
    use proptest::prelude::*;

    fn decode(tag: u8, body: &'static [u8]) -> Result<FrontendMessage, DecodeError> {
        FrontendMessage::decode(Frame {
            tag: Tag(tag),
            body: Bytes::from_static(body),
        })
    }

    /// The one message that `encode` writes.
    fn written(encode: impl FnOnce(&mut BytesMut)) -> FrontendMessage {
        let mut out = BytesMut::new();
        encode(&mut out);
        let frame = Frame::take(&mut out, |_| 10_000).unwrap().unwrap();
        assert!(out.is_empty());
        FrontendMessage::decode(frame).unwrap()
    }

    #[test]
    fn every_message_of_a_client_is_known_by_its_tag() {
        use FrontendMessage as M;
        let zero = |encode: fn(&mut BytesMut)| written(encode);
        assert_eq!(zero(frontend::copy_done), M::CopyDone);
        assert_eq!(zero(frontend::flush), M::Flush);
        assert_eq!(zero(frontend::sync), M::Sync);
        assert_eq!(zero(frontend::terminate), M::Terminate);
        assert_eq!(
            zero(|out| frontend::parse("", "x", [], out).unwrap()),
            M::Parse
        );
        assert_eq!(
            zero(|out| frontend::execute("", 0, out).unwrap()),
            M::Execute
        );
        assert_eq!(
            zero(|out| frontend::describe(b'S', "", out).unwrap()),
            M::Describe
        );
        assert_eq!(
            zero(|out| frontend::close(b'S', "", out).unwrap()),
            M::Close
        );
        assert_eq!(decode(b'B', b"x"), Ok(M::Bind));
        assert_eq!(decode(b'F', b"x"), Ok(M::FunctionCall));
        let query = zero(|out| frontend::query("IDENTIFY_SYSTEM", out).unwrap());
        assert_eq!(query, M::Query(Bytes::from_static(b"IDENTIFY_SYSTEM")));
        let fail = zero(|out| frontend::copy_fail("no room", out).unwrap());
        let reason = "no room".to_owned();
        assert_eq!(fail, M::CopyFail { reason });
        let data = written(|out| frontend::CopyData::new(&b"r\0"[..]).unwrap().write(out));
        assert_eq!(data, M::CopyData(Bytes::from_static(b"r\0")));
    }

    #[test]
    fn a_text_that_does_not_end_where_the_message_does_is_refused() {
        for (tag, body, error) in [
            (
                b'Q',
                &b"SHOW x"[..],
                "malformed Query message, field command: the terminating zero byte is missing",
            ),
            (
                b'Q',
                b"SHOW x\0y",
                "malformed Query message, field command: 1 bytes follow the last field",
            ),
            (
                b'f',
                b"",
                "malformed CopyFail message, field reason: the terminating zero byte is missing",
            ),
        ] {
            assert_eq!(decode(tag, body).unwrap_err().to_string(), error);
        }
        assert_eq!(
            decode(b'R', b"").unwrap_err().to_string(),
            "invalid frontend message type \"R\""
        );
    }

    fn initial(body: &[u8]) -> Result<SaslInitialResponse, MalformedMessage> {
        SaslInitialResponse::decode(Bytes::copy_from_slice(body))
    }

    #[test]
    fn a_first_response_may_be_missing_but_not_cut() {
        assert_eq!(
            initial(b"SCRAM-SHA-256\0\xFF\xFF\xFF\xFF"),
            Ok(SaslInitialResponse {
                mechanism: Bytes::from_static(b"SCRAM-SHA-256"),
                response: None,
            })
        );
        let whole = b"SCRAM-SHA-256\0\0\0\0\x03n,,";
        assert_eq!(initial(whole).unwrap().response, Some("n,,".into()));
        for end in 0..whole.len() {
            assert!(initial(&whole[..end]).is_err(), "{end}");
        }
        for wrong in [
            &b"X\0\xFF\xFF\xFF\xFE"[..],
            b"X\0\0\0\0\x01xy",
            b"X\0\xFF\xFF\xFF\xFFx",
        ] {
            assert!(initial(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_first_response_is_read_back(mechanism in "[^\0]{0,20}", response: Vec<u8>) {
            let message = written(|out| {
                frontend::sasl_initial_response(&mechanism, &response, out).unwrap();
            });
            let FrontendMessage::Password(body) = message else {
                panic!();
            };
            let read = SaslInitialResponse::decode(body).unwrap();
            prop_assert_eq!(&read.mechanism[..], mechanism.as_bytes());
            prop_assert_eq!(read.response.as_deref(), Some(&response[..]));
        }

        #[test]
        fn any_message_is_read_or_refused(tag: u8, body: Vec<u8>) {
            let frame = Frame { tag: Tag(tag), body: body.clone().into() };
            match FrontendMessage::decode(frame) {
                Ok(message) => prop_assert!(!message.name().is_empty()),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
            let _ = SaslInitialResponse::decode(body.into());
        }
    }
}
