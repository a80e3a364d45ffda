//! target/soak.json.

use std::{collections::BTreeMap, fs, path::Path};

use e2e::{Conditions, Error, Result};
use serde::Serialize;

use crate::kind::Kind;

/// The whole file.
#[derive(Serialize)]
pub struct Report {
    /// Of the checkout.
    pub commit: String,
    /// Whether files differed from that commit.
    pub dirty: bool,
    /// What is not as shipped, and what a reader must know.
    pub settings: Vec<String>,
    /// What the sequence of faults follows from.
    pub seed: u64,
    /// How many, each counted for every database it hit.
    pub faults: usize,
    /// Rows that clients were promised.
    pub acknowledged: usize,
    /// Of these, not there at the end.
    pub lost: usize,
    /// Writes that storage took from a node after it had lost the volume.
    pub writes_after_revoke: usize,
    /// Two engines on one volume: nodes taking turns at writing, containers running at the same time on one node, rows acknowledged by an
    /// old engine after a new one.
    pub two_engines: usize,
    /// How often a Service got another address, or was made anew.
    pub address_changes: usize,
    /// How often a database waited for its node or a human, because nothing proved that it may move.
    pub held: usize,
    /// Rows that are there twice, out of order, or though they were refused.
    pub wrong_rows: usize,
    /// Whether every database served at the end.
    pub all_serve: bool,
    /// By kind of fault.
    pub kinds: BTreeMap<String, KindCount>,
    /// Each fault.
    pub events: Vec<Event>,
    /// Each time a database was held.
    pub holds: Vec<Held>,
    /// What should not have been, in words, each with the number of the fault before it.
    pub findings: Vec<String>,
    /// How it came about.
    pub conditions: Conditions,
    /// How long the faults took, in seconds.
    pub seconds: u64,
}

/// A kind of fault.
#[derive(Default, Serialize)]
pub struct KindCount {
    /// How often it was done.
    pub done: usize,
    /// To how many databases.
    pub hits: usize,
    /// How often there was nothing to do it to.
    pub not_applicable: usize,
    /// What clients could not write for, in seconds, where nothing else went on at the same time; a database each.
    pub outages_seconds: Vec<f64>,
}

/// A fault as it went.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// From 1.
    pub number: usize,
    /// What.
    pub kind: Kind,
    /// To what; why not, if it was not applicable.
    pub what: String,
    /// Since the beginning, in seconds.
    pub at_seconds: f64,
    /// When everything served again.
    pub settled_at_seconds: Option<f64>,
    /// Whether it was done.
    pub done: bool,
    /// Whether another fault was open at the same time.
    pub overlapped: bool,
    /// The databases it hit, with what each could not be written for, in seconds.
    pub outages_seconds: BTreeMap<String, f64>,
    /// Those that got another pod.
    pub moved: Vec<String>,
}

/// A database that was held.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// Of which fault.
    pub fault: usize,
    /// Which.
    pub instance: String,
    /// The reason of its status at the time.
    pub reason: String,
    /// And the sentence.
    pub message: String,
    /// What freed it: `node`, `human`.
    pub freed_by: &'static str,
}

impl Report {
    /// What breaks the promise; empty if it was kept.
    pub fn broken(&self) -> Vec<String> {
        let counts = [
            ("acknowledged rows are lost", self.lost),
            ("writes came after the volume was taken away", self.writes_after_revoke),
            ("times two engines had one volume", self.two_engines),
            ("times an address changed", self.address_changes),
            ("rows are there twice, out of order or unasked", self.wrong_rows),
        ];
        let mut broken: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        if !self.all_serve {
            broken.push("not every database served at the end".to_owned());
        }
        broken
    }

    /// Sums up by kind.
    pub fn count(&mut self) {
        self.kinds.clear();
        for event in &self.events {
            let kind = self.kinds.entry(event.kind.name().to_owned()).or_default();
            if !event.done {
                kind.not_applicable += 1;
                continue;
            }
            kind.done += 1;
            kind.hits += event.outages_seconds.len();
            if !event.overlapped {
                kind.outages_seconds
                    .extend(event.outages_seconds.values().map(|seconds| round(*seconds)));
            }
        }
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        }
        let text = serde_json::to_string_pretty(self).expect("a report has only texts, numbers and lists");
        let new = path.with_extension("new");
        fs::write(&new, text + "\n").map_err(Error::file("write", &new))?;
        fs::rename(&new, path).map_err(Error::file("replace", path))
    }
}

/// To a hundredth.
pub fn round(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, done: bool, overlapped: bool) -> Event {
        Event {
            number: 1,
            kind,
            what: String::new(),
            at_seconds: 0.0,
            settled_at_seconds: Some(1.0),
            done,
            overlapped,
            outages_seconds: BTreeMap::from([("db-1".to_owned(), 2.0), ("db-2".to_owned(), 3.0)]),
            moved: Vec::new(),
        }
    }

    fn report() -> Report {
        Report {
            commit: String::new(),
            dirty: false,
            settings: Vec::new(),
            seed: 1,
            faults: 0,
            acknowledged: 10,
            lost: 0,
            writes_after_revoke: 0,
            two_engines: 0,
            address_changes: 0,
            held: 0,
            wrong_rows: 0,
            all_serve: true,
            kinds: BTreeMap::new(),
            events: Vec::new(),
            holds: Vec::new(),
            findings: Vec::new(),
            conditions: Conditions::now(Path::new(".")),
            seconds: 1,
        }
    }

    #[test]
    fn each_promise_that_is_broken_is_named_and_a_hold_is_none() {
        assert!(report().broken().is_empty());
        assert!(Report { held: 3, ..report() }.broken().is_empty());
        for (broken, word) in [
            (Report { lost: 1, ..report() }, "lost"),
            (
                Report {
                    writes_after_revoke: 1,
                    ..report()
                },
                "taken away",
            ),
            (
                Report {
                    two_engines: 1,
                    ..report()
                },
                "two engines",
            ),
            (
                Report {
                    address_changes: 1,
                    ..report()
                },
                "address",
            ),
            (
                Report {
                    wrong_rows: 1,
                    ..report()
                },
                "twice",
            ),
            (
                Report {
                    all_serve: false,
                    ..report()
                },
                "not every database served",
            ),
        ] {
            let said = broken.broken();
            assert!(said.len() == 1 && said[0].contains(word), "{said:?}");
        }
    }

    #[test]
    fn a_kind_counts_databases_and_takes_outages_only_from_faults_that_were_alone() {
        let mut report = report();
        report.events = vec![
            event(Kind::NodePowerOff, true, false),
            event(Kind::NodePowerOff, true, true),
            event(Kind::NodePowerOff, false, false),
        ];
        report.count();
        let kind = &report.kinds["node-power-off"];
        assert_eq!((kind.done, kind.hits, kind.not_applicable), (2, 4, 1));
        assert_eq!(kind.outages_seconds, [2.0, 3.0]);
    }
}
