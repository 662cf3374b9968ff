//! A cursor over the body of a message, whose errors name the message and the field.

use bytes::{Buf, Bytes};

/// Why the body of a message is not what its tag promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {message} message, field {field}: {reason}")]
pub struct MalformedMessage {
    /// The message, as the manual spells it.
    pub message: &'static str,
    /// The field, as the manual names it.
    pub field: &'static str,
    /// What is wrong with the field.
    pub reason: MessageFault,
}

/// What is wrong with a field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageFault {
    /// The body ends before the field does.
    #[error("the message ends inside it")]
    Truncated,
    /// The body goes on after the last field.
    #[error("{bytes} bytes follow the last field")]
    Trailing {
        /// How many bytes are left.
        bytes: usize,
    },
    /// A text without its terminating zero byte.
    #[error("the terminating zero byte is missing")]
    Unterminated,
    /// A number that has no meaning there.
    #[error("unknown value {value}")]
    UnknownValue {
        /// The number.
        value: i64,
    },
    /// A text that has to be UTF-8 and is not.
    #[error("not UTF-8")]
    NotUtf8,
    /// More elements than are taken.
    #[error("more than {limit} elements")]
    TooMany {
        /// The greatest number that is taken.
        limit: usize,
    },
}

/// Reads the fields of one message from front to back, without copying.
#[derive(Debug)]
pub(crate) struct Reader {
    message: &'static str,
    body: Bytes,
}

impl Reader {
    pub(crate) const fn new(message: &'static str, body: Bytes) -> Self {
        Self { message, body }
    }

    /// The error that says `reason` of `field`.
    pub(crate) const fn fault(
        &self,
        field: &'static str,
        reason: MessageFault,
    ) -> MalformedMessage {
        MalformedMessage {
            message: self.message,
            field,
            reason,
        }
    }

    fn need(&self, field: &'static str, bytes: usize) -> Result<(), MalformedMessage> {
        if self.body.len() < bytes {
            return Err(self.fault(field, MessageFault::Truncated));
        }
        Ok(())
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, MalformedMessage> {
        self.need(field, 1)?;
        Ok(self.body.get_u8())
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, MalformedMessage> {
        self.need(field, 2)?;
        Ok(self.body.get_u16())
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, MalformedMessage> {
        self.need(field, 4)?;
        Ok(self.body.get_u32())
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, MalformedMessage> {
        self.need(field, 4)?;
        Ok(self.body.get_i32())
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, MalformedMessage> {
        self.need(field, 8)?;
        Ok(self.body.get_u64())
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, MalformedMessage> {
        self.need(field, 8)?;
        Ok(self.body.get_i64())
    }

    /// The next `length` bytes.
    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        length: usize,
    ) -> Result<Bytes, MalformedMessage> {
        self.need(field, length)?;
        Ok(self.body.split_to(length))
    }

    /// The bytes up to the next zero byte, which is skipped.
    pub(crate) fn cstr(&mut self, field: &'static str) -> Result<Bytes, MalformedMessage> {
        let Some(length) = self.body.iter().position(|&b| b == 0) else {
            return Err(self.fault(field, MessageFault::Unterminated));
        };
        let text = self.body.split_to(length);
        self.body.advance(1);
        Ok(text)
    }

    /// A zero-terminated text; what is not UTF-8 in it is replaced, since a server may use any
    /// encoding for what is only shown to people.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, MalformedMessage> {
        let text = self.cstr(field)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.body
    }

    /// Checks that nothing follows `field`, the last one.
    pub(crate) fn finish(self, field: &'static str) -> Result<(), MalformedMessage> {
        match self.body.len() {
            0 => Ok(()),
            bytes => Err(self.fault(field, MessageFault::Trailing { bytes })),
        }
    }
}
