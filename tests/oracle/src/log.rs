//! What clients saw, one JSON object a line.
//!
//! An attempt has two lines, one when it starts and one when its outcome is known; an attempt without its second line
//! (the client was killed) counts as unknown. Lines of several runs may stand in one file, told apart by their epoch.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A row's key: the run that wrote it and its number in that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// The run.
    pub epoch: i64,
    /// The number.
    pub seq: i64,
}

/// A point in time, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// For people and for other machines.
    pub wall: Timestamp,
    /// `CLOCK_MONOTONIC`, which all programs of one machine share; differences are taken on it.
    pub mono_ns: u64,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let mono = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(mono.tv_sec).expect("the monotonic clock starts at 0");
        let nanoseconds = u64::try_from(mono.tv_nsec).expect("nanoseconds are not negative");
        Self {
            wall: Timestamp::now(),
            mono_ns: seconds * 1_000_000_000 + nanoseconds,
        }
    }

    /// Seconds from `earlier` to here.
    pub fn seconds_since(&self, earlier: &Self) -> f64 {
        seconds(self.mono_ns.saturating_sub(earlier.mono_ns))
    }
}

/// Nanoseconds as seconds.
#[allow(clippy::cast_precision_loss, reason = "a span of days is exact to the microsecond")]
pub fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The database acknowledged the row: it must be there for ever.
    Ack,
    /// The row was never sent, or the database refused it: it must not be there.
    Fail,
    /// The row was sent and the answer never came: it may be there or not.
    Unknown,
}

/// What a line says of its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// It starts.
    Started,
    /// It ended so.
    #[serde(untagged)]
    Ended(Outcome),
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    #[serde(flatten)]
    pub at: Moment,
    /// The row of the attempt.
    #[serde(flatten)]
    pub row: Row,
    /// Start or outcome.
    pub outcome: Mark,
    /// When the engine that answered had started: tells an old instance from a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Why there is no acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An attempt, its lines put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The row.
    pub row: Row,
    /// When it started.
    pub started: Moment,
    /// When its outcome was known; `None` if the client was killed before.
    pub ended: Option<Moment>,
    /// How it ended.
    pub outcome: Outcome,
    /// See [`Entry::engine`].
    pub engine: Option<String>,
    /// See [`Entry::error`].
    pub error: Option<String>,
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file.
    #[error("cannot read or write the log {0}: {1}; check the path and the rights on it")]
    File(PathBuf, io::Error),
    /// A line.
    #[error(
        "line {line} of the log {path} is not an entry of the oracle: {source}; give it a file that `oracle write` made"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An outcome without its start.
    #[error("the log has an outcome but no start of epoch {}, seq {}; its beginning is missing", .0.epoch, .0.seq)]
    NoStart(Row),
    /// Two runs of one epoch.
    #[error("the log has epoch {}, seq {} twice; give each run an epoch of its own", .0.epoch, .0.seq)]
    Twice(Row),
}

/// A whole log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// All attempts, in the order in which they started.
    pub attempts: Vec<Attempt>,
}

impl Log {
    /// Reads a file. A last line that was cut off in the middle of writing is left out.
    pub fn read(path: &Path) -> Result<Self, LogError> {
        let file = |error| LogError::File(path.to_owned(), error);
        let mut lines = BufReader::new(File::open(path).map_err(file)?);
        let mut entries = Vec::new();
        for line in 1.. {
            let mut text = String::new();
            if lines.read_line(&mut text).map_err(file)? == 0 || !text.ends_with('\n') {
                break;
            }
            let entry = serde_json::from_str(&text).map_err(|source| LogError::Line {
                path: path.to_owned(),
                line,
                source,
            })?;
            entries.push(entry);
        }
        Self::from_entries(entries)
    }

