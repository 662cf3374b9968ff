//! What lies in an archive directory, compared with what PostgreSQL wrote itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use walproto::{Lsn, SegmentSize, TimelineId};

use crate::process::{command, run};
use crate::{Cluster, Version};

/// The name of the segment that holds the byte at `lsn`, written out here once more so that the
/// archive's names are not checked against themselves.
#[must_use]
pub fn segment_name(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> String {
    let number = lsn.0 / size.bytes();
    let in_one_id = (1 << 32) / size.bytes();
    format!(
        "{:08X}{:08X}{:08X}",
        timeline.number(),
        number / in_one_id,
        number % in_one_id
    )
}

/// A directory that a receiver fills.
#[derive(Debug)]
pub struct ArchiveDirectory {
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl Default for ArchiveDirectory {
    fn default() -> Self {
        Self::new()
    }
}

impl ArchiveDirectory {
    /// An empty directory, which everybody may read: restoring servers do.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("walrecv-archive-")
            .tempdir()
            .unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            path: directory.path().to_owned(),
            _directory: Some(directory),
        }
    }

    /// One that is there already, and stays.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            _directory: None,
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the files in it, sorted, directories left out.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The content of every file in it, directories left out.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        self.files()
            .into_iter()
            .map(|name| {
                let content = fs::read(self.path().join(&name)).unwrap();
                (name, content)
            })
            .collect()
    }

    /// The file that holds the byte at `lsn` on a timeline, complete or growing.
    #[must_use]
    pub fn file_of(&self, timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Option<PathBuf> {
        let name = segment_name(timeline, lsn, size);
        [name.clone(), format!("{name}.partial")]
            .into_iter()
            .map(|name| self.path().join(name))
            .find(|path| path.exists())
    }

    /// Asserts that the archive has the same bytes as the cluster's own `pg_wal`, from `start` up
    /// to `end`, on one timeline.
    ///
    /// Only plain files are compared, and both directories have to have all of them.
    #[track_caller]
    pub fn assert_same_wal(&self, cluster: &Cluster, timeline: TimelineId, start: Lsn, end: Lsn) {
        let size = cluster.segment_size();
        assert!(start < end, "nothing to compare from {start} to {end}");
        let mut at = start;
        while at < end {
            let segment_end = Lsn(size.start_of(at).0 + size.bytes());
            let until = segment_end.min(end);
            let name = segment_name(timeline, at, size);
            let theirs = cluster.data_directory().join("pg_wal").join(&name);
            let ours = self
                .file_of(timeline, at, size)
                .unwrap_or_else(|| panic!("{name} is not among {:?}", self.files()));
            let range = in_file(size, at)..in_file(size, Lsn(until.0 - 1)) + 1;
            let (ours_read, theirs_read) = (fs::read(&ours).unwrap(), fs::read(&theirs).unwrap());
            for (offset, (our, their)) in ours_read[range.clone()]
                .iter()
                .zip(&theirs_read[range.clone()])
                .enumerate()
            {
                assert!(
                    our == their,
                    "{} differs from {} at {}: {our:#04x} in place of {their:#04x}",
                    ours.display(),
                    theirs.display(),
                    Lsn(at.0 + u64::try_from(offset).unwrap()),
                );
            }
            at = until;
        }
    }

    /// The number of records that the `pg_waldump` of that version reads from `start` to `end`,
    /// which has to be all of them; `None` for a version without the program.
    #[track_caller]
    #[must_use]
    pub fn waldump(
        &self,
        version: Version,
        timeline: TimelineId,
        size: SegmentSize,
        start: Lsn,
        end: Lsn,
    ) -> Option<usize> {
        let lines = self.waldump_lines(version, timeline, size, start, end)?;
        Some(lines.len())
    }

    /// What the `pg_waldump` of that version says of each record from `start` to `end`, as
    /// [`ArchiveDirectory::waldump`].
    #[track_caller]
    #[must_use]
    pub fn waldump_lines(
        &self,
        version: Version,
        timeline: TimelineId,
        size: SegmentSize,
        start: Lsn,
        end: Lsn,
    ) -> Option<Vec<String>> {
        let (_view, waldump) = self.waldump_command(version, timeline, size, start, end)?;
        let output = run(waldump);
        let text = String::from_utf8_lossy(&output.stdout);
        Some(
            text.lines()
                .filter(|line| line.starts_with("rmgr:"))
                .map(str::to_owned)
                .collect(),
        )
    }

    /// What the `pg_waldump` of that version complains of when it is to read from `start` to
    /// `end`, which it must not be able to; `None` for a version without the program.
    #[track_caller]
    #[must_use]
    pub fn waldump_error(
        &self,
        version: Version,
        timeline: TimelineId,
        size: SegmentSize,
        start: Lsn,
        end: Lsn,
    ) -> Option<String> {
        let (_view, mut waldump) = self.waldump_command(version, timeline, size, start, end)?;
        let output = waldump.output().unwrap();
        assert!(!output.status.success(), "it read up to {end}");
        Some(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The command, and the directory that it looks into.
    fn waldump_command(
        &self,
        version: Version,
        timeline: TimelineId,
        size: SegmentSize,
        start: Lsn,
        end: Lsn,
    ) -> Option<(TempDir, Command)> {
        let program = version.client_program("pg_waldump")?;
        // The program knows segments by their names only: the growing one gets its name here.
        let view = tempfile::tempdir().unwrap();
        for name in self.files() {
            let linked = name.strip_suffix(".partial").unwrap_or(&name);
            let link = view.path().join(linked);
            if link.exists() {
                continue;
            }
            std::os::unix::fs::symlink(self.path().join(&name), link).unwrap();
        }
        // A range ends at the record that begins at its end, or the one before if there is none.
        let mut waldump = command(&program);
        waldump
            .arg("--path")
            .arg(view.path())
            .args(["--timeline", &timeline.to_string()])
            .args(["--start", &start.to_string()])
            .args(["--end", &end.to_string()]);
        let first = segment_name(timeline, start, size);
        assert!(view.path().join(&first).exists(), "{first} is not there");
        Some((view, waldump))
    }
}

/// The offset of a position in its segment's file.
fn in_file(size: SegmentSize, lsn: Lsn) -> usize {
    usize::try_from(size.offset_of(lsn)).unwrap()
}
