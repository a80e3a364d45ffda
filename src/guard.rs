//! `sqledge-guard`: the small program of ours inside the database's pod.
//!
//! `install` runs as init container: it checks that the volume is the right one before an engine may touch it, and leaves
//! a copy of this program where the engine's container finds it. `run` is process 1 there and starts the engine. `probe` and
//! `alive` are what the kubelet runs beside it.
//! No runtime and few libraries: the program is started every few seconds on every node, in images that have nothing else.

pub mod alarm;
pub mod api;
pub mod arguments;
pub mod boot;
pub mod courier;
pub mod engine;
pub mod heartbeat;
pub mod install;
pub mod journal;
pub mod lease_object;
pub mod marker;
pub mod probe;
pub mod prober;
pub mod rules;
pub mod run;
pub mod state;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use arguments::Command;
use marker::Expected;

/// Below the three seconds of the kubelet's own limit, so that a failed probe can still say what it saw.
const PROBE_LIMIT: Duration = Duration::from_millis(2500);

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or the environment is wrong.
    #[error(transparent)]
    Words(#[from] arguments::Error),
    /// The volume must not be used.
    #[error(transparent)]
    Volume(#[from] marker::Error),
    /// The copy failed.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// The engine cannot be guarded.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// The engine did not answer.
    #[error(transparent)]
    Probe(#[from] probe::Error),
    /// The guard shows no sign of life.
    #[error(transparent)]
    Alive(#[from] heartbeat::Error),
}

/// The program, from the words after its name to its exit code.
pub fn main(words: impl Iterator<Item = OsString>) -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let command = match arguments::parse(words, &variable) {
        Ok(command) => command,
        Err(error) => return failed(&error.into()),
    };
    // what the kubelet runs beside a container must not speak for it
    let speaks = matches!(command, Command::Install { .. } | Command::Run(_));
    execute(command).map_or_else(
        |error| {
            if speaks {
                journal::write_last_words(&error.to_string());
            }
            failed(&error)
        },
        ExitCode::from,
    )
}

fn execute(command: Command) -> Result<u8, Error> {
    match command {
        Command::Install { volume, to, expected } => {
            let arguments::Expected { id, claim, adopt } = &expected;
            marker::check(
                &volume,
                &Expected {
                    id,
                    claim,
                    adopt: *adopt,
                },
            )?;
            install::copy_self(&to)?;
        }
        Command::Run(options) => return Ok(run::run(*options)?),
        Command::Probe { port, record } => probe(port, record.as_deref())?,
        Command::Alive { heartbeat } => heartbeat::check(&heartbeat, heartbeat::STALE)?,
    }
    Ok(0)
}

fn failed(error: &Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

fn probe(port: u16, record: Option<&Path>) -> Result<(), Error> {
    probe::ask(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PROBE_LIMIT)?;
    if let Some(volume) = record {
        // An engine that answers is not to be restarted because this note could not be written (a full volume, say); the
        // next start of a pod writes it, too.
        if let Err(error) = marker::record(volume) {
            eprintln!("{error}");
        }
    }
    Ok(())
}
