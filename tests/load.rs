//! Clients that commit and remember which of their commits returned.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use postgres::{Client, NoTls};

use crate::wait::wait_until;
use crate::{Cluster, DEADLINE};

/// One row: the client and the number that it gave to it.
type Row = (i32, i64);

/// Clients under way, each inserting one row after the other into the table `load`.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<Row>>>,
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
    pub fn finish(mut self) -> BTreeSet<Row> {
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
    acknowledged: &Mutex<BTreeSet<Row>>,
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
    pub fn missing(&self, commits: &BTreeSet<Row>) -> BTreeSet<Row> {
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
        self.begin_commit(statement).wait();
    }

    /// Begins to run one statement, whose commit may wait for a standby.
    #[must_use]
    pub fn begin_commit(&self, statement: &str) -> Commit {
        let conninfo = format!("{} dbname=postgres", self.conninfo());
        let text = statement.to_owned();
        let running = std::thread::spawn(move || {
            Client::connect(&conninfo, NoTls)
                .and_then(|mut client| client.batch_execute(&text))
                .map_err(|error| format!("{error:?}"))
        });
        Commit {
            statement: statement.to_owned(),
            running,
        }
    }

    /// Waits until so many commits wait for a synchronous standby.
    #[track_caller]
    pub fn wait_commits_waiting(&self, count: usize) {
        wait_until(&format!("{count} commits to wait"), || {
            self.commits_waiting() == count
        });
    }

    /// How many commits wait for a synchronous standby.
    #[must_use]
    pub fn commits_waiting(&self) -> usize {
        let waiting = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        self.text(waiting).unwrap().parse().unwrap()
    }
}

/// A statement that runs.
#[derive(Debug)]
pub struct Commit {
    statement: String,
    running: JoinHandle<Result<(), String>>,
}

impl Commit {
    /// Waits until it has returned, which must be without an error.
    #[track_caller]
    pub fn wait(self) {
        let statement = self.statement.clone();
        if let Err(error) = self.wait_end() {
            panic!("{statement}: {error}");
        }
    }

    /// Waits until it has ended, and gives how.
    ///
    /// # Errors
    /// What it has ended with.
    #[track_caller]
    pub fn wait_end(self) -> Result<(), String> {
        let statement = &self.statement;
        wait_until(
            &format!("{statement:?} to return within {DEADLINE:?}"),
            || self.running.is_finished(),
        );
        self.running.join().unwrap()
    }
}
