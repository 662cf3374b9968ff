//! How long a session waits for a client that WAL is streamed to.

use super::streaming::Script;
use super::*;

#[test]
fn a_silent_client_is_asked_half_way_and_then_given_up() {
    let mut script = Script::new();
    let begun = script.now;
    assert_eq!(
        script.session.next_timeout(),
        Some(begun + Duration::from_secs(30))
    );
    script.wait(29).unwrap();
    assert_eq!(script.keepalives(), []);
    script.wait(1).unwrap();
    assert_eq!(script.keepalives(), [(0x1000, true)]);
    assert_eq!(
        script.session.next_timeout(),
        Some(begun + Duration::from_secs(60))
    );
    script.wait(29).unwrap();
    assert_eq!(script.keepalives(), []);
    let error = script.wait(1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing was heard from the client for 60s during streaming"
    );
    assert!(script.session.is_over());
    assert_eq!(script.session.next_timeout(), None);
    // As in PostgreSQL: who does not read is not written to.
    assert!(script.sent().is_empty());
}

#[test]
fn any_message_of_the_client_gives_it_more_time() {
    let mut script = Script::new();
    for _ in 0..5 {
        script.wait(50).unwrap();
        assert_eq!(script.keepalives(), [(0x1000, true)]);
        script.report([0x1000, 0x1000, 0], false);
    }
    // A driver that comes late still waits for half of the time after it has asked.
    script.wait(200).unwrap();
    assert_eq!(script.keepalives(), [(0x1000, true)]);
    script.wait(29).unwrap();
    assert!(script.wait(1).is_err());
}

#[test]
fn a_ping_of_the_drivers_does_not_shorten_the_time() {
    let mut script = Script::new();
    script.session.keepalive(script.now, true).unwrap();
    assert_eq!(script.keepalives(), [(0x1000, true)]);
    script.wait(59).unwrap();
    assert!(script.wait(1).is_err());
}

#[test]
fn the_time_can_be_changed_and_switched_off() {
    let mut script = Script::new();
    script.session.set_wal_sender_timeout(None);
    assert_eq!(script.session.next_timeout(), None);
    script.wait(10_000).unwrap();
    script
        .session
        .set_wal_sender_timeout(Some(Duration::from_secs(10)));
    script.wait(0).unwrap();
    assert_eq!(script.keepalives(), [(0x1000, true)]);
    script.wait(4).unwrap();
    assert!(script.wait(1).is_err());
}
