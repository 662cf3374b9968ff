//! WAL that is good and not enough for a base backup.

use super::*;
use crate::wal::record::RM_XLOG;
use crate::wal::settings::WeakSetting;

/// `XLOG_PARAMETER_CHANGE` and `XLOG_FPW_CHANGE`.
fn parameter_change(wal: &mut Generator, wal_level: u8) -> Lsn {
    let mut body = vec![0; 30];
    body[..2].copy_from_slice(&[0xFF, 28]);
    body[22] = wal_level;
    wal.append(RM_XLOG, 0x60, &body).start
}

fn full_page_writes(wal: &mut Generator, on: bool) -> Lsn {
    wal.append(RM_XLOG, 0x80, &[0xFF, 1, u8::from(on)]).start
}

#[test]
fn weak_ranges_are_the_same_however_the_work_is_cut() {
    let mut wal = generator(41);
    wal.fill(100_000);
    parameter_change(&mut wal, 1);
    let minimal = parameter_change(&mut wal, 0);
    wal.fill(2 * SEGMENT);
    // A record that continues in the next segment.
    let border = wal.end().0.next_multiple_of(SEGMENT);
    while border - wal.end().0 > 8_000 {
        wal.record(4_000);
    }
    while border - wal.end().0 > 48 {
        wal.record(0);
    }
    let replica = parameter_change(&mut wal, 1);
    assert!(replica.0 < border && wal.end().0 > border, "{replica}");
    let off = full_page_writes(&mut wal, false);
    wal.fill(SEGMENT);
    full_page_writes(&mut wal, false);
    let on = full_page_writes(&mut wal, true);
    wal.fill(SEGMENT);
    let last = parameter_change(&mut wal, 0);
    wal.fill(10_000);
    let disk = Files::of(&wal).disk();
    for (jobs, chunk) in [
        (1, 64 * SEGMENT),
        (1, SEGMENT),
        (3, SEGMENT),
        (2, 2 * SEGMENT),
    ] {
        let found = check(&disk, jobs, chunk);
        let told: Vec<_> = found
            .problems
            .iter()
            .map(|problem| match problem.fault {
                Fault::MinimalWal { end } => (problem.lsn, end),
                _ => panic!("{problem}"),
            })
            .collect();
        assert_eq!(
            told,
            [(minimal, Some(replica)), (last, None)],
            "{jobs} {chunk}"
        );
        let [range] = found.warnings.as_slice() else {
            panic!("{:?}", found.warnings);
        };
        assert_eq!((range.start, range.end), (off, Some(on)));
        assert_eq!(range.setting, WeakSetting::NoFullPageWrites);
        assert_eq!(found.good, [range_of(&wal)]);
    }
}

fn range_of(wal: &Generator) -> GoodRange {
    range(1, START..wal.records().last().unwrap().end)
}
