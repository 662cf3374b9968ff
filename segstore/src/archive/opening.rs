//! Opening an archive, and finding out whose it is.

use std::sync::{Arc, Mutex};

use super::{Archive, ArchiveOptions};
use crate::archive::compressor::Compressor;
use crate::archive::directory::ArchiveDirectory;
use crate::archive::discovery;
use crate::archive::history;
use crate::archive::identity::{Identity, ServerFacts};
use crate::archive::listing::Listing;
use crate::archive::lock::ProcessLock;
use crate::archive::pipeline::Pipeline;
use crate::archive::prepare::remove_prepared;
use crate::archive::recovery::renew_name;
use crate::archive::takeover;
use crate::disk::Disk;
use crate::disk::unsynced::UnsyncedDisk;
use crate::error::ArchiveError;
use crate::wal::page::BLOCK_SIZE;
use crate::wal::segment::{Encoding, SegmentFile};

impl Archive {
    /// Opens an archive directory and takes its lock. What a crash left unfinished is put in
    /// order.
    ///
    /// # Errors
    /// When the directory does not exist or cannot be written, another process streams into it,
    /// its own files are damaged or of a newer version, or its segments cannot be what their
    /// names say.
    pub fn open(disk: Arc<dyn Disk>, options: ArchiveOptions) -> Result<Self, ArchiveError> {
        let disk = if options.sync {
            disk
        } else {
            Arc::new(UnsyncedDisk(disk))
        };
        let directory = ArchiveDirectory::new(disk, &options.directory);
        let listing = Listing::read(&directory)?;
        let identity = Identity::load(&directory)?;
        if let Some(identity) = &identity {
            directory.disk().set_access(identity.access());
        }
        if let Err(error) = directory.create_own() {
            let unsynced = identity.is_none() || directory.is_not_durable().unwrap_or(true);
            // An interrupted renaming may have been ended since.
            let listing = Listing::read(&directory).unwrap_or(listing);
            // This error is the one that says what is wrong.
            drop(directory.poison_after(&error, &listing, unsynced));
            return Err(error.into());
        }
        let lock = ProcessLock::to_stream(&directory)?;
        // Between the first look and the lock another process may have changed everything.
        let identity = Identity::load(&directory)?;
        let listing = Listing::read(&directory)?;
        // Whoever filled it before us need not have synced it.
        let is_taken_over = identity.is_none() && !listing.is_empty();
        if !options.sync || is_taken_over {
            directory.mark_not_durable()?;
        }
        if options.sync {
            directory.make_durable()?;
        }
        directory.keep_open()?;
        directory.empty_temporary()?;
        remove_prepared(&directory)?;
        let discovery = match identity {
            Some(_) => None,
            None => discovery::discover(&directory, &listing)?,
        };
        let histories = history::load(&directory, &listing, identity.as_ref())?;
        let mut archive = Self {
            directory,
            sync: options.sync,
            segments_are_moved: false,
            compression: options.compression,
            identity,
            discovery,
            histories,
            foreign: listing.foreign().to_vec(),
            pipeline: None,
            lock: Arc::new(lock),
            live: Arc::default(),
            preparer: Mutex::default(),
        };
        if let Some(size) = archive.segment_size() {
            listing.check(&archive.directory, size)?;
        }
        if archive.identity.is_some() {
            archive.put_in_order(&listing)?;
        }
        Ok(archive)
    }

    /// Tells the archive which server is going to fill it. The first one gives it its identity.
    ///
    /// # Errors
    /// When the server is of another cluster or has another segment or block size: nothing was
    /// written then. Or when the disk refuses.
    pub fn bind(&mut self, facts: &ServerFacts) -> Result<(), ArchiveError> {
        self.check_server(facts)?;
        let mut identity = match (&self.identity, &self.discovery) {
            (Some(identity), _) => identity.clone(),
            (None, found) => Identity::new(facts, found.as_ref().map(|found| found.page_magic)),
        };
        identity.update(facts);
        for history in self.histories.values() {
            identity.record_history(history);
        }
        if self.identity.as_ref() == Some(&identity) {
            return Ok(());
        }
        let listing = self.listing()?;
        listing.check(&self.directory, facts.segment_size)?;
        self.directory.disk().set_access(identity.access());
        self.directory.apply_access()?;
        identity.save(&self.directory)?;
        self.identity = Some(identity);
        self.put_in_order(&listing)
    }

    fn check_server(&self, facts: &ServerFacts) -> Result<(), ArchiveError> {
        let directory = self.directory.root();
        if u64::from(facts.block_size) != BLOCK_SIZE {
            return Err(ArchiveError::OtherBlockSize {
                origin: directory.to_owned(),
                expected: BLOCK_SIZE,
                found: facts.block_size.into(),
            });
        }
        if let Some(expected) = self.system_id()
            && expected != facts.system_id
        {
            return Err(ArchiveError::OtherCluster {
                directory: directory.to_owned(),
                expected,
                found: facts.system_id,
            });
        }
        if let Some(expected) = self.segment_size()
            && expected != facts.segment_size
        {
            return Err(ArchiveError::OtherSegmentSize {
                directory: directory.to_owned(),
                expected,
                found: facts.segment_size,
            });
        }
        Ok(())
    }

    /// What can only be done once it is known whose the files are.
    fn put_in_order(&mut self, listing: &Listing) -> Result<(), ArchiveError> {
        let Some(size) = self.segment_size() else {
            return Ok(());
        };
        for &file in listing.histories() {
            let plain = history::plain(file.timeline);
            if !listing.histories().contains(&plain)
                && let Some(history) = self.histories.get(&file.timeline)
            {
                history::write(&self.directory, history)?;
            }
        }
        if let Some(identity) = &mut self.identity {
            let before = identity.clone();
            for history in self.histories.values() {
                identity.record_history(history);
            }
            if *identity != before {
                identity.save(&self.directory)?;
            }
        }
        takeover::import_partials(&self.directory, listing, size)?;
        self.renew_compressed(listing)?;
        takeover::finish_compressions(&self.directory, listing, self.compression, size)?;
        if self.compression.encoding() != Encoding::Plain && self.pipeline.is_none() {
            let stage = Compressor {
                directory: self.directory.clone(),
                compression: self.compression,
            };
            let pipeline = Pipeline::start(self.path(), vec![Box::new(stage)], listing)?;
            self.pipeline = Some(Arc::new(pipeline));
        }
        Ok(())
    }

    /// Gives compressed segments their names once more whose plain files are still there, if it is
    /// not known that the names are durable: the plain files go next.
    fn renew_compressed(&self, listing: &Listing) -> Result<(), ArchiveError> {
        if !self.sync || self.directory.is_clean_end()? {
            return Ok(());
        }
        let files = || listing.segments().map(|(file, _)| file);
        for file in files().filter(|file| !file.partial && file.encoding != Encoding::Plain) {
            let plain = SegmentFile::complete(file.name);
            if listing.length_of(plain).is_some() {
                renew_name(&self.directory, file)?;
            }
        }
        Ok(self.directory.sync_root()?)
    }
}
