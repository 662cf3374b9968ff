//! What a server says when something is wrong: errors and notices with their SQLSTATE.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::ForeignText;
use crate::reader::{MalformedMessage, Reader};

/// The five characters that say what went wrong, whatever language the text is in.
///
/// Source: the PostgreSQL manual, "PostgreSQL Error Codes".
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// `0A000`: the server does not have such a feature.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// `08P01`
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// `22021`: a text is not of the encoding that it should be.
    pub const CHARACTER_NOT_IN_REPERTOIRE: Self = Self(*b"22021");
    /// `22023`: a parameter with a value that it does not take.
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    /// `28000`: the role may not connect so, or the server's rules reject the connection.
    pub const INVALID_AUTHORIZATION_SPECIFICATION: Self = Self(*b"28000");
    /// `28P01`
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// `3D000`: no such database.
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    /// `42501`: the role has no right to do this.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// `42601`
    pub const SYNTAX_ERROR: Self = Self(*b"42601");
    /// `42602`: for example, the name of a replication slot that cannot be one.
    pub const INVALID_NAME: Self = Self(*b"42602");
    /// `42704`: for example, no such replication slot.
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    /// `42710`: for example, the replication slot exists.
    pub const DUPLICATE_OBJECT: Self = Self(*b"42710");
    /// `53300`: no connection is left, or none for replication (`max_wal_senders`).
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// `53400`: for example, no replication slot is left.
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self(*b"53400");
    /// `55000`: for example, the slot is of another kind, or has lost its WAL.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    /// `55006`: for example, somebody else uses the replication slot.
    pub const OBJECT_IN_USE: Self = Self(*b"55006");
    /// `57014`: the client asked to cancel, or it took too long.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// `57P01`: the server shuts down, or this connection was ended by hand.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// `57P02`: another process of the server crashed.
    pub const CRASH_SHUTDOWN: Self = Self(*b"57P02");
    /// `57P03`: the server starts up, shuts down or recovers.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// `58P01`: the server lacks a file, for example a WAL segment that was removed.
    pub const UNDEFINED_FILE: Self = Self(*b"58P01");
    /// `XX000`
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");
    /// `data_corrupted`: what is stored is damaged.
    pub const DATA_CORRUPTED: Self = Self(*b"XX001");

    /// The code of five characters, each a digit or an upper case letter, or `None`.
    #[must_use]
    pub fn new(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        code.iter()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
            .then_some(Self(code))
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // `new` and the constants let nothing but ASCII in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Severity {
    /// Detail for developers, in five steps that make no difference here.
    Debug,
    /// What only a server's log should say.
    Log,
    /// What the user asked for.
    Info,
    /// What may be of interest.
    Notice,
    /// What is likely to be a mistake.
    Warning,
    /// The command was given up; the connection goes on.
    Error,
    /// The connection ends.
    Fatal,
    /// The connection ends, and with it all of the server's.
    Panic,
}

impl Severity {
    /// The word that the server uses, never translated.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Log => "LOG",
            Self::Info => "INFO",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
        }
    }

    /// The severity that a word of the server means, `None` for one in another language.
    #[must_use]
    pub fn new(word: &str) -> Option<Self> {
        if word == "DEBUG" || (word.len() == 6 && word.starts_with("DEBUG")) {
            return Some(Self::Debug);
        }
        [
            Self::Log,
            Self::Info,
            Self::Notice,
            Self::Warning,
            Self::Error,
            Self::Fatal,
            Self::Panic,
        ]
        .into_iter()
        .find(|severity| severity.as_str() == word)
    }

    /// Whether the server closes the connection after it said this.
    #[must_use]
    pub fn ends_connection(self) -> bool {
        self >= Self::Fatal
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The content of an `ErrorResponse` or a `NoticeResponse`. As text it is what psql shows first:
/// the severity and the message, with the SQLSTATE; the texts are escaped and cut
/// ([`ForeignText`]).
///
/// Decisions are taken by `sqlstate`, never by the texts, which may be in any language.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerMessage {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub sqlstate: SqlState,
    /// The main text, one line as a rule.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What may be done about it.
    pub hint: Option<String>,
    /// Where in the server's work it happened.
    pub context: Option<String>,
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, ForeignText::new(&self.message))?;
        if let Some(detail) = &self.detail {
            write!(f, " ({})", ForeignText::new(detail))?;
        }
        write!(f, " [SQLSTATE {}]", self.sqlstate)
    }
}

/// The longest text of one field that is kept, in bytes: no text worth reading is longer.
const MAX_TEXT_LENGTH: usize = 8 << 10;

impl ServerMessage {
    /// A message without details.
    #[must_use]
    pub fn new(severity: Severity, sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self {
            severity,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
        }
    }

