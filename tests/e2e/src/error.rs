//! What can go wrong in a demo or a test, in words that name the object.

use std::{path::PathBuf, time::Duration};

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The testbed, or a program run in it.
    #[error("{}", .0.with_reasons())]
    Testbed(#[from] testbed::Error),
    /// A condition did not come true in time.
    #[error("not within {} s: {what}{}", limit.as_secs(), last.as_ref().map(|l| format!(" (last seen: {l})")).unwrap_or_default())]
    Timeout {
        /// The condition.
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// What was seen instead.
        last: Option<String>,
    },
    /// A program of ours ended with an error.
    #[error("`{program}` failed: {output}")]
    Program {
        /// Its name and first words.
        program: String,
        /// What it printed.
        output: String,
    },
    /// A file.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something a program printed is not what it promised.
    #[error("cannot understand {what}: {detail}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A promise was broken; the sentence says which.
    #[error("{0}")]
    Broken(String),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes a closure for `map_err` on a file operation.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Makes a closure for `map_err` on parsing.
    pub fn malformed<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| Self::Malformed {
            what,
            detail: error.to_string(),
        }
    }
}

/// Fails with a sentence unless the condition holds.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Broken(otherwise())) }
}
