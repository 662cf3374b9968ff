//! Messages as they lie in the byte stream: a tag, a length, a body.
//!
//! ```text
//! offset  size  field
//!      0     1  tag
//!      1     4  length of what follows the tag, itself included (big-endian)
//!      5     .  body
//! ```
//!
//! Source: the PostgreSQL manual, "Message Formats".

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// The bytes before a message's body.
pub const HEADER_LENGTH: usize = 5;

/// The first byte of a message, which says what message it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub u8);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() {
            write!(f, "\"{}\"", char::from(self.0))
        } else {
            write!(f, "0x{:02x}", self.0)
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One message: its tag and its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What message it is.
    pub tag: Tag,
    /// What follows the length, without a copy of it.
    pub body: Bytes,
}

/// A length that a message must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Less than the four bytes that the length itself takes.
    #[error("message {tag} has the impossible length {length}")]
    TooShort {
        /// What message it is.
        tag: Tag,
        /// The length field.
        length: u32,
    },
    /// More than such a message may have at this point.
    #[error("message {tag} has {length} bytes, at most {limit} are accepted here")]
    TooLong {
        /// What message it is.
        tag: Tag,
        /// The length of the body in bytes.
        length: usize,
        /// The greatest length of a body that is taken.
        limit: usize,
    },
}

impl Frame {
    /// Takes the first message off `buffer`, or `None` while it is incomplete.
    ///
    /// `limit` tells the greatest length of a body in bytes for a tag. It is asked as soon as the
    /// header is there, so that no more than that is ever waited for. The body shares the memory
    /// of `buffer`; nothing is copied and, but for the first message after `buffer` was
    /// filled, nothing allocated.
    ///
    /// # Errors
    /// When the length is too small or too great. `buffer` is left as it is.
    pub fn take(
        buffer: &mut BytesMut,
        limit: impl FnOnce(Tag) -> usize,
    ) -> Result<Option<Self>, FrameError> {
        let Some(&[tag, a, b, c, d]) = buffer.first_chunk() else {
            return Ok(None);
        };
        let tag = Tag(tag);
        let field = u32::from_be_bytes([a, b, c, d]);
        let length = usize::try_from(field)
            .unwrap_or(usize::MAX)
            .checked_sub(4)
            .ok_or(FrameError::TooShort { tag, length: field })?;
        let limit = limit(tag);
        if length > limit {
            return Err(FrameError::TooLong { tag, length, limit });
        }
        if buffer.len() - HEADER_LENGTH < length {
            return Ok(None);
        }
        buffer.advance(HEADER_LENGTH);
        let body = buffer.split_to(length).freeze();
        Ok(Some(Self { tag, body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(bytes: &[u8], limit: usize) -> Result<Option<Frame>, FrameError> {
        Frame::take(&mut BytesMut::from(bytes), |_| limit)
    }

    #[test]
    fn a_frame_is_taken_only_when_it_is_complete() {
        let bytes = b"d\0\0\0\x06xyz";
        for end in 0..7 {
            assert_eq!(take(&bytes[..end], 2), Ok(None), "{end}");
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        let frame = Frame::take(&mut buffer, |_| 2).unwrap().unwrap();
        assert_eq!((frame.tag, &frame.body[..]), (Tag(b'd'), &b"xy"[..]));
        assert_eq!(&buffer[..], b"z");
    }

    #[test]
    fn a_length_is_refused_as_soon_as_the_header_is_there() {
        let tag = Tag(b'R');
        assert_eq!(
            take(b"R\0\0\0\x07", 2),
            Err(FrameError::TooLong {
                tag,
                length: 3,
                limit: 2
            })
        );
        assert!(matches!(
            take(b"R\xFF\xFF\xFF\xFF", 1 << 20),
            Err(FrameError::TooLong { .. })
        ));
        assert_eq!(
            take(b"R\0\0\0\x03", 2),
            Err(FrameError::TooShort { tag, length: 3 })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_frames_within_the_limit(bytes: Vec<u8>, limit in 0usize..64) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = Frame::take(&mut buffer, |_| limit) {
                prop_assert!(frame.body.len() <= limit);
            }
        }
    }
}
