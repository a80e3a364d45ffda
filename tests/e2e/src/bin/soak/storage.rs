//! The storage host's log, judged while it grows.

use std::path::PathBuf;

use e2e::{Error, Result};
use oracle::writers::{Event, Findings, Judge};

use crate::follow::Lines;

/// Follows and judges.
pub struct Storage {
    lines: Lines,
    judge: Judge,
}

impl Storage {
    /// The log of a storage host.
    pub fn of(log: PathBuf) -> Self {
        Self {
            lines: Lines::of(log),
            judge: Judge::default(),
        }
    }

    /// Takes in what came since the last time; yields what is wrong with it, in words.
    pub fn read(&mut self) -> Result<Vec<String>> {
        let known = (
            self.judge.findings().late.len(),
            self.judge.findings().interleaved.len(),
        );
        for line in self.lines.fresh()? {
            let event: Event =
                serde_json::from_str(&line).map_err(Error::malformed("a line of the storage host's log"))?;
            self.judge.feed(&event);
        }
        let describe = |what: &'static str| {
            move |event: &Event| {
                let Event { volume, node, seq, .. } = event;
                format!("{what} to volume {volume} by node {node} (entry {seq} of the storage host's log)")
            }
        };
        let Findings { late, interleaved, .. } = self.judge.findings();
        let late = late[known.0..].iter().map(describe("a write after the detach"));
        let turns = interleaved[known.1..]
            .iter()
            .map(describe("a write after another node's"));
        Ok(late.chain(turns).collect())
    }

    /// All so far.
    pub fn findings(&self) -> &Findings {
        self.judge.findings()
    }
}
