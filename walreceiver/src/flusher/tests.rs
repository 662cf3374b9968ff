use segstore::generator::Generator;
use segstore::sim::{Fault, SimDisk};
use segstore::{
    Archive, ArchiveError, ArchiveOptions, Compression, Preparation, ServerFacts, WalFormat,
};
use walproto::{SegmentSize, SystemId, TimelineHistory, TimelineId};

use super::*;
use crate::error::{Phase, ReceiveError};

const START: Lsn = Lsn(16 << 20);

/// An archive on a simulated disk, its writer's flusher, and WAL for it.
struct Scene {
    disk: SimDisk,
    archive: Archive,
    flusher: Flusher,
    wal: Generator,
    sent: usize,
}

fn open(disk: &SimDisk) -> Result<Archive, ArchiveError> {
    let options = ArchiveOptions {
        directory: "/archive".into(),
        sync: true,
        compression: Compression::NONE,
    };
    Archive::open(Arc::new(disk.clone()), options)
}

impl Scene {
    fn new(short_syncs: ShortSyncs) -> Self {
        let disk = SimDisk::new("/archive");
        let format = WalFormat {
            system_id: SystemId(1),
            segment_size: SegmentSize::DEFAULT,
            page_magic: None,
            server_version_num: Some(150_018),
        };
        let mut archive = open(&disk).unwrap();
        archive
            .bind(&ServerFacts {
                system_id: format.system_id,
                segment_size: format.segment_size,
                block_size: 8192,
                server_version_num: 150_018,
                data_directory_mode: 0o700,
            })
            .unwrap();
        let history = TimelineHistory::without_ancestors(TimelineId::FIRST);
        let recovery = archive.recover().unwrap();
        let writer = archive.writer(recovery, &history, START, Preparation::Inline);
        let flusher = Flusher::start(writer.unwrap(), short_syncs).unwrap();
        Self {
            disk,
            archive,
            flusher,
            wal: Generator::new(format, history, START, 1).unwrap(),
            sent: 0,
        }
    }

    /// Hands over another record, and returns its end.
    fn push_record(&mut self) -> Lsn {
        let record = self.wal.record(100);
        let data = Bytes::copy_from_slice(&self.wal.bytes()[self.sent..]);
        let start = START.checked_add(self.sent as u64).unwrap();
        self.sent += data.len();
        self.flusher.push(start, data);
        record.end
    }

    fn durable_end(&self) -> Option<Lsn> {
        let durable = self.flusher.flushed.borrow().durable;
        durable.map(|durable| durable.record_end.lsn())
    }

    fn wait_until(&self, condition: impl FnMut(&Flushed) -> bool) {
        let mut flushed = self.flusher.flushed();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime
            .block_on(async {
                let waited = flushed.wait_for(condition);
                tokio::time::timeout(Duration::from_secs(60), waited)
                    .await
                    .map(drop)
            })
            .unwrap();
    }

    fn finish(self) -> Result<(), WriteError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(self.flusher.finish())
    }
}

#[test]
fn a_little_wal_is_durable_at_once_where_the_task_may_sync() {
    let mut scene = Scene::new(ShortSyncs::OnTask);
    for _ in 0..3 {
        let end = scene.push_record();
        scene.flusher.go_on();
        assert_eq!(scene.durable_end(), Some(end));
    }
    assert!(scene.finish().is_ok());
}

