//! Clients that commit and remember which of their commits returned.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use postgres::{Client, NoTls};

use crate::wait::wait_until;
use crate::{Cluster, DEADLINE};

/// One commit: the client and the number that it gave to it.
type Commit = (i32, i64);

/// Clients under way, each inserting one row after the other into the table `load`.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<Commit>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts so many clients. The commits of a client wait as `synchronous_commit` says.
    #[must_use]
    pub fn start(cluster: &Cluster, clients: i32, synchronous_commit: &str) -> Self {
        cluster.sql(
            "SET synchronous_commit = local;
             CREATE TABLE IF NOT EXISTS load (client int, number bigint, body text)",
        );
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let clients = (0..clients)
            .map(|client| {
                let mut connection = cluster.client();
                connection
                    .batch_execute(&format!("SET synchronous_commit = {synchronous_commit}"))
                    .unwrap();
                let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
                std::thread::spawn(move || {
                    insert_until_the_end(&mut connection, client, &stop, &acknowledged);
                })
            })
            .collect();
        Self {
            stop,
            acknowledged,
            clients,
        }
    }

    /// How many commits have returned.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more commits have returned.
    #[track_caller]
    pub fn wait_for_commits(&self, more: usize) {
        let enough = self.acknowledged() + more;
        wait_until("commits to return", || self.acknowledged() >= enough);
    }

    /// Lets the clients end, by themselves or because their server is gone, and gives the commits
    /// that returned.
    #[track_caller]
    pub fn finish(mut self) -> BTreeSet<Commit> {
        self.stop.store(true, Ordering::SeqCst);
        wait_until("the clients to end", || {
            self.clients.iter().all(JoinHandle::is_finished)
        });
        for client in self.clients.drain(..) {
            client.join().unwrap();
        }
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn insert_until_the_end(
    connection: &mut Client,
    client: i32,
    stop: &AtomicBool,
    acknowledged: &Mutex<BTreeSet<Commit>>,
) {
    let insert = "INSERT INTO load VALUES ($1, $2, repeat('wal', 50))";
    let insert = connection.prepare(insert).unwrap();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        // An error is the end of the server, which some tests bring about. Whether this commit is
        // there afterwards is open: it has not returned.
        if connection.execute(&insert, &[&client, &number]).is_err() {
            return;
        }
        acknowledged.lock().unwrap().insert((client, number));
    }
}

impl Cluster {
    /// Those of the commits that are not there.
    #[must_use]
    pub fn missing(&self, commits: &BTreeSet<Commit>) -> BTreeSet<Commit> {
        let rows = self
            .client()
            .query("SELECT client, number FROM load", &[])
            .unwrap();
        let present = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        commits.difference(&present).copied().collect()
    }

    /// Runs one statement, which has to return in good time: a commit that waits for its standby
    /// would otherwise wait for ever.
    #[track_caller]
    pub fn commit(&self, statement: &str) {
        let conninfo = format!("{} dbname=postgres", self.conninfo());
        let text = statement.to_owned();
        let waiting = std::thread::spawn(move || {
            Client::connect(&conninfo, NoTls)
                .and_then(|mut client| client.batch_execute(&text))
                .map_err(|error| format!("{error:?}"))
        });
        wait_until(
            &format!("{statement:?} to return within {DEADLINE:?}"),
            || waiting.is_finished(),
        );
        waiting
            .join()
            .unwrap()
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}
