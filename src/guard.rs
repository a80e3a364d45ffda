//! `sqledge-guard`: the small program of ours inside the database's pod.
//!
//! `install` runs as init container: it checks that the volume is the right one before an engine may touch it, and leaves
//! a copy of this program where the engine's container finds it. `probe` is what the kubelet runs there.
//! Only the standard library: the program starts every few seconds on every node, in images that have nothing else.

pub mod install;
pub mod marker;
pub mod probe;
pub mod rules;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use marker::Expected;

const USAGE: &str = "usage: sqledge-guard install --volume DIR --to DIR  (environment: SQLEDGE_VOLUME_ID, SQLEDGE_CLAIM, \
                     SQLEDGE_ADOPT)\n       sqledge-guard probe --port PORT [--record DIR]";

/// Where the kubelet looks for the one sentence that explains a failed container. It puts the file there, so one that is
/// missing is not to be made.
const TERMINATION_MESSAGE: &str = "/dev/termination-log";

/// Below the three seconds of the kubelet's own limit, so that a failed probe can still say what it saw.
const PROBE_LIMIT: Duration = Duration::from_millis(2500);

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("{0}\n{USAGE}")]
    Usage(String),
    /// The volume must not be used.
    #[error(transparent)]
    Volume(#[from] marker::Error),
    /// The copy failed.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// The engine did not answer.
    #[error(transparent)]
    Probe(#[from] probe::Error),
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Install { volume: PathBuf, to: PathBuf },
    Probe { port: u16, record: Option<PathBuf> },
}

/// The program, from the words after its name to its exit code.
pub fn main(words: impl Iterator<Item = OsString>) -> ExitCode {
    let result = parse(words).and_then(|command| match command {
        Command::Install { volume, to } => install(&volume, &to).inspect_err(|error| {
            // best effort: the same sentence is in the log, which the kubelet falls back to
            let _ = OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(TERMINATION_MESSAGE)
                .and_then(|mut file| file.write_all(error.to_string().as_bytes()));
        }),
        Command::Probe { port, record } => probe(port, record.as_deref()),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn install(volume: &Path, to: &Path) -> Result<(), Error> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let missing = |name: &str| Error::Usage(format!("the environment variable {name} is missing"));
    let id = variable("SQLEDGE_VOLUME_ID").ok_or_else(|| missing("SQLEDGE_VOLUME_ID"))?;
    let claim = variable("SQLEDGE_CLAIM").ok_or_else(|| missing("SQLEDGE_CLAIM"))?;
    let adopt = variable("SQLEDGE_ADOPT").is_some_and(|value| value == "true");
    marker::check(
        volume,
        &Expected {
            id: &id,
            claim: &claim,
            adopt,
        },
    )?;
    install::copy_self(to)?;
    Ok(())
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

fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Command, Error> {
    let usage = |message: &str| Error::Usage(message.to_owned());
    let command = words.next().ok_or_else(|| usage("a command is missing"))?;
    let (mut volume, mut to, mut port, mut record) = (None, None, None, None);
    while let Some(option) = words.next() {
        let slot = match option.to_str() {
            Some("--volume") => &mut volume,
            Some("--to") => &mut to,
            Some("--port") => &mut port,
            Some("--record") => &mut record,
            _ => return Err(usage(&format!("unknown option {}", option.display()))),
        };
        *slot = Some(
            words
                .next()
                .ok_or_else(|| usage(&format!("{} needs a value", option.display())))?,
        );
    }
    match (command.to_str(), volume, to, port, record) {
        (Some("install"), Some(volume), Some(to), None, None) => Ok(Command::Install {
            volume: volume.into(),
            to: to.into(),
        }),
        (Some("probe"), None, None, Some(port), record) => {
            let port = port
                .to_str()
                .and_then(|port| port.parse().ok())
                .ok_or_else(|| usage("--port needs a number"))?;
            Ok(Command::Probe {
                port,
                record: record.map(PathBuf::from),
            })
        }
        (Some("install" | "probe"), ..) => Err(usage("the options do not fit the command")),
        _ => Err(usage(&format!("unknown command {}", command.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{Command, parse};

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        line.split_whitespace()
            .map(OsString::from)
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn each_command_takes_its_own_options() {
        assert_eq!(
            parse(words("install --volume /a --to /b")).expect("a command"),
            Command::Install {
                volume: "/a".into(),
                to: "/b".into()
            }
        );
        assert_eq!(
            parse(words("probe --port 1433")).expect("a command"),
            Command::Probe {
                port: 1433,
                record: None
            }
        );
        assert_eq!(
            parse(words("probe --record /a --port 1433")).expect("a command"),
            Command::Probe {
                port: 1433,
                record: Some("/a".into())
            }
        );
    }

    #[test]
    fn a_wrong_command_line_is_refused_with_the_usage() {
        for line in [
            "",
            "run",
            "install",
            "install --volume /a",
            "install --volume /a --to /b --port 1",
            "probe",
            "probe --port",
            "probe --port x",
            "probe --port 70000",
            "probe --port 1 --to /b",
            "probe --port 1 --verbose yes",
        ] {
            let error = parse(words(line)).expect_err(line).to_string();
            assert!(error.contains("usage: sqledge-guard"), "{line}: {error}");
        }
    }
}
