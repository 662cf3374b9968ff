//! The help text of each command and face, compared with the files in `help/`.

use std::os::unix::process::CommandExt;
use std::process::Command;

#[test]
fn every_help_text_is_as_written_down() {
    let help = |program: &str, subcommand: Option<&str>| {
        let output = Command::new(env!("CARGO_BIN_EXE_wal-receiver"))
            .arg0(program)
            .args(subcommand)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        String::from_utf8(output.stdout).unwrap()
    };
    for (program, subcommand, expected) in [
        ("wal-receiver", None, include_str!("help/wal-receiver.txt")),
        (
            "pg_receivewal",
            None,
            include_str!("help/pg_receivewal.txt"),
        ),
        (
            "wal-receiver",
            Some("serve"),
            include_str!("help/serve.txt"),
        ),
        (
            "wal-receiver",
            Some("status"),
            include_str!("help/status.txt"),
        ),
        (
            "wal-receiver",
            Some("await-standby"),
            include_str!("help/await-standby.txt"),
        ),
        (
            "wal-receiver",
            Some("verify"),
            include_str!("help/verify.txt"),
        ),
        (
            "wal-receiver",
            Some("prune"),
            include_str!("help/prune.txt"),
        ),
    ] {
        let shown = help(program, subcommand);
        assert_eq!(shown, expected, "{program} {subcommand:?}");
        let longest = shown.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(100), "{program} {subcommand:?}");
    }
}
