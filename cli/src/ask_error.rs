//! Why a process of an archive could not be asked how it is.

use std::io;
use std::path::PathBuf;

/// A process that was not asked with success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("could not ask the process at \"{}\"", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the process at \"{}\" does not answer, is it stopped?", path.display())]
    Silent { path: PathBuf },
    #[error("the process at \"{}\" answered with something else than its status", path.display())]
    Answer {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}