    /// Puts the lines of each attempt together.
    pub fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Result<Self, LogError> {
        let mut places: BTreeMap<Row, usize> = BTreeMap::new();
        let mut attempts: Vec<Attempt> = Vec::new();
        for Entry {
            at,
            row,
            outcome,
            engine,
            error,
        } in entries
        {
            match outcome {
                Mark::Started => {
                    if places.insert(row, attempts.len()).is_some() {
                        return Err(LogError::Twice(row));
                    }
                    let outcome = Outcome::Unknown;
                    attempts.push(Attempt {
                        row,
                        started: at,
                        ended: None,
                        outcome,
                        engine,
                        error,
                    });
                }
                Mark::Ended(outcome) => {
                    let place = places.get(&row).ok_or(LogError::NoStart(row))?;
                    let attempt = &mut attempts[*place];
                    if attempt.ended.is_some() {
                        return Err(LogError::Twice(row));
                    }
                    *attempt = Attempt {
                        row,
                        started: attempt.started,
                        ended: Some(at),
                        outcome,
                        engine,
                        error,
                    };
                }
            }
        }
        Ok(Self { attempts })
    }

    /// The attempts that were acknowledged, by the time of the acknowledgement.
    pub fn acknowledged(&self) -> Vec<(Moment, &Attempt)> {
        let acknowledged = self.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ack);
        let mut timed: Vec<_> = acknowledged
            .filter_map(|attempt| Some((attempt.ended?, attempt)))
            .collect();
        timed.sort_by_key(|(at, _)| at.mono_ns);
        timed
    }
}

/// A log that is being written. Each line is one write, so that a killed client leaves whole lines.
pub struct Writer {
    file: File,
    path: PathBuf,
}

impl Writer {
    /// Continues the file, or begins it. A last line that was cut off is ended first.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let error = |error| LogError::File(path.to_owned(), error);
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(other) => return Err(error(other)),
        };
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(error)?;
        file.set_len(whole as u64).map_err(error)?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Adds a line.
    pub fn append(&mut self, entry: &Entry) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(entry).expect("an entry has no map with other keys than texts");
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(|error| LogError::File(self.path.clone(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(second: u64, seq: i64, outcome: Mark) -> Entry {
        let wall = Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        let at = Moment {
            wall,
            mono_ns: second * 1_000_000_000,
        };
        Entry {
            at,
            row: Row { epoch: 1, seq },
            outcome,
            engine: None,
            error: None,
        }
    }

    #[test]
    fn a_line_reads_as_the_readme_says() {
        let mut ack = entry(7, 3, Mark::Ended(Outcome::Ack));
        ack.engine = Some("2026-01-02T03:04:05.678".into());
        let line = serde_json::to_string(&ack).unwrap();
        let expected = r#"{"wall":"1970-01-01T00:00:07Z","mono_ns":7000000000,"epoch":1,"seq":3,"outcome":"ack","engine":"2026-01-02T03:04:05.678"}"#;
        assert_eq!(line, expected);
        assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), ack);
        let started = serde_json::to_string(&entry(7, 3, Mark::Started)).unwrap();
        assert!(started.contains(r#""outcome":"started""#), "{started}");
        assert_eq!(serde_json::from_str::<Entry>(&started).unwrap().outcome, Mark::Started);
    }

    #[test]
    fn an_attempt_whose_client_was_killed_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = Writer::open(&path).unwrap();
        for line in [
            entry(1, 1, Mark::Started),
            entry(2, 1, Mark::Ended(Outcome::Ack)),
            entry(3, 2, Mark::Started),
        ] {
            writer.append(&line).unwrap();
        }
        let mut text = std::fs::read(&path).unwrap();
        text.extend(br#"{"wall":"1970-01-01T00:00:04Z","mono"#);
        std::fs::write(&path, text).unwrap();
        let outcomes = |log: &Log| log.attempts.iter().map(|attempt| attempt.outcome).collect::<Vec<_>>();
        assert_eq!(outcomes(&Log::read(&path).unwrap()), [Outcome::Ack, Outcome::Unknown]);
        // a second run may go on in the same file
        Writer::open(&path)
            .unwrap()
            .append(&entry(5, 3, Mark::Started))
            .unwrap();
        assert_eq!(Log::read(&path).unwrap().attempts.len(), 3);
    }

    #[test]
    fn a_log_that_proves_nothing_is_refused() {
        let start = entry(1, 1, Mark::Started);
        assert!(matches!(
            Log::from_entries([start.clone(), start]),
            Err(LogError::Twice(_))
        ));
        assert!(matches!(
            Log::from_entries([entry(1, 1, Mark::Ended(Outcome::Ack))]),
            Err(LogError::NoStart(_))
        ));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(matches!(Log::read(&path), Err(LogError::Line { line: 1, .. })));
    }
}
