//! A bulk load that never pauses, beside the commits that are measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tests::Cluster;

/// Rows that are copied into a table again and again; it ends when it goes out of scope.
#[derive(Debug)]
pub(crate) struct BulkLoad {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BulkLoad {
    /// Makes the table, and a file of some 20 MB to copy into it.
    pub(crate) fn prepare(cluster: &Cluster) {
        let file = cluster.data_directory().join("bulk.copy");
        cluster.sql(&format!(
            "CREATE TABLE bulk (id bigint, body text);
             COPY (SELECT i, repeat(md5(i::text), 6) FROM generate_series(1, 100000) i) TO '{}'",
            file.display()
        ));
    }

    /// Begins. Its own commits wait for no standby, or it would pause.
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let mut client = cluster.client();
        let file = cluster.data_directory().join("bulk.copy");
        let load = format!(
            "BEGIN; TRUNCATE bulk; COPY bulk FROM '{}'; COMMIT",
            file.display()
        );
        client
            .batch_execute("SET synchronous_commit = local")
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                client.batch_execute(&load).unwrap();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for BulkLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it could not do is seen in the server's log, which a panic here would hide.
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the bulk load has failed"
            );
        }
    }
}
