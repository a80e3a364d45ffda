//! What can go wrong in a testbed, in words that name the object and the next step.

use std::{io, path::PathBuf, time::Duration};

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program we ran ended with an error.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line, shortened.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines it printed.
        output: String,
    },
    /// A program could not be started at all.
    #[error("cannot start `{command}`; run `testbed check` to see what is missing on this machine")]
    Start {
        /// The command line, shortened.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A kernel call without a file failed.
    #[error("cannot {action}")]
    Kernel {
        /// What was attempted.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// A condition did not come true in time.
    #[error("{what} did not happen within {} s; look at {look_at}", limit.as_secs())]
    Timeout {
        /// The condition.
        what: String,
        /// How long we waited.
        limit: Duration,
        /// Where the reason is likely to stand.
        look_at: String,
    },
    /// The machine lacks something; all of it is named.
    #[error("this machine cannot run a testbed:\n{}", .0.iter().map(|m| format!("  - {m}")).collect::<Vec<_>>().join("\n"))]
    Missing(Vec<String>),
    /// The request does not fit the testbed's state or the rules for names.
    #[error("{0}")]
    Refused(String),
    /// Something we read is not what its writer promised.
    #[error("cannot understand {what}: {detail}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes a closure for `map_err` on a file operation.
    pub(crate) fn file<P: Into<PathBuf>>(action: &'static str, path: P) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Makes a closure for `map_err` on a kernel call.
    pub(crate) fn kernel<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::Kernel {
            action,
            source: source.into(),
        }
    }

    /// Makes a closure for `map_err` on parsing.
    pub(crate) fn malformed<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |e| Self::Malformed {
            what,
            detail: e.to_string(),
        }
    }

    /// The message with the reasons below it, on one line.
    pub fn with_reasons(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(reason) = source {
            text = format!("{text}: {reason}");
            source = reason.source();
        }
        text
    }
}
