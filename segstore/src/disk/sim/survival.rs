//! What is left of what was not durable.

/// Which of the changes that were not durable a reboot keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// None of them: all that was not synced is gone.
    Nothing,
    /// All of them, as after a crash of the process alone.
    Everything,
    /// Each by chance, torn writes among them; the same number gives the same choice.
    Chance(u64),
}

impl Survival {
    pub(super) const fn chance(self) -> Chance {
        match self {
            Self::Nothing => Chance::Never,
            Self::Everything => Chance::Always,
            Self::Chance(seed) => Chance::Seeded(seed),
        }
    }
}

/// A source of choices.
pub(super) enum Chance {
    Never,
    Always,
    Seeded(u64),
}

/// What becomes of a change.
#[derive(PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Lost,
    Torn,
}

impl Chance {
    pub(super) fn fate(&mut self) -> Fate {
        match self {
            Self::Never => Fate::Lost,
            Self::Always => Fate::Kept,
            Self::Seeded(state) => match split_mix(state) % 3 {
                0 => Fate::Kept,
                1 => Fate::Lost,
                _ => Fate::Torn,
            },
        }
    }

    /// Whether something is kept that can only be kept or lost.
    pub(super) fn keeps(&mut self) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Seeded(state) => split_mix(state).is_multiple_of(2),
        }
    }
}

/// `SplitMix64`: all that choosing needs, without a dependency outside of tests.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
