//! The storage host's log, judged: did a node write a volume after it had lost it, or while another one wrote it?
//!
//! Pure. The log's format is described in `tests/storage/README.md`; it has a judge of its own (`test-storage check`),
//! and this one was written without it, so that a mistake in one of them shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

/// A line of the storage host's log, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Number of the line.
    pub seq: u64,
    /// `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
    /// What happened.
    pub event: String,
    /// To which volume.
    #[serde(default)]
    pub volume: String,
    /// By or for which node.
    #[serde(default)]
    pub node: String,
    /// Of a detach: what the caller was told.
    #[serde(default)]
    pub reported: String,
    /// Of a write: whether it is in the volume.
    #[serde(default)]
    pub accepted: bool,
}

/// Who wrote a volume without the right to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Writes that reached a volume.
    pub accepted: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Writes that reached a volume from a node that had lost it: detached as reported, or revoked.
    pub late: Vec<Event>,
    /// Writes that reached a volume from a node after another one had written it, without being attached anew: two
    /// nodes taking turns.
    pub interleaved: Vec<Event>,
}

impl Findings {
    /// True when nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.late.is_empty() && self.interleaved.is_empty()
    }
}

/// Why a storage log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageLogError {
    /// It cannot be read.
    #[error("cannot read the storage log: {0}; check the path and the rights on it")]
    Read(#[from] io::Error),
    /// A line is something else.
    #[error("line {0} of the storage log is not an entry: {1}; give it the file behind `test-storage host --log`")]
    Line(usize, serde_json::Error),
}

/// Reads a log. A last line that is being written right now is left out.
pub fn read(mut from: impl BufRead) -> Result<Vec<Event>, StorageLogError> {
    let mut events = Vec::new();
    for line in 1.. {
        let mut text = String::new();
        if from.read_line(&mut text)? == 0 || !text.ends_with('\n') {
            break;
        }
        events.push(serde_json::from_str(&text).map_err(|error| StorageLogError::Line(line, error))?);
    }
    Ok(events)
}

#[derive(Default)]
struct Volume {
    attached: BTreeSet<String>,
    /// Nodes whose turn at writing is over: another one has written since.
    past: BTreeSet<String>,
    writer: Option<String>,
}

/// Judges a log while it grows.
#[derive(Default)]
pub struct Judge {
    volumes: BTreeMap<String, Volume>,
    findings: Findings,
}

impl Judge {
    /// Takes the next event in.
    pub fn feed(&mut self, event: &Event) {
        if event.volume.is_empty() {
            return;
        }
        if !self.volumes.contains_key(&event.volume) {
            self.volumes.insert(event.volume.clone(), Volume::default());
        }
        let volume = self.volumes.get_mut(&event.volume).expect("it was put there");
        match event.event.as_str() {
            "volume-created" => *volume = Volume::default(),
            "publish" => {
                volume.attached.insert(event.node.clone());
                volume.past.remove(&event.node);
            }
            "unpublish" if event.reported != "ok" => {}
            "unpublish" | "revoke" => {
                volume.attached.remove(&event.node);
            }
            "write" if event.accepted => {
                self.findings.accepted += 1;
                volume.written(event, &mut self.findings);
            }
            "write" => self.findings.refused += 1,
            _ => {}
        }
    }

    /// What was found so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }
}

/// Judges the events of all volumes, or of one.
pub fn judge(events: &[Event], only: Option<&str>) -> Findings {
    let mut judge = Judge::default();
    for event in events
        .iter()
        .filter(|event| only.is_none_or(|only| event.volume == only))
    {
        judge.feed(event);
    }
    judge.findings
}

impl Volume {
    fn written(&mut self, event: &Event, findings: &mut Findings) {
        if !self.attached.contains(&event.node) {
            findings.late.push(event.clone());
        }
        if self.past.contains(&event.node) {
            findings.interleaved.push(event.clone());
        }
        match &self.writer {
            Some(writer) if *writer == event.node => {}
            before => {
                self.past.extend(before.clone());
                self.writer = Some(event.node.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `publish n1`, `write n1`, `refused n1`, `unpublish n1`, `busy n1` (a detach that was reported as failed).
    fn events(words: &[&str]) -> Vec<Event> {
        let events = words.iter().zip(1..).map(|(words, seq)| {
            let (word, node) = words.split_once(' ').unwrap();
            let (event, reported, accepted) = match word {
                "write" => ("write", "", true),
                "refused" => ("write", "", false),
                "unpublish" => ("unpublish", "ok", false),
                "busy" => ("unpublish", "error", false),
                other => (other, "", false),
            };
            let line = serde_json::json!({"seq": seq, "mono_ns": seq, "event": event, "volume": "pv1", "node": node,
                "reported": reported, "accepted": accepted, "offset": 0, "length": 4096, "time": "2026-01-01T00:00:00Z"});
            format!("{line}\n")
        });
        let text: String = events.collect();
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_volume_that_moved_cleanly_is_clean() {
        let findings = judge(
            &events(&[
                "publish n1",
                "write n1",
                "unpublish n1",
                "refused n1",
                "publish n2",
                "write n2",
            ]),
            None,
        );
        assert!(findings.is_clean(), "{findings:?}");
        assert_eq!((findings.accepted, findings.refused), (2, 1));
    }

    #[test]
    fn a_late_write_is_reported_after_a_detach_and_after_a_revocation() {
        for end in ["unpublish n1", "revoke n1"] {
            let findings = judge(&events(&["publish n1", "write n1", end, "write n1"]), None);
            assert_eq!(
                findings.late.iter().map(|event| event.seq).collect::<Vec<_>>(),
                [4],
                "{end}"
            );
        }
    }

    #[test]
    fn a_detach_that_failed_leaves_the_right_to_write() {
        assert!(judge(&events(&["publish n1", "busy n1", "write n1"]), None).is_clean());
    }

    #[test]
    fn two_nodes_taking_turns_are_reported() {
        let taking_turns = events(&[
            "publish n1",
            "write n1",
            "publish n2",
            "write n2",
            "write n1",
            "write n2",
        ]);
        let findings = judge(&taking_turns, None);
        assert_eq!(
            findings.interleaved.iter().map(|event| event.seq).collect::<Vec<_>>(),
            [5, 6]
        );
        assert!(findings.late.is_empty());
    }

    #[test]
    fn a_volume_that_goes_there_and_back_is_clean() {
        let there_and_back = events(&[
            "publish n1",
            "write n1",
            "unpublish n1",
            "publish n2",
            "write n2",
            "unpublish n2",
            "publish n1",
            "write n1",
        ]);
        assert!(judge(&there_and_back, None).is_clean());
    }

    #[test]
    fn one_volume_can_be_judged_alone() {
        let late = events(&["publish n1", "unpublish n1", "write n1"]);
        assert!(!judge(&late, Some("pv1")).is_clean());
        assert!(judge(&late, Some("pv2")).is_clean());
    }

    #[test]
    fn a_log_of_something_else_is_refused() {
        assert!(matches!(read("nothing\n".as_bytes()), Err(StorageLogError::Line(1, _))));
    }
}
