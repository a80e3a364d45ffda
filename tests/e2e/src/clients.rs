//! Clients of one database: the oracle's writer in the clients' network, and its judgement.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Child, Stdio},
};

use jiff::Timestamp;
use oracle::{log::Log, outage::Outage};
use serde::Deserialize;

use crate::{
    error::{Error, Result, ensure},
    instance::Instance,
    lab::Lab,
    wait::{Seen, until},
};

/// A writer that runs until it is stopped, and what it saw.
pub struct Clients<'a> {
    lab: &'a Lab,
    address: String,
    epoch: i64,
    pace: Pace,
    folder: PathBuf,
    writer: Option<Child>,
}

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

/// The oracle's judgement, as it prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct Verdict {
    /// Rows that were acknowledged.
    pub acknowledged: usize,
    /// Rows that are stored.
    pub stored: usize,
    /// Rows that were acknowledged and are not stored.
    pub lost: Vec<serde_json::Value>,
    /// Everything else, for a message.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

impl Verdict {
    /// How many rows are in one of the lists: `duplicates`, `out_of_order`, ...
    pub fn count(&self, list: &str) -> Result<usize> {
        let found = self.rest.get(list).and_then(serde_json::Value::as_array).map(Vec::len);
        found.ok_or_else(|| Error::Broken(format!("the oracle's verdict has no list `{list}`")))
    }
}

impl<'a> Clients<'a> {
    /// Starts writing, 20 rows a second, a new connection for each, and returns once rows are acknowledged.
    pub fn start(instance: &Instance<'a>) -> Result<Self> {
        Self::start_at(instance, Pace::default())
    }

    /// The same at another pace.
    pub fn start_at(instance: &Instance<'a>, pace: Pace) -> Result<Self> {
        let clients = Self::of(instance, 1, pace)?;
        clients.write()
    }

