//! What the sender's session of `walproto` answers is what a server of its version answers.

use tests::beside::{SessionBesideServer as Both, message, packet, query};
use tests::{Cluster, Version};

use crate::for_each_version;

for_each_version!(
    a_session_begins_as_with_a_server,
    commands_are_answered_as_by_a_server,
    a_stream_begins_and_ends_as_with_a_server,
    a_password_is_asked_for_as_by_a_server,
);

const REPLICATION: &[(&str, &str)] = &[("user", "postgres"), ("replication", "true")];
const TLS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

fn a_session_begins_as_with_a_server(version: Version) {
    let cluster = Cluster::start_new(version);
    let begin = || packet(0x3_0000, REPLICATION);
    let with = |more: &[(&str, &str)]| packet(0x3_0000, &[REPLICATION, more].concat());
    let replication = |value| packet(0x3_0000, &[("user", "postgres"), ("replication", value)]);
    for (name, packets) in [
        ("3.0", vec![begin()]),
        ("3.1", vec![packet(0x3_0001, REPLICATION)]),
        ("3.2", vec![packet(0x3_0002, REPLICATION)]),
        ("3.9", vec![packet(0x3_0009, REPLICATION)]),
        ("4.1", vec![packet(0x4_0001, REPLICATION)]),
        ("options", vec![with(&[("_pq_.x", "1"), ("_pq_.yy", "")])]),
        ("true", vec![replication("tr")]),
        ("maybe", vec![replication("maybe")]),
        ("o", vec![replication("o")]),
        ("nobody", vec![packet(0x3_0000, &[("replication", "true")])]),
        ("layout", vec![b"\0\0\0\x0e\0\x03\0\0user\0p".to_vec()]),
        ("name", vec![with(&[("application_name", "t\u{fc}\x01r")])]),
        (
            "long name",
            vec![with(&[("application_name", &"x".repeat(70))])],
        ),
        (
            "option",
            vec![with(&[("options", r"-c application_name=a\ b")])],
        ),
        (
            "two names",
            vec![with(&[
                ("application_name", "a"),
                ("options", "--geqo=off"),
            ])],
        ),
        ("tls", vec![TLS.to_vec(), begin()]),
        ("tls twice", vec![TLS.to_vec(), TLS.to_vec()]),
        ("gss and tls", vec![GSS.to_vec(), TLS.to_vec(), begin()]),
        ("gss twice", vec![GSS.to_vec(), GSS.to_vec()]),
        ("length", vec![b"\0\0\0\x03".to_vec()]),
        (
            "cancel",
            vec![b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01key!".to_vec()],
        ),
    ] {
        let mut both = Both::new(&cluster, name);
        packets.iter().for_each(|packet| both.say(packet));
        both.end();
    }
}

fn commands_are_answered_as_by_a_server(version: Version) {
    let cluster = Cluster::start_new(version);
    let mut both = Both::new(&cluster, "startup");
    both.say(&packet(0x3_0000, REPLICATION));
    for text in [
        "IDENTIFY_SYSTEM",
        "IDENTIFY_SYSTEM;",
        "SHOW wal_segment_size",
        "SHOW nosuch",
        "READ_REPLICATION_SLOT \"x\"",
        "CREATE_REPLICATION_SLOT \"s\" PHYSICAL RESERVE_WAL",
        "CREATE_REPLICATION_SLOT \"s\" PHYSICAL",
        "CREATE_REPLICATION_SLOT \"t\" TEMPORARY PHYSICAL",
        "CREATE_REPLICATION_SLOT \"u\" PHYSICAL FOO",
        "CREATE_REPLICATION_SLOT \"u\" PHYSICAL TWO_PHASE",
        "READ_REPLICATION_SLOT \"s\"",
        "ALTER_REPLICATION_SLOT \"s\" (FAILOVER)",
        "DROP_REPLICATION_SLOT \"s\"",
        "DROP_REPLICATION_SLOT \"nosuch\"",
        "DROP_REPLICATION_SLOT \"a\" \"b\"",
        "UPLOAD_MANIFEST x",
        "SELECT 1",
        "",
        "identify_system",
        "TIMELINE_HISTORY 0",
        "START_REPLICATION 0/0 TIMELINE 0",
        "START_REPLICATION SLOT \"nosuch\" 0/1",
        "START_REPLICATION 0/1 TIMELINE 5",
        "IDENTIFY_SYSTEM x",
    ] {
        both.rename(text);
        both.say(&query(text));
    }
    let parse = message(b'P', b"\0\0\0\0");
    let sync = message(b'S', b"");
    for (name, bytes) in [
        ("parse", parse.clone()),
        ("sync", sync.clone()),
        (
            "skipped",
            [&parse[..], &query("IDENTIFY_SYSTEM"), &sync].concat(),
        ),
        ("function", message(b'F', b"")),
        ("flush", [message(b'H', b""), sync.clone()].concat()),
        (
            "late copy",
            [
                message(b'd', b"x"),
                message(b'c', b""),
                message(b'f', b"\0"),
                sync,
            ]
            .concat(),
        ),
        ("malformed query", message(b'Q', b"xy")),
        ("unexpected", message(b'p', b"\0")),
    ] {
        both.rename(name);
        both.say(&bytes);
    }
    both.end();
    for tag in [b'x', b'R', 0] {
        let mut both = Both::new(&cluster, "unknown message");
        both.say(&packet(0x3_0000, REPLICATION));
        both.say(&[tag]);
        both.end();
    }
}

fn a_stream_begins_and_ends_as_with_a_server(version: Version) {
    let cluster = Cluster::start_new(version);
    let start = || {
        query(&format!(
            "START_REPLICATION {} TIMELINE 1",
            cluster.flush_lsn()
        ))
    };
    let begin = |name| {
        let mut both = Both::new(&cluster, name);
        both.say(&packet(0x3_0000, REPLICATION));
        both.say(&start());
        both
    };
    let mut both = begin("the client ends the stream");
    both.say(&message(b'c', b""));
    both.say(&query("IDENTIFY_SYSTEM"));
    // And again, on the same connection.
    both.say(&start());
    both.say(&message(b'c', b""));
    both.end();
    begin("the client goes").end();
    for tag in [b'f', b'Q', b'x'] {
        let mut both = begin("the client says what has no place there");
        both.say(&message(tag, b"\0"));
        both.end();
    }
}

fn a_password_is_asked_for_as_by_a_server(version: Version) {
    let cluster = Cluster::builder(version)
        .hba("local all postgres trust\nlocal replication all scram-sha-256")
        .conf("password_encryption", "scram-sha-256")
        .start();
    cluster.sql("CREATE ROLE rep LOGIN REPLICATION PASSWORD 'pencil'");
    let stored = cluster
        .text("SELECT rolpassword FROM pg_authid WHERE rolname = 'rep'")
        .unwrap();
    let verifier: walproto::scram::ScramVerifier = stored.parse().unwrap();
    assert_eq!(verifier.to_string(), stored);
    let first = |mechanism: &str, first: &[u8]| {
        let length = u32::try_from(first.len()).unwrap().to_be_bytes();
        message(
            b'p',
            &[mechanism.as_bytes(), b"\0", &length, first].concat(),
        )
    };
    let scram = "SCRAM-SHA-256";
    for (name, bytes) in [
        ("plus", first("SCRAM-SHA-256-PLUS", b"n,,n=,r=a")),
        ("empty", first(scram, b"")),
        ("flag", first(scram, b"x,,n=,r=a")),
        ("authorization identity", first(scram, b"n,a=b,n=,r=a")),
        ("extension", first(scram, b"n,,m=x,n=,r=a")),
        ("nonce", first(scram, b"n,,n=,r=a\x7f")),
        ("bound", first(scram, b"p=tls-server-end-point,,n=,r=a")),
        ("zero", first(scram, b"n,,n=,r=a\0")),
        ("query", query("IDENTIFY_SYSTEM")),
        ("malformed", message(b'p', b"SCRAM-SHA-256\0")),
        (
            "no first message",
            message(b'p', b"SCRAM-SHA-256\0\xFF\xFF\xFF\xFF"),
        ),
    ] {
        let mut both = Both::new(&cluster, name);
        both.ask_for_password(&verifier);
        both.say(&bytes);
    }
    let mut both = Both::new(&cluster, "nonce of another exchange");
    both.ask_for_password(&verifier);
    both.say_with_own_nonces(&first(scram, b"n,,n=,r=abc"));
    let proof = "A".repeat(43);
    both.say(&message(
        b'p',
        format!("c=biws,r=abc,p={proof}=").as_bytes(),
    ));
    both.end();
}
