//! The oracle's writer at one database, from the clients' network, and its judgement.
//!
//! Unlike the tests' clients it lets attempts overlap: one that hangs for its second must not hide that the database is back.

use std::path::Path;

use e2e::{
    Result,
    access::{Access, Writing},
    until,
    wait::Seen,
};
use jiff::Timestamp;
use oracle::{
    log::{Log, Moment, Outcome},
    outage::Outage,
};

use crate::{report::Judgement, subject::Subject};

/// So many attempts may hang at once; each has at most 3 s, and every 50 ms one begins.
pub const IN_FLIGHT: usize = 60;

/// Writes until it is stopped.
pub struct Writer<'a> {
    // before the access, whose password it may still read
    writing: Writing,
    access: Access<'a>,
}

impl<'a> Writer<'a> {
    /// Starts, and returns once rows have been acknowledged for some seconds without a failure.
    pub fn start(subject: &Subject<'a>, interval: &str) -> Result<Self> {
        let folder = Path::new("bench").join(&subject.namespace);
        let access = Access::new(subject.lab, &folder, subject.address()?, &subject.password()?)?;
        // the table keeps the rows of earlier writers, so each has an epoch of its own
        let epoch = Timestamp::now().as_millisecond();
        let writer = Self {
            writing: access.write(epoch, interval, &["--in-flight", &IN_FLIGHT.to_string()])?,
            access,
        };
        writer.await_calm(60, 2.0)?;
        Ok(writer)
    }

    /// What it saw so far.
    pub fn log(&self) -> Result<Log> {
        self.writing.log()
    }

    /// Waits until every attempt of the last seconds was acknowledged.
    pub fn await_calm(&self, limit: u64, seconds: f64) -> Result<()> {
        let what = format!(
            "clients of {} write without a failure for {seconds} s",
            self.access.address
        );
        until(limit, &what, || {
            let log = match self.log() {
                Ok(log) => log,
                Err(error) => return Ok(Seen::NotYet(error.to_string())),
            };
            Ok(if is_calm(&log, &Moment::now(), seconds) {
                Seen::There(())
            } else {
                Seen::NotYet(String::new())
            })
        })
    }

    /// When the engine that acknowledged last had started, by its own word.
    pub fn engine(&self) -> Result<Option<String>> {
        Ok(self
            .log()?
            .acknowledged()
            .last()
            .and_then(|(_, attempt)| attempt.engine.clone()))
    }

    /// Waits until an engine answers that was not there before.
    pub fn await_other_engine(&self, before: Option<&str>, limit: u64) -> Result<()> {
        until(
            limit,
            &format!("another engine answers at {}", self.access.address),
            || {
                let now = self.engine()?;
                Ok(if now.as_deref() == before {
                    Seen::NotYet(format!("the engine of {before:?}"))
                } else {
                    Seen::There(())
                })
            },
        )
    }

    /// Whether rows come without a failure now.
    pub fn is_calm(&self) -> Result<bool> {
        Ok(is_calm(&self.log()?, &Moment::now(), 4.0))
    }

    /// How long nobody could write because of what happened at an instant.
    pub fn outage(&self, at: Timestamp) -> Result<Outage> {
        Ok(oracle::outage::outage(&self.log()?, at, None))
    }

    /// Stops, and reads everything back.
    pub fn finish(mut self) -> Result<Judgement> {
        self.writing.stop()?;
        let verdict = self.access.judge(&self.writing, "30s")?;
        let wrong = [
            &verdict.duplicates,
            &verdict.out_of_order,
            &verdict.unexpected,
            &verdict.by_old_engine,
        ];
        Ok(Judgement {
            acknowledged: verdict.acknowledged,
            lost: verdict.lost.len(),
            wrong: wrong.iter().map(|rows| rows.len()).sum(),
        })
    }
}

/// Whether every attempt that ended in the last seconds was acknowledged, and enough were.
fn is_calm(log: &Log, now: &Moment, seconds: f64) -> bool {
    let recent = |moment: &Moment| now.seconds_since(moment) <= seconds;
    let ended = || {
        log.attempts
            .iter()
            .filter(|attempt| attempt.ended.as_ref().is_some_and(recent))
    };
    let old_enough = log
        .attempts
        .first()
        .is_some_and(|first| now.seconds_since(&first.started) >= seconds);
    old_enough && ended().count() >= 5 && ended().all(|attempt| attempt.outcome == Outcome::Ack)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oracle::log::{Attempt, Row};

    fn moment(second: u64) -> Moment {
        let wall = Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        Moment {
            wall,
            mono_ns: second * 1_000_000_000,
        }
    }

    fn log(outcomes: &[(u64, Outcome)]) -> Log {
        let attempts = outcomes.iter().zip(1..).map(|((second, outcome), seq)| Attempt {
            row: Row { epoch: 1, seq },
            started: moment(*second),
            ended: Some(moment(*second)),
            outcome: *outcome,
            engine: None,
            error: None,
        });
        Log {
            attempts: attempts.collect(),
        }
    }

    #[test]
    fn it_is_calm_when_the_last_seconds_saw_only_acknowledgements() {
        let acks = |from: u64| {
            (from..from + 10)
                .map(|second| (second, Outcome::Ack))
                .collect::<Vec<_>>()
        };
        assert!(is_calm(&log(&acks(10)), &moment(19), 6.0));
        let failed: Vec<_> = acks(10).into_iter().chain([(15, Outcome::Fail)]).collect();
        assert!(!is_calm(&log(&failed), &moment(19), 6.0));
        assert!(!is_calm(&log(&acks(10)), &moment(40), 6.0), "silence is not calm");
        assert!(!is_calm(&log(&[]), &moment(1), 6.0));
    }
}