    /// Takes over the password and the address; writes nothing yet. Runs that share a table need epochs of their own.
    fn of(instance: &Instance<'a>, epoch: i64, pace: Pace) -> Result<Self> {
        let lab = instance.lab();
        let folder =
            lab.bed()
                .state_dir()
                .join("clients")
                .join(format!("{}-{}", instance.namespace(), instance.name()));
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        let address = format!("{}:{}", instance.address()?, instance.port()?);
        let clients = Self {
            lab,
            address,
            epoch,
            pace,
            folder,
            writer: None,
        };
        // neither on a command line nor in a log, and readable by nobody else
        let path = clients.password_file();
        let _ = fs::remove_file(&path);
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("write", &path))?;
        file.write_all(instance.password()?.as_bytes())
            .map_err(Error::file("write", &path))?;
        Ok(clients)
    }

    fn write(mut self) -> Result<Self> {
        // what an earlier instance of this name was promised is no promise of this one
        let _ = fs::remove_file(self.log_file());
        let errors = self.folder.join("writer.err");
        let errors_file = File::create(&errors).map_err(Error::file("write", &errors))?;
        let mut command = self.lab.bed().command("client")?;
        command
            .arg(self.lab.programs().program("oracle"))
            .arg("write")
            .args(self.access());
        command
            .args(["--epoch", &self.epoch.to_string(), "--interval", self.pace.interval])
            .args([
                "--in-flight",
                &self.pace.in_flight.to_string(),
                "--timeout",
                self.pace.timeout,
                "--log",
            ])
            .arg(self.log_file());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(errors_file));
        self.writer = Some(command.spawn().map_err(Error::file("start", "oracle write"))?);
        self.await_rows_after(Timestamp::now(), 30)?;
        Ok(self)
    }

    fn access(&self) -> Vec<String> {
        vec![
            "--address".to_owned(),
            self.address.clone(),
            "--password-file".to_owned(),
            self.password_file().display().to_string(),
        ]
    }

    fn password_file(&self) -> PathBuf {
        self.folder.join("password")
    }

    /// Where the oracle logs what became of each row.
    pub fn log_file(&self) -> PathBuf {
        self.folder.join(format!("rows-{}.log", self.epoch))
    }

    /// The address they write to, fixed at the start.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Reads back at the address that the instance has now; for one that was made anew.
    pub fn readdress(&mut self, instance: &Instance) -> Result<()> {
        self.address = format!("{}:{}", instance.address()?, instance.port()?);
        Ok(())
    }

    /// What they saw so far.
    pub fn log(&self) -> Result<Log> {
        Log::read(&self.log_file()).map_err(Error::malformed("the clients' log"))
    }

    /// How many rows were acknowledged so far.
    pub fn acknowledged(&self) -> Result<usize> {
        Ok(self.log()?.acknowledged().len())
    }

    /// Waits until rows are acknowledged that were sent after an instant.
    pub fn await_rows_after(&self, instant: Timestamp, seconds: u64) -> Result<()> {
        until(seconds, &format!("clients of {} can write", self.address), || {
            let log = match self.log() {
                Ok(log) => log,
                Err(error) => return Ok(Seen::NotYet(format!("{error}; {}", self.complaints()))),
            };
            let after = log
                .attempts
                .iter()
                .filter(|a| a.outcome == oracle::log::Outcome::Ack && a.started.wall > instant);
            if after.count() >= 3 {
                return Ok(Seen::There(()));
            }
            let last = log.attempts.iter().rev().find_map(|attempt| attempt.error.clone());
            Ok(Seen::NotYet(last.unwrap_or_default()))
        })
    }

    fn complaints(&self) -> String {
        fs::read_to_string(self.folder.join("writer.err"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// How many rows are in the table right now, by a query.
    pub fn count(&self) -> Result<usize> {
        Ok(self.judge()?.0.stored)
    }

    /// How long nobody could write because of what happened at an instant.
    pub fn outage(&self, at: Timestamp, before: Option<Timestamp>) -> Result<Outage> {
        let outage = oracle::outage::outage(&self.log()?, at, before);
        ensure(outage.recovered, || {
            format!("clients of {} could not write again: {outage:?}", self.address)
        })?;
        Ok(outage)
    }

    /// Runs a statement, with the same address and password.
    pub fn run(&self, statement: &str) -> Result<()> {
        let mut command = self.lab.bed().command("client")?;
        command
            .arg(self.lab.programs().program("statement"))
            .arg(&self.address)
            .arg(self.password_file())
            .arg(statement);
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(Error::file("run", "statement"))?;
        let words = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure(output.status.success(), || {
            format!("`{statement}` at {}: {}", self.address, words())
        })
    }

    /// Stops writing; attempts under way are waited for.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut writer) = self.writer.take() else {
            return Ok(());
        };
        let pid = writer.id().to_string();
        let _ = std::process::Command::new("kill").args(["-TERM", &pid]).status();
        let status = writer.wait().map_err(Error::file("wait for", "oracle write"))?;
        ensure(status.success(), || {
            format!("`oracle write` ended with {status}: {}", self.complaints())
        })
    }

    /// Stops writing and reads everything back: every acknowledged row is there, once and in order, and no old engine
    /// acknowledged anything after a new one.
    pub fn verify(&mut self) -> Result<Verdict> {
        self.stop()?;
        let (verdict, clean) = self.judge()?;
        ensure(clean, || {
            format!(
                "rows at {} are not what clients were promised: {verdict:?}",
                self.address
            )
        })?;
        ensure(verdict.acknowledged > 0, || {
            format!("nothing was ever written at {}", self.address)
        })?;
        Ok(verdict)
    }

    /// Reads back, as it is. While clients write, rows that came after the log was read count as unexpected.
    pub fn judge(&self) -> Result<(Verdict, bool)> {
        let mut command = self.lab.bed().command("client")?;
        command
            .arg(self.lab.programs().program("oracle"))
            .arg("verify")
            .args(self.access())
            .args(["--json", "--wait", "60s", "--timeout", self.pace.timeout, "--log"]);
        let output = command
            .arg(self.log_file())
            .stdin(Stdio::null())
            .output()
            .map_err(Error::file("run", "oracle verify"))?;
        if !matches!(output.status.code(), Some(0 | 1)) {
            let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Program {
                program: "oracle verify".to_owned(),
                output,
            });
        }
        let verdict = serde_json::from_slice(&output.stdout).map_err(Error::malformed("the oracle's verdict"))?;
        Ok((verdict, output.status.success()))
    }
}

impl Drop for Clients<'_> {
    fn drop(&mut self) {
        if let Some(writer) = &mut self.writer {
            let _ = writer.kill();
            let _ = writer.wait();
        }
        let _ = fs::remove_file(self.password_file());
    }
}
