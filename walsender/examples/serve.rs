//! The smallest server: standbys and receivers stream from the archive in a directory, which
//! another process may be filling at the same time.
//!
//! ```text
//! cargo run -p walsender --example serve -- DIRECTORY ADDRESS...
//! ```
//!
//! An ADDRESS is `127.0.0.1:5433` or the directory of a Unix socket, `/run/wal:5433`. Whoever
//! connects from this machine is believed to be who it says it is. A standby streams with
//! `primary_conninfo = 'host=127.0.0.1 port=5433 user=any'`.
//!
//! Ctrl-C ends it, once those who have got all WAL have confirmed it.
#![forbid(unsafe_code)]

use std::env;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use segstore::{ArchiveView, OsDisk, SlotLimits, SlotStore};
use walsender::{ListenAddress, ServeConfig, Server};

// One thread for the network is enough: the disk has its own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let directory = arguments
        .next()
        .ok_or("which directory? serve DIRECTORY ADDRESS...")?;
    let addresses: Result<Vec<ListenAddress>, _> = arguments.map(|text| text.parse()).collect();
    let mut config = ServeConfig::new(addresses?);
    config.access.trust_loopback = true;
    let view = ArchiveView::open(Arc::new(OsDisk::new()), Path::new(&directory))?;
    // Hears of what another process makes durable, as long as it lives.
    let _follower = view.follow()?;
    eprintln!("following {:?}", view.followed());
    let limits = SlotLimits {
        max_slots: 10,
        max_keep_bytes: None,
    };
    let server = Server::bind(config, SlotStore::open(view, limits)?)?;
    for address in server.addresses() {
        eprintln!("listening at {address}");
    }
    let interrupt = async {
        // Without a way to be interrupted it goes on until it is killed, which loses nothing.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    server.run(interrupt).await;
    Ok(())
}
