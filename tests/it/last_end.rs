//! `status` says why the last process ended.

use std::fs;

use serde_json::Value;
use tests::{ArchiveDirectory, Cluster, Receiver, Serving, Version, wait_until};

fn status(archive: &ArchiveDirectory) -> (Option<i32>, Value) {
    let run = |json: &[&str]| {
        let program = Receiver::bare().arg("status").args(json).arg("-D");
        program.arg(archive.path()).run()
    };
    let (ended, said) = run(&["--json"]);
    let line = said.lines().find(|line| line.starts_with('{')).unwrap();
    (ended.code(), serde_json::from_str(line).unwrap())
}

fn text(archive: &ArchiveDirectory) -> String {
    let program = Receiver::bare().args(["status", "-D"]);
    program.arg(archive.path()).run().1
}

#[test]
fn the_reason_of_the_last_end_is_shown() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let receiver = || Receiver::of(&cluster, archive.path());
    let mut first = receiver().start();
    cluster.wait_streaming("wal_receiver");
    let (code, shown) = status(&archive);
    assert_eq!(
        (code, &shown["last_end"]["receiver"]),
        (Some(0), &Value::Null)
    );
    assert!(first.stop().success(), "{}", first.log());
    let (code, shown) = status(&archive);
    assert_eq!(code, Some(1));
    let end = &shown["last_end"]["receiver"];
    assert_eq!(end["outcome"], "stopped", "{shown}");
    assert_eq!(
        (&end["exit_code"], &end["pid"]),
        (&0.into(), &first.pid().into())
    );
    assert_eq!(end["message"], "the process was asked to stop");
    let mut second = receiver().start();
    cluster.wait_streaming("wal_receiver");
    // The end of the one before it.
    let (_, shown) = status(&archive);
    assert_eq!(shown["last_end"]["receiver"]["pid"], first.pid());
    // One that may not start changes nothing.
    let (refused, log) = receiver().run();
    assert_eq!(refused.code(), Some(1), "{log}");
    second.kill9();
    let (_, shown) = status(&archive);
    let end = &shown["last_end"]["receiver"];
    assert_eq!(
        (&end["outcome"], &end["time"]),
        (&"killed".into(), &Value::Null)
    );
    assert_eq!(end["pid"], second.pid(), "{shown}");
    let other = Cluster::builder(Version::V15).own_identity().start();
    let (failed, log) = Receiver::of(&other, archive.path()).arg("-n").run();
    assert_eq!(failed.code(), Some(1), "{log}");
    let (_, shown) = status(&archive);
    let end = &shown["last_end"]["receiver"];
    assert_eq!(
        (&end["outcome"], &end["exit_code"]),
        (&"failed".into(), &1.into())
    );
    let message = end["message"].as_str().unwrap();
    assert!(
        message.contains("cluster with system identifier"),
        "{message}"
    );
    let shown = text(&archive);
    for part in ["LAST END OF RECEIVER", "| failed", message] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // Without the file nothing is lost.
    fs::remove_file(archive.path().join(".wal-receiver/receiver.end")).unwrap();
    assert_eq!(status(&archive).1["last_end"]["receiver"], Value::Null);
    let mut third = receiver().start();
    cluster.wait_streaming("wal_receiver");
    assert!(third.stop().success(), "{}", third.log());
}

#[test]
fn serve_keeps_its_own_last_end() {
    let cluster = Cluster::start_new(Version::V15);
    let archive = ArchiveDirectory::new();
    let mut receiver = Receiver::of(&cluster, archive.path()).start();
    cluster.wait_streaming("wal_receiver");
    let mut serving = Serving::start(archive.path());
    assert!(serving.stop().success(), "{}", serving.log());
    wait_until("the end of serve", || {
        let (_, shown) = status(&archive);
        shown["last_end"]["serve"]["outcome"] == "stopped"
            && shown["last_end"]["receiver"].is_null()
    });
    assert!(receiver.stop().success(), "{}", receiver.log());
}
