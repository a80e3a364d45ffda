//! Starting programs, and finding, awaiting and ending processes that are surely ours.
//!
//! A process is remembered as its id *and* start time, so that a number the kernel has given to somebody else meanwhile
//! is never signalled.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;
pub use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number in the namespace of the machine.
    pub pid: i32,
    /// When it began, in clock ticks since boot.
    pub start_time: u64,
}

impl Process {
    /// The process that has this number now.
    pub fn at(pid: i32) -> Option<Self> {
        let (_, start_time) = stat(pid)?;
        Some(Self { pid, start_time })
    }

    /// The process a file was left about, if it still runs.
    pub fn recorded(pidfile: &Path) -> Option<Self> {
        let process: Self = serde_json::from_slice(&fs::read(pidfile).ok()?).ok()?;
        process.is_alive().then_some(process)
    }

    /// Leaves a file about this process.
    pub fn record(self, pidfile: &Path) -> Result<()> {
        let text = serde_json::to_string(&self).expect("two numbers are always valid JSON");
        write_whole(pidfile, text.as_bytes())
    }

    /// Whether it still runs. One that only waits for its parent to take note does not.
    pub fn is_alive(self) -> bool {
        match stat(self.pid) {
            Some((state, start_time)) if start_time == self.start_time => {
                // the first of several threads can have ended while others go on
                !is_dead(state) || thread_states(self.pid).into_iter().any(|state| !is_dead(state))
            }
            _ => false,
        }
    }

    /// Sends a signal, unless the process has gone.
    pub fn signal(self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            // it may end between the check and the call, which is what most callers want anyway
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Ends it at once and waits until it has gone.
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::KILL);
        wait_until(
            &format!("the end of process {}", self.pid),
            Duration::from_secs(30),
            "ps",
            || Ok(!self.is_alive()),
        )
    }
}

fn is_dead(state: char) -> bool {
    matches!(state, 'Z' | 'X')
}

/// State letter and start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the program's name stands in parentheses and may itself hold spaces and parentheses
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

/// The states of all threads of a process.
pub fn thread_states(pid: i32) -> Vec<char> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
        .filter_map(|text| text.rsplit_once(") ")?.1.chars().next())
        .collect()
}

/// Writes a file so that readers see the old content or the new one, never a part.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    fs::write(&draft, content).map_err(Error::file("write", &draft))?;
    fs::rename(&draft, path).map_err(Error::file("write", path))
}

/// Builds a command from words.
pub fn command<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().expect("a command has at least its program"));
    command.args(words);
    command
}

/// Runs a program to its end and returns what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|source| Error::Start {
        command: shown(command),
        source,
    })?;
    if !output.status.success() {
        let mut text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if text.is_empty() {
            String::from_utf8_lossy(&output.stdout).trim().clone_into(&mut text);
        }
        return Err(Error::Command {
            command: shown(command),
            status: output.status.to_string(),
            output: tail(&text),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with `input` on its standard input and returns what it printed.
pub fn run_with_input(command: &mut Command, input: &Path) -> Result<String> {
    let file = fs::File::open(input).map_err(Error::file("read", input))?;
    run(command.stdin(Stdio::from(file)))
}

/// Runs words, as `run`.
pub fn sh<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Result<String> {
    run(command(words).stdin(Stdio::null()))
}

/// Waits for a condition, looking often enough that the wait adds nothing that matters.
pub fn wait_until(
    what: &str,
    limit: Duration,
    look_at: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    loop {
        if condition()? {
            return Ok(());
        }
        if began.elapsed() > limit {
            return Err(Error::Timeout {
                what: what.to_owned(),
                limit,
                look_at: look_at.to_owned(),
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut line = words.join(" ");
    if line.chars().count() > 200 {
        line = line.chars().take(200).collect::<String>() + " ...";
    }
    line
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_the_same_number_but_another_start_time_is_not_ours() {
        let me = Process::at(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(
            !Process {
                start_time: me.start_time + 1,
                ..me
            }
            .is_alive()
        );
    }

    #[test]
    fn an_ended_child_that_nobody_waited_for_counts_as_gone() {
        let mut child = Command::new("true").spawn().unwrap();
        let process = Process::at(i32::try_from(child.id()).unwrap()).unwrap();
        wait_until("the end of `true`", Duration::from_secs(5), "-", || {
            Ok(!process.is_alive())
        })
        .unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_failed_command_says_what_it_was_and_what_it_printed() {
        let error = sh(["sh", "-c", "echo broken >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("broken"), "{error}");
    }

    #[test]
    fn a_condition_that_never_comes_true_is_an_error_that_names_it() {
        let error = wait_until("rain", Duration::from_millis(30), "the sky", || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("rain did not happen"), "{error}");
    }
}
