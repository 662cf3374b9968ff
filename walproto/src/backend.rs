//! The messages of the server, as far as a replication connection has them.
//!
//! Source: the PostgreSQL manual, "Message Formats".

mod authentication;
#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};

pub use authentication::AuthenticationRequest;

use crate::error::{ServerMessage, Severity};
use crate::frame::{Frame, Tag};
use crate::reader::{MalformedMessage, MessageFault, Reader};
use crate::result::{Column, DataType, ResultSet};

/// A message from the server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BackendMessage {
    /// `R`: what the server wants to know about who connects, or that it is content.
    Authentication(AuthenticationRequest),
    /// `K`: the process that serves the connection, and the key to cancel what it does.
    BackendKeyData {
        /// The process identifier.
        process_id: i32,
        /// The key.
        secret_key: Bytes,
    },
    /// `C`: a command is done.
    CommandComplete {
        /// What was done, as in `START_STREAMING`.
        tag: Bytes,
    },
    /// `W`: both sides may send `CopyData` from now on.
    CopyBothResponse {
        /// 0 for text, 1 for binary, overall and for each column; it means nothing here.
        format: u8,
        /// The format of each column.
        columns: Vec<u16>,
    },
    /// `d`: a payload of [`copy_data`](crate::copy_data).
    CopyData(Bytes),
    /// `c`: the server sends no more `CopyData`.
    CopyDone,
    /// `D`: a row of values; `None` is NULL.
    DataRow(Vec<Option<Bytes>>),
    /// `I`: the command was empty.
    EmptyQueryResponse,
    /// `E`: something went wrong.
    ErrorResponse(Box<ServerMessage>),
    /// `v`: the server has only an older minor version of the protocol, or does not know some
    /// options of it.
    NegotiateProtocolVersion {
        /// The newest version that the server has, the major one in the upper 16 bits.
        newest: u32,
        /// The options that the server does not know.
        unknown_options: Vec<String>,
    },
    /// `N`: something that may be of interest.
    NoticeResponse(Box<ServerMessage>),
    /// `S`: the value of a parameter, at the beginning and when it changes.
    ParameterStatus {
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
    },
    /// `Z`: the server waits for a command.
    ReadyForQuery {
        /// `I` when no transaction is open, which is always so here.
        transaction_status: u8,
    },
    /// `T`: the columns of the rows that follow.
    RowDescription(Vec<Column>),
}

/// The most columns that a table or a row is taken with: no table of PostgreSQL has more
/// (`MaxTupleAttributeNumber`).
pub const MAX_COLUMNS: usize = 1664;

/// The most unknown options that are taken from a server; we send none at all.
const MAX_UNKNOWN_OPTIONS: usize = 16;

