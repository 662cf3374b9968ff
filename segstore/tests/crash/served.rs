//! What was handed on is there after a crash, whoever was asked for it.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use fastrand::Rng;
use segstore::sim::Survival;
use segstore::{ArchiveView, Feed, FeedStep};
use walproto::Lsn;

use crate::world::{ROOT, START, Stop, World, short_wal};

/// One who asks for all there is.
struct Client {
    view: ArchiveView,
    feed: Option<Feed>,
    taken: BytesMut,
}

impl Client {
    fn new(view: ArchiveView) -> Self {
        Self {
            view,
            feed: None,
            taken: BytesMut::new(),
        }
    }

    /// Takes what there is. That the disk refuses is no concern of who has what he has.
    fn take(&mut self) {
        if self.view.refresh().is_err() {
            return;
        }
        if self.feed.is_none() {
            self.feed = self.view.feed(None, START).ok();
        }
        while let Some(feed) = &mut self.feed
            && let Ok(FeedStep::Chunk(chunk)) = feed.next_step()
            && chunk.append_to(&mut self.taken).is_ok()
        {}
    }
}

/// Streams, and hands on after each step; what clients of both processes got.
fn live(world: &mut World, rng: &mut Rng) -> Vec<BytesMut> {
    let mut clients = Vec::new();
    // The first error ends it.
    drop(try_live(world, rng, &mut clients));
    clients.into_iter().map(|client| client.taken).collect()
}

fn try_live(world: &mut World, rng: &mut Rng, clients: &mut Vec<Client>) -> Result<(), Stop> {
    let (archive, mut writer) = world.writer()?;
    let disk = Arc::new(world.disk.clone());
    clients.push(Client::new(archive.view()?));
    clients.push(Client::new(ArchiveView::open(disk, Path::new(ROOT))?));
    let end = world.wal.end();
    while writer.position() < end {
        let at = writer.position();
        let length = rng.u64(1..200_000).min(end.0 - at.0);
        let batch = world.batch(at, Lsn(at.0 + length), rng);
        writer.append(at, &batch)?;
        clients.iter_mut().for_each(Client::take);
        if rng.bool() {
            writer.sync()?;
            clients.iter_mut().for_each(Client::take);
        }
    }
    writer.close()?;
    clients.iter_mut().for_each(Client::take);
    Ok(())
}

#[test]
fn what_was_handed_on_is_there_after_a_crash() {
    let seed = 61;
    let count = {
        let mut world = World::new(short_wal(seed));
        let taken = live(&mut world, &mut Rng::with_seed(seed));
        let all = world.bytes(START, world.wal.end());
        assert!(taken.len() == 2 && taken.iter().all(|taken| *taken == all));
        world.disk.operations()
    };
    assert!(count > 30, "{count}");
    let mut most = 0;
    for cut in 0..count {
        for survival in [Survival::Nothing, Survival::Chance(cut)] {
            let mut world = World::new(short_wal(seed));
            world.disk.cut_power_at(cut);
            let taken = live(&mut world, &mut Rng::with_seed(seed));
            world.disk.reboot(survival);
            let (archive, recovery) = world.recover().unwrap();
            let tip = recovery.tip().map_or(START, |tip| tip.record_end.lsn());
            for taken in taken {
                let end = Lsn(START.0 + taken.len() as u64);
                most = most.max(taken.len());
                assert!(end <= tip, "cut {cut}: {end} was handed on, {tip} is left");
                assert!(taken == world.bytes(START, end), "cut {cut}");
                let mut kept = vec![0; taken.len()];
                let mut reader = archive.reader(world.wal.history().clone(), START).unwrap();
                reader.read_full(&mut kept, end).unwrap();
                assert!(taken == kept, "cut {cut}");
            }
        }
    }
    assert!(most > 500_000, "{most}");
}
