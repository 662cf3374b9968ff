//! The receiver's archive for those in its process that serve it.

use segstore::{Archive, ArchiveError, ArchiveView};
use tokio::sync::watch;

/// A receiver's archive as far as others in its process may read it.
#[derive(Clone, Debug)]
pub enum ReceivedArchive {
    /// It is not open yet.
    Opening,
    /// It is new: nothing says which cluster it is of before the first connection to a server, nor
    /// does it hold any WAL. So it stays if nothing is synced.
    Unknown,
    /// What is durable in it can be served, whether or not the receiver is connected; nothing is
    /// acknowledged before. The view outlives the receiver.
    Known(ArchiveView),
}

/// Publishes the archive's view once the cluster's identity is known.
pub(crate) fn show(
    archive: &Archive,
    to: &watch::Sender<ReceivedArchive>,
) -> Result<(), ArchiveError> {
    let is_shown = matches!(*to.borrow(), ReceivedArchive::Known(_));
    if to.receiver_count() > 0 && archive.is_synced() && !is_shown {
        to.send_replace(match archive.identity() {
            Some(_) => ReceivedArchive::Known(archive.view()?),
            None => ReceivedArchive::Unknown,
        });
    }
    Ok(())
}
