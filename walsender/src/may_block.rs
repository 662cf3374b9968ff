//! Which threads may wait for the disk.

use tokio::task::JoinError;

/// Shows that this thread may wait for the disk. The thread of the network has none: a client that
/// reads a cold file must not hold the others up.
#[derive(Debug)]
pub(crate) struct MayBlock(());

/// Does `work` on a thread that may wait.
///
/// # Errors
/// When it panicked.
pub(crate) async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce(&MayBlock) -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(move || work(&MayBlock(()))).await
}

/// In tests everything may wait.
#[cfg(test)]
pub(crate) const IN_TEST: MayBlock = MayBlock(());
