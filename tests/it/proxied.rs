//! A receiver that fills an archive through a proxy.

use tests::{
    ArchiveDirectory, Cluster, Message, Proxy, Receiver, ReceiverBuilder, Verdict, Version,
};
use walproto::{Lsn, TimelineId};

/// A cluster with its archive, and where the archive is going to begin.
pub(crate) struct Proxied {
    pub(crate) cluster: Cluster,
    pub(crate) archive: ArchiveDirectory,
    start: Lsn,
}

impl Proxied {
    /// A cluster with segments of 1 MiB.
    pub(crate) fn new(version: Version) -> Self {
        Self::from(Cluster::builder(version).segment_size_mib(1).start())
    }

    pub(crate) fn from(cluster: Cluster) -> Self {
        let start = cluster.segment_size().start_of(cluster.flush_lsn());
        Self {
            archive: ArchiveDirectory::new(),
            start,
            cluster,
        }
    }

    /// A proxy that does `trouble` once, with the message that has the byte at `lsn`.
    pub(crate) fn trouble_once(
        &self,
        lsn: Lsn,
        mut trouble: impl FnMut(&mut Message) -> Verdict + Send + 'static,
    ) -> Proxy {
        let mut done = false;
        Proxy::start(&self.cluster, move |message| {
            if done || message.wal_byte(lsn).is_none() {
                return Verdict::Forward;
            }
            done = true;
            trouble(message)
        })
    }

    /// A receiver that gets what the proxy lets through.
    pub(crate) fn receiver(&self, proxy: &Proxy) -> ReceiverBuilder {
        through(proxy, &self.archive)
    }

    /// The same, started and streaming.
    pub(crate) fn streaming(&self, proxy: &Proxy) -> Receiver {
        let receiver = self.receiver(proxy).start();
        self.cluster.wait_streaming("wal_receiver");
        receiver
    }

    /// Waits until the primary is told that all up to `end` is flushed, and compares all of it.
    #[track_caller]
    pub(crate) fn assert_flushed(&self, receiver: &mut Receiver, end: Lsn) {
        receiver.wait_flushed(&self.cluster, "wal_receiver", end);
        self.assert_same_up_to(end);
    }

    /// Compares what is archived up to `end` with the primary's.
    #[track_caller]
    pub(crate) fn assert_same_up_to(&self, end: Lsn) {
        self.archive
            .assert_same_wal(&self.cluster, TimelineId::FIRST, self.start, end);
    }
}

/// A receiver that fills an archive with what the proxy lets through.
pub(crate) fn through(proxy: &Proxy, archive: &ArchiveDirectory) -> ReceiverBuilder {
    Receiver::bare()
        .arg("-D")
        .arg(archive.path())
        .args(["-d", &proxy.conninfo()])
}