    /// An error that ends a command.
    #[must_use]
    pub fn error(sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, sqlstate, message)
    }

    /// An error that ends the connection.
    #[must_use]
    pub fn fatal(sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, sqlstate, message)
    }

    /// The same with more about it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with what may be done about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Reads the body of an `ErrorResponse` or a `NoticeResponse`, which `message` names.
    ///
    /// What a server leaves out that every server sends is filled in, as libpq does: an error
    /// without a SQLSTATE is an internal one.
    pub(crate) fn decode(
        message: &'static str,
        default_severity: Severity,
        body: Bytes,
    ) -> Result<Self, MalformedMessage> {
        let mut reader = Reader::new(message, body);
        let mut decoded = Self::new(default_severity, SqlState::INTERNAL_ERROR, "");
        let mut untranslated = None;
        loop {
            let field = reader.u8("field type")?;
            if field == 0 {
                break;
            }
            let value = reader.cstr("field value")?;
            let text = || {
                let kept = value.get(..MAX_TEXT_LENGTH).unwrap_or(&value);
                String::from_utf8_lossy(kept).into_owned()
            };
            match field {
                // 'V' is never translated, 'S' may be.
                b'V' => untranslated = Severity::new(&text()),
                b'S' => decoded.severity = Severity::new(&text()).unwrap_or(default_severity),
                b'C' => decoded.sqlstate = SqlState::new(&value).unwrap_or(decoded.sqlstate),
                b'M' => decoded.message = text(),
                b'D' => decoded.detail = Some(text()),
                b'H' => decoded.hint = Some(text()),
                b'W' => decoded.context = Some(text()),
                // Positions, names of objects and places in PostgreSQL's source; and the manual
                // asks to skip what is unknown.
                _ => {}
            }
        }
        reader.finish("terminator")?;
        decoded.severity = untranslated.unwrap_or(decoded.severity);
        Ok(decoded)
    }

    /// Appends the fields; a zero byte in a text would end it, so the text is cut there.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let mut field = |kind: u8, text: &str| {
            out.put_u8(kind);
            out.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
            out.put_u8(0);
        };
        field(b'S', self.severity.as_str());
        field(b'V', self.severity.as_str());
        field(b'C', self.sqlstate.as_str());
        field(b'M', &self.message);
        for (kind, text) in [
            (b'D', &self.detail),
            (b'H', &self.hint),
            (b'W', &self.context),
        ] {
            if let Some(text) = text {
                field(kind, text);
            }
        }
        out.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(body: &'static [u8]) -> Result<ServerMessage, MalformedMessage> {
        ServerMessage::decode("ErrorResponse", Severity::Error, Bytes::from_static(body))
    }

    /// What a server with German messages says about a wrong password.
    #[test]
    fn the_severity_that_is_never_translated_wins() {
        let error = decode(
            b"SSCHWERWIEGEND\0VFATAL\0C28P01\0MPasswort-Authentifizierung f\xC3\xBCr Benutzer \
              \xC2\xBBx\xC2\xAB fehlgeschlagen\0Fauth.c\0L338\0Rauth_failed\0\0",
        )
        .unwrap();
        assert_eq!(error.severity, Severity::Fatal);
        assert_eq!(error.sqlstate, SqlState::INVALID_PASSWORD);
        assert!(
            error
                .message
                .starts_with("Passwort-Authentifizierung f\u{fc}r")
        );
        assert!(error.severity.ends_connection());
    }

    #[test]
    fn an_error_is_one_line_with_its_sqlstate() {
        let error = decode(b"SERROR\0C42704\0Mno such slot\0Dgone\0\0").unwrap();
        assert_eq!(
            error.to_string(),
            "ERROR: no such slot (gone) [SQLSTATE 42704]"
        );
        assert_eq!(decode(b"\0").unwrap().sqlstate, SqlState::INTERNAL_ERROR);
        assert_eq!(decode(b"SDEBUG3\0\0").unwrap().severity, Severity::Debug);
    }

    #[test]
    fn an_error_cut_anywhere_is_refused() {
        let whole: &[u8] = b"SERROR\0C42704\0\0";
        for end in 0..whole.len() {
            assert!(decode(whole.get(..end).unwrap()).is_err(), "{end}");
        }
        assert!(decode(b"\0x").is_err());
    }

    #[test]
    fn only_five_digits_or_capitals_are_a_sqlstate() {
        for code in ["", "4270", "427044", "4270a", "4270\u{e9}", "42 04"] {
            assert_eq!(SqlState::new(code.as_bytes()), None, "{code}");
        }
    }

    proptest! {
        #[test]
        fn a_message_is_read_back(
            severity in prop::sample::select(vec![
                Severity::Debug, Severity::Log, Severity::Info, Severity::Notice,
                Severity::Warning, Severity::Error, Severity::Fatal, Severity::Panic,
            ]),
            code in "[0-9A-Z]{5}",
            message in "[^\0]{0,40}",
            more: [Option<bool>; 3],
        ) {
            let [detail, hint, context] = more.map(|m| m.map(|m| m.to_string()));
            let sqlstate = SqlState::new(code.as_bytes()).unwrap();
            let message = ServerMessage { severity, sqlstate, message, detail, hint, context };
            let mut out = BytesMut::new();
            message.encode(&mut out);
            prop_assert_eq!(
                ServerMessage::decode("x", Severity::Error, out.freeze()),
                Ok(message)
            );
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let kept = ServerMessage::decode("x", Severity::Error, bytes.into());
            prop_assert!(kept.map_or(true, |m| m.message.len() <= 3 * MAX_TEXT_LENGTH));
        }
    }
}
