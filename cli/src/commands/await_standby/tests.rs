use bytes::Bytes;

use walproto::Lsn;

use super::*;
use crate::flags::Invocation;

fn parsed(words: &[&str]) -> Result<Invocation<Arguments>, String> {
    let words = words.iter().map(OsString::from);
    COMMAND
        .parse(words, finish)
        .map_err(|error| error.to_string())
}

#[test]
fn one_standby_and_a_directory_are_needed() {
    let awaits = |timeout| {
        Ok(Invocation::Run(Arguments {
            directory: "/srv/wal".into(),
            name: "s1".to_owned(),
            timeout,
        }))
    };
    assert_eq!(parsed(&["-D", "/srv/wal", "s1"]), awaits(None));
    assert_eq!(
        parsed(&["s1", "--timeout", "5", "-D/srv/wal"]),
        awaits(Some(Duration::from_secs(5)))
    );
    assert_eq!(parsed(&["s1", "--timeout=0", "-D/srv/wal"]), awaits(None));
    assert_eq!(parsed(&["--help"]), Ok(Invocation::Help));
    assert_eq!(parsed(&["-V"]), Ok(Invocation::Version));
    for (words, error) in [
        (&["s1"][..], "no target directory specified"),
        (&["-D", "x"], "no standby specified"),
        (
            &["-D", "x", "s1", "s2"],
            "too many command-line arguments (first is \"s2\")",
        ),
        (
            &["-D", "x", "s1", "--timeout", "soon"],
            "invalid value \"soon\" for option --timeout",
        ),
        (
            &["-D", "x", "s1", "--timeout=-1"],
            "--timeout must be in range 0..2147483",
        ),
    ] {
        assert_eq!(parsed(words), Err(error.to_owned()));
    }
}

#[test]
fn a_later_timeline_counts_if_it_goes_on_from_the_target_or_later() {
    let at = |timeline, lsn| WalPosition {
        timeline: TimelineId::new(timeline).unwrap(),
        lsn: Lsn(lsn),
    };
    let content = Bytes::from_static(b"1\t0/500\tno recovery target specified\n");
    let second = TimelineHistory::parse(TimelineId::new(2).unwrap(), content).unwrap();
    let target = at(1, 0x400);
    for (reported, history, expected) in [
        (at(1, 0x3ff), None, false),
        (at(1, 0x400), None, true),
        (at(2, 0x700), Some(&second), true),
        // It has not got so far yet.
        (at(2, 0x3ff), Some(&second), false),
        // Nobody knows where that timeline comes from.
        (at(2, 0x700), None, false),
        (at(3, 0x700), None, false),
    ] {
        assert_eq!(covers(reported, history, target), expected, "{reported}");
    }
    // It went another way before the target.
    assert!(!covers(at(2, 0x700), Some(&second), at(1, 0x501)));
    // And an older timeline is none that goes on from there.
    assert!(!covers(at(1, 0x700), None, at(2, 0x600)));
}
