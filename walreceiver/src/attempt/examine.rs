//! What a server that answered is to the archive.

use pgconn::connection::Connection;
use segstore::{Archive, ArchiveError, Recovery, ServerFacts};
use walproto::{TimelineHistory, TimelineId};

use super::Attempt;
use crate::error::ReceiveError;
use crate::event::Warning;
use crate::negotiate::Server;
use crate::standing::StandingWarning;

/// What there is to know of a server for that.
struct Described {
    facts: ServerFacts,
    histories: Vec<TimelineHistory>,
}

/// What became of the archive next to the servers.
struct Examined {
    /// Why a server cannot be followed, for each of them.
    verdicts: Vec<Result<(), ArchiveError>>,
    /// What the archive holds, as far as it was looked at; `None` if there is no WAL in it.
    recovery: Option<Recovery>,
    /// The timelines whose histories were gone, and were taken from a server.
    restored: Vec<TimelineId>,
}

impl Attempt<'_> {
    /// Whether the server of this connection may be followed.
    pub(super) async fn consider(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Server, ReceiveError> {
        let server = Server::identify(connection).await?;
        for verdict in self.examine([&server]).await? {
            verdict?;
        }
        if let Some(held) = self.held() {
            self.resume(&held, &server)?;
        }
        Ok(server)
    }

    /// Compares servers with the archive, and finds out what the archive holds.
    ///
    /// # Errors
    /// What is wrong with the archive itself, whichever server is followed.
    pub(super) async fn examine(
        &mut self,
        servers: impl IntoIterator<Item = &Server>,
    ) -> Result<Vec<Result<(), ArchiveError>>, ReceiveError> {
        let describe = |server: &Server| Described {
            facts: server.facts,
            histories: server.histories.clone(),
        };
        let servers: Vec<_> = servers.into_iter().map(describe).collect();
        let examined = self
            .blocking(move |archive| examine(archive, &servers))
            .await?;
        let Examined {
            verdicts,
            recovery,
            restored,
        } = examined?;
        for timeline in restored {
            let about = StandingWarning::HistoryRestored(timeline);
            let warning = Warning::HistoryRestored { timeline };
            self.warnings.tell(self.reporter, about, Some(warning));
        }
        self.recovery = recovery;
        Ok(verdicts)
    }
}

/// An archive without WAL is not told yet whose it is going to be: nothing is decided.
fn examine(archive: &mut Archive, servers: &[Described]) -> Result<Examined, ArchiveError> {
    let mut restored = Vec::new();
    let mut verdicts = Vec::new();
    for server in servers {
        let verdict = compare(archive, server, &mut restored);
        verdicts.push(match verdict {
            // An error of the disk counts, whatever the next server is.
            Err(error) if !is_of_server(&error) => return Err(error),
            verdict => verdict,
        });
    }
    let recovery = match archive.identity() {
        Some(_) if verdicts.iter().any(Result::is_ok) => Some(archive.recover()?),
        _ => None,
    };
    Ok(Examined {
        verdicts,
        recovery,
        restored,
    })
}

fn compare(
    archive: &mut Archive,
    server: &Described,
    restored: &mut Vec<TimelineId>,
) -> Result<(), ArchiveError> {
    if archive.system_id().is_some() {
        archive.bind(&server.facts)?;
    }
    for history in &server.histories {
        archive.check_history(history)?;
    }
    for history in &server.histories {
        // Whatever else becomes of the server: it is the one that was here.
        if archive.restore_history(history)? {
            restored.push(history.timeline());
        }
    }
    Ok(())
}

/// Whether an error says that the server is not one for this archive, which may be right for
/// another server.
const fn is_of_server(error: &ArchiveError) -> bool {
    matches!(
        error,
        ArchiveError::OtherCluster { .. }
            | ArchiveError::OtherSegmentSize { .. }
            | ArchiveError::OtherBlockSize { .. }
            | ArchiveError::OtherHistory { .. }
    )
}

#[cfg(test)]
mod tests {
    use segstore::sim::{Fault, SimDisk};
    use walproto::SystemId;

    use super::*;
    use crate::sample::{self, segment_size};

    fn server(system_id: u64, server_version_num: u32) -> Described {
        Described {
            facts: ServerFacts {
                system_id: SystemId(system_id),
                segment_size: segment_size(),
                block_size: 8192,
                server_version_num,
                data_directory_mode: 0o700,
            },
            histories: Vec::new(),
        }
    }

    #[test]
    fn a_server_that_is_refused_does_not_hide_the_next_one() {
        let disk = SimDisk::new(sample::ROOT);
        let mut archive = sample::archive(&disk);
        let servers = [server(2, 150_018), server(1, 150_018)];
        let examined = examine(&mut archive, &servers).unwrap();
        assert!(matches!(
            examined.verdicts[..],
            [Err(ArchiveError::OtherCluster { .. }), Ok(())]
        ));
        assert!(examined.recovery.is_some());
    }

    #[test]
    fn an_error_of_the_disk_counts_whatever_the_next_server_is() {
        let mut failed = 0;
        for operation in 0.. {
            let disk = SimDisk::new(sample::ROOT);
            let mut archive = sample::archive(&disk);
            let at = disk.operations() + operation;
            disk.fail_at(at, Fault::Io);
            // Another minor version is noted durably.
            let servers = [server(1, 150_019), server(1, 150_019)];
            let examined = examine(&mut archive, &servers);
            if disk.operations() <= at {
                break;
            }
            match examined {
                Err(ArchiveError::Disk(_)) => failed += 1,
                Err(error) => panic!("{error}"),
                Ok(examined) => assert!(examined.verdicts.iter().all(Result::is_ok)),
            }
        }
        assert!(failed > 0);
    }
}
