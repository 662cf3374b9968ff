//! One row for each option: its form, its description, and what it sets.

use walsender::Limits;

use super::error::UsageError;
use super::given::LogFormat;
use super::receive::{Prompt, RECEIVE_TIMEOUT, RETRY_INTERVAL, STATUS_INTERVAL};
use super::serving::{MAX_FEEDBACK_AGE, MAX_SLOTS};
use super::{Flag, Set};

pub(crate) const HELP: Flag = Flag::new("-?, --help", "print this help and exit", Set::Help);

pub(crate) const VERSION: Flag =
    Flag::new("-V, --version", "print the version and exit", Set::Version);

pub(crate) const DIRECTORY: Flag = Flag::path("-D, --directory=DIR", "the archive", |given| {
    &mut given.directory
});

pub(crate) const VERBOSE: Flag = Flag::switch(
    "-v, --verbose",
    "tell about segments, timelines and positions",
    |given| given.verbose = true,
);

pub(crate) const LOG_FORMAT: Flag = Flag::value(
    "--log-format=text|json",
    "write messages as text or one JSON object a line (default: text)",
    |given, value| LogFormat::from_option(value.text()?).map(|format| given.log_format = format),
);

pub(crate) const ON_EVENT: Flag = Flag::value(
    "--on-event=COMMAND",
    "run this by sh when WAL is missing or damaged, a slot is lost, the\n\
     server forked off, acknowledgements are held or released, or no\n\
     WAL has been streamed for a minute",
    |given, value| {
        given.on_event = Some(value.raw());
        Ok(())
    },
);

pub(crate) const JSON: Flag = Flag::switch(
    "--json",
    "write one JSON object in place of text",
    |given| given.json = true,
);

pub(crate) const JOBS: Flag = Flag::value(
    "-j, --jobs=N",
    "threads that check at the same time (default: 1)",
    |given, value| value.jobs().map(|jobs| given.jobs = Some(jobs)),
);

pub(crate) const TIMEOUT: Flag = Flag::value(
    "--timeout=SECS",
    "give up after this time (default: 0, never)",
    |given, value| value.seconds().map(|timeout| given.timeout = timeout),
);

pub(crate) const DRY_RUN: Flag = Flag::switch(
    "-n, --dry-run",
    "print the files that would be removed, and remove none",
    |given| given.dry_run = true,
);

pub(crate) const MAX_SLOT_KEEP_SIZE: Flag = Flag::value(
    "--max-slot-keep-size=SIZE",
    "the most WAL that a slot keeps from removal, in kB, MB, GB or TB\n(default: any)",
    |given, value| {
        value
            .size()
            .map(|size| given.max_slot_keep_bytes = Some(size))
    },
);

/// The options of `pg_receivewal`, with a description of `--synchronous`.
pub(crate) const fn receiving(synchronous: &'static str) -> [Flag; 12] {
    [
        DIRECTORY.help("keep the WAL in this directory, which must exist"),
        Flag::value(
            "-E, --endpos=LSN",
            "stop once WAL beyond this position is received",
            |given, value| {
                let end = value.position(|value| UsageError::EndPosition { value });
                end.map(|end| given.end = end)
            },
        ),
        Flag::switch(
            "--if-not-exists",
            "with --create-slot: be content with a slot that exists",
            |given| given.if_not_exists = true,
        ),
        Flag::switch(
            "-n, --no-loop",
            "end when the connection is lost, do not try again",
            |given| given.no_loop = true,
        ),
        Flag::switch(
            "--no-sync",
            "do not wait for the disk (a crash of the machine loses WAL)",
            |given| given.no_sync = true,
        ),
        Flag::value(
            "-s, --status-interval=SECS",
            "longest time between status messages (default: {default}, 0: none)",
            |given, value| {
                let interval = value.seconds_of("-s/--status-interval");
                interval.map(|interval| given.status_interval = Some(interval))
            },
        )
        .default(|| STATUS_INTERVAL.to_string()),
        Flag::value(
            "-S, --slot=SLOTNAME",
            "replication slot to stream from",
            |given, value| value.text().map(|slot| given.slot = Some(slot)),
        ),
        Flag::switch("--synchronous", synchronous, |given| {
            given.synchronous = true
        }),
        VERBOSE,
        VERSION,
        Flag::value(
            "-Z, --compress=METHOD[:DETAIL]",
            "store completed segments as gzip[:1-9], lz4, zstd[:LEVEL] or none",
            |given, value| value.text().map(|compress| given.compress = Some(compress)),
        ),
        HELP,
    ]
}

/// What `pg_receivewal` has no option for.
pub(crate) const BEYOND: &[Flag] = &[
    Flag::value(
        "--start=LSN",
        "where to begin in a directory without WAL",
        |given, value| {
            let start = value.position(|value| UsageError::StartPosition { value });
            start.map(|start| given.start = start)
        },
    ),
    Flag::value(
        "--receive-timeout=SECS",
        "a server silent for this long is gone (default: {default}, 0: never)",
        |given, value| {
            value
                .seconds()
                .map(|timeout| given.receive_timeout = Some(timeout))
        },
    )
    .default(|| RECEIVE_TIMEOUT.to_string()),
    Flag::value(
        "--retry-interval=SECS",
        "maximum wait before a retry to connect (default: {default})",
        |given, value| {
            value
                .some_seconds()
                .map(|most| given.retry_interval = Some(most))
        },
    )
    .default(|| RETRY_INTERVAL.to_string()),
    Flag::switch(
        "--follow-fork",
        "follow a new primary that lacks WAL which is kept here",
        |given| given.follow_fork = true,
    ),
    LOG_FORMAT,
];