impl BackendMessage {
    /// Reads a message.
    ///
    /// # Errors
    /// When the body is not what the tag promises, or the tag is none of a server's on a
    /// replication connection.
    pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
        let Frame { tag, body } = frame;
        let message = match tag.0 {
            b'R' => Self::Authentication(AuthenticationRequest::decode(body)?),
            b'K' => backend_key_data(Reader::new("BackendKeyData", body))?,
            b'C' => {
                let mut reader = Reader::new("CommandComplete", body);
                let tag = reader.cstr("command tag")?;
                reader.finish("command tag")?;
                Self::CommandComplete { tag }
            }
            b'W' => copy_both_response(Reader::new("CopyBothResponse", body))?,
            b'd' => Self::CopyData(body),
            b'c' => {
                Reader::new("CopyDone", body).finish("none")?;
                Self::CopyDone
            }
            b'D' => data_row(Reader::new("DataRow", body))?,
            b'I' => {
                Reader::new("EmptyQueryResponse", body).finish("none")?;
                Self::EmptyQueryResponse
            }
            b'E' => {
                let error = ServerMessage::decode("ErrorResponse", Severity::Error, body)?;
                Self::ErrorResponse(Box::new(error))
            }
            b'v' => negotiation(Reader::new("NegotiateProtocolVersion", body))?,
            b'N' => {
                let notice = ServerMessage::decode("NoticeResponse", Severity::Notice, body)?;
                Self::NoticeResponse(Box::new(notice))
            }
            b'S' => {
                let mut reader = Reader::new("ParameterStatus", body);
                let name = reader.text("name")?;
                let value = reader.text("value")?;
                reader.finish("value")?;
                Self::ParameterStatus { name, value }
            }
            b'Z' => {
                let mut reader = Reader::new("ReadyForQuery", body);
                let transaction_status = reader.u8("transaction status")?;
                reader.finish("transaction status")?;
                Self::ReadyForQuery { transaction_status }
            }
            b'T' => row_description(Reader::new("RowDescription", body))?,
            _ => return Err(DecodeError::UnknownTag { tag }),
        };
        Ok(message)
    }

    /// The message's name in the manual.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Authentication(request) => request.name(),
            Self::BackendKeyData { .. } => "BackendKeyData",
            Self::CommandComplete { .. } => "CommandComplete",
            Self::CopyBothResponse { .. } => "CopyBothResponse",
            Self::CopyData(_) => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::DataRow(_) => "DataRow",
            Self::EmptyQueryResponse => "EmptyQueryResponse",
            Self::ErrorResponse(_) => "ErrorResponse",
            Self::NegotiateProtocolVersion { .. } => "NegotiateProtocolVersion",
            Self::NoticeResponse(_) => "NoticeResponse",
            Self::ParameterStatus { .. } => "ParameterStatus",
            Self::ReadyForQuery { .. } => "ReadyForQuery",
            Self::RowDescription(_) => "RowDescription",
        }
    }

    /// Appends the message.
    ///
    /// # Errors
    /// When it is longer than a message, or a count in it greater than its field, can be.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let name = self.name();
        let too_long = || EncodeError { message: name };
        let start = out.len();
        out.put_u8(self.tag().0);
        out.put_u32(0);
        if self.encode_body(out).is_none() {
            out.truncate(start);
            return Err(too_long());
        }
        let length = i32::try_from(out.len() - start - 1).ok();
        match (length, out.get_mut(start + 1..start + 5)) {
            (Some(length), Some(field)) => {
                field.copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            _ => {
                out.truncate(start);
                Err(too_long())
            }
        }
    }

    const fn tag(&self) -> Tag {
        Tag(match self {
            Self::Authentication(_) => b'R',
            Self::BackendKeyData { .. } => b'K',
            Self::CommandComplete { .. } => b'C',
            Self::CopyBothResponse { .. } => b'W',
            Self::CopyData(_) => b'd',
            Self::CopyDone => b'c',
            Self::DataRow(_) => b'D',
            Self::EmptyQueryResponse => b'I',
            Self::ErrorResponse(_) => b'E',
            Self::NegotiateProtocolVersion { .. } => b'v',
            Self::NoticeResponse(_) => b'N',
            Self::ParameterStatus { .. } => b'S',
            Self::ReadyForQuery { .. } => b'Z',
            Self::RowDescription(_) => b'T',
        })
    }

    /// Appends the body, `None` if a count or length does not fit into its field.
    fn encode_body(&self, out: &mut BytesMut) -> Option<()> {
        match self {
            Self::Authentication(request) => request.encode(out),
            Self::BackendKeyData {
                process_id,
                secret_key,
            } => {
                out.put_i32(*process_id);
                out.put_slice(secret_key);
            }
            Self::CommandComplete { tag } => put_cstr(tag, out),
            Self::CopyBothResponse { format, columns } => {
                out.put_u8(*format);
                out.put_u16(u16::try_from(columns.len()).ok()?);
                columns.iter().for_each(|column| out.put_u16(*column));
            }
            Self::CopyData(payload) => out.put_slice(payload),
            Self::CopyDone | Self::EmptyQueryResponse => {}
            Self::DataRow(values) => {
                out.put_u16(u16::try_from(values.len()).ok()?);
                for value in values {
                    match value {
                        Some(value) => {
                            out.put_i32(i32::try_from(value.len()).ok()?);
                            out.put_slice(value);
                        }
                        None => out.put_i32(-1),
                    }
                }
            }
            Self::ErrorResponse(message) | Self::NoticeResponse(message) => message.encode(out),
            Self::NegotiateProtocolVersion {
                newest,
                unknown_options,
            } => {
                out.put_u32(*newest);
                out.put_u32(u32::try_from(unknown_options.len()).ok()?);
                for option in unknown_options {
                    put_cstr(option.as_bytes(), out);
                }
            }
            Self::ParameterStatus { name, value } => {
                put_cstr(name.as_bytes(), out);
                put_cstr(value.as_bytes(), out);
            }
            Self::ReadyForQuery { transaction_status } => out.put_u8(*transaction_status),
            Self::RowDescription(columns) => {
                out.put_u16(u16::try_from(columns.len()).ok()?);
                columns.iter().for_each(|column| put_column(column, out));
            }
        }
        Some(())
    }
}

