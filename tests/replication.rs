//! A cluster among others: its standbys, its receivers, its promotion.

use walproto::Lsn;

use crate::wait::wait_until;
use crate::{BaseBackup, Cluster};

impl Cluster {
    /// Makes a standby a primary, on a new timeline, and waits until it is one.
    pub fn promote(&self) {
        self.sql("SELECT pg_promote()");
        wait_until("the promotion", || {
            self.text("SELECT pg_is_in_recovery()::text").unwrap() == "false"
        });
        // Its first checkpoint tells `timeline` where it is.
        self.sql("CHECKPOINT");
    }

    /// A base backup of the running server.
    #[must_use]
    pub fn base_backup(&self) -> BaseBackup {
        BaseBackup::take(self)
    }

    /// A running standby of this server, which streams from it under this application name.
    #[must_use]
    pub fn standby(&self, application_name: &str) -> Self {
        let mut standby = self.base_backup().unpack(
            "standby.signal",
            &format!(
                "primary_conninfo = '{} application_name={application_name}'\n",
                self.conninfo()
            ),
        );
        standby.start();
        self.wait_streaming(application_name);
        standby
    }

    /// Waits until a receiver or standby of this name has caught up (`streaming`).
    #[track_caller]
    pub fn wait_streaming(&self, application_name: &str) {
        self.wait_replication(application_name, "state", "streaming");
    }

    /// Waits until the standby of this name is synchronous in this way: `sync`, `quorum`, `async`.
    #[track_caller]
    pub fn wait_sync_state(&self, application_name: &str, sync_state: &str) {
        self.wait_replication(application_name, "sync_state", sync_state);
    }

    /// Waits until the server shows no receiver: one that has ended is shown for a moment longer, and
    /// must not be taken for the next one of its name.
    #[track_caller]
    pub fn wait_no_replication(&self) {
        wait_until("no receiver to be shown", || {
            self.text("SELECT application_name FROM pg_stat_replication")
                .is_none()
        });
    }

    /// What a receiver or standby of this name has reported as flushed on its latest connection.
    #[must_use]
    pub fn reported_flush(&self, application_name: &str) -> Option<Lsn> {
        let lsn = self.text(&format!(
            "SELECT flush_lsn::text FROM pg_stat_replication
             WHERE application_name = '{application_name}' ORDER BY backend_start DESC"
        ))?;
        Some(lsn.parse().unwrap())
    }

    #[track_caller]
    fn wait_replication(&self, application_name: &str, column: &str, value: &str) {
        wait_until(&format!("{application_name} to be {value}"), || {
            self.text(&format!(
                "SELECT {column} FROM pg_stat_replication
                 WHERE application_name = '{application_name}' AND state = 'streaming'"
            ))
            .as_deref()
                == Some(value)
        });
    }
}
