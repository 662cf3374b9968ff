//! What a server reads before the first tagged message.

use bytes::{Buf, Bytes, BytesMut};

use super::ProtocolVersion;
use crate::reader::Reader;

/// The longest body of a packet without a tag in bytes: PostgreSQL's limit
/// (`MAX_STARTUP_PACKET_LENGTH` in src/include/libpq/pqcomm.h).
pub const MAX_STARTUP_PACKET_LENGTH: usize = 10_000;

/// The longest key of a cancel request in bytes: protocol 3.2's limit, 3.0 has always four.
pub const MAX_CANCEL_KEY_LENGTH: usize = 256;

/// What stands in place of a protocol version in a packet that asks for something else.
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;
const TLS_REQUEST: u32 = 1234 << 16 | 5679;
const GSS_ENCRYPTION_REQUEST: u32 = 1234 << 16 | 5680;

/// What begins the name of a parameter that is an option of the protocol, not of the server.
const PROTOCOL_OPTION: &[u8] = b"_pq_.";

/// A packet without a tag, with which a client begins.
///
/// ```text
/// offset  size  field
///      0     4  length, itself included (big-endian)
///      4     4  protocol version, or a number that means a request
///      8     .  parameters, or nothing, or whom to cancel
/// ```
///
/// Source: src/backend/postmaster/postmaster.c, `ProcessStartupPacket` (PG 15), and
/// src/backend/tcop/backend_startup.c (PG 18).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InitialPacket {
    /// `SSLRequest`: the client wants TLS. One byte is the answer, see
    /// [`TlsAnswer`](super::TlsAnswer).
    TlsRequest,
    /// `GSSENCRequest`: the client wants the connection encrypted by GSSAPI.
    GssEncryptionRequest,
    /// `CancelRequest`: what another connection is doing should be given up.
    Cancel {
        /// The process that serves that connection.
        process_id: i32,
        /// The key that came with the process's identifier.
        secret_key: Bytes,
    },
    /// `StartupMessage`: the client wants a session.
    Startup(StartupPacket),
}

/// The packet that asks for a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartupPacket {
    /// The protocol that the client wants to speak, of major version 3.
    pub version: ProtocolVersion,
    /// Names and values, in the client's order and encoding. A name may occur again; the last
    /// value counts.
    pub parameters: Vec<(Bytes, Bytes)>,
    /// The names of options of the protocol (`_pq_.`). None is known to PostgreSQL up to 18.
    pub unknown_options: Vec<Bytes>,
}

/// A first packet that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStartupPacket {
    /// A length that the packet cannot have. The client may not speak the protocol at all.
    #[error(
        "invalid length {length} of startup packet, expected 8 to {}",
        MAX_STARTUP_PACKET_LENGTH + 4
    )]
    Length {
        /// The length field.
        length: u32,
    },
    /// A cancel request with a key that is too long, or without one.
    #[error(
        "invalid length of cancel request packet: a key of {length} bytes, expected 1 to \
         {MAX_CANCEL_KEY_LENGTH}"
    )]
    CancelKey {
        /// The length of the key in bytes.
        length: usize,
    },
    /// A cancel request without a process.
    #[error("invalid length of cancel request packet: it names no process")]
    CancelProcess,
    /// A request for encryption that is longer than it can be.
    #[error("invalid length of encryption request: {trailing} bytes follow it")]
    Trailing {
        /// The number of bytes.
        trailing: usize,
    },
    /// A protocol that is another one altogether.
    #[error("unsupported frontend protocol {version}")]
    Version {
        /// What the client wants to speak.
        version: ProtocolVersion,
    },
    /// Parameters that are not pairs up to the packet's end.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
}

impl InitialPacket {
    /// Takes the packet off the front of `buffer`, or `None` while it is incomplete.
    ///
    /// The length is checked as soon as it is there, so that no more than
    /// [`MAX_STARTUP_PACKET_LENGTH`] is ever waited for.
    ///
    /// # Errors
    /// When it is no such packet. `buffer` is left as it is for a bad length; else the packet is
    /// taken off.
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Self>, InvalidStartupPacket> {
        let Some(&field) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let field = u32::from_be_bytes(field);
        let length = usize::try_from(field).unwrap_or(usize::MAX);
        let body = length.checked_sub(4);
        let Some(body) = body.filter(|body| (4..=MAX_STARTUP_PACKET_LENGTH).contains(body)) else {
            return Err(InvalidStartupPacket::Length { length: field });
        };
        if buffer.len() < length {
            return Ok(None);
        }
        buffer.advance(4);
        Self::decode(buffer.split_to(body).freeze()).map(Some)
    }

