//! Processes that outlive the command that started them: the control plane, the storage host, and each node's shell.
//!
//! They are started through our own program (`testbed internal daemon`), which enters the testbed's control group and
//! leaves its number in a file before it becomes the program proper. So even a process whose starter was
//! killed half way is found again.

use std::{
    ffi::OsString,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    cgroup::Cgroups,
    error::{Error, Result},
    layout::Layout,
    process::{Process, command, run, wait_until},
};

/// A daemon to be.
pub struct Daemon<'a> {
    /// Its name in pid and log files.
    pub name: &'a str,
    /// The network it lives in.
    pub place: &'a str,
    /// Program and arguments.
    pub words: Vec<OsString>,
}

impl Daemon<'_> {
    /// Starts it and returns once it has become the program.
    pub fn start(self, layout: &Layout) -> Result<Process> {
        let pidfile = layout.pidfile(self.name);
        if let Some(running) = Process::recorded(&pidfile) {
            return Ok(running);
        }
        let _ = std::fs::remove_file(&pidfile);
        let log = layout.log(self.name);
        let folder = log.parent().expect("a log lies in a folder");
        std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::file("write", &log))?;
        let errors = output.try_clone().map_err(Error::file("write", &log))?;
        let network = format!("--net={}", layout.namespace_file(self.place).display());
        let mut starter = command(["setsid", "--fork"]);
        starter
            .arg(layout.own_program())
            .args(["internal", "daemon", "--group"])
            .arg(layout.cgroup().join("host"))
            .arg("--pidfile")
            .arg(&pidfile)
            .args(["--", "nsenter", &network])
            .args(&self.words)
            .stdin(Stdio::null())
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(errors))
            .current_dir("/");
        run_detached(&mut starter)?;
        let mut process = None;
        let look_at = log.display().to_string();
        wait_until(
            &format!("the start of {}", self.name),
            Duration::from_secs(20),
            &look_at,
            || {
                process = Process::recorded(&pidfile);
                Ok(process.is_some())
            },
        )?;
        Ok(process.expect("the wait ends only with a process"))
    }
}

fn run_detached(starter: &mut Command) -> Result<()> {
    let program = starter.get_program().to_string_lossy().into_owned();
    let status = starter.status().map_err(|source| Error::Start {
        command: program.clone(),
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: program,
        status: status.to_string(),
        output: "see the process's log".to_owned(),
    })
}

/// The part that runs in the new process. Returns only if the program could not be started.
pub fn become_program(group: &Path, pidfile: &Path, words: &[OsString]) -> Error {
    let prepared = Cgroups::detect()
        .and_then(|cgroups| cgroups.join(group))
        .and_then(|()| {
            let own = i32::try_from(std::process::id()).expect("process numbers fit 22 bits");
            Process::at(own).expect("we exist").record(pidfile)
        });
    if let Err(error) = prepared {
        return error;
    }
    let mut program = command(words);
    let source = program.exec();
    Error::Start {
        command: program.get_program().to_string_lossy().into_owned(),
        source,
    }
}

/// Runs a program inside the network of a place and returns what it printed.
pub fn run_in(layout: &Layout, place: &str, words: &[&str]) -> Result<String> {
    run(in_network(layout, place).args(words).stdin(Stdio::null()))
}

/// The beginning of a command inside the network of a place.
pub fn in_network(layout: &Layout, place: &str) -> Command {
    let network = format!("--net={}", layout.namespace_file(place).display());
    let mut entered = command(["nsenter", &network]);
    entered.env("KUBECONFIG", layout.kubeconfig());
    entered.env("PATH", search_path(layout));
    entered
}

/// The search path with the cluster's programs first.
pub fn search_path(layout: &Layout) -> OsString {
    let mut paths: Vec<PathBuf> = vec![layout.cache().join("tools/bin")];
    paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    for needed in ["/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
        if !paths.iter().any(|path| path == Path::new(needed)) {
            paths.push(PathBuf::from(needed));
        }
    }
    std::env::join_paths(paths).expect("paths that were split can be joined")
}
