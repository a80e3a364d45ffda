//! The parent process. Like the real `sqlservr`, the stand-in is two processes: this one starts the engine, forwards
//! signals to it, and ends with its exit code. Neither outlives the other: the kernel kills the engine when its parent
//! dies, however that happens.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, WaitOptions};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// The argument that makes a process the engine; the parent's process id follows.
pub const ENGINE: &str = "--engine";

/// Starts the engine and lives as long as it does.
pub fn run(ignore_sigterm: bool) -> io::Result<ExitCode> {
    // handlers first: as process 1 of a container the default action of a signal would be to do nothing
    let mut signals = Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    // by its path and not as /proc/self/exe, so that both processes have the name that people look for
    let child = Command::new(std::env::current_exe()?)
        .arg(ENGINE)
        .arg(std::process::id().to_string())
        .spawn()?;
    let engine = Pid::from_child(&child);
    for signal in &mut signals {
        match signal {
            SIGCHLD => {
                if let Some(status) = reap(engine)? {
                    return Ok(exit_code(status));
                }
            }
            SIGTERM | SIGINT if ignore_sigterm => {}
            other => {
                let signal = Signal::from_named_raw(other).expect("the signals that are listened to have names");
                // the engine may have ended this moment; SIGCHLD then tells
                let _ = rustix::process::kill_process(engine, signal);
            }
        }
    }
    unreachable!("the signal iterator is never closed")
}

/// Collects ended children; as process 1 also those that others left behind. Yields the engine's status.
fn reap(engine: Pid) -> io::Result<Option<ExitStatus>> {
    while let Some((pid, status)) = rustix::process::wait(WaitOptions::NOHANG)? {
        if pid == engine {
            return Ok(Some(ExitStatus::from_raw(status.as_raw())));
        }
    }
    Ok(None)
}

/// The engine's own code, or 128 and the signal that ended it, as shells say it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Called by the engine first of all: binds its life to that of `parent`.
pub fn die_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // it may have died before the line above
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::other("the parent process has ended"));
    }
    Ok(())
}
