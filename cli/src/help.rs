//! `--help`.

use crate::args::{MAX_FEEDBACK_AGE, RECEIVE_TIMEOUT, RETRY_INTERVAL, STATUS_INTERVAL};
use crate::face::Face;
use crate::serve::options;

/// The help text, without the last line's end.
pub(crate) fn text(face: Face, program: &str) -> String {
    let what = match face {
        Face::PgReceivewal => "receives a PostgreSQL server's WAL into a directory.",
        Face::WalReceiver => {
            "receives a PostgreSQL server's WAL into a directory, checks every record,\n\
             and acknowledges it as a synchronous standby does."
        }
    };
    let (synchronous, on_event, own) = match face {
        Face::PgReceivewal => (
            "make WAL durable and tell the server at once",
            "",
            String::new(),
        ),
        Face::WalReceiver => (
            "make WAL durable and tell the server at once (always done)",
            ON_EVENT,
            own(program),
        ),
    };
    format!(
        "{program} {what}

Usage:
  {program} [OPTION]...

Options:
  -D, --directory=DIR    keep the WAL in this directory, which must exist
  -E, --endpos=LSN       stop once WAL beyond this position is received
      --if-not-exists    with --create-slot: be content with a slot that exists
  -n, --no-loop          end when the connection is lost, do not try again
      --no-sync          do not wait for the disk (a crash of the machine loses WAL)
  -s, --status-interval=SECS
                         longest time between status messages (default: {STATUS_INTERVAL}, 0: none)
  -S, --slot=SLOTNAME    replication slot to stream from
      --synchronous      {synchronous}
  -v, --verbose          tell about segments, timelines and positions
  -V, --version          print the version and exit
  -Z, --compress=METHOD[:DETAIL]
                         store completed segments as gzip[:1-9], lz4, zstd[:LEVEL] or none
  -?, --help             print this help and exit

Beyond pg_receivewal (never abbreviated):
      --start=LSN        where to begin in a directory without WAL
      --receive-timeout=SECS
                         a server silent for this long is gone (default: {RECEIVE_TIMEOUT}, 0: never)
      --retry-interval=SECS
                         maximum wait before a retry to connect (default: {RETRY_INTERVAL})
      --follow-fork      follow a new primary that lacks WAL which is kept here
      --log-format=text|json
                         write messages as text or one JSON object a line (default: text){on_event}

Connection options:
  -d, --dbname=CONNSTR   connection string or URI
  -h, --host=HOSTNAME    host or directory of the Unix socket
  -p, --port=PORT        port
  -U, --username=NAME    user
  -w, --no-password      never ask for a password
  -W, --password         ask for a password before connecting

Optional actions, instead of receiving:
      --create-slot      create the replication slot that --slot names
      --drop-slot        drop the replication slot that --slot names{own}"
    )
}

const ON_EVENT: &str = "
      --on-event=COMMAND run this by sh when WAL is missing or damaged, a slot is lost, the
                         server forked off, acknowledgements are held or released, or no
                         WAL has been streamed for a minute";

/// What the program has under its own name only.
fn own(program: &str) -> String {
    let (serving, access) = (options::help(), options::ACCESS_HELP);
    format!(
        "

Serving what is received meanwhile, to standbys, pg_receivewal and other receivers
(\"{program} serve\" serves an archive without receiving):
{serving}
      --sync-downstream=NAMES
                         who must have WAL before it is acknowledged, in the form of
                         synchronous_standby_names: 'ANY 1 (s1, s2)'
      --hot-standby-feedback
                         tell the server which rows the queries of standbys need
      --max-feedback-age=SECS
                         for how long a transaction that a standby needs counts there
                         (default: {MAX_FEEDBACK_AGE}, 0: as long as it is needed)

{access}

SIGHUP reads these files anew.

Subcommands (each has its own --help):
  serve                  serve an archive to standbys and other receivers
  status                 show how an archive and its processes are
  await-standby          wait until a standby has all that was acknowledged
  verify                 check every record of an archive
  prune                  remove old segments from an archive

Called as pg_receivewal (by a symbolic link) it has that program's defaults instead: it
acknowledges only with --synchronous or for a slot, a new slot reserves no WAL, it waits five
seconds before it connects again, and a first connection that fails ends it. It does not serve."
    )
}
