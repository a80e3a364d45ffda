//! Clients of one database of ours: the oracle's writer, and its judgement.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use oracle::{
    log::{Log, Outcome},
    outage::Outage,
    verify::Verdict,
};

use crate::{
    access::{Access, Writing},
    error::{Result, ensure},
    instance::Instance,
    wait::{Seen, until},
};

/// How often clients write.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between the starts of two attempts, in the oracle's words.
    pub interval: &'static str,
    /// How many may be under way at once. With more than one, an attempt that hangs does not hide that the database is back.
    pub in_flight: u16,
    /// Limit on each of connection, login and statement, in the oracle's words.
    pub timeout: &'static str,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: "50ms",
            in_flight: 1,
            timeout: "1s",
        }
    }
}

/// A writer that runs until it is stopped, and what it saw.
pub struct Clients<'a> {
    // before the access, whose password it may still read
    writing: Writing,
    access: Access<'a>,
}

impl<'a> Clients<'a> {
    /// Starts writing, 20 rows a second, a new connection for each, and returns once rows are acknowledged.
    pub fn start(instance: &Instance<'a>) -> Result<Self> {
        Self::start_at(instance, Pace::default())
    }

    /// The same at another pace.
    pub fn start_at(instance: &Instance<'a>, pace: Pace) -> Result<Self> {
        let folder: PathBuf = ["clients", &format!("{}-{}", instance.namespace(), instance.name())]
            .iter()
            .collect();
        let access = Access::new(instance.lab(), &folder, reach(instance)?, &instance.password()?)?;
        let in_flight = pace.in_flight.to_string();
        let more = ["--in-flight", &in_flight, "--timeout", pace.timeout];
        let clients = Self {
            writing: access.write(1, pace.interval, &more)?,
            access,
        };
        clients.await_rows_after(Timestamp::now(), 30)?;
        Ok(clients)
    }

    /// The address they write to, fixed at the start.
    pub fn address(&self) -> &str {
        &self.access.address
    }

    /// Reads back at the address that the instance has now; for one that was made anew.
    pub fn readdress(&mut self, instance: &Instance) -> Result<()> {
        self.access.address = reach(instance)?;
        Ok(())
    }

    /// Where they log what became of each row.
    pub fn log_file(&self) -> &Path {
        self.writing.log_file()
    }

    /// What they saw so far.
    pub fn log(&self) -> Result<Log> {
        self.writing.log()
    }

    /// How many rows were acknowledged so far.
    pub fn acknowledged(&self) -> Result<usize> {
        Ok(self.log()?.acknowledged().len())
    }

    /// Waits until rows are acknowledged that were sent after an instant.
    pub fn await_rows_after(&self, instant: Timestamp, seconds: u64) -> Result<()> {
        until(seconds, &format!("clients of {} can write", self.address()), || {
            let log = match self.log() {
                Ok(log) => log,
                Err(error) => return Ok(Seen::NotYet(format!("{error}; {}", self.writing.complaints()))),
            };
            let after = log
                .attempts
                .iter()
                .filter(|a| a.outcome == Outcome::Ack && a.started.wall > instant);
            if after.count() >= 3 {
                return Ok(Seen::There(()));
            }
            let last = log.attempts.iter().rev().find_map(|attempt| attempt.error.clone());
            Ok(Seen::NotYet(last.unwrap_or_default()))
        })
    }

    /// How many rows are in the table right now, by a query.
    pub fn count(&self) -> Result<usize> {
        Ok(self.judge()?.stored)
    }

    /// How long nobody could write because of what happened at an instant.
    pub fn outage(&self, at: Timestamp, before: Option<Timestamp>) -> Result<Outage> {
        let outage = oracle::outage::outage(&self.log()?, at, before);
        ensure(outage.recovered, || {
            format!("clients of {} could not write again: {outage:?}", self.address())
        })?;
        Ok(outage)
    }

    /// Runs a statement, with the same address and password.
    pub fn run(&self, statement: &str) -> Result<()> {
        self.access.run(statement)
    }

    /// Stops writing; attempts under way are waited for.
    pub fn stop(&mut self) -> Result<()> {
        self.writing.stop()
    }

    /// Stops writing and reads everything back: every acknowledged row is there, once and in order, and no old engine
    /// acknowledged anything after a new one.
    pub fn verify(&mut self) -> Result<Verdict> {
        self.stop()?;
        let verdict = self.judge()?;
        ensure(verdict.is_clean(), || {
            format!(
                "rows at {} are not what clients were promised: {verdict:?}",
                self.address()
            )
        })?;
        Ok(verdict)
    }

    /// Reads back, as it is. While clients write, rows that came after the log was read count as unexpected.
    pub fn judge(&self) -> Result<Verdict> {
        self.access.judge(&self.writing, "60s")
    }
}

fn reach(instance: &Instance) -> Result<String> {
    Ok(format!("{}:{}", instance.address()?, instance.port()?))
}
