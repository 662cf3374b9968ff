//! A primary is lost: what it had acknowledged is with the relay, and with those behind it before
//! one of them takes its place.

use std::sync::Arc;

use segstore::{OsDisk, published_position};
use tests::{ArchiveDirectory, Cluster, Load, Relay, Version, wait_until};

use crate::for_each_version;

for_each_version!(a_standby_behind_a_relay_takes_over_from_a_lost_primary);

fn a_standby_behind_a_relay_takes_over_from_a_lost_primary(version: Version) {
    let mut primary = Cluster::builder(version).segment_size_mib(1).start();
    primary.sql("CREATE TABLE t (i int)");
    let backup = primary.base_backup();
    let [mut heir, mut other] = [(); 2].map(|()| backup.unpack("standby.signal", ""));
    let hosts = format!(
        "host={},{} user=postgres target_session_attrs=primary",
        primary.socket_directory().display(),
        heir.socket_directory().display()
    );
    let archive = ArchiveDirectory::new();
    let start = backup.start().to_string();
    let mut relay = Relay::start(&hosts, archive.path(), &["--start", &start]);
    relay.lead(&heir, "heir");
    relay.lead(&other, "other");
    heir.start();
    other.start();
    primary.reload_with("synchronous_standby_names", "wal_receiver");
    primary.wait_sync_state("wal_receiver", "sync");

    let load = Load::start(&primary, 4, "on");
    load.wait_for_commits(200);
    // From here on only the relay has what is acknowledged.
    heir.stop();
    other.stop();
    load.wait_for_commits(200);
    primary.kill9();
    let commits = load.finish();
    relay.kill9();
    // Nobody is there whom it could receive from.
    relay.start_again();
    heir.start();
    other.start();
    let position = published_position(Arc::new(OsDisk::new()), archive.path());
    let acknowledged = position.unwrap().unwrap().record_end;
    wait_until("the standby to have all that was acknowledged", || {
        heir.flush_lsn() >= acknowledged
    });
    heir.promote();
    assert_eq!(heir.missing(&commits), [].into());
    heir.wait_streaming("wal_receiver");
    heir.reload_with("synchronous_standby_names", "wal_receiver");
    heir.wait_sync_state("wal_receiver", "sync");
    heir.commit("INSERT INTO t VALUES (1)");
    crate::relay::wait_rows(&other, "1");
    crate::relay::wait_receives(&other, "received_tli", "2");
    assert_eq!(other.missing(&commits), [].into());
    let end = heir.write_wal(2);
    relay.wait_flushed(&heir, end);
    assert!(relay.stop().success(), "{}", relay.log());
}