/// Appends the messages of a whole table: `RowDescription`, then its `DataRow`s.
///
/// # Errors
/// When the table is too great for the messages.
pub fn encode_result_set(table: &ResultSet, out: &mut BytesMut) -> Result<(), EncodeError> {
    BackendMessage::RowDescription(table.columns().to_vec()).encode(out)?;
    for row in table.rows() {
        BackendMessage::DataRow(row.clone()).encode(out)?;
    }
    Ok(())
}

/// Why a message from the server cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is not what the tag promises.
    #[error(transparent)]
    Malformed(#[from] MalformedMessage),
    /// The tag is none that a server uses on a replication connection.
    #[error("unknown message {tag}")]
    UnknownTag {
        /// The tag.
        tag: Tag,
    },
}

/// A message that does not fit into the fields for its lengths and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {message} message is too long for the protocol")]
pub struct EncodeError {
    /// The message, as the manual spells it.
    pub message: &'static str,
}

/// Appends a zero-terminated text; a zero byte inside would end it, so it is cut there.
fn put_cstr(text: &[u8], out: &mut BytesMut) {
    out.put_slice(text.split(|&b| b == 0).next().unwrap_or_default());
    out.put_u8(0);
}

fn put_column(column: &Column, out: &mut BytesMut) {
    put_cstr(column.name.as_bytes(), out);
    // The table and the number of the column in it: it is none of a table.
    out.put_u32(0);
    out.put_u16(0);
    out.put_u32(column.data_type.0);
    out.put_i16(column.data_type.size());
    out.put_i32(-1);
    out.put_u16(0);
}

fn backend_key_data(mut reader: Reader) -> Result<BackendMessage, MalformedMessage> {
    let process_id = reader.i32("process ID")?;
    // Four bytes in protocol 3.0, up to 256 in 3.2.
    let secret_key = reader.rest();
    Ok(BackendMessage::BackendKeyData {
        process_id,
        secret_key,
    })
}

/// A count of columns that is not greater than there can be.
fn column_count(reader: &mut Reader, field: &'static str) -> Result<usize, MalformedMessage> {
    let count = usize::from(reader.u16(field)?);
    if count > MAX_COLUMNS {
        let limit = MAX_COLUMNS;
        return Err(reader.fault(field, MessageFault::TooMany { limit }));
    }
    Ok(count)
}

fn copy_both_response(mut reader: Reader) -> Result<BackendMessage, MalformedMessage> {
    let format = reader.u8("overall format")?;
    let columns = (0..column_count(&mut reader, "number of columns")?)
        .map(|_| reader.u16("column format"))
        .collect::<Result<_, _>>()?;
    reader.finish("column format")?;
    Ok(BackendMessage::CopyBothResponse { format, columns })
}

fn data_row(mut reader: Reader) -> Result<BackendMessage, MalformedMessage> {
    let value = |reader: &mut Reader| {
        let length = reader.i32("value length")?;
        match usize::try_from(length) {
            Ok(length) => reader.bytes("value", length).map(Some),
            Err(_) if length == -1 => Ok(None),
            Err(_) => {
                let value = i64::from(length);
                Err(reader.fault("value length", MessageFault::UnknownValue { value }))
            }
        }
    };
    let values = (0..column_count(&mut reader, "number of values")?)
        .map(|_| value(&mut reader))
        .collect::<Result<_, _>>()?;
    reader.finish("value")?;
    Ok(BackendMessage::DataRow(values))
}

fn row_description(mut reader: Reader) -> Result<BackendMessage, MalformedMessage> {
    let column = |reader: &mut Reader| {
        let name = reader.text("column name")?;
        reader.u32("table")?;
        reader.u16("attribute number")?;
        let data_type = DataType(reader.u32("data type")?);
        reader.u16("data type size")?;
        reader.u32("type modifier")?;
        reader.u16("format")?;
        Ok(Column { name, data_type })
    };
    let columns = (0..column_count(&mut reader, "number of columns")?)
        .map(|_| column(&mut reader))
        .collect::<Result<_, MalformedMessage>>()?;
    reader.finish("format")?;
    Ok(BackendMessage::RowDescription(columns))
}

fn negotiation(mut reader: Reader) -> Result<BackendMessage, MalformedMessage> {
    let newest = reader.u32("newest version")?;
    let count = reader.u32("number of options")?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > MAX_UNKNOWN_OPTIONS {
        let limit = MAX_UNKNOWN_OPTIONS;
        return Err(reader.fault("number of options", MessageFault::TooMany { limit }));
    }
    let unknown_options = (0..count)
        .map(|_| reader.text("option name"))
        .collect::<Result<_, _>>()?;
    reader.finish("option name")?;
    Ok(BackendMessage::NegotiateProtocolVersion {
        newest,
        unknown_options,
    })
}