    /// Reads what follows the length, at least four bytes.
    fn decode(mut body: Bytes) -> Result<Self, InvalidStartupPacket> {
        let too_short = InvalidStartupPacket::Length { length: 4 };
        let code = body.try_get_u32().map_err(|_too_short| too_short)?;
        let request = |packet| match body.len() {
            0 => Ok(packet),
            trailing => Err(InvalidStartupPacket::Trailing { trailing }),
        };
        match code {
            CANCEL_REQUEST => cancel(body),
            TLS_REQUEST => request(Self::TlsRequest),
            GSS_ENCRYPTION_REQUEST => request(Self::GssEncryptionRequest),
            code => startup(ProtocolVersion(code), body).map(Self::Startup),
        }
    }
}

fn cancel(mut body: Bytes) -> Result<InitialPacket, InvalidStartupPacket> {
    let process_id = body
        .try_get_i32()
        .map_err(|_too_short| InvalidStartupPacket::CancelProcess)?;
    if !(1..=MAX_CANCEL_KEY_LENGTH).contains(&body.len()) {
        let length = body.len();
        return Err(InvalidStartupPacket::CancelKey { length });
    }
    Ok(InitialPacket::Cancel {
        process_id,
        secret_key: body,
    })
}

fn startup(version: ProtocolVersion, body: Bytes) -> Result<StartupPacket, InvalidStartupPacket> {
    if version.major() != ProtocolVersion::V3_0.major() {
        return Err(InvalidStartupPacket::Version { version });
    }
    let mut packet = StartupPacket {
        version,
        parameters: Vec::new(),
        unknown_options: Vec::new(),
    };
    let mut reader = Reader::new("StartupMessage", body);
    let mut text = |field| {
        reader
            .cstr(field)
            .map_err(|_unterminated| InvalidStartupPacket::Layout)
    };
    loop {
        let name = text("parameter name")?;
        if name.is_empty() {
            break;
        }
        let value = text("parameter value")?;
        if name.starts_with(PROTOCOL_OPTION) {
            packet.unknown_options.push(name);
        } else {
            packet.parameters.push((name, value));
        }
    }
    match reader.finish("terminator") {
        Ok(()) => Ok(packet),
        Err(_trailing) => Err(InvalidStartupPacket::Layout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::startup::StartupParameters;
    use proptest::prelude::*;

    fn packet(body: &[u8]) -> BytesMut {
        let length = u32::try_from(body.len() + 4).unwrap();
        let mut packet = BytesMut::from(&length.to_be_bytes()[..]);
        packet.extend_from_slice(body);
        packet
    }

    fn read(body: &[u8]) -> Result<InitialPacket, InvalidStartupPacket> {
        let mut packet = packet(body);
        let taken = InitialPacket::take(&mut packet);
        assert!(packet.is_empty());
        taken.map(|taken| taken.unwrap())
    }

    fn pair(name: &'static str, value: &'static str) -> (Bytes, Bytes) {
        (name.into(), value.into())
    }

    /// What pg_receivewal 15.18 sends.
    const PG_RECEIVEWAL: &[u8] = b"\x00\x03\x00\x00user\x00rep\x00database\x00replication\x00\
        replication\x00true\x00application_name\x00pg_receivewal\x00\x00";

    #[test]
    fn what_pg_receivewal_sends_is_understood() {
        let InitialPacket::Startup(startup) = read(PG_RECEIVEWAL).unwrap() else {
            panic!();
        };
        assert_eq!(startup.version, ProtocolVersion::V3_0);
        assert_eq!(
            startup.parameters,
            [
                pair("user", "rep"),
                pair("database", "replication"),
                pair("replication", "true"),
                pair("application_name", "pg_receivewal"),
            ]
        );
        assert!(startup.unknown_options.is_empty());
    }

    #[test]
    fn options_of_the_protocol_are_kept_apart() {
        let body = b"\x00\x03\x00\x02_pq_.wait\x00on\x00user\x00rep\x00_pq_.\x00\x00\x00";
        let InitialPacket::Startup(startup) = read(body).unwrap() else {
            panic!();
        };
        assert_eq!(startup.version, ProtocolVersion::V3_2);
        assert_eq!(startup.parameters, [pair("user", "rep")]);
        assert_eq!(startup.unknown_options, ["_pq_.wait", "_pq_."]);
    }

    #[test]
    fn requests_are_told_apart_by_their_number() {
        let tls = b"\x04\xd2\x16\x2f";
        assert_eq!(read(tls), Ok(InitialPacket::TlsRequest));
        assert_eq!(
            read(b"\x04\xd2\x16\x30"),
            Ok(InitialPacket::GssEncryptionRequest)
        );
        let cancel = b"\x04\xd2\x16\x2e\x00\x00\x31\xc2\xb5\xa9\x3f\x9a";
        assert_eq!(
            read(cancel),
            Ok(InitialPacket::Cancel {
                process_id: 12738,
                secret_key: Bytes::from_static(b"\xb5\xa9\x3f\x9a"),
            })
        );
        assert_eq!(
            read(b"\x04\xd2\x16\x2fx"),
            Err(InvalidStartupPacket::Trailing { trailing: 1 })
        );
    }

    #[test]
    fn a_cancel_request_has_a_process_and_a_key() {
        let request = |key: usize| {
            let body = [&b"\x04\xd2\x16\x2e\0\0\0\x01"[..], &vec![7; key]].concat();
            read(&body)
        };
        assert!(request(1).is_ok() && request(256).is_ok());
        for length in [0, 257] {
            let error = request(length).unwrap_err();
            assert_eq!(error, InvalidStartupPacket::CancelKey { length });
        }
        assert_eq!(
            read(b"\x04\xd2\x16\x2e\0\0\0"),
            Err(InvalidStartupPacket::CancelProcess)
        );
    }

    #[test]
    fn a_length_is_refused_as_soon_as_it_is_there() {
        for length in [0u32, 3, 4, 7, 10_005, 0x1603_0100, u32::MAX] {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            let error = InitialPacket::take(&mut buffer).unwrap_err();
            assert_eq!(error, InvalidStartupPacket::Length { length });
        }
        for length in [8u32, 10_004] {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(InitialPacket::take(&mut buffer), Ok(None));
        }
    }

    #[test]
    fn a_packet_cut_anywhere_is_waited_for_and_one_with_a_cut_body_refused() {
        let whole = packet(PG_RECEIVEWAL);
        for end in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..end]);
            assert_eq!(InitialPacket::take(&mut part), Ok(None), "{end}");
            assert_eq!(part, whole[..end]);
        }
        for end in 4..PG_RECEIVEWAL.len() {
            let error = read(&PG_RECEIVEWAL[..end]).unwrap_err();
            assert_eq!(error, InvalidStartupPacket::Layout, "{end}");
        }
        let longer = [PG_RECEIVEWAL, b"\0"].concat();
        assert_eq!(read(&longer), Err(InvalidStartupPacket::Layout));
    }

    #[test]
    fn another_protocol_is_named_before_its_parameters_are_read() {
        for (version, text) in [
            (0x2_0000, "2.0"),
            (0x4_0001, "4.1"),
            (0x4d2_1631, "1234.5681"),
        ] {
            let version = ProtocolVersion(version);
            let error = read(&[&version.0.to_be_bytes()[..], b"x"].concat()).unwrap_err();
            assert_eq!(error, InvalidStartupPacket::Version { version });
            assert_eq!(
                error.to_string(),
                format!("unsupported frontend protocol {text}")
            );
        }
    }

    proptest! {
        #[test]
        fn what_a_client_encodes_is_read_back(
            user in "[^\0]{0,20}",
            database in prop::option::of("[^\0]{0,20}"),
            extra in prop::collection::vec(("[a-zA-Z_.]{1,10}", "[^\0]{0,10}"), 0..4),
            rest: Vec<u8>,
        ) {
            let parameters = StartupParameters { user, database, extra, ..Default::default() };
            let mut out = BytesMut::new();
            parameters.encode(&mut out).unwrap();
            out.extend_from_slice(&rest);
            let Ok(Some(InitialPacket::Startup(startup))) = InitialPacket::take(&mut out) else {
                panic!();
            };
            prop_assert_eq!(&out[..], &rest[..]);
            let mut expected = vec![("user".to_owned(), parameters.user)];
            expected.extend(parameters.database.map(|value| ("database".to_owned(), value)));
            expected.push(("replication".to_owned(), "true".to_owned()));
            expected.extend(parameters.extra);
            let bytes = |(name, value): (String, String)| (name.into(), value.into());
            let expected: Vec<(Bytes, Bytes)> = expected.into_iter().map(bytes).collect();
            prop_assert_eq!(startup.parameters, expected);
        }

        #[test]
        fn any_body_is_read_or_refused(
            code in prop_oneof![
                Just(0x3_0000u32), Just(TLS_REQUEST), Just(CANCEL_REQUEST), any::<u32>(),
            ],
            rest: Vec<u8>,
        ) {
            let mut buffer = packet(&[&code.to_be_bytes()[..], &rest].concat());
            match InitialPacket::take(&mut buffer) {
                Ok(taken) => prop_assert!(taken.is_some() && buffer.is_empty()),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
