//! The smallest receiver: keeps a server's WAL in a directory, and tells the server what is safe
//! there.
//!
//! ```text
//! cargo run -p walreceiver --example archive -- DIRECTORY [CONNINFO]
//! ```
//!
//! CONNINFO is a connection string as libpq knows it, `host=/run/postgresql user=postgres` for
//! one; what it leaves out comes from the environment (`PGHOST` and so on) and libpq's defaults.
//! The user needs the `REPLICATION` attribute. With `synchronous_standby_names = 'archive'` on the
//! server its commits wait until their WAL is durable here.
//!
//! Ctrl-C ends it. Started again it goes on where it was.
#![forbid(unsafe_code)]

use std::env;
use std::error::Error;

use pgconn::conninfo::{ConnectionConfig, Overrides};
use walreceiver::{Receiver, ReceiverConfig, ReceiverEvent};

// One thread for the network is enough: the disk has its own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let directory = arguments
        .next()
        .ok_or("which directory? archive DIRECTORY [CONNINFO]")?;
    let conninfo = arguments.next();
    let overrides = Overrides {
        fallback_application_name: "archive".to_owned(),
        ..Overrides::default()
    };
    let connection =
        ConnectionConfig::from_sources(conninfo.as_deref(), &overrides, &|name| env::var_os(name))?;
    let receiver = Receiver::new(ReceiverConfig::new(directory), connection).with_reporter(report);
    let interrupt = async {
        // Without a way to be interrupted it goes on until it is killed, which loses nothing.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    receiver.run(interrupt).await?;
    Ok(())
}

/// Everything that is rare enough for people to read.
fn report(event: &ReceiverEvent<'_>) {
    match event {
        ReceiverEvent::Warning(warning) => eprintln!("warning: {warning}"),
        other => eprintln!("{other:?}"),
    }
}
