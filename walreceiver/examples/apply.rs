//! What can be made of the records: prints each commit, and at the end how many records of which
//! resource manager there were and where to go on.
//!
//! ```text
//! cargo run -p walreceiver --example apply -- DIRECTORY CONNINFO [TIMELINE LSN]
//! ```
//!
//! A record comes once it is durable in DIRECTORY; with `synchronous_commit = remote_apply` a
//! commit waits until its line is printed. The position that is printed at the end, given the next
//! time, continues there without a gap and without a record twice. Without one it begins with what
//! is received from then on.
//!
//! Ctrl-C ends it.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use pgconn::conninfo::{ConnectionConfig, Overrides};
use walproto::Major;
use walreceiver::{Apply, ApplyConfig, Receiver, ReceiverConfig, RecordPiece, WalPosition};

/// `RM_XACT_ID`, the resource manager of transactions (src/include/access/rmgrlist.h).
const TRANSACTION: u8 = 1;
/// The bits of `xl_info` that tell what became of a transaction (`XLOG_XACT_OPMASK`), and two of
/// their values (src/include/access/xact.h).
const OUTCOME: u8 = 0x70;
const COMMIT: u8 = 0x00;
const COMMIT_PREPARED: u8 = 0x30;

/// How many records of which resource manager there were, and the end of the last one.
#[derive(Default)]
struct Statistics {
    records: BTreeMap<u8, u64>,
    applied: Option<WalPosition>,
}

/// Counts records. What it counted is shared with whoever wants to see it.
struct Counter {
    statistics: Arc<Mutex<Statistics>>,
}

impl Apply for Counter {
    fn apply(&mut self, piece: RecordPiece) -> Result<(), Box<dyn Error + Send + Sync>> {
        // Of a large record only the last piece counts: before it the record may be abandoned.
        let Some(applied) = piece.applied() else {
            return Ok(());
        };
        let header = piece.header;
        let outcome = header.info & OUTCOME;
        if header.resource_manager == TRANSACTION && matches!(outcome, COMMIT | COMMIT_PREPARED) {
            let WalPosition { timeline, lsn } = applied;
            println!("commit {} {timeline} {lsn}", header.xid);
        }
        let mut statistics = lock(&self.statistics);
        *statistics
            .records
            .entry(header.resource_manager)
            .or_default() += 1;
        statistics.applied = Some(applied);
        Ok(())
    }
}

fn lock(statistics: &Mutex<Statistics>) -> std::sync::MutexGuard<'_, Statistics> {
    statistics.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (directory, conninfo, from) = match arguments.as_slice() {
        [directory, conninfo] => (directory, conninfo, None),
        [directory, conninfo, timeline, lsn] => {
            let (timeline, lsn) = (timeline.parse()?, lsn.parse()?);
            (directory, conninfo, Some(WalPosition { timeline, lsn }))
        }
        _ => return Err("expected DIRECTORY CONNINFO [TIMELINE LSN]".into()),
    };
    let overrides = Overrides {
        fallback_application_name: "apply".to_owned(),
        ..Overrides::default()
    };
    let connection =
        ConnectionConfig::from_sources(Some(conninfo), &overrides, &|name| env::var_os(name))?;
    let statistics = Arc::new(Mutex::new(Statistics::default()));
    let counter = Counter {
        statistics: Arc::clone(&statistics),
    };
    let config = ApplyConfig {
        from,
        whole_length: 1 << 20,
    };
    Receiver::new(ReceiverConfig::new(directory), connection)
        .with_apply(counter, config)
        .run(async {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    let statistics = lock(&statistics);
    for (&resource_manager, count) in &statistics.records {
        let name = Major::resource_manager_name(resource_manager).unwrap_or("of an extension");
        println!("{count} {name}");
    }
    if let Some(WalPosition { timeline, lsn }) = statistics.applied.or(from) {
        println!("applied {timeline} {lsn}");
    }
    Ok(())
}
