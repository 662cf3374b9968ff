//! Tests against real PostgreSQL servers, by behaviour.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its work fails by a panic"
)]

mod apply;
mod archive_files;
mod auth;
mod await_standby;
mod cascade;
mod catch_up;
mod damage;
mod damaged_stream;
mod dropin;
mod examples;
mod first_process;
mod first_start;
mod foreign_text;
mod full_disk;
mod handover;
mod hosts;
mod incomplete_record;
mod large_segments;
mod last_end;
mod lineage;
mod model;
mod newer_server;
mod old_certificates;
mod on_event;
mod other_user;
mod outages;
mod postgres_own_test;
mod proxied;
mod refused;
mod relay;
mod relay_descriptors;
mod relay_end;
mod relay_failover;
mod relay_feedback;
mod relay_lineage;
mod sender_session;
mod serve;
mod serve_access;
mod serve_damage;
mod serve_live;
mod serve_log;
mod serve_probes;
mod serve_program;
mod serve_prune;
mod serve_requests;
mod serve_segments;
mod serve_standbys;
mod serve_stop;
mod serve_timelines;
mod slots;
mod status;
mod streaming;
mod terminal;
mod timelines;
mod tls;
mod verify;
mod weak_wal;

/// One test for each supported version of PostgreSQL, from a function that takes the version.
macro_rules! for_each_version {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use tests::Version;

            $crate::for_each_version!(@one $name v13 V13);
            $crate::for_each_version!(@one $name v14 V14);
            $crate::for_each_version!(@one $name v15 V15);
            $crate::for_each_version!(@one $name v16 V16);
            $crate::for_each_version!(@one $name v17 V17);
            $crate::for_each_version!(@one $name v18 V18);
        }
    )+};
    (@one $name:ident $test:ident $version:ident) => {
        #[test]
        fn $test() {
            if !Version::$version.is_skipped() {
                super::$name(Version::$version);
            }
        }
    };
}
use for_each_version;
