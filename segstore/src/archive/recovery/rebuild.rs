//! Files in which a sync failed.

use std::fmt::Display;
use std::io::IoSlice;

use super::{BLOCK, Examination};
use crate::archive::segment_files::length_without_zeros;
use crate::disk::named_file::NamedFile;
use crate::disk::{OpenMode, filled};
use crate::error::{ArchiveError, DiskError};
use crate::wal::segment::{EntryName, SegmentFile};

impl Examination<'_> {
    /// Puts a synced copy in the place of each file that is marked; whether there was one.
    ///
    /// The bytes may be right, which is checked afterwards; only their being on the disk cannot
    /// be believed of this file any more. The marker goes last: a crash before that has it all
    /// done again.
    pub(super) fn rebuild_poisoned(&self) -> Result<bool, ArchiveError> {
        let directory = self.files.directory();
        let marked = directory.poisoned_names()?;
        for marker in &marked {
            match *marker {
                EntryName::Segment(file) => {
                    self.rebuild(file)?;
                    // It may have got its final name since.
                    self.rebuild(SegmentFile::complete(file.name))?;
                    directory.clear_poison(file)?;
                }
                EntryName::History(file) => {
                    self.rebuild(file)?;
                    directory.clear_poison(file)?;
                }
                EntryName::Own | EntryName::Foreign => {}
            }
        }
        Ok(!marked.is_empty())
    }

    pub(super) fn rebuild(&self, file: impl Display + Copy) -> Result<(), DiskError> {
        let directory = self.files.directory();
        let path = directory.path(file);
        let old = NamedFile::open_if_exists(directory.disk(), path.clone(), OpenMode::Read)?;
        let Some(old) = old else {
            return Ok(());
        };
        let new = directory.create_temporary(file)?;
        let finished = copy(&old, &new).and_then(|()| directory.finish_temporary(&new, &path));
        finished.inspect_err(|_| {
            // On a full disk the copy would take the last room. The failure is what matters; what
            // is left is removed on opening.
            let _ = directory.remove(new.path());
        })?;
        directory.note_replaced();
        Ok(())
    }
}

fn copy(old: &NamedFile, new: &NamedFile) -> Result<(), DiskError> {
    let mut block = vec![0; BLOCK];
    let mut offset = 0;
    loop {
        let count = old.read_full_at(&mut block, offset)?;
        let bytes = filled(&block, count);
        if bytes.is_empty() {
            break;
        }
        // Of a growing segment most may be zeros, which take no room where they stay a hole.
        if length_without_zeros(bytes).is_some() {
            new.write_at(&[IoSlice::new(bytes)], offset)?;
        }
        offset += count as u64;
    }
    new.allocate(offset)
}
