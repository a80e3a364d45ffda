//! The engine's processes, from the seat of process 1.
//!
//! The engine is two processes, and the pid of one of them is not the engine. Signals therefore go to every process of the
//! namespace (`kill(-1)`), and the engine has ended when process 1 has no children left: the kernel makes it the parent of
//! every orphan.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::boot;

/// How often somebody who waits for a disk is asked whether to go on.
const WAITING: Duration = Duration::from_millis(500);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl End {
    /// As shells say it.
    pub fn exit_code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(1)
    }
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "ended with exit code {code}"),
            Self::Signal(signal) => write!(formatter, "was ended by signal {signal}"),
        }
    }
}

/// The command that starts the engine.
#[derive(Debug)]
pub struct Engine(Command);

impl Engine {
    /// Program and arguments. The engine needs to know nothing of the guard, so `hidden` variables are kept from it.
    pub fn new(command: &[OsString], hidden: &[&str]) -> Option<Self> {
        let (program, arguments) = command.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments);
        for variable in hidden {
            command.env_remove(variable);
        }
        Some(Self(command))
    }

    /// Starts it. Its output goes where ours goes.
    pub fn start(&mut self) -> io::Result<Pid> {
        self.0.spawn().map(|child| Pid::from_child(&child))
    }
}

/// Whether this process may kill everything it sees, and ends everything when it ends.
pub fn is_process_1() -> bool {
    rustix::process::getpid().is_init()
}

/// Signals every process of the namespace but this one.
pub fn signal_all(signal: Signal) {
    // outside of a container that would be every process of the machine
    if !is_process_1() {
        return;
    }
    // The group of process 1, written as kill(2) takes it, is -1: everything. Nobody left to signal is no error.
    let _ = rustix::process::kill_process_group(Pid::INIT, signal);
}

/// Whether nothing else runs in the namespace. Also what was brought in from outside (`kubectl exec`) counts, although it is no child of
/// process 1, which never hears of its end.
pub fn is_alone() -> bool {
    // signal 0 to everything but this process: nothing is sent, and only "there is nobody" is told apart from all other answers
    is_process_1() && rustix::process::test_kill_process_group(Pid::INIT) == Err(Errno::SRCH)
}

/// Collects what has ended. Yields whether any child is left.
pub fn reap(mut each: impl FnMut(Pid, End)) -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if let Some(end) = end(status) {
                    each(pid, end);
                }
            }
            Ok(None) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn end(status: WaitStatus) -> Option<End> {
    let code = status.exit_status().map(End::Code);
    code.or_else(|| status.terminating_signal().map(End::Signal))
}

/// Writes out what the page cache holds of the volume, in a thread: a dead storage host never answers.
///
/// `waiting` is called again and again meanwhile.
pub fn sync(volume: &Path, within: Duration, waiting: impl Fn()) -> Result<(), String> {
    let folder = volume.to_owned();
    let (done, synced) = channel();
    thread::spawn(move || {
        let result = File::open(folder).and_then(|folder| rustix::fs::syncfs(folder).map_err(io::Error::from));
        let _ = done.send(result);
    });
    let deadline = boot::now() + within;
    let place = volume.display();
    loop {
        waiting();
        let left = deadline.saturating_sub(boot::now());
        match synced.recv_timeout(left.min(WAITING)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => return Err(format!("cannot write out the volume at {place}: {error}")),
            Err(_) if left.is_zero() => {
                return Err(format!("the volume at {place} was not written out within {within:?}"));
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{End, Engine, sync};

    #[test]
    fn an_end_has_the_exit_code_that_shells_give_it() {
        assert_eq!(End::Code(0).exit_code(), 0);
        assert_eq!(End::Code(255).exit_code(), 255);
        assert_eq!(End::Signal(9).exit_code(), 137);
        assert_eq!(End::Code(-1).exit_code(), 1);
    }

    #[test]
    fn no_command_is_no_engine() {
        assert!(Engine::new(&[], &[]).is_none());
        assert!(Engine::new(&["true".into()], &[]).is_some());
    }

    #[test]
    fn a_volume_is_written_out_or_named_in_the_reason() {
        sync(&std::env::temp_dir(), Duration::from_secs(600), || {}).expect("synced");
        let error = sync(Path::new("/nowhere"), Duration::from_secs(600), || {}).expect_err("no such folder");
        assert!(error.contains("/nowhere"), "{error}");
    }
}