#[test]
fn what_is_good_before_corruption_is_durable_and_told() {
    for short_syncs in [ShortSyncs::OnTask, ShortSyncs::OnThread] {
        let mut scene = Scene::new(short_syncs);
        let good = scene.push_record();
        scene.wal.record(100);
        let mut bad = scene.wal.bytes()[scene.sent..].to_vec();
        *bad.last_mut().unwrap() ^= 1;
        let start = START.checked_add(scene.sent as u64).unwrap();
        scene.flusher.push(start, Bytes::from(bad));
        scene.flusher.go_on();
        scene.wait_until(|flushed| flushed.ended);
        assert_eq!(scene.durable_end(), Some(good), "{short_syncs:?}");
        let error = scene.finish().unwrap_err();
        assert!(matches!(error, WriteError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_lack_of_descriptors_ends_the_connection_and_nothing_else() {
    let mut scene = Scene::new(ShortSyncs::OnThread);
    scene.disk.use_up_descriptors(true);
    scene.push_record();
    scene.flusher.go_on();
    scene.wait_until(|flushed| flushed.ended);
    let (disk, archive) = (scene.disk.clone(), scene.archive);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let ended = runtime.block_on(scene.flusher.finish()).unwrap_err();
    assert!(matches!(ended, WriteError::OutOfResources(_)), "{ended}");
    assert!(!ReceiveError::from(ended).ends(Phase::After));
    let ended = archive.recover().map(drop).unwrap_err();
    assert!(!ReceiveError::from(ended).ends(Phase::After));
    disk.use_up_descriptors(false);
    archive.recover().unwrap();
    assert_eq!(archive.poisoned().unwrap(), []);
}

#[test]
fn much_wal_is_left_to_the_thread() {
    let mut scene = Scene::new(ShortSyncs::OnTask);
    // The thread cannot begin yet.
    let worker = Arc::clone(&scene.flusher.worker);
    let held = lock(&worker);
    let end = scene.push_record();
    scene.flusher.charge(SHORT_BYTES as u64 + 1);
    scene.flusher.go_on();
    assert_eq!(scene.durable_end(), None);
    drop(held);
    scene.wait_until(|flushed| flushed.durable.is_some_and(|d| d.record_end.lsn() == end));
}

#[test]
fn what_the_task_found_no_room_for_the_thread_writes() {
    let mut scene = Scene::new(ShortSyncs::OnTask);
    scene.push_record();
    scene.flusher.go_on();
    let worker = Arc::clone(&scene.flusher.worker);
    let end = scene.push_record();
    scene.disk.fail_at(scene.disk.operations(), Fault::NoSpace);
    assert!(!lock(&worker).work_shortly());
    scene.flusher.queue.wake();
    scene.wait_until(|flushed| flushed.durable.is_some_and(|d| d.record_end.lsn() == end));
    assert!(scene.finish().is_ok());
}

#[test]
fn a_failed_sync_on_the_task_is_final() {
    let mut scene = Scene::new(ShortSyncs::OnTask);
    let first = scene.push_record();
    scene.flusher.go_on();
    let before = scene.disk.operations();
    scene.push_record();
    // The write, then the sync.
    scene.disk.fail_at(before + 1, Fault::Io);
    scene.flusher.go_on();
    scene.wait_until(|flushed| flushed.ended);
    assert_eq!(scene.durable_end(), Some(first));
    let error = scene.finish().unwrap_err();
    assert!(matches!(error, WriteError::SyncFailed { .. }), "{error:?}");
}

#[test]
fn a_failed_sync_is_not_hidden_by_bytes_that_are_not_valid() {
    let mut scene = Scene::new(ShortSyncs::OnTask);
    scene.push_record();
    scene.flusher.go_on();
    let before = scene.disk.operations();
    scene.push_record();
    scene.wal.record(100);
    let mut bad = scene.wal.bytes()[scene.sent..].to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let start = START.checked_add(scene.sent as u64).unwrap();
    scene.flusher.push(start, Bytes::from(bad));
    // The write of what is valid, then its sync.
    scene.disk.fail_at(before + 1, Fault::Io);
    scene.flusher.go_on();
    scene.wait_until(|flushed| flushed.ended);
    let error = scene.finish().unwrap_err();
    assert!(matches!(error, WriteError::SyncFailed { .. }), "{error:?}");
}

#[test]
fn a_thread_that_panics_says_that_it_has_ended() {
    let queue = Queue::default();
    let (sender, flushed) = watch::channel(Flushed::default());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ended = Ended(&queue, &sender);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(flushed.borrow().ended);
}

#[test]
fn a_flusher_that_is_dropped_lets_go_of_the_archive() {
    let Scene {
        disk,
        archive,
        flusher,
        ..
    } = Scene::new(ShortSyncs::OnThread);
    drop(archive);
    assert!(matches!(open(&disk), Err(ArchiveError::Locked { .. })));
    let mut flushed = flusher.flushed();
    drop(flusher);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let ended = runtime.block_on(flushed.wait_for(|flushed| flushed.ended));
    drop(ended.unwrap());
    drop(open(&disk).unwrap());
}
