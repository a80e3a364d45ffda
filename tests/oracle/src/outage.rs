//! How long nobody could write. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::log::{Log, Moment, Outcome, seconds};

/// What a fault cost the clients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outage {
    /// The longest time between two acknowledgements that follow each other, of which the later one came after the
    /// fault. A fault seldom stops writes at its very instant, so the gap around the instant would say too little.
    pub seconds: f64,
    /// The last acknowledgement before that gap.
    pub from: Option<Moment>,
    /// The first after it; `None` if the log ends without one.
    pub to: Option<Moment>,
    /// False if attempts failed until the end of the log.
    pub recovered: bool,
    /// The time between the last acknowledgement before the instant of the fault and the first after it.
    pub around_instant_seconds: Option<f64>,
    /// Attempts that failed, or whose outcome is unknown, after the fault.
    pub not_acknowledged: usize,
    /// What their errors said, and how often.
    pub errors: BTreeMap<String, usize>,
}

/// The outage of a fault at `at`; acknowledgements after `until` belong to another fault.
pub fn outage(log: &Log, at: Timestamp, until: Option<Timestamp>) -> Outage {
    let in_window = |moment: &Moment| until.is_none_or(|until| moment.wall <= until);
    let acknowledged: Vec<Moment> = log
        .acknowledged()
        .into_iter()
        .map(|(moment, _)| moment)
        .filter(in_window)
        .collect();
    let mut outage = Outage {
        seconds: 0.0,
        from: None,
        to: None,
        recovered: false,
        around_instant_seconds: None,
        not_acknowledged: 0,
        errors: BTreeMap::new(),
    };
    let mut before = None;
    for moment in &acknowledged {
        if moment.wall > at {
            // without any acknowledgement before, the log's first attempt stands in for it
            let earlier = before.or_else(|| log.attempts.first().map(|attempt| attempt.started));
            let gap = earlier.map_or(0.0, |earlier| moment.seconds_since(&earlier));
            outage.around_instant_seconds.get_or_insert(gap);
            if outage.to.is_none() || gap > outage.seconds {
                (outage.seconds, outage.from, outage.to) = (gap, before, Some(*moment));
            }
        }
        before = Some(*moment);
    }
    outage.recovered = outage.to.is_some();
    let rest = log.attempts.iter().filter(|attempt| attempt.outcome != Outcome::Ack);
    let mut last_failure: Option<Moment> = None;
    for attempt in rest.filter(|attempt| attempt.started.wall > at && in_window(&attempt.started)) {
        outage.not_acknowledged += 1;
        let error = attempt
            .error
            .clone()
            .unwrap_or_else(|| "the client was killed".to_owned());
        *outage.errors.entry(error).or_default() += 1;
        let ended = attempt.ended.unwrap_or(attempt.started);
        if last_failure.is_none_or(|last| last.mono_ns < ended.mono_ns) {
            last_failure = Some(ended);
        }
    }
    // failures after the last acknowledgement are an outage that had not ended when the log did
    if let Some(failure) = last_failure
        && before.is_none_or(|last| last.mono_ns < failure.mono_ns)
    {
        let silent_since = before.or_else(|| log.attempts.first().map(|attempt| attempt.started));
        let silence = silent_since.map_or(0, |since| failure.mono_ns.saturating_sub(since.mono_ns));
        if seconds(silence) > outage.seconds {
            (outage.seconds, outage.from, outage.to) = (seconds(silence), before, None);
            outage.recovered = false;
        }
    }
    outage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Attempt, Row};

    fn wall(second: u64) -> Timestamp {
        Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
    }

    /// Attempts of one second each, that start at the given seconds.
    fn log(attempts: &[(u64, Outcome)]) -> Log {
        let moment = |second| Moment {
            wall: wall(second),
            mono_ns: second * 1_000_000_000,
        };
        let attempts = attempts.iter().zip(1..).map(|((second, outcome), seq)| Attempt {
            row: Row { epoch: 1, seq },
            started: moment(*second),
            ended: Some(moment(second + 1)),
            outcome: *outcome,
            engine: None,
            error: (*outcome != Outcome::Ack).then(|| "connect: timed out".to_owned()),
        });
        Log {
            attempts: attempts.collect(),
        }
    }

    #[test]
    fn the_outage_lasts_from_the_last_acknowledgement_to_the_next() {
        let log = log(&[
            (10, Outcome::Ack),
            (20, Outcome::Unknown),
            (30, Outcome::Fail),
            (40, Outcome::Ack),
        ]);
        let outage = outage(&log, wall(15), None);
        assert!(outage.recovered);
        assert!((outage.seconds - 30.0).abs() < 1e-9);
        assert_eq!(
            (outage.from.unwrap().wall, outage.to.unwrap().wall),
            (wall(11), wall(41))
        );
        assert_eq!(outage.not_acknowledged, 2);
        assert_eq!(outage.errors["connect: timed out"], 2);
    }

    #[test]
    fn writes_that_go_on_for_a_moment_after_the_fault_do_not_hide_the_outage() {
        let log = log(&[
            (10, Outcome::Ack),
            (12, Outcome::Ack),
            (14, Outcome::Fail),
            (30, Outcome::Ack),
        ]);
        let outage = outage(&log, wall(12), None);
        assert!((outage.seconds - 18.0).abs() < 1e-9);
        assert!((outage.around_instant_seconds.unwrap() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn gaps_before_the_fault_and_after_the_window_do_not_count() {
        let seconds = [10, 60, 61, 70, 170];
        let log = log(&seconds.map(|second| (second, Outcome::Ack)));
        let outage = outage(&log, wall(62), Some(wall(100)));
        assert!((outage.seconds - 9.0).abs() < 1e-9);
    }

    #[test]
    fn a_database_that_never_came_back_is_not_recovered() {
        let log = log(&[(10, Outcome::Ack), (20, Outcome::Fail), (50, Outcome::Fail)]);
        let outage = outage(&log, wall(15), None);
        assert!(!outage.recovered);
        assert!((outage.seconds - 40.0).abs() < 1e-9);
        assert_eq!(outage.to, None);
    }

    #[test]
    fn one_last_failure_after_the_recovery_does_not_undo_it() {
        let log = log(&[
            (10, Outcome::Ack),
            (20, Outcome::Fail),
            (40, Outcome::Ack),
            (42, Outcome::Unknown),
        ]);
        let outage = outage(&log, wall(15), None);
        assert!(outage.recovered);
        assert!((outage.seconds - 30.0).abs() < 1e-9);
    }
}
