//! A tree of relays, simulated: how late WAL is at its leaves.

/// What one relay and the way to it are like.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    /// Points (share, us) of the delay from one relay's send to that of the next, or to a client, if
    /// each has only one: network, check, sync, wake-ups.
    pub(crate) hop: Vec<[f64; 2]>,
    /// What sending a message to one client takes, in us: the next client has to wait for it.
    pub(crate) message_us: f64,
}

/// A tree whose relays all have so many clients, relays or standbys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tree {
    pub(crate) fan_out: u32,
    /// Relays on the way to a standby.
    pub(crate) depth: u32,
}

impl Tree {
    /// The flattest tree for so many standbys.
    pub(crate) fn of(standbys: u32, fan_out: u32) -> Self {
        let mut depth = 1;
        let mut reached = u64::from(fan_out);
        while reached < u64::from(standbys) && fan_out > 1 {
            reached *= u64::from(fan_out);
            depth += 1;
        }
        Self { fan_out, depth }
    }

    /// How many relays there are for so many standbys: as many on each level as the level below
    /// needs.
    pub(crate) fn relays(self, standbys: u32) -> u32 {
        let mut below = standbys;
        (0..self.depth)
            .map(|_| {
                below = below.div_ceil(self.fan_out);
                below
            })
            .sum()
    }
}

impl Relay {
    /// The delays in us, sorted, at so many standbys of each of `pieces` pieces of WAL, one every
    /// `interval_us`. A relay sends a piece to its clients one by one, and a piece waits until the
    /// one before is sent to all.
    pub(crate) fn simulate(
        &self,
        tree: Tree,
        standbys: u32,
        pieces: u32,
        interval_us: f64,
    ) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(1);
        // How many relays each level has, from the primary down, and until when each of them sends.
        let mut levels: Vec<Vec<f64>> = Vec::new();
        let mut below = standbys;
        for _ in 0..tree.depth {
            below = below.div_ceil(tree.fan_out);
            levels.insert(0, vec![0.0; size(below)]);
        }
        let mut delays = Vec::new();
        for piece in 0..pieces {
            let sent = f64::from(piece) * interval_us;
            // When a piece reaches the nodes of a level.
            let mut arrivals: Vec<f64> = Vec::new();
            for level in 0..levels.len() {
                let relays = &mut levels[level];
                if arrivals.is_empty() {
                    arrivals = relays
                        .iter()
                        .map(|_| sent + self.hop(&mut random))
                        .collect();
                }
                for (until, arrival) in relays.iter_mut().zip(&mut arrivals) {
                    *arrival = arrival.max(*until);
                    *until = *arrival;
                }
                let nodes = levels.get(level + 1).map_or(size(standbys), Vec::len);
                let relays = &mut levels[level];
                let is_last = level + 1 == usize::try_from(tree.depth).unwrap();
                arrivals = (0..nodes)
                    .map(|node| {
                        let relay = node / size(tree.fan_out);
                        relays[relay] += self.message_us;
                        // The way to a standby itself is a part of the last relay's hop.
                        let hop = if is_last { 0.0 } else { self.hop(&mut random) };
                        relays[relay] + hop
                    })
                    .collect();
            }
            delays.extend(arrivals.iter().map(|at| at - sent));
        }
        delays.sort_by(f64::total_cmp);
        delays
    }

    /// One of the delays of a hop, between two points of their distribution.
    fn hop(&self, random: &mut fastrand::Rng) -> f64 {
        let share = random.f64();
        let after = self.hop.iter().position(|point| point[0] >= share);
        let after = after.unwrap_or(self.hop.len() - 1);
        let [from, low] = self.hop[after.saturating_sub(1)];
        let [to, high] = self.hop[after];
        if to == from {
            return high;
        }
        low + (high - low) * (share - from) / (to - from)
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every hop takes 500 us, every message 10 us.
    fn even() -> Relay {
        Relay {
            hop: vec![[0.0, 500.0], [1.0, 500.0]],
            message_us: 10.0,
        }
    }

    #[test]
    fn a_tree_is_as_deep_as_its_standbys_need() {
        for (standbys, fan_out, depth, relays) in [
            (1, 200, 1, 1),
            (200, 200, 1, 1),
            (201, 200, 2, 3),
            (10_000, 100, 2, 101),
            (10_000, 22, 3, 455 + 21 + 1),
        ] {
            let tree = Tree::of(standbys, fan_out);
            assert_eq!((tree.depth, tree.relays(standbys)), (depth, relays));
        }
    }

    #[test]
    fn ten_thousand_standbys_are_as_late_as_the_formula_says() {
        // On each level a hop, and on average half of the messages of a relay.
        let tree = Tree::of(10_000, 100);
        let delays = even().simulate(tree, 10_000, 50, 10_000.0);
        assert_eq!(delays.len(), 500_000);
        let mean = delays.iter().sum::<f64>() / delays.len() as f64;
        let formula = 2.0 * (500.0 + 10.0 * 101.0 / 2.0);
        assert!((mean - formula).abs() < 1.0, "{mean} {formula}");
        let last = delays[delays.len() - 1];
        assert!((last - 2.0 * (500.0 + 10.0 * 100.0)).abs() < 1.0, "{last}");
    }

    #[test]
    fn a_relay_that_cannot_send_fast_enough_falls_behind() {
        // 200 messages of 10 us do not fit into 1 ms: each piece is 1 ms later than the one before.
        let delays = even().simulate(Tree::of(200, 200), 200, 100, 1_000.0);
        let last = delays[delays.len() - 1];
        assert!(
            (last - (500.0 + 2_000.0 + 99.0 * 1_000.0)).abs() < 1.0,
            "{last}"
        );
    }

    #[test]
    fn hops_are_distributed_as_measured() {
        let relay = Relay {
            hop: vec![[0.0, 100.0], [0.5, 200.0], [1.0, 1_000.0]],
            message_us: 0.0,
        };
        let delays = relay.simulate(Tree::of(1, 1), 1, 10_000, 10_000.0);
        let median = delays[delays.len() / 2];
        assert!((median - 200.0).abs() < 20.0, "{median}");
        assert!(delays[0] >= 100.0 && delays[delays.len() - 1] <= 1_000.0);
    }
}
