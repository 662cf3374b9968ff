//! The power is cut at every operation.

use super::*;

/// What was done so far.
#[derive(Clone, Copy, Default, Debug)]
struct Done {
    created: bool,
    /// How far the slot was moved, and how far of that was saved.
    moved: u64,
    saved: u64,
    dropping: bool,
    dropped: bool,
}

/// Creates two slots, moves one of them, and drops it.
fn live(disk: &SimDisk) -> Done {
    let mut done = Done::default();
    // The first error ends it.
    drop(try_live(disk, &mut done));
    done
}

fn try_live(disk: &SimDisk, done: &mut Done) -> Result<(), SlotError> {
    let view = ArchiveView::open(Arc::new(disk.clone()), Path::new("/a"))?;
    let store = SlotStore::open(view, UNLIMITED)?;
    let session = store.session(1);
    session.create(&name("kept"), NewSlot::default())?;
    session.create(&name("a"), NewSlot::default())?;
    done.created = true;
    let held = session.acquire(&name("a"))?;
    for step in 1..=4 {
        held.advance(TimelineId::FIRST, Lsn(START.0 + step))?;
        done.moved = step;
        if step % 2 == 0 {
            store.save()?;
            done.saved = step;
        }
    }
    drop(held);
    done.dropping = true;
    session.drop_slot(&name("a"))?;
    done.dropped = true;
    Ok(())
}

fn check(disk: &SimDisk, done: Done, why: &str) {
    let store = SlotStore::open(view(disk), UNLIMITED);
    let store = store.unwrap_or_else(|error| panic!("{error}: {why}"));
    let slots = store.list().unwrap();
    for slot in &slots {
        assert!(
            ["a", "kept"].contains(&slot.name.as_str()),
            "{slot:?}: {why}"
        );
    }
    let a = store.get(&name("a")).unwrap();
    assert!(
        !done.created || store.get(&name("kept")).unwrap().is_some(),
        "{why}"
    );
    assert!(!done.dropped || a.is_none(), "{why}");
    assert!(!done.created || done.dropping || a.is_some(), "{why}");
    let restart = a.and_then(|slot| slot.restart);
    let found = restart.map_or(0, |restart| restart.lsn.0 - START.0);
    assert!(
        done.dropping || done.saved <= found,
        "{done:?} {found} {why}"
    );
    assert!(found <= done.moved, "{done:?} {found} {why}");
}

#[test]
fn a_crash_leaves_each_slot_as_it_was_saved_or_a_later_one() {
    let prepare = || {
        let disk = SimDisk::new("/a");
        drop(archive(&disk, 0));
        disk.reboot(Survival::Everything);
        disk
    };
    let disk = prepare();
    assert!(live(&disk).dropped);
    let operations = disk.operations();
    assert!(operations > 20, "{operations}");
    for cut in 0..operations {
        let survivals = (0..8).map(Survival::Chance);
        for survival in survivals.chain([Survival::Nothing, Survival::Everything]) {
            let disk = prepare();
            disk.cut_power_at(cut);
            let done = live(&disk);
            let why = format!("cut {cut}, {survival:?}, {:#?}", disk.log());
            disk.reboot(survival);
            check(&disk, done, &why);
        }
    }
}
