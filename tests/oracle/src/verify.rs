//! The judgement: is every acknowledged row there, once, in order, and acknowledged by one engine at a time?
//!
//! Pure: takes a log and the rows in the order in which the database stored them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::log::{Attempt, Log, Outcome, Row};

/// What was found. Empty lists are good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Attempts that were acknowledged.
    pub acknowledged: usize,
    /// Attempts that failed for sure.
    pub failed: usize,
    /// Attempts whose outcome the client never learned.
    pub unknown: usize,
    /// Rows of the log's epochs that are stored.
    pub stored: usize,
    /// Of these, rows whose attempt was unknown; allowed.
    pub stored_unknown: usize,
    /// Rows of other epochs; not judged.
    pub other_epochs: usize,
    /// Acknowledged and not there.
    pub lost: Vec<Row>,
    /// There more than once.
    pub duplicates: Vec<Row>,
    /// Stored before a row that was acknowledged before this one's attempt started.
    pub out_of_order: Vec<Row>,
    /// There although the attempt failed, or nobody attempted it.
    pub unexpected: Vec<Row>,
    /// Acknowledged by an older engine process after a newer one had acknowledged another row.
    pub by_old_engine: Vec<Row>,
}

impl Verdict {
    /// True when nothing is wrong.
    pub fn is_clean(&self) -> bool {
        let Self {
            lost,
            duplicates,
            out_of_order,
            unexpected,
            by_old_engine,
            ..
        } = self;
        [lost, duplicates, out_of_order, unexpected, by_old_engine]
            .iter()
            .all(|rows| rows.is_empty())
    }
}

/// Judges `stored`, the rows of the table in the order in which they were stored.
pub fn verify(log: &Log, stored: &[Row]) -> Verdict {
    let attempts: BTreeMap<Row, &Attempt> = log.attempts.iter().map(|attempt| (attempt.row, attempt)).collect();
    let epochs: BTreeSet<i64> = attempts.keys().map(|row| row.epoch).collect();
    let count = |outcome| log.attempts.iter().filter(|attempt| attempt.outcome == outcome).count();
    let mut verdict = Verdict {
        acknowledged: count(Outcome::Ack),
        failed: count(Outcome::Fail),
        unknown: count(Outcome::Unknown),
        ..Verdict::default()
    };
    let mut seen = BTreeSet::new();
    let mut latest_start = 0;
    for row in stored {
        if !epochs.contains(&row.epoch) {
            verdict.other_epochs += 1;
            continue;
        }
        verdict.stored += 1;
        if !seen.insert(*row) {
            verdict.duplicates.push(*row);
            continue;
        }
        match attempts
            .get(row)
            .map(|attempt| (attempt.outcome, attempt.started, attempt.ended))
        {
            Some((Outcome::Ack, started, Some(ended))) => {
                if ended.mono_ns < latest_start {
                    verdict.out_of_order.push(*row);
                }
                latest_start = latest_start.max(started.mono_ns);
            }
            Some((Outcome::Ack | Outcome::Unknown, ..)) => verdict.stored_unknown += 1,
            Some((Outcome::Fail, ..)) | None => verdict.unexpected.push(*row),
        }
    }
    let acknowledged = log.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ack);
    verdict.lost = acknowledged
        .map(|attempt| attempt.row)
        .filter(|row| !seen.contains(row))
        .collect();
    verdict.by_old_engine = by_old_engine(log);
    verdict
}

