//! The hot paths, each as one function to be measured by time or by instructions.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use segstore::generator::RecordMix;
use segstore::{BLOCK_SIZE, Validator};
use walproto::command::Command;
use walproto::copy_data::{ReceiverMessage, SenderMessage, StandbyStatusUpdate, XLogData};
use walproto::{Lsn, PgTimestamp, TimelineHistory, TimelineId};

use crate::{Pair, START, generate, name, stream};

/// How much WAL is checked or made in one run: what is done once a segment hardly counts.
const WAL_LENGTH: u64 = 2 << 20;
/// How many messages or commands a run has.
const MESSAGES: usize = 64;

/// Something that is done for every record, message or connection.
pub struct HotPath {
    /// Its name in reports and baselines.
    pub name: String,
    /// How many bytes one run goes through.
    pub bytes: u64,
    /// One run.
    pub run: Box<dyn FnMut()>,
}

impl std::fmt::Debug for HotPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, bytes, .. } = self;
        write!(f, "HotPath({name}, {bytes} bytes)")
    }
}

impl HotPath {
    fn new(name: impl Into<String>, bytes: u64, run: impl FnMut() + 'static) -> Self {
        Self {
            name: name.into(),
            bytes,
            run: Box::new(run),
        }
    }
}

/// All of them.
#[must_use]
pub fn paths() -> Vec<HotPath> {
    let mixes = RecordMix::ALL.into_iter();
    let mut paths: Vec<HotPath> = mixes.clone().map(validate).collect();
    paths.extend(mixes.map(make));
    paths.extend([
        decode_wal(8 << 10),
        decode_wal(128 << 10),
        encode_wal(),
        statuses(),
        frame(),
        round_trip(100),
        round_trip(128 << 10),
        parse_commands(),
        parse_history(),
    ]);
    paths
}

fn validate(mix: RecordMix) -> HotPath {
    let wal = generate(mix, WAL_LENGTH);
    let length = wal.bytes().len() as u64;
    HotPath::new(format!("validate, {}", name(mix)), length, move || {
        let history = wal.history().clone();
        let mut validator = Validator::new(wal.format(), history, START).expect("a page");
        for piece in wal.bytes().chunks(128 << 10) {
            black_box(validator.push(black_box(piece)).expect("valid WAL"));
        }
    })
}

fn make(mix: RecordMix) -> HotPath {
    let mut stream = stream(mix);
    let mut buffer = vec![0; 128 << 10];
    let times = WAL_LENGTH >> 17;
    HotPath::new(format!("generate, {}", name(mix)), WAL_LENGTH, move || {
        for _ in 0..times {
            stream.fill(black_box(&mut buffer));
        }
    })
}

fn wal(length: usize) -> XLogData {
    let start = START;
    XLogData {
        start,
        wal_end: Lsn(start.0 + length as u64),
        sent_at: PgTimestamp(1),
        data: Bytes::from(vec![0x5A; length]),
    }
}

/// The body of an encoded `CopyData` message.
fn body(message: &BytesMut) -> Bytes {
    let header = message.len().min(walproto::frame::HEADER_LENGTH);
    Bytes::copy_from_slice(message.get(header..).unwrap_or_default())
}

fn decode_wal(length: usize) -> HotPath {
    let mut message = BytesMut::new();
    wal(length).encode(&mut message).expect("a message");
    let body = body(&message);
    let bytes = (length * MESSAGES) as u64;
    HotPath::new(
        format!("decode WAL messages of {} KiB", length >> 10),
        bytes,
        move || {
            for _ in 0..MESSAGES {
                black_box(SenderMessage::decode(black_box(body.clone())).expect("a message"));
            }
        },
    )
}

fn encode_wal() -> HotPath {
    let wal = wal(8 << 10);
    let mut out = BytesMut::with_capacity(16 << 10);
    let bytes = (wal.data.len() * MESSAGES) as u64;
    HotPath::new("encode WAL messages of 8 KiB", bytes, move || {
        for _ in 0..MESSAGES {
            out.clear();
            black_box(&wal).encode(&mut out).expect("a message");
        }
    })
}

fn statuses() -> HotPath {
    let update = StandbyStatusUpdate {
        write: START,
        flush: START,
        apply: START,
        sent_at: PgTimestamp(1),
        reply_requested: false,
    };
    let mut out = BytesMut::with_capacity(1 << 10);
    update.encode(&mut out);
    let body = body(&out);
    let bytes = (2 * body.len() * MESSAGES) as u64;
    HotPath::new("encode and decode status updates", bytes, move || {
        for _ in 0..MESSAGES {
            out.clear();
            black_box(&update).encode(&mut out);
            black_box(ReceiverMessage::decode(black_box(body.clone())).expect("a message"));
        }
    })
}

fn frame() -> HotPath {
    let mut pair = Pair::streaming(START);
    let length = 128 << 10;
    let bytes = (length * MESSAGES) as u64;
    HotPath::new("frame WAL messages of 128 KiB", bytes, move || {
        for _ in 0..MESSAGES {
            black_box(pair.frame(black_box(length)));
        }
    })
}

fn round_trip(length: usize) -> HotPath {
    let mut pair = Pair::streaming(START);
    let wal = vec![0x5A; length];
    // As many as fit into what is read at once.
    let batch = ((256 << 10) / length).clamp(1, MESSAGES);
    let bytes = (length * batch) as u64;
    HotPath::new(
        format!("stream and acknowledge messages of {length} bytes"),
        bytes,
        move || {
            for _ in 0..batch {
                pair.send(black_box(&wal));
            }
            let received = pair.receive();
            assert_eq!(received, bytes);
            pair.acknowledge();
        },
    )
}

fn parse_commands() -> HotPath {
    const COMMANDS: [&str; 6] = [
        "IDENTIFY_SYSTEM",
        "SHOW wal_segment_size",
        "READ_REPLICATION_SLOT \"standby\"",
        "CREATE_REPLICATION_SLOT \"standby\" PHYSICAL (RESERVE_WAL)",
        "START_REPLICATION SLOT \"standby\" 12/A0000000 TIMELINE 3",
        "BASE_BACKUP ( LABEL 'base',  CHECKPOINT 'fast',  WAIT 0,  MANIFEST 'yes')",
    ];
    let bytes = COMMANDS.iter().map(|command| command.len() as u64).sum();
    HotPath::new("parse commands", bytes, || {
        for command in COMMANDS {
            black_box(Command::parse(black_box(command)).expect("a command"));
        }
    })
}

fn parse_history() -> HotPath {
    let lines = (1..=100u64).map(|timeline| {
        let switch_point = Lsn(timeline * BLOCK_SIZE);
        format!("{timeline}\t{switch_point}\tno recovery target specified\n")
    });
    let content = Bytes::from(lines.collect::<String>());
    let timeline = TimelineId::new(101).expect("not 0");
    HotPath::new(
        "parse a history of 100 timelines",
        content.len() as u64,
        move || {
            black_box(
                TimelineHistory::parse(timeline, black_box(content.clone())).expect("a history"),
            );
        },
    )
}
