//! A reply that is taken says the same after it was sent on.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use walproto::ServerVersion;
use walproto::result::*;

fuzz_target!(|rows: Vec<[Option<Vec<u8>>; 4]>| {
    let name = "column".to_owned();
    let data_type = DataType::TEXT;
    let mut table = ResultSet::new(vec![Column { name, data_type }; 4]);
    for row in rows {
        let row = row.into_iter().map(|value| value.map(Bytes::from));
        table.push_row(row.collect()).unwrap();
    }
    macro_rules! check {
        ($($reply:ident($($server:expr)?))*) => {$(
            if let Ok(reply) = $reply::decode(&table) {
                assert_eq!($reply::decode(&reply.encode($($server)?)), Ok(reply));
            }
        )*};
    }
    check!(IdentifySystem(ServerVersion::V14) IdentifySystem(ServerVersion::V16));
    check!(TimelineHistoryFile(ServerVersion::V14) CreatedSlot() TimelineEnd() Setting());
    check!(BackupPosition() BackupTablespaces());
    if let Ok(slot) = SlotInfo::decode(&table) {
        assert_eq!(SlotInfo::decode(&SlotInfo::encode(slot.as_ref())), Ok(slot));
    }
});
