//! A task of the server that ended by a panic.

use tokio::task::JoinError;

pub(super) fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection ended by a fault of this program: {error}");
    }
}
