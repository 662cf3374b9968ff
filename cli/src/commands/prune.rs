//! `wal-receiver prune`: what nobody needs any more is removed, as `pg_archivecleanup` does it.

pub(crate) mod args;

use std::ffi::OsString;
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use segstore::{ArchiveView, Holder, OsDisk, Pruned, Removable};
use tracing::{Level, info};

use self::args::{Arguments, COMMAND};
use crate::error::MainError;
use crate::exit::{self, Ended, conclude};
use crate::logging;
use crate::owner::{self, check_directory};
use crate::screen::Screen;

/// Does what the arguments after `prune` ask for.
pub(crate) fn main(program: &str, words: &mut dyn Iterator<Item = OsString>) -> Ended {
    let arguments = exit::arguments(&COMMAND, program, words, args::finish)?;
    let screen = Arc::new(Screen::stderr());
    logging::init(program, arguments.log_format, Level::INFO, screen);
    Ok(prune(&arguments))
}

fn prune(arguments: &Arguments) -> ExitCode {
    let (removable, view) = match find(arguments) {
        Ok(found) => found,
        Err(error) => return conclude(Err(error)),
    };
    if arguments.dry_run {
        return print_paths(&removable, &view);
    }
    let directory = view.path().to_owned();
    let removed = removable.remove(|file| {
        let path = directory.join(file.to_string());
        info!(
            event = "removed",
            file = %path.display(),
            "removed file \"{}\"",
            path.display()
        );
    });
    conclude(removed.map(|pruned| tell(&pruned)).map_err(MainError::from))
}

fn find(arguments: &Arguments) -> Result<(Removable, ArchiveView), MainError> {
    check_directory(&arguments.directory)?;
    if !arguments.dry_run {
        owner::check(&arguments.directory)?;
    }
    let view = ArchiveView::open(Arc::new(OsDisk::new()), &arguments.directory)?;
    let name = arguments.oldest_kept;
    let size = view.identity().segment_size();
    let number = name.number(size).and_then(|number| number.start(size));
    let keep_from = number.ok_or_else(|| MainError::OldestKept {
        name,
        directory: arguments.directory.clone(),
        segment_size: size,
    })?;
    let removable = view.removable(keep_from, arguments.max_slot_keep_bytes)?;
    Ok((removable, view))
}

/// Writes what would be removed to standard output, a line each.
fn print_paths(removable: &Removable, view: &ArchiveView) -> ExitCode {
    let mut lines = String::new();
    for (file, _) in removable.files() {
        let path = view.path().join(file.to_string());
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{}", path.display());
    }
    match lines.pop() {
        Some(_) => exit::print(&lines),
        None => ExitCode::SUCCESS,
    }
}

fn tell(pruned: &Pruned) {
    let why = match &pruned.kept_by {
        Some(holder) => format!(", for {holder}"),
        None => String::new(),
    };
    info!(
        event = "pruned",
        files = pruned.files,
        bytes = pruned.bytes,
        kept_from_lsn = %pruned.kept_from,
        slot = pruned.kept_by.as_ref().and_then(Holder::slot).map(tracing::field::display),
        "removed {} files with {} bytes; WAL is kept from {} on{why}",
        pruned.files,
        pruned.bytes,
        pruned.kept_from
    );
}
