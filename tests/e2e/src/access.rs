//! One database as clients reach it, and the oracle's program run against it in the clients' network.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use oracle::{log::Log, verify::Verdict};

use crate::{
    error::{Error, Result, ensure},
    lab::Lab,
};

/// An address with a password, and a folder for what clients write down. The password's file goes with it.
pub struct Access<'a> {
    lab: &'a Lab,
    folder: PathBuf,
    /// ADDRESS:PORT.
    pub address: String,
}

impl<'a> Access<'a> {
    /// Takes over the password. `folder` is below the testbed's state.
    pub fn new(lab: &'a Lab, folder: &Path, address: String, password: &str) -> Result<Self> {
        let folder = lab.bed().state_dir().join(folder);
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        let access = Self { lab, folder, address };
        // neither on a command line nor in a log, and readable by nobody else
        let path = access.password_file();
        let _ = fs::remove_file(&path);
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("write", &path))?;
        file.write_all(password.as_bytes())
            .map_err(Error::file("write", &path))?;
        Ok(access)
    }

    fn password_file(&self) -> PathBuf {
        self.folder.join("password")
    }

    /// A program of ours in the clients' network.
    fn command(&self, program: &str) -> Result<Command> {
        let mut command = self.lab.bed().command("client")?;
        command.arg(self.lab.programs().program(program)).stdin(Stdio::null());
        Ok(command)
    }

    fn oracle(&self, action: &str) -> Result<Command> {
        let mut command = self.command("oracle")?;
        command.args([action, "--address", &self.address, "--password-file"]);
        command.arg(self.password_file());
        Ok(command)
    }

    /// Starts to write rows of an epoch; runs that share a table need epochs of their own.
    pub fn write(&self, epoch: i64, interval: &str, more: &[&str]) -> Result<Writing> {
        let log = self.folder.join(format!("rows-{epoch}.log"));
        // what an earlier database of this name was promised is no promise of this one
        let _ = fs::remove_file(&log);
        let complaints = self.folder.join("writer.err");
        let errors = File::create(&complaints).map_err(Error::file("write", &complaints))?;
        let mut command = self.oracle("write")?;
        command.args(["--epoch", &epoch.to_string(), "--interval", interval]);
        command.args(more).arg("--log").arg(&log);
        let child = command.stdout(Stdio::null()).stderr(Stdio::from(errors)).spawn();
        Ok(Writing {
            child: Some(child.map_err(Error::file("start", "oracle write"))?),
            log,
            complaints,
        })
    }

    /// Reads back, and judges by what the clients wrote down.
    pub fn judge(&self, writing: &Writing, patience: &str) -> Result<Verdict> {
        let mut command = self.oracle("verify")?;
        command.args(["--json", "--wait", patience, "--log"]).arg(&writing.log);
        let output = command.output().map_err(Error::file("run", "oracle verify"))?;
        if !matches!(output.status.code(), Some(0 | 1)) {
            return Err(Error::Program {
                program: format!("oracle verify at {}", self.address),
                output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        let verdict: Verdict =
            serde_json::from_slice(&output.stdout).map_err(Error::malformed("the oracle's verdict"))?;
        ensure(verdict.acknowledged > 0, || {
            format!("nothing was ever written at {}", self.address)
        })?;
        Ok(verdict)
    }

    /// Runs a statement, with the same address and password.
    pub fn run(&self, statement: &str) -> Result<()> {
        let mut command = self.command("statement")?;
        command.arg(&self.address).arg(self.password_file()).arg(statement);
        let output = command.output().map_err(Error::file("run", "statement"))?;
        ensure(output.status.success(), || {
            let words = String::from_utf8_lossy(&output.stderr);
            format!("`{statement}` at {}: {}", self.address, words.trim())
        })
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.password_file());
    }
}

/// A writer that runs until it is stopped, and what it saw.
pub struct Writing {
    child: Option<Child>,
    log: PathBuf,
    complaints: PathBuf,
}

impl Writing {
    /// Where it writes down what became of each row.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// What it saw so far.
    pub fn log(&self) -> Result<Log> {
        Log::read(&self.log).map_err(Error::malformed("the clients' log"))
    }

    /// What it said on its way.
    pub fn complaints(&self) -> String {
        let text = fs::read_to_string(&self.complaints).unwrap_or_default();
        text.trim().to_owned()
    }

    /// Ends it; attempts under way are waited for.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let status = child.wait().map_err(Error::file("wait for", "oracle write"))?;
        ensure(status.success(), || {
            format!("`oracle write` ended with {status}: {}", self.complaints())
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
