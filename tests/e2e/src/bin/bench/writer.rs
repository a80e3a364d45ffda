//! The oracle's writer at one database, from the clients' network, and its judgement.
//!
//! Unlike the tests' clients it lets attempts overlap: one that hangs for its second must not hide that the database is back.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use e2e::{Error, Result, error::ensure, until, wait::Seen};
use jiff::Timestamp;
use oracle::{
    log::{Log, Moment, Outcome},
    outage::Outage,
};
use serde_json::Value;

use crate::{report::Judgement, subject::Subject};

/// So many attempts may hang at once; each has at most 3 s, and every 50 ms one begins.
pub const IN_FLIGHT: usize = 60;

/// Writes until it is stopped.
pub struct Writer<'a, 'b> {
    subject: &'b Subject<'a>,
    address: String,
    folder: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl<'a, 'b> Writer<'a, 'b> {
    /// Starts, and returns once rows have been acknowledged for some seconds without a failure.
    pub fn start(subject: &'b Subject<'a>, interval: &str) -> Result<Self> {
        let folder = subject.lab.bed().state_dir().join("bench").join(&subject.namespace);
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        // the table keeps the rows of earlier writers, so each has an epoch of its own
        let epoch = Timestamp::now().as_millisecond();
        let log = folder.join(format!("rows-{epoch}.log"));
        let mut writer = Self {
            subject,
            address: subject.address()?,
            folder,
            log,
            child: None,
        };
        let path = writer.password_file();
        let _ = fs::remove_file(&path);
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("write", &path))?;
        file.write_all(subject.password()?.as_bytes())
            .map_err(Error::file("write", &path))?;
        let mut command = writer.oracle("write")?;
        command.args([
            "--epoch",
            &epoch.to_string(),
            "--interval",
            interval,
            "--in-flight",
            &IN_FLIGHT.to_string(),
            "--log",
        ]);
        command.arg(&writer.log);
        let errors = writer.folder.join("writer.err");
        let errors = File::create(&errors).map_err(Error::file("write", &errors))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(errors));
        writer.child = Some(command.spawn().map_err(Error::file("start", "oracle write"))?);
        writer.await_calm(60, 2.0)?;
        Ok(writer)
    }

    fn oracle(&self, action: &str) -> Result<Command> {
        let lab = self.subject.lab;
        let mut command = lab.bed().command("client")?;
        command.arg(lab.programs().program("oracle")).arg(action);
        command
            .args(["--address", &self.address, "--password-file"])
            .arg(self.password_file());
        Ok(command)
    }

    fn password_file(&self) -> PathBuf {
        self.folder.join("password")
    }

    /// What it saw so far.
    pub fn log(&self) -> Result<Log> {
        Log::read(&self.log).map_err(Error::malformed("the clients' log"))
    }

    /// Waits until every attempt of the last seconds was acknowledged.
    pub fn await_calm(&self, limit: u64, seconds: f64) -> Result<()> {
        until(
            limit,
            &format!("clients of {} write without a failure for {seconds} s", self.address),
            || {
                let log = match self.log() {
                    Ok(log) => log,
                    Err(error) => return Ok(Seen::NotYet(error.to_string())),
                };
                Ok(if is_calm(&log, &Moment::now(), seconds) {
                    Seen::There(())
                } else {
                    Seen::NotYet(String::new())
                })
            },
        )
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
        until(limit, &format!("another engine answers at {}", self.address), || {
            let now = self.engine()?;
            Ok(if now.as_deref() == before {
                Seen::NotYet(format!("the engine of {before:?}"))
            } else {
                Seen::There(())
            })
        })
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
        self.stop()?;
        let mut command = self.oracle("verify")?;
        command.args(["--json", "--wait", "30s", "--log"]).arg(&self.log);
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(Error::file("run", "oracle verify"))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure(matches!(output.status.code(), Some(0 | 1)), || {
            format!("`oracle verify` at {}: {said}", self.address)
        })?;
        let verdict: Value =
            serde_json::from_slice(&output.stdout).map_err(Error::malformed("the oracle's verdict"))?;
        let listed = |field: &str| {
            verdict[field]
                .as_array()
                .map(Vec::len)
                .ok_or_else(|| Error::Broken(format!("the oracle's verdict has no list `{field}`")))
        };
        let wrong = ["duplicates", "out_of_order", "unexpected", "by_old_engine"];
        let wrong = wrong.iter().map(|field| listed(field)).sum::<Result<usize>>()?;
        let acknowledged = verdict["acknowledged"]
            .as_u64()
            .and_then(|rows| usize::try_from(rows).ok())
            .unwrap_or(0);
        ensure(acknowledged > 0, || {
            format!("nothing was ever written at {}", self.address)
        })?;
        Ok(Judgement {
            acknowledged,
            lost: listed("lost")?,
            wrong,
        })
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let status = child.wait().map_err(Error::file("wait for", "oracle write"))?;
        let errors = fs::read_to_string(self.folder.join("writer.err")).unwrap_or_default();
        ensure(status.success(), || {
            format!(
                "`oracle write` at {} ended with {status}: {}",
                self.address,
                errors.trim()
            )
        })
    }
}

impl Drop for Writer<'_, '_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.password_file());
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
