//! target/bench/outage.json: what was measured, by which commit and under what conditions.
//!
//! A run of some parts (`--only`) replaces those parts of the file and leaves the others, each with its own commit and time.

use std::{collections::BTreeMap, fs, path::Path};

use e2e::{Conditions, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The whole file.
#[derive(Default, Serialize, Deserialize)]
pub struct Report {
    /// Of the checkout at the last run.
    pub commit: String,
    /// Whether files differed from that commit.
    pub dirty: bool,
    /// What is not as shipped, and what a reader must know to compare.
    pub settings: Vec<String>,
    /// Outages.
    pub rows: Vec<Row>,
    /// Requests to the API server.
    pub requests: BTreeMap<String, Value>,
    /// Memory of the operator.
    pub memory: BTreeMap<String, Value>,
    /// What a database costs while nothing happens.
    #[serde(default)]
    pub steady: BTreeMap<String, Value>,
}

/// One fault on one kind of database.
#[derive(Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub fault: String,
    /// What made the database.
    pub variant: String,
    /// How often kubelets report: `default`, `status-1s`.
    #[serde(default = "default_kubelet")]
    pub kubelet: String,
    /// As the clients saw it; null: they could not write again while it was waited for.
    pub outages_seconds: Vec<Option<f64>>,
    /// Acknowledged rows that were not there afterwards, over all samples.
    pub lost_rows: usize,
    /// Rows that were there twice, in the wrong place, though refused, or acknowledged by an old engine.
    pub wrong_rows: usize,
    /// Writes that storage took from a node that had lost the volume, or while another one had it.
    #[serde(default)]
    pub late_writes: usize,
    /// Rows that were acknowledged.
    pub acknowledged_rows: usize,
    /// The operator's own record of each sample; null where it has none.
    pub phases: Vec<Value>,
    /// What else is known: what was on the node, what a database hangs in.
    pub remarks: Vec<Value>,
    /// How it came about.
    pub conditions: Conditions,
}

fn default_kubelet() -> String {
    "default".to_owned()
}

impl Row {
    /// Samples, summed up.
    pub fn of(fault: &str, variant: &str, conditions: &Conditions, samples: Vec<Sample>) -> Self {
        let sum = |number: fn(&Judgement) -> usize| samples.iter().map(|sample| number(&sample.rows)).sum();
        Self {
            fault: fault.to_owned(),
            variant: variant.to_owned(),
            kubelet: default_kubelet(),
            outages_seconds: samples.iter().map(|sample| sample.outage.map(round)).collect(),
            lost_rows: sum(|rows| rows.lost),
            wrong_rows: sum(|rows| rows.wrong),
            late_writes: 0,
            acknowledged_rows: sum(|rows| rows.acknowledged),
            phases: samples.iter().map(|sample| sample.record.clone()).collect(),
            remarks: samples
                .into_iter()
                .map(|sample| sample.remark)
                .filter(|remark| !remark.is_null())
                .collect(),
            conditions: conditions.clone(),
        }
    }
}

/// A sample of a row.
pub struct Sample {
    /// Null: not recovered.
    pub outage: Option<f64>,
    /// What the oracle found.
    pub rows: Judgement,
    /// The operator's record; null for the vendor's manifests.
    pub record: Value,
    /// Anything else; null if there is nothing.
    pub remark: Value,
}

/// The oracle's verdict, in numbers.
#[derive(Clone, Copy, Default)]
pub struct Judgement {
    /// Acknowledged.
    pub acknowledged: usize,
    /// Of these not there.
    pub lost: usize,
    /// Twice, out of order, unexpected, by an old engine.
    pub wrong: usize,
}

impl Report {
    /// What an earlier run has left, if anything.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
        serde_json::from_str(&text).map_err(Error::malformed(format!("the earlier result {}", path.display())))
    }

    /// Takes samples in, in place of earlier ones of the same fault and variant.
    pub fn put(&mut self, fault: &str, variant: &str, conditions: &Conditions, samples: Vec<Sample>) {
        self.take_in(Row::of(fault, variant, conditions, samples));
    }

    /// Takes a row in, in place of an earlier one of the same fault, variant and kubelet.
    pub fn take_in(&mut self, row: Row) {
        let of = |row: &Row| (row.fault.clone(), row.variant.clone(), row.kubelet.clone());
        self.rows.retain(|earlier| of(earlier) != of(&row));
        self.rows.push(row);
    }

    /// Takes in what another run has measured, in place of what is here of the same.
    pub fn absorb(&mut self, newer: Self) {
        let Self {
            commit,
            dirty,
            settings,
            rows,
            requests,
            memory,
            steady,
        } = newer;
        (self.commit, self.dirty, self.settings) = (commit, dirty, settings);
        for row in rows {
            self.take_in(row);
        }
        self.requests.extend(requests);
        self.memory.extend(memory);
        self.steady.extend(steady);
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

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(outage: Option<f64>) -> Sample {
        let rows = Judgement {
            acknowledged: 10,
            lost: 1,
            wrong: 0,
        };
        Sample {
            outage,
            rows,
            record: Value::Null,
            remark: Value::Null,
        }
    }

    #[test]
    fn samples_replace_those_of_the_same_fault_and_leave_the_others() {
        let conditions = Conditions::now(Path::new("."));
        let mut report = Report::default();
        report.put("pod deleted", "operator", &conditions, vec![sample(Some(9.0))]);
        report.put("pod deleted", "vendor manifests", &conditions, vec![sample(None)]);
        report.put(
            "pod deleted",
            "operator",
            &conditions,
            vec![sample(Some(1.23456)), sample(Some(2.0))],
        );
        let found: Vec<_> = report
            .rows
            .iter()
            .map(|row| (row.variant.as_str(), row.outages_seconds.clone()))
            .collect();
        assert_eq!(
            found,
            [
                ("vendor manifests", vec![None]),
                ("operator", vec![Some(1.235), Some(2.0)])
            ]
        );
        assert_eq!((report.rows[1].lost_rows, report.rows[1].acknowledged_rows), (2, 20));
    }
}
