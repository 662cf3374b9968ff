use super::*;
use proptest::prelude::*;

fn frame(tag: u8, body: &[u8]) -> Frame {
    Frame {
        tag: Tag(tag),
        body: Bytes::copy_from_slice(body),
    }
}

fn encoded(message: &BackendMessage) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out).unwrap();
    out.freeze()
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn authentication() -> impl Strategy<Value = AuthenticationRequest> {
    use AuthenticationRequest as A;
    prop_oneof![
        Just(A::Ok),
        Just(A::KerberosV5),
        Just(A::CleartextPassword),
        any::<[u8; 4]>().prop_map(|salt| A::Md5Password { salt }),
        Just(A::ScmCredential),
        Just(A::Gss),
        bytes().prop_map(A::GssContinue),
        Just(A::Sspi),
        prop::collection::vec("[A-Z-]{1,20}", 0..4).prop_map(|mechanisms| A::Sasl { mechanisms }),
        bytes().prop_map(A::SaslContinue),
        bytes().prop_map(A::SaslFinal),
    ]
}

fn any_message() -> impl Strategy<Value = BackendMessage> {
    use BackendMessage as M;
    let column = (text(), any::<u32>()).prop_map(|(name, oid)| Column {
        name,
        data_type: DataType(oid),
    });
    prop_oneof![
        authentication().prop_map(M::Authentication),
        (any::<i32>(), bytes()).prop_map(|(process_id, secret_key)| M::BackendKeyData {
            process_id,
            secret_key
        }),
        "[A-Z_ 0-9]{0,20}".prop_map(|tag| M::CommandComplete { tag: tag.into() }),
        (any::<u8>(), prop::collection::vec(any::<u16>(), 0..4))
            .prop_map(|(format, columns)| M::CopyBothResponse { format, columns }),
        bytes().prop_map(M::CopyData),
        Just(M::CopyDone),
        prop::collection::vec(prop::option::of(bytes()), 0..5).prop_map(M::DataRow),
        Just(M::EmptyQueryResponse),
        (any::<u32>(), prop::collection::vec(text(), 0..3)).prop_map(|(newest, options)| {
            M::NegotiateProtocolVersion {
                newest,
                unknown_options: options,
            }
        }),
        (text(), text()).prop_map(|(name, value)| M::ParameterStatus { name, value }),
        any::<u8>().prop_map(|transaction_status| M::ReadyForQuery { transaction_status }),
        prop::collection::vec(column, 0..5).prop_map(M::RowDescription),
    ]
}

#[test]
fn more_columns_than_a_table_can_have_are_refused() {
    let body = [&1665u16.to_be_bytes()[..], &[0xFF; 4 * 1665]].concat();
    let error = BackendMessage::decode(frame(b'D', &body)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed DataRow message, field number of values: more than 1664 elements"
    );
    let body = [&1664u16.to_be_bytes()[..], &[0xFF; 4 * 1664]].concat();
    let row = BackendMessage::decode(frame(b'D', &body)).unwrap();
    assert_eq!(row, BackendMessage::DataRow(vec![None; 1664]));
}

#[test]
fn a_value_length_below_minus_one_is_refused() {
    let error = BackendMessage::decode(frame(b'D', b"\0\x01\xFF\xFF\xFF\xFE")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed DataRow message, field value length: unknown value -2"
    );
}

#[test]
fn an_unknown_tag_is_named() {
    let error = BackendMessage::decode(frame(b'?', b"")).unwrap_err();
    assert_eq!(error.to_string(), "unknown message \"?\"");
}

#[test]
fn too_many_values_for_a_row_leave_the_output_as_it_was() {
    let mut out = BytesMut::from(&b"before"[..]);
    let row = BackendMessage::DataRow(vec![None; 1 << 16]);
    assert_eq!(
        row.encode(&mut out),
        Err(EncodeError { message: "DataRow" })
    );
    assert_eq!(&out[..], b"before");
}

proptest! {
    #[test]
    fn a_message_is_read_back(message in any_message()) {
        let mut out = BytesMut::from(&encoded(&message)[..]);
        let frame = Frame::take(&mut out, |_| usize::MAX).unwrap().unwrap();
        prop_assert!(out.is_empty());
        prop_assert_eq!(BackendMessage::decode(frame), Ok(message));
    }

    #[test]
    fn a_message_with_a_byte_cut_off_or_added_is_never_taken_for_the_same(
        message in any_message(), extra: u8,
    ) {
        let whole = encoded(&message);
        let body = &whole[5..];
        if let Some(shorter) = body.len().checked_sub(1) {
            let decoded = BackendMessage::decode(frame(whole[0], &body[..shorter]));
            prop_assert_ne!(decoded, Ok(message.clone()));
        }
        let longer = [body, &[extra]].concat();
        prop_assert_ne!(BackendMessage::decode(frame(whole[0], &longer)), Ok(message));
    }

    #[test]
    fn any_body_is_read_and_written_again_or_refused(
        tag in prop::sample::select(b"RKCWdcDIEvNSZT".to_vec()), body: Vec<u8>,
    ) {
        if let Ok(message) = BackendMessage::decode(frame(tag, &body)) {
            let mut again = BytesMut::from(&encoded(&message)[..]);
            let again = Frame::take(&mut again, |_| usize::MAX).unwrap().unwrap();
            prop_assert_eq!(BackendMessage::decode(again), Ok(message));
        }
    }
}
