use super::*;

use walproto::copy_data::EpochXid;
use walproto::{Horizons, StandbyProgress};

const LIMITS: ConnectionLimits = ConnectionLimits {
    total: 3,
    per_user: 2,
};

fn registry(policy: &str) -> Arc<Registry> {
    let policy = (!policy.is_empty()).then(|| policy.parse().unwrap());
    let age = Duration::from_secs(60);
    Arc::new(Registry::new(LIMITS, policy, Some(age)))
}

fn newcomer(user: &str, application_name: &str) -> Newcomer {
    Newcomer {
        user: user.to_owned(),
        application_name: application_name.to_owned(),
        address: None,
        encrypted: false,
    }
}

fn reported(lsn: u64) -> StandbyProgress {
    StandbyProgress {
        write: Some(Lsn(lsn)),
        flush: Some(Lsn(lsn)),
        apply: None,
    }
}

fn timeline() -> Option<TimelineId> {
    Some(TimelineId::FIRST)
}

/// Streams to a standby that reports a position.
fn streaming(registry: &Arc<Registry>, name: &str, lsn: u64) -> Registered {
    let standby = registry.admit(newcomer(name, name), [0; 4]).unwrap();
    standby.note_stream(Some((TimelineId::FIRST, Lsn(100))), None);
    assert!(standby.change_state(StandbyState::Catchup, StandbyState::Streaming));
    standby.note_sent(Lsn(lsn), Instant::now());
    standby.note_reported(reported(lsn), Instant::now());
    standby
}

#[test]
fn the_numbers_of_connections_are_limited_in_total_and_per_user() {
    let registry = registry("");
    let first = registry.admit(newcomer("a", ""), [0; 4]).unwrap();
    let second = registry.admit(newcomer("a", ""), [0; 4]).unwrap();
    assert_ne!(first.process_id(), second.process_id());
    let refused = registry.admit(newcomer("a", ""), [0; 4]);
    assert_eq!(refused.unwrap_err(), NoRoom::User);
    let _third = registry.admit(newcomer("b", ""), [0; 4]).unwrap();
    let refused = registry.admit(newcomer("c", ""), [0; 4]);
    assert_eq!(refused.unwrap_err(), NoRoom::Total);
    drop(first);
    assert!(registry.admit(newcomer("a", ""), [0; 4]).is_ok());
}

#[tokio::test]
async fn only_who_has_the_key_can_cancel() {
    let registry = registry("");
    let session = registry.admit(newcomer("a", ""), *b"key1").unwrap();
    let asked = || {
        let asked = session.cancellation().asked();
        tokio::time::timeout(Duration::ZERO, asked)
    };
    let process_id = session.process_id();
    registry.cancel(process_id, b"key2");
    registry.cancel(process_id, b"key");
    registry.cancel(process_id + 1, b"key1");
    assert!(asked().await.is_err());
    registry.cancel(process_id, b"key1");
    assert!(asked().await.is_ok());
}

#[tokio::test]
async fn the_policy_is_looked_at_when_something_changes() {
    let registry = registry("ANY 1 (s1, s2)");
    let mut confirmed = registry.confirmed();
    let evaluate = registry.evaluate(timeline);
    let changes = async {
        let unmet = Some(Confirmed {
            timeline: timeline(),
            present: 0,
            needed: 1,
            progress: None,
        });
        confirmed.wait_for(|found| *found == unmet).await.unwrap();
        let s1 = streaming(&registry, "s1", 200);
        confirmed.changed().await.unwrap();
        let progress = confirmed.borrow().unwrap().progress.unwrap();
        assert_eq!(progress.flush, Some(Lsn(200)));
        let shown = registry.standbys(timeline());
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].sync_state, SyncState::Quorum);
        assert_eq!(shown[0].sync_priority, 1);
        drop(s1);
        confirmed.changed().await.unwrap();
        assert_eq!(*confirmed.borrow(), unmet);
    };
    tokio::select! {
        () = evaluate => unreachable!(),
        () = changes => {}
    }
}

#[test]
fn who_is_sent_old_wal_is_no_candidate_yet() {
    let registry = registry("*");
    let standby = streaming(&registry, "s1", 200);
    let state = || registry.standbys(timeline())[0].sync_state;
    assert_eq!(state(), SyncState::Sync);
    assert!(standby.change_state(StandbyState::Streaming, StandbyState::Catchup));
    assert_eq!(state(), SyncState::Potential);
    standby.note_stream(None, None);
    assert_eq!(state(), SyncState::Async);
}

#[tokio::test(start_paused = true)]
async fn what_a_slot_needs_is_kept_when_its_standby_is_gone() {
    let registry = registry("");
    let mut needs = registry.needs();
    let xmin = |xid| Horizons {
        xmin: Some(EpochXid { epoch: 0, xid }),
        catalog_xmin: None,
    };
    let xid = |xid| EpochXid { epoch: 0, xid };
    let slot = SlotName::new("s").unwrap();
    let changes = async {
        let with_slot = registry.admit(newcomer("a", ""), [0; 4]).unwrap();
        with_slot.note_stream(Some((TimelineId::FIRST, Lsn(1))), Some(slot.clone()));
        let without = registry.admit(newcomer("b", ""), [0; 4]).unwrap();
        with_slot.note_needs(xmin(9), Instant::now());
        without.note_needs(xmin(5), Instant::now());
        needs
            .wait_for(|needs| needs.xmin == Some(xid(5)))
            .await
            .unwrap();
        drop((with_slot, without));
        needs
            .wait_for(|needs| needs.xmin == Some(xid(9)))
            .await
            .unwrap();
        registry.note_slot_needs(&slot, Horizons::default());
        needs
            .wait_for(|needs| *needs == Horizons::default())
            .await
            .unwrap();
    };
    tokio::select! {
        () = registry.evaluate(timeline) => unreachable!(),
        () = changes => {}
    }
}
