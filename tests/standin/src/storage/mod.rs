//! The real storage engine below: one `SQLite` file for each database, write-ahead log, `synchronous=FULL`.
//!
//! A write is reported as done only after `SQLite` has fsynced the log. After an I/O error nothing that this process
//! remembers about the file can be trusted (a failed fsync may have dropped dirty pages), so the database stays
//! suspect until the next start recovers it from the disk.

pub mod claim;
pub mod database;
pub mod master;
pub mod table;

use rusqlite::{ErrorCode, ffi};

/// Why storage refused something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The operating system reported an error; the database is suspect from now on.
    Io(String),
    /// The file is damaged; likewise.
    Corrupt(String),
    /// An earlier error made the database suspect.
    Suspect,
    /// No space is left.
    Full,
    /// A key that is there already.
    Duplicate(String),
    /// NULL in a column that takes none.
    NullNotAllowed(String),
    /// A value that does not fit its column.
    WrongValue(String),
    /// No such table.
    NoTable(String),
    /// No such column.
    NoColumn(String),
    /// The table is there already.
    TableExists(String),
    /// Another session held the database too long.
    LockTimeout,
    /// The engine is stopping.
    Closed,
    /// Anything else, in `SQLite`'s words.
    Other(String),
}

impl Fault {
    /// True when the database cannot be trusted any more.
    pub fn makes_suspect(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Corrupt(_))
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(what)
            | Self::Corrupt(what)
            | Self::Duplicate(what)
            | Self::NullNotAllowed(what)
            | Self::WrongValue(what)
            | Self::NoTable(what)
            | Self::NoColumn(what)
            | Self::TableExists(what)
            | Self::Other(what) => f.write_str(what),
            Self::Suspect => f.write_str("the database is suspect"),
            Self::Full => f.write_str("no space is left on the volume"),
            Self::LockTimeout => f.write_str("the database is locked"),
            Self::Closed => f.write_str("the engine is stopping"),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let shown = error.to_string();
        let (ffi::Error { code, extended_code }, message) = match error {
            rusqlite::Error::SqliteFailure(error, message) => (error, message.unwrap_or(shown)),
            rusqlite::Error::SqlInputError { error, msg, .. } => (error, msg),
            _ => return Self::Other(shown),
        };
        match code {
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
                Self::Io(format!("{message} (code {extended_code})"))
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt(message),
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::ConstraintViolation => {
                let subject = message.rsplit(": ").next().unwrap_or(&message).to_owned();
                match extended_code {
                    ffi::SQLITE_CONSTRAINT_NOTNULL => Self::NullNotAllowed(subject),
                    ffi::SQLITE_CONSTRAINT_CHECK | ffi::SQLITE_CONSTRAINT_DATATYPE => Self::WrongValue(subject),
                    _ => Self::Duplicate(subject),
                }
            }
            ErrorCode::TypeMismatch => Self::WrongValue(message),
            _ => Self::from_words(message),
        }
    }
}

impl Fault {
    /// `SQLite` has one code for all mistakes in a statement; only its words tell them apart.
    fn from_words(message: String) -> Self {
        if let Some(name) = message.strip_prefix("no such table: ") {
            return Self::NoTable(name.to_owned());
        }
        if let Some(name) = message.strip_prefix("no such column: ") {
            return Self::NoColumn(name.trim_matches('"').to_owned());
        }
        if let Some((_, name)) = message.split_once(" has no column named ") {
            return Self::NoColumn(name.to_owned());
        }
        if let Some((name, _)) = message.split_once(" already exists") {
            return Self::TableExists(name.trim_start_matches("table ").trim_matches('"').to_owned());
        }
        Self::Other(message)
    }
}
