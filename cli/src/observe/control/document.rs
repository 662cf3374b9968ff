//! The documents: what is told, in JSON. Names and meanings are a promise; README lists them.
//!
//! Positions are text, as `0/3000060`; times that pass are seconds; points in time are UTC, as
//! `2026-03-01T12:00:00.000000Z`. What is not known is null.

use std::time::Duration;

use segstore::{ArchiveError, ArchivePosition, Slot};
use serde::{Deserialize, Serialize};
use walproto::copy_data::EpochXid;
use walproto::{Confirmed, Lsn, TimelineId};
use walsender::{ConnectedStandby, FailedConnections};

use crate::logging::chain;
use crate::timestamp::timestamp;

/// What a process answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    /// The receiver in it.
    pub(crate) receiver: Option<ReceiverDocument>,
    /// The server in it.
    pub(crate) server: Option<ServerDocument>,
}

/// What is answered to a request that makes no sense.
#[derive(Serialize)]
pub(super) struct Failure {
    pub(super) error: &'static str,
}

/// What a receiver is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReceiverState {
    /// It tries to connect.
    Connecting,
    /// It receives.
    Streaming,
    /// It waits before it tries again.
    Waiting,
    /// It ends, or those who are served get the last of what it has received.
    Stopping,
    /// An error has ended receiving. A server in the same process disconnects its clients after a
    /// short time, and the process exits.
    Ended,
}

impl ReceiverState {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Streaming => "streaming",
            Self::Waiting => "waiting",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        }
    }
}

/// A receiver.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ReceiverDocument {
    pub(crate) pid: u32,
    pub(crate) state: ReceiverState,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) server_version: Option<String>,
    pub(crate) system_identifier: Option<String>,
    pub(crate) slot_name: Option<String>,
    pub(crate) timeline: Option<u32>,
    pub(crate) received_lsn: Option<String>,
    pub(crate) durable_lsn: Option<String>,
    pub(crate) acknowledged_lsn: Option<String>,
    pub(crate) server_lsn: Option<String>,
    pub(crate) lag_bytes: Option<u64>,
    pub(crate) lag_seconds: Option<f64>,
    pub(crate) last_error: Option<String>,
    pub(crate) disconnected_since: Option<String>,
    pub(crate) retry_in_seconds: Option<f64>,
    pub(crate) held: Vec<Held>,
}

/// A reason for which acknowledgements are held.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    /// For programs.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
}

impl Held {
    pub(super) fn new(reason: &str, message: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }
}

/// A server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ServerDocument {
    pub(crate) pid: u32,
    pub(crate) timeline: Option<u32>,
    /// Up to where it serves.
    pub(crate) durable_lsn: Option<String>,
    /// What the policy makes of the standbys; null without one.
    pub(crate) synchronous: Option<SynchronousDocument>,
    pub(crate) standbys: Vec<StandbyDocument>,
    pub(crate) slots: Vec<SlotDocument>,
    /// Why the slots cannot be told.
    pub(crate) slots_error: Option<String>,
    /// Connections that ended badly; null from a process of an older version.
    pub(crate) failed_connections: Option<FailedConnectionsDocument>,
}

/// How many connections ended badly since the server began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct FailedConnectionsDocument {
    pub(crate) unauthenticated: u64,
    pub(crate) refused: u64,
    pub(crate) ended: u64,
}

/// What a policy makes of the standbys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SynchronousDocument {
    pub(crate) met: bool,
    /// How many of the standbys that it takes are there, unless enough are.
    pub(crate) present: Option<usize>,
    pub(crate) needed: Option<usize>,
    /// How far enough standbys are.
    pub(crate) timeline: u32,
    pub(crate) write_lsn: Option<String>,
    pub(crate) flush_lsn: Option<String>,
    pub(crate) replay_lsn: Option<String>,
}

/// A connection, by the names of `pg_stat_replication`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct StandbyDocument {
    pub(crate) pid: i32,
    pub(crate) usename: String,
    pub(crate) application_name: String,
    pub(crate) client_addr: Option<String>,
    pub(crate) client_port: Option<u16>,
    pub(crate) backend_start: String,
    pub(crate) state: String,
    pub(crate) sent_lsn: Option<String>,
    pub(crate) write_lsn: Option<String>,
    pub(crate) flush_lsn: Option<String>,
    pub(crate) replay_lsn: Option<String>,
    pub(crate) write_lag: Option<f64>,
    pub(crate) flush_lag: Option<f64>,
    pub(crate) replay_lag: Option<f64>,
    pub(crate) sync_priority: usize,
    pub(crate) sync_state: String,
    pub(crate) reply_time: Option<String>,
    /// Of what it is sent.
    pub(crate) timeline: Option<u32>,
    pub(crate) slot_name: Option<String>,
    pub(crate) ssl: bool,
}