/// Where and as whom to connect.
pub(crate) const CONNECTION: &[Flag] = &[
    Flag::value(
        "-d, --dbname=CONNSTR",
        "connection string or URI",
        |given, value| value.text().map(|conninfo| given.conninfo = Some(conninfo)),
    ),
    Flag::value(
        "-h, --host=HOSTNAME",
        "host or directory of the Unix socket",
        |given, value| value.text().map(|host| given.host = Some(host)),
    ),
    Flag::value("-p, --port=PORT", "port", |given, value| {
        value.text().map(|port| given.port = Some(port))
    }),
    Flag::value("-U, --username=NAME", "user", |given, value| {
        value.text().map(|user| given.user = Some(user))
    }),
    Flag::switch("-w, --no-password", "never ask for a password", |given| {
        given.prompt = Prompt::Never
    }),
    Flag::switch(
        "-W, --password",
        "ask for a password before connecting",
        |given| given.prompt = Prompt::Always,
    ),
];

/// What to do instead of receiving.
pub(crate) const SLOT_ACTIONS: &[Flag] = &[
    Flag::switch(
        "--create-slot",
        "create the replication slot that --slot names",
        |given| given.create_slot = true,
    ),
    Flag::switch(
        "--drop-slot",
        "drop the replication slot that --slot names",
        |given| given.drop_slot = true,
    ),
];

/// How an archive is served.
pub(crate) const SERVING: &[Flag] = &[
    Flag::value(
        "--listen=ADDRESS",
        "where clients connect, may be given several times: 127.0.0.1:5432,\n\
         *:5432 for every address, or the directory of a Unix socket, /run/wal:5432",
        |given, value| {
            let address = value.text()?.parse().map_err(UsageError::ListenAddress)?;
            given.listen.push(address);
            Ok(())
        },
    ),
    Flag::value(
        "--max-connections=N",
        "maximum number of clients (default: {default}, or as many as\n\
         the limit of open files allows)",
        |given, value| value.count().map(|most| given.connections = Some(most)),
    )
    .default(|| Limits::default().connections.to_string()),
    Flag::value(
        "--max-connections-per-user=N",
        "the most of one user (default: as many)",
        |given, value| {
            value
                .count()
                .map(|most| given.connections_per_user = Some(most))
        },
    ),
    Flag::value(
        "--authentication-timeout=TIME",
        "how long a client may take to show who it is (default: 60s)",
        |given, value| {
            let timeout = value.authentication_timeout();
            timeout.map(|timeout| given.authentication_timeout = Some(timeout))
        },
    ),
    Flag::value(
        "--wal-sender-timeout=TIME",
        "a client that is silent for so long is gone, 0 for never (default: 60s)",
        |given, value| {
            let timeout = value.wal_sender_timeout();
            timeout.map(|timeout| given.wal_sender_timeout = Some(timeout))
        },
    ),
    Flag::value(
        "--max-slots=N",
        "the most replication slots (default: {default})",
        |given, value| value.count().map(|most| given.max_slots = Some(most)),
    )
    .default(|| MAX_SLOTS.to_string()),
    MAX_SLOT_KEEP_SIZE,
];

/// What standbys of a receiver mean to its upstream.
pub(crate) const DOWNSTREAM: &[Flag] = &[
    Flag::value(
        "--sync-downstream=NAMES",
        "who must have WAL before it is acknowledged, in the form of\n\
         synchronous_standby_names: 'ANY 1 (s1, s2)'",
        |given, value| {
            let policy = value.text()?.parse().map_err(UsageError::SyncDownstream)?;
            given.policy = Some(policy);
            Ok(())
        },
    ),
    Flag::switch(
        "--hot-standby-feedback",
        "tell the server which rows the queries of standbys need",
        |given| given.feedback = true,
    ),
    Flag::value(
        "--max-feedback-age=SECS",
        "for how long a transaction that a standby needs counts there\n\
         (default: {default}, 0: as long as it is needed)",
        |given, value| {
            value
                .seconds()
                .map(|age| given.max_feedback_age = Some(age))
        },
    )
    .default(|| MAX_FEEDBACK_AGE.to_string()),
];

/// Which clients may connect.
pub(crate) const ACCESS: &[Flag] = &[
    Flag::path(
        "--hba-file=FILE",
        "access rules, in the form of pg_hba.conf",
        |given| &mut given.hba,
    ),
    Flag::path(
        "--users-file=FILE",
        "users and their SCRAM verifiers, a line each: \"NAME\" \"VERIFIER\"",
        |given| &mut given.users,
    ),
    Flag::switch(
        "--trust-loopback",
        "believe whoever connects from 127.0.0.1 or ::1 and has no rule",
        |given| given.trust_loopback = true,
    ),
    Flag::path(
        "--tls-cert=FILE",
        "our certificate and those of authorities above it, for TLS",
        |given| &mut given.certificate,
    ),
    Flag::path("--tls-key=FILE", "its key", |given| &mut given.key),
    Flag::path(
        "--tls-client-ca=FILE",
        "who is trusted to sign clients' certificates",
        |given| &mut given.client_authorities,
    ),
    Flag::path("--tls-crl=FILE", "which of those are revoked", |given| {
        &mut given.revocation_list
    }),
];
