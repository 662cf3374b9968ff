//! Several servers: which one is taken.

use tempfile::TempDir;
use tests::{Cluster, Link, Version};

use crate::for_each_version;

for_each_version!(the_state_of_a_server_is_found_out_without_sql);

fn the_state_of_a_server_is_found_out_without_sql(version: Version) {
    let primary = Cluster::start_new(version);
    let standby = primary.standby("standby");
    primary.wait_streaming("standby");
    let home = TempDir::new().unwrap();
    let (first, second) = (standby.socket_directory(), primary.socket_directory());
    let hosts = format!("host=/missing,{},{}", first.display(), second.display());
    for (wanted, on_primary) in [
        ("any", false),
        ("primary", true),
        ("read-write", true),
        ("standby", false),
        ("read-only", false),
        ("prefer-standby", false),
    ] {
        let conninfo = format!("{hosts} user=postgres target_session_attrs={wanted}");
        let mut link = Link::new(&conninfo, home.path()).unwrap();
        let read_only = link.show("transaction_read_only");
        assert_eq!(read_only == "off", on_primary, "{wanted}");
    }
    let conninfo = format!(
        "host={} user=postgres target_session_attrs=standby",
        second.display()
    );
    let text = Link::new(&conninfo, home.path()).err().unwrap().to_string();
    assert!(text.ends_with("(target_session_attrs=standby)"), "{text}");
}
