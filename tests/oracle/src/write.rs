//! Writes rows through the address and logs what became of each.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::{Failure, Target};
use crate::log::{Entry, LogError, Mark, Moment, Outcome, Row, Writer};

/// How rows are written.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The run's number; every run of a table needs its own.
    pub epoch: i64,
    /// The number of the first row.
    pub first: i64,
    /// Time between the starts of two attempts.
    pub interval: Duration,
    /// How many attempts may be under way at once. With 1 an attempt that hangs holds up the next one, as it does with a
    /// simple client.
    pub in_flight: usize,
    /// How long to write; for ever if not said.
    pub time: Option<Duration>,
    /// How long to wait for the database before the first row.
    pub patience: Duration,
}

/// Why writing ended early.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The database never answered, so there is nothing to observe.
    #[error(
        "the table could not be made at {address} within {patience:?} ({failure}); check the address and the password"
    )]
    SetUp {
        /// Where.
        address: String,
        /// For how long it was tried.
        patience: Duration,
        /// The last error.
        failure: Box<Failure>,
    },
}

/// How many attempts ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Acknowledged.
    pub acknowledged: u64,
    /// Failed for sure.
    pub failed: u64,
    /// Outcome unknown.
    pub unknown: u64,
}

/// Makes the table and writes until the plan's time is over or `stop` becomes true. Attempts under way are waited for.
pub async fn write(target: Target, plan: Plan, log: &Path, stop: watch::Receiver<bool>) -> Result<Summary, WriteError> {
    let ledger = Ledger {
        writer: Writer::open(log)?,
        summary: Summary::default(),
        broken: None,
    };
    let run = Arc::new(Run {
        target,
        epoch: plan.epoch,
        ledger: Mutex::new(ledger),
    });
    let mut stopped = stop.clone();
    tokio::select! {
        ready = run.set_up(plan.patience) => ready?,
        _ = stopped.wait_for(|stop| *stop) => return Ok(Summary::default()),
    }
    let ends = plan.time.map(|time| Instant::now() + time);
    let slots = Arc::new(Semaphore::new(plan.in_flight.max(1)));
    let mut ticks = tokio::time::interval(plan.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for seq in plan.first.. {
        let turn = async {
            let slot = Arc::clone(&slots)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            ticks.tick().await;
            slot
        };
        let over = async {
            match ends {
                Some(ends) => tokio::time::sleep_until(ends).await,
                None => std::future::pending().await,
            }
        };
        let slot = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            () = over => break,
            slot = turn => slot,
        };
        if run.is_broken() {
            break;
        }
        let run = Arc::clone(&run);
        tokio::spawn(async move {
            run.attempt(seq).await;
            drop(slot);
        });
    }
    let all = u32::try_from(plan.in_flight.max(1)).expect("nobody wants 2^32 attempts at once");
    let _all_ended = slots.acquire_many(all).await.expect("the semaphore is never closed");
    run.finish()
}

struct Run {
    target: Target,
    epoch: i64,
    ledger: Mutex<Ledger>,
}

struct Ledger {
    writer: Writer,
    summary: Summary,
    broken: Option<LogError>,
}

impl Run {
    async fn set_up(&self, patience: Duration) -> Result<(), WriteError> {
        let gives_up = Instant::now() + patience;
        loop {
            let Err(failure) = self.target.set_up().await else {
                return Ok(());
            };
            if Instant::now() >= gives_up {
                return Err(WriteError::SetUp {
                    address: self.target.address.clone(),
                    patience,
                    failure: Box::new(failure),
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn attempt(&self, seq: i64) {
        let row = Row { epoch: self.epoch, seq };
        self.log(&Entry {
            at: Moment::now(),
            row,
            outcome: Mark::Started,
            engine: None,
            error: None,
        });
        let mut engine = None;
        let result = async {
            let mut connection = self.target.connect(&self.target.database).await?;
            engine.clone_from(&connection.engine);
            connection.insert(&self.target.table, row).await
        };
        let result = result.await;
        let at = Moment::now();
        let (outcome, error) = match result {
            Ok(()) => (Outcome::Ack, None),
            Err(failure) if failure.leaves_doubt() => (Outcome::Unknown, Some(failure.to_string())),
            Err(failure) => (Outcome::Fail, Some(failure.to_string())),
        };
        self.log(&Entry {
            at,
            row,
            outcome: Mark::Ended(outcome),
            engine,
            error,
        });
    }

    fn log(&self, entry: &Entry) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let summary = &mut ledger.summary;
        match entry.outcome {
            Mark::Started => {}
            Mark::Ended(Outcome::Ack) => summary.acknowledged += 1,
            Mark::Ended(Outcome::Fail) => summary.failed += 1,
            Mark::Ended(Outcome::Unknown) => summary.unknown += 1,
        }
        if let Err(error) = ledger.writer.append(entry) {
            ledger.broken.get_or_insert(error);
        }
    }

    fn is_broken(&self) -> bool {
        self.ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .broken
            .is_some()
    }

    fn finish(&self) -> Result<Summary, WriteError> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        match ledger.broken.take() {
            Some(error) => Err(error.into()),
            None => Ok(ledger.summary),
        }
    }
}
