//! How much room a volume has left, by its engine's word, and when that is little. Pure; `login` asks, `status` tells.

/// Below so many percent of the volume there is little left.
pub const LITTLE_PERCENT: u32 = 5;

/// What an engine says about the volume under its databases, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Of the whole file system.
    pub total: u64,
    /// Of what the engine may still use.
    pub available: u64,
}

/// What came of asking an engine for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// The figures.
    Space(Space),
    /// It does not know the question, or will not answer it.
    Nothing,
    /// It was not asked, or has not answered in time: what it said before still holds.
    #[default]
    NotYet,
}

impl Space {
    /// Whether somebody should do something about it. There is one bound and not two: an engine's files grow and do not shrink by themselves, so
    /// that it is hardly crossed to and fro.
    pub fn is_little(self) -> bool {
        u128::from(self.available) * 100 < u128::from(self.total) * u128::from(LITTLE_PERCENT)
    }

    /// What is left is less than this: a power of two, because an exact figure would be another one at every look, and a status with it written
    /// each time.
    pub fn bound(self) -> String {
        let mebibytes = ((self.available >> 20) + 1).next_power_of_two();
        match mebibytes.ilog2() {
            exponent @ 0..10 => format!("{} MiB", 1_u64 << exponent),
            exponent @ 10..20 => format!("{} GiB", 1_u64 << (exponent - 10)),
            exponent => format!("{} TiB", 1_u64 << (exponent - 20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn less_than_a_twentieth_is_little_and_a_volume_of_no_size_says_nothing() {
        let table = [
            (0, 0, false),
            (0, 100, true),
            (4, 100, true),
            (5, 100, false),
            (100, 100, false),
            (u64::MAX / 21, u64::MAX, true),
            (u64::MAX / 19, u64::MAX, false),
        ];
        for (available, total, little) in table {
            let space = Space { total, available };
            assert_eq!(space.is_little(), little, "{space:?}");
        }
    }

    #[test]
    fn what_is_left_is_told_in_words_that_change_rarely_and_are_true() {
        let table = [
            (0, "1 MiB"),
            (MIB - 1, "1 MiB"),
            (MIB, "2 MiB"),
            (300 * MIB, "512 MiB"),
            (511 * MIB, "512 MiB"),
            (512 * MIB, "1 GiB"),
            (5000 * MIB, "8 GiB"),
            (3 << 40, "4 TiB"),
        ];
        for (available, bound) in table {
            let space = Space {
                total: u64::MAX,
                available,
            };
            assert_eq!(space.bound(), bound, "{available}");
        }
        let said: std::collections::BTreeSet<_> = (0..1024)
            .map(|mebibytes| Space {
                total: u64::MAX,
                available: mebibytes * MIB,
            })
            .map(Space::bound)
            .collect();
        assert_eq!(
            said.len(),
            11,
            "a volume that fills up says little more than that: {said:?}"
        );
    }
}
