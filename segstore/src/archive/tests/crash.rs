//! The power is cut at every operation.

use super::*;

type Step = dyn Fn(&mut Archive) -> Result<(), ArchiveError>;

/// Opens, binds, stores histories, quarantines; the number of the last step that succeeded.
fn live(disk: &SimDisk) -> u32 {
    let Ok(mut archive) = try_open(disk) else {
        return 0;
    };
    let steps: [&Step; 5] = [
        &|archive| archive.bind(&facts()),
        &|archive| archive.store_history(&history(2, SECOND)),
        &|archive| archive.learn_page_magic(0xD110),
        &|archive| archive.quarantine(segment(1, 5)).map(drop),
        &|archive| archive.poison(partial(1, 6)),
    ];
    for (done, step) in (1..).zip(steps) {
        if step(&mut archive).is_err() {
            return done;
        }
    }
    6
}

fn prepared() -> SimDisk {
    let disk = SimDisk::new("/a");
    let file = segment(1, 5);
    disk.plant(format!("/a/{file}"), &wal(1, 5, &facts()))
        .unwrap();
    disk
}

#[test]
fn whatever_was_done_before_a_crash_is_found_after_it() {
    let disk = prepared();
    assert_eq!(live(&disk), 6);
    let operations = disk.operations();
    for cut in 0..operations {
        for survival in (0..4)
            .map(Survival::Chance)
            .chain([Survival::Nothing, Survival::Everything])
        {
            let disk = prepared();
            disk.cut_power_at(cut);
            let done = live(&disk);
            let log = disk.log();
            disk.reboot(survival);
            check(&disk, done, &format!("{survival:?} {log:#?}"));
        }
    }
}

fn check(disk: &SimDisk, done: u32, context: &str) {
    let archive = try_open(disk).unwrap_or_else(|error| panic!("{error}: {context}"));
    assert_eq!(archive.system_id(), Some(facts().system_id), "{context}");
    if done > 1 {
        assert!(archive.identity().is_some(), "{context}");
    }
    match archive.history(timeline(2)) {
        Some(found) => assert_eq!(*found, history(2, SECOND), "{context}"),
        None => assert!(done < 3, "{context}"),
    }
    if done > 3 {
        let magic = archive.identity().and_then(Identity::page_magic);
        assert_eq!(magic, Some(0xD110), "{context}");
    }
    let quarantined = disk.content(format!("/a/.wal-receiver/quarantine/{}.1", segment(1, 5)));
    let in_place = disk.content(format!("/a/{}", segment(1, 5)));
    assert!(quarantined.is_some() || in_place.is_some(), "{context}");
    if done > 4 {
        assert!(quarantined.is_some() && in_place.is_none(), "{context}");
    }
    if done > 5 {
        let poisoned = archive.poisoned().unwrap();
        assert!(poisoned.contains(&partial(1, 6)), "{context}");
    }
    drop(archive);
    // The next life has all of it.
    disk.reboot(Survival::Nothing);
    let done = live(disk);
    assert!(done >= 4, "{done} {context}");
}

#[test]
fn whatever_fails_leaves_an_archive_that_opens() {
    let disk = prepared();
    live(&disk);
    for fault in [Fault::Io, Fault::NoSpace] {
        for operation in 0..disk.operations() {
            let disk = prepared();
            disk.fail_at(operation, fault);
            let done = live(&disk);
            disk.reboot(Survival::Nothing);
            let archive = open(&disk);
            assert!(done < 2 || archive.identity().is_some());
            assert!(done < 3 || archive.history(timeline(2)).is_some());
        }
    }
}

/// What a crash may leave: nothing, a part that `seed` decides, or everything.
fn survivals(seed: u64) -> [Survival; 3] {
    [
        Survival::Nothing,
        Survival::Chance(seed),
        Survival::Everything,
    ]
}

/// What a failed operation left in the page cache is not taken for durable by the next process.
#[test]
fn what_was_done_after_a_failure_is_found_after_a_crash() {
    let disk = prepared();
    live(&disk);
    for operation in 0..disk.operations() {
        for survival in survivals(operation) {
            let disk = prepared();
            disk.fail_at(operation, Fault::Io);
            live(&disk);
            let done = live(&disk);
            let context = format!("{operation} {survival:?} {:#?}", disk.log());
            assert!(done >= 4, "{done} {context}");
            disk.reboot(survival);
            check(&disk, done, &context);
        }
    }
}

/// The same where the power is cut while the names are written anew that the failure took.
#[test]
fn a_crash_right_after_a_failure_takes_nothing_of_what_was_done() {
    let disk = prepared();
    live(&disk);
    for operation in 0..disk.operations() {
        for cut in operation + 1..operation + 4 {
            for survival in survivals(operation) {
                let disk = prepared();
                disk.fail_at(operation, Fault::Io);
                disk.cut_power_at(cut);
                let done = live(&disk);
                let context = format!("{operation} {survival:?} {:#?}", disk.log());
                disk.reboot(survival);
                check(&disk, done, &context);
            }
        }
    }
}