/// A slot, by the names of `pg_replication_slots`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SlotDocument {
    pub(crate) slot_name: String,
    pub(crate) slot_type: String,
    pub(crate) temporary: bool,
    pub(crate) active: bool,
    pub(crate) active_pid: Option<i32>,
    pub(crate) xmin: Option<u32>,
    pub(crate) catalog_xmin: Option<u32>,
    pub(crate) restart_lsn: Option<String>,
    pub(crate) wal_status: Option<String>,
    pub(crate) safe_wal_size: Option<i64>,
    /// Of `restart_lsn`.
    pub(crate) timeline: Option<u32>,
}

impl ServerDocument {
    pub(super) fn new(
        standbys: &[ConnectedStandby],
        slots: Result<Vec<Slot>, ArchiveError>,
        confirmed: Option<Confirmed>,
        durable: Option<ArchivePosition>,
        failed: FailedConnections,
    ) -> Self {
        let (slots, slots_error) = match slots {
            Ok(slots) => (slots.iter().map(SlotDocument::from).collect(), None),
            Err(error) => (Vec::new(), Some(chain(&error))),
        };
        Self {
            pid: std::process::id(),
            timeline: durable.map(|durable| durable.timeline.number()),
            durable_lsn: durable.map(|durable| durable.record_end.to_string()),
            synchronous: confirmed.and_then(SynchronousDocument::new),
            standbys: standbys.iter().map(StandbyDocument::from).collect(),
            slots,
            slots_error,
            failed_connections: Some(failed.into()),
        }
    }
}

impl From<FailedConnections> for FailedConnectionsDocument {
    fn from(failed: FailedConnections) -> Self {
        Self {
            unauthenticated: failed.unauthenticated,
            refused: failed.refused,
            ended: failed.ended,
        }
    }
}

impl SynchronousDocument {
    /// `None` as long as there is no WAL.
    fn new(confirmed: Confirmed) -> Option<Self> {
        let unmet = confirmed.progress.is_none();
        let progress = confirmed.progress.unwrap_or_default();
        let lsn = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.to_string());
        Some(Self {
            met: !unmet,
            present: unmet.then_some(confirmed.present),
            needed: unmet.then_some(confirmed.needed),
            timeline: confirmed.timeline?.number(),
            write_lsn: lsn(progress.write),
            flush_lsn: lsn(progress.flush),
            replay_lsn: lsn(progress.apply),
        })
    }
}

impl From<&ConnectedStandby> for StandbyDocument {
    fn from(standby: &ConnectedStandby) -> Self {
        let lsn = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.to_string());
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        Self {
            pid: standby.process_id,
            usename: standby.user.clone(),
            application_name: standby.application_name.clone(),
            client_addr: standby.address.map(|address| address.ip().to_string()),
            client_port: standby.address.map(|address| address.port()),
            backend_start: timestamp(standby.connected_at),
            state: standby.state.name().to_owned(),
            sent_lsn: lsn(standby.sent),
            write_lsn: lsn(standby.reported.write),
            flush_lsn: lsn(standby.reported.flush),
            replay_lsn: lsn(standby.reported.apply),
            write_lag: seconds(standby.lags.write),
            flush_lag: seconds(standby.lags.flush),
            replay_lag: seconds(standby.lags.apply),
            sync_priority: standby.sync_priority,
            sync_state: standby.sync_state.name().to_owned(),
            reply_time: standby.reported_at.map(timestamp),
            timeline: standby.timeline.map(TimelineId::number),
            slot_name: standby.slot.as_ref().map(ToString::to_string),
            ssl: standby.encrypted,
        }
    }
}

impl From<&Slot> for SlotDocument {
    fn from(slot: &Slot) -> Self {
        let xid = |xid: Option<EpochXid>| xid.map(|xid| xid.xid).filter(|xid| *xid != 0);
        Self {
            slot_name: slot.name.to_string(),
            slot_type: "physical".to_owned(),
            temporary: slot.temporary,
            active: slot.active_pid.is_some(),
            active_pid: slot.active_pid,
            xmin: xid(slot.xmin),
            catalog_xmin: xid(slot.catalog_xmin),
            restart_lsn: slot.restart.map(|restart| restart.lsn.to_string()),
            wal_status: slot.wal_status.map(|status| status.as_str().to_owned()),
            safe_wal_size: slot.safe_wal_size,
            timeline: slot.restart.map(|restart| restart.timeline.number()),
        }
    }
}