/// Attempts that started after a newer engine had acknowledged something, and were acknowledged by an older one.
/// Engines are ordered by their first acknowledgement, because the clocks of two nodes need not agree.
fn by_old_engine(log: &Log) -> Vec<Row> {
    let acknowledged = log.acknowledged();
    let known = acknowledged
        .iter()
        .filter_map(|(at, attempt)| Some((at.mono_ns, attempt.engine.as_deref()?, *attempt)));
    let known: Vec<_> = known.collect();
    let mut first: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, engine, _) in &known {
        first.entry(engine).or_insert(*at);
    }
    let superseded = |engine: &str| first.values().filter(|at| **at > first[engine]).min().copied();
    let late = known
        .iter()
        .filter(|(_, engine, attempt)| superseded(engine).is_some_and(|newer| attempt.started.mono_ns > newer));
    late.map(|(_, _, attempt)| attempt.row).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::log::Moment;

    fn moment(second: u64) -> Moment {
        let wall = Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        Moment {
            wall,
            mono_ns: second * 1_000_000_000,
        }
    }

    fn row(seq: i64) -> Row {
        Row { epoch: 1, seq }
    }

    /// An attempt that took from one second to another.
    fn attempt(seq: i64, from: u64, to: u64, outcome: Outcome, engine: &str) -> Attempt {
        let engine = Some(engine.to_owned());
        Attempt {
            row: row(seq),
            started: moment(from),
            ended: Some(moment(to)),
            outcome,
            engine,
            error: None,
        }
    }

    /// Five attempts, one after the other; the third is unknown, the fourth failed.
    fn log() -> Log {
        let attempts = vec![
            attempt(1, 10, 11, Outcome::Ack, "a"),
            attempt(2, 12, 13, Outcome::Ack, "a"),
            attempt(3, 14, 15, Outcome::Unknown, "a"),
            attempt(4, 16, 17, Outcome::Fail, "a"),
            attempt(5, 18, 19, Outcome::Ack, "b"),
        ];
        Log { attempts }
    }

    #[test]
    fn a_database_that_kept_its_word_is_clean_with_or_without_the_unknown_row() {
        for (stored, unknown) in [
            (vec![row(1), row(2), row(5)], 0),
            (vec![row(1), row(2), row(3), row(5)], 1),
        ] {
            let verdict = verify(&log(), &stored);
            assert!(verdict.is_clean(), "{verdict:?}");
            assert_eq!((verdict.acknowledged, verdict.failed, verdict.unknown), (3, 1, 1));
            assert_eq!((verdict.stored, verdict.stored_unknown), (stored.len(), unknown));
        }
    }

    #[test]
    fn a_lost_row_is_reported() {
        let verdict = verify(&log(), &[row(1), row(5)]);
        assert_eq!(verdict.lost, [row(2)]);
        assert!(!verdict.is_clean());
        assert_eq!(
            verify(&log(), &[]).lost,
            [row(1), row(2), row(5)],
            "an empty table has lost everything"
        );
    }

    #[test]
    fn a_row_that_was_stored_twice_is_reported() {
        let verdict = verify(&log(), &[row(1), row(2), row(2), row(5)]);
        assert_eq!(verdict.duplicates, [row(2)]);
        assert!(!verdict.is_clean());
    }

    #[test]
    fn a_row_out_of_order_is_reported() {
        let verdict = verify(&log(), &[row(2), row(1), row(5)]);
        assert_eq!(verdict.out_of_order, [row(1)]);
        assert!(!verdict.is_clean());
    }

    #[test]
    fn rows_of_attempts_that_overlapped_may_stand_in_either_order() {
        let attempts = vec![
            attempt(1, 10, 13, Outcome::Ack, "a"),
            attempt(2, 11, 12, Outcome::Ack, "a"),
        ];
        let log = Log { attempts };
        assert!(verify(&log, &[row(1), row(2)]).is_clean());
        assert!(verify(&log, &[row(2), row(1)]).is_clean());
    }

    #[test]
    fn a_row_that_nobody_was_promised_is_reported() {
        assert_eq!(verify(&log(), &[row(1), row(2), row(4), row(5)]).unexpected, [row(4)]);
        assert_eq!(verify(&log(), &[row(1), row(2), row(5), row(9)]).unexpected, [row(9)]);
    }

    #[test]
    fn rows_of_other_runs_are_counted_and_not_judged() {
        let verdict = verify(&log(), &[Row { epoch: 7, seq: 1 }, row(1), row(2), row(5)]);
        assert!(verdict.is_clean());
        assert_eq!(verdict.other_epochs, 1);
    }

    #[test]
    fn an_acknowledgement_of_the_old_engine_after_one_of_the_new_is_reported() {
        let mut log = log();
        log.attempts.push(attempt(6, 20, 21, Outcome::Ack, "a"));
        let verdict = verify(&log, &[row(1), row(2), row(5), row(6)]);
        assert_eq!(verdict.by_old_engine, [row(6)]);
        assert!(!verdict.is_clean());
    }

    #[test]
    fn an_attempt_under_way_while_the_engines_changed_is_not_held_against_the_old_one() {
        let mut log = log();
        log.attempts.push(attempt(6, 17, 20, Outcome::Ack, "a"));
        assert!(verify(&log, &[row(1), row(2), row(5), row(6)]).is_clean());
    }
}
