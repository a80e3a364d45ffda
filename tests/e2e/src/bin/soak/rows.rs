//! What the clients of one database see, while it happens.

use std::{collections::VecDeque, path::PathBuf};

use e2e::{Error, Result};
use oracle::log::{Entry, Mark, Moment, Outcome};

use crate::follow::Lines;

/// A silence shorter than this is no outage: clients write a few rows a second.
const NOTABLE: f64 = 1.0;

/// More than any number of attempts of a few seconds.
const RECENT: usize = 256;

/// A time without an acknowledged row.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    from: Moment,
    to: Moment,
}

impl Gap {
    /// How long it was.
    pub fn seconds(&self) -> f64 {
        self.to.seconds_since(&self.from)
    }
}

/// Follows the oracle's log.
pub struct Rows {
    lines: Lines,
    last_ack: Option<Moment>,
    /// How the last attempts ended: when, and whether well.
    recent: VecDeque<(Moment, bool)>,
    gaps: Vec<Gap>,
}

impl Rows {
    /// The log of a writer.
    pub fn of(log: PathBuf) -> Self {
        Self {
            lines: Lines::of(log),
            last_ack: None,
            recent: VecDeque::new(),
            gaps: Vec::new(),
        }
    }

    /// Takes in what came since the last time.
    pub fn read(&mut self) -> Result<()> {
        for line in self.lines.fresh()? {
            let entry: Entry = serde_json::from_str(&line).map_err(Error::malformed("a line of the clients' log"))?;
            match entry.outcome {
                Mark::Started => {}
                Mark::Ended(Outcome::Ack) => self.acknowledged(entry.at),
                Mark::Ended(Outcome::Fail | Outcome::Unknown) => self.ended(entry.at, false),
            }
        }
        Ok(())
    }

    fn ended(&mut self, at: Moment, well: bool) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((at, well));
    }

    fn acknowledged(&mut self, at: Moment) {
        self.ended(at, true);
        if let Some(from) = self.last_ack {
            let gap = Gap { from, to: at };
            if gap.seconds() >= NOTABLE {
                self.gaps.push(gap);
            }
        }
        self.last_ack = Some(at);
    }

    /// Whether rows are acknowledged all through the last seconds, and nine of ten attempts ended well.
    pub fn is_calm(&self, now: &Moment, seconds: f64) -> bool {
        let recent = self.recent.iter().filter(|(at, _)| now.seconds_since(at) <= seconds);
        let (all, well) = recent.fold((0, 0), |(all, well), (_, was)| (all + 1, well + usize::from(*was)));
        let alive = self
            .last_ack
            .is_some_and(|last| now.seconds_since(&last) <= seconds / 2.0);
        alive && well >= 3 && well * 10 >= all * 9
    }

    /// The longest time without a row between two moments, in seconds; 0 if there was none to speak of.
    pub fn longest_gap(&self, from: &Moment, to: &Moment) -> f64 {
        let touched = self
            .gaps
            .iter()
            .filter(|gap| gap.to.mono_ns > from.mono_ns && gap.from.mono_ns < to.mono_ns);
        let open = self
            .last_ack
            .filter(|last| last.mono_ns < to.mono_ns)
            .map(|last| to.seconds_since(&last));
        touched
            .map(Gap::seconds)
            .chain(open.filter(|seconds| *seconds >= NOTABLE))
            .fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn moment(second: u64) -> Moment {
        Moment {
            wall: Timestamp::from_second(i64::try_from(second).unwrap()).unwrap(),
            mono_ns: second * 1_000_000_000,
        }
    }

    fn rows(seconds: &[u64]) -> Rows {
        let mut rows = Rows::of(PathBuf::new());
        for second in seconds {
            rows.acknowledged(moment(*second));
        }
        rows
    }

    #[test]
    fn the_longest_silence_that_touches_the_window_counts() {
        let rows = rows(&[1, 20, 21, 25, 26, 60]);
        assert!((rows.longest_gap(&moment(20), &moment(30)) - 34.0).abs() < 1e-9);
        assert!((rows.longest_gap(&moment(20), &moment(25)) - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_silence_that_goes_on_counts_as_far_as_it_has_come() {
        assert!((rows(&[1, 2]).longest_gap(&moment(2), &moment(12)) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn it_is_calm_when_rows_come_and_hardly_anything_fails() {
        let mut rows = rows(&[1, 2, 3, 8, 9, 10]);
        assert!(rows.is_calm(&moment(11), 4.0));
        assert!(!rows.is_calm(&moment(20), 4.0), "silence is not calm");
        rows.ended(moment(10), false);
        assert!(!rows.is_calm(&moment(11), 4.0));
    }
}
