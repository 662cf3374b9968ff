//! What is answered to what.
//!
//! Source: src/backend/replication/walsender.c (PG 13 to 18).

mod slots;

pub(crate) use slots::message_of as slot_message_of;

use std::cell::RefCell;

use segstore::{
    ArchiveError, ArchivePosition, ArchiveView, Feed, FeedError, HeldSlot, SlotSession, SlotStore,
};
use walproto::command::{Command, Identifier};
use walproto::error::{ServerMessage, SqlState};
use walproto::result::{IdentifySystem, ResultSet, TimelineEnd, TimelineHistoryFile};
use walproto::{Lsn, ServerVersion, TimelineId};

use crate::failure::StreamFailure;
use crate::may_block::MayBlock;
use crate::pump::message_of;
use crate::settings::Settings;

/// The answer to a command.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A table.
    Table(ResultSet),
    /// It is done.
    Done,
    /// It cannot be done before somebody has released a slot.
    WhenReleased,
    /// A stream of WAL.
    Stream {
        feed: Box<Feed>,
        slot: Option<HeldSlot>,
        start: Lsn,
        /// What follows the timeline, as far as it is known now.
        end: Option<TimelineEnd>,
    },
    /// The timeline ends where the stream was to start.
    AlreadyEnded(TimelineEnd),
}

/// What a command is answered from.
#[derive(Debug)]
pub(crate) struct Commands<'a> {
    pub(crate) store: &'a SlotStore,
    pub(crate) session: &'a SlotSession,
    pub(crate) settings: Settings<'a>,
    /// Why the archive could not be read.
    pub(crate) failure: RefCell<Option<StreamFailure>>,
}

impl Commands<'_> {
    /// Does what a command asks for. Files may be read for it.
    pub(crate) fn execute(&self, command: &Command, _: &MayBlock) -> Result<Reply, ServerMessage> {
        match command {
            Command::IdentifySystem => self.identify_system(),
            Command::Show(name) => {
                let setting = self.settings.show(name.as_str())?;
                Ok(Reply::Table(setting.encode()))
            }
            Command::TimelineHistory(timeline) => self.timeline_history(*timeline),
            Command::StartReplication {
                slot,
                start,
                timeline,
            } => self.start_replication(slot.as_ref(), *start, *timeline),
            Command::CreateReplicationSlot(create) => self.create_slot(create),
            Command::ReadReplicationSlot(name) => self.read_slot(name),
            Command::DropReplicationSlot { slot, wait } => self.drop_slot(slot, *wait),
            Command::AlterReplicationSlot { slot, .. } => self.alter_slot(slot),
            Command::StartLogicalReplication { .. } => Err(no_databases("logical replication")),
            Command::BaseBackup(_) | Command::UploadManifest => Err(no_base_backups()),
            _ => Err(no_databases("other commands")),
        }
    }

    pub(super) fn view(&self) -> &ArchiveView {
        self.store.view()
    }

    fn version(&self) -> ServerVersion {
        self.settings.version
    }

    fn durable(&self) -> Result<ArchivePosition, ServerMessage> {
        let durable = self.view().durable();
        durable.ok_or_else(|| message_of(&FeedError::NothingDurable))
    }

    fn identify_system(&self) -> Result<Reply, ServerMessage> {
        let durable = self.durable()?;
        let reply = IdentifySystem {
            system_id: self.view().identity().system_id(),
            timeline: durable.timeline,
            xlogpos: durable.record_end,
            dbname: None,
        };
        Ok(Reply::Table(reply.encode(self.version())))
    }

    fn timeline_history(&self, timeline: TimelineId) -> Result<Reply, ServerMessage> {
        let history = self.view().history(timeline);
        let history = history.map_err(|error| self.unreadable(None, error))?;
        let file_name = timeline.history_file_name();
        match history {
            Some(history) => {
                let content = history.content().clone();
                let reply = TimelineHistoryFile { file_name, content };
                Ok(Reply::Table(reply.encode(self.version())))
            }
            None => Err(ServerMessage::error(
                SqlState::UNDEFINED_FILE,
                format!("could not open file \"pg_wal/{file_name}\": No such file or directory"),
            )),
        }
    }

    /// Notes that the archive cannot be read, and gives what the client is told.
    fn unreadable(
        &self,
        position: Option<(TimelineId, Lsn)>,
        error: ArchiveError,
    ) -> ServerMessage {
        let error = FeedError::from(error);
        let message = message_of(&error);
        self.failure
            .replace(Some(StreamFailure { position, error }));
        message
    }

    /// Source: walsender.c, `StartReplication` (PG 15).
    fn start_replication(
        &self,
        slot: Option<&Identifier>,
        start: Lsn,
        timeline: Option<TimelineId>,
    ) -> Result<Reply, ServerMessage> {
        let slot = slot.map(|name| self.acquire(name)).transpose()?;
        let feed = self.view().feed(timeline, start);
        let feed = feed.map_err(|error| match error {
            FeedError::Archive(error) => {
                self.unreadable(timeline.map(|timeline| (timeline, start)), error)
            }
            // The client asked for what there is not.
            error => message_of(&error),
        })?;
        let end = feed.end();
        if let Some(end) = end.filter(|end| end.switch_point <= start) {
            return Ok(Reply::AlreadyEnded(end));
        }
        if let Some(slot) = &slot {
            let kept = slot.set_back(feed.timeline(), start);
            kept.map_err(|error| slot_message_of(&error))?;
        }
        Ok(Reply::Stream {
            feed: Box::new(feed),
            slot,
            start,
            end,
        })
    }
}

/// The refusal of what needs a database, which says what can be had here instead.
pub(crate) fn no_databases(what: &str) -> ServerMessage {
    ServerMessage::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("{what} are not supported: this server keeps WAL and has no databases"),
    )
    .with_hint(
        "It answers IDENTIFY_SYSTEM, SHOW, TIMELINE_HISTORY, the commands for physical \
         replication slots, and START_REPLICATION PHYSICAL.",
    )
}

/// The refusal of a base backup, which says where to take one.
fn no_base_backups() -> ServerMessage {
    ServerMessage::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "base backups are not supported: this server keeps WAL and has no data directory",
    )
    .with_detail("The data directory is on the server that wrote the WAL.")
    .with_hint(
        "Take the base backup from the server that this archive receives its WAL from. A standby \
         created from it can stream from this server.",
    )
}
