//! One database: a file, a connection to it, and who may use it at the moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Fault;
use crate::errorlog;

/// How long a statement waits for another session's transaction.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// A database's state, numbered as in `sys.databases`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In use.
    Online = 0,
    /// Not opened yet.
    Recovering = 2,
    /// Unusable until the next start.
    Suspect = 4,
}

impl State {
    /// The name in `sys.databases`.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::Recovering => "RECOVERING",
            Self::Suspect => "SUSPECT",
        }
    }
}

/// A database of the instance.
pub struct Database {
    /// Its name as created.
    pub name: String,
    /// Its number.
    pub id: i64,
    /// One of the four that every instance has.
    pub system: bool,
    path: PathBuf,
    state: AtomicU8,
    slot: Arc<Mutex<Option<Connection>>>,
}

impl Database {
    /// A database that has not been opened.
    pub fn recovering(name: String, id: i64, system: bool, path: PathBuf) -> Self {
        Self {
            name,
            id,
            system,
            path,
            state: AtomicU8::new(State::Recovering as u8),
            slot: Arc::default(),
        }
    }

    /// A database over an open connection.
    pub fn online(name: String, id: i64, system: bool, path: PathBuf, connection: Connection) -> Self {
        let slot = Arc::new(Mutex::new(Some(connection)));
        Self {
            name,
            id,
            system,
            path,
            state: AtomicU8::new(State::Online as u8),
            slot,
        }
    }

    /// Its state now.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Online,
            2 => State::Recovering,
            _ => State::Suspect,
        }
    }

    fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Opens the file, which replays its log. Blocking. A database that cannot be opened is suspect; the others go on.
    pub fn recover(&self) {
        errorlog::line("spid9s", &format!("Starting up database '{}'.", self.name));
        match open(&self.path) {
            Ok(connection) => {
                *self.slot.blocking_lock() = Some(connection);
                self.set_state(State::Online);
            }
            Err(fault) => self.became_suspect(&fault),
        }
    }

    fn became_suspect(&self, fault: &Fault) {
        if self.state() != State::Suspect {
            self.set_state(State::Suspect);
            let text = format!(
                "I/O error in database '{}': {fault}. It is suspect until a restart.",
                self.name
            );
            errorlog::error("spid9s", 823, 24, &text);
        }
    }

    /// Waits for the sole use of the database.
    pub async fn lease(self: &Arc<Self>) -> Result<Lease, Fault> {
        if self.state() == State::Suspect {
            return Err(Fault::Suspect);
        }
        let waiting = tokio::time::timeout(LOCK_TIMEOUT, Arc::clone(&self.slot).lock_owned());
        let guard = waiting.await.map_err(|_| Fault::LockTimeout)?;
        Ok(Lease {
            guard,
            database: Arc::clone(self),
        })
    }

    /// Ends the use of the database, once the session that has it is done. With `checkpoint` its log is written into
    /// the file and removed, which is how the next start sees that the stop was clean.
    pub async fn close(&self, checkpoint: bool) -> Result<(), Fault> {
        let mut guard = Arc::clone(&self.slot).lock_owned().await;
        let Some(connection) = guard.take() else { return Ok(()) };
        if !checkpoint || self.state() == State::Suspect {
            // dropping it would checkpoint; the process is about to end, which leaves the log as it is
            std::mem::forget(connection);
            return if checkpoint { Err(Fault::Suspect) } else { Ok(()) };
        }
        let closing = tokio::task::spawn_blocking(move || {
            write_log_into_file(&connection)?;
            connection.close().map_err(|(_, error)| Fault::from(error))
        });
        closing
            .await
            .unwrap_or_else(|error| Err(Fault::Other(error.to_string())))
    }
}

/// Writes the log into the file and empties it.
pub fn write_log_into_file(connection: &Connection) -> Result<(), Fault> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 {
        Ok(())
    } else {
        Err(Fault::Other("the checkpoint did not complete".to_owned()))
    }
}

/// The sole use of a database; given back on drop, when an open transaction is rolled back.
pub struct Lease {
    guard: OwnedMutexGuard<Option<Connection>>,
    /// Which database.
    pub database: Arc<Database>,
}

impl Lease {
    /// True between BEGIN and its end.
    pub fn in_transaction(&self) -> bool {
        self.guard
            .as_ref()
            .is_some_and(|connection| !connection.is_autocommit())
    }

    /// Runs `work` on a thread that may block. When the caller gives up meanwhile, the work still ends before anyone
    /// else gets the database. The lease is gone only if the work panicked.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> (Option<Self>, Result<T, Fault>) {
        let running = tokio::task::spawn_blocking(move || {
            let result = match (&*self.guard, self.database.state()) {
                (_, State::Suspect) => Err(Fault::Suspect),
                (None, _) => Err(Fault::Closed),
                (Some(connection), _) => work(connection),
            };
            if let Err(fault) = &result
                && fault.makes_suspect()
            {
                self.database.became_suspect(fault);
            }
            (self, result)
        });
        match running.await {
            Ok((lease, result)) => (Some(lease), result),
            Err(error) => (None, Err(Fault::Other(error.to_string()))),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = &*self.guard
            && !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            self.database.became_suspect(&error.into());
        }
    }
}

/// Opens a file with the settings under which an acknowledged commit survives a power cut.
pub fn open(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // no shared memory: a page of it that cannot be read from a lost volume would end the process with SIGBUS
    // instead of an error
    connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::Other(format!(
            "the file system does not allow a write-ahead log but only '{mode}'"
        )));
    }
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA mmap_size = 0")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        Ok(connection)
    } else {
        Err(Fault::Corrupt(verdict))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(folder: &Path) -> Arc<Database> {
        let path = folder.join("orders.mdf");
        let connection = open(&path).unwrap();
        connection.execute_batch("CREATE TABLE t (a BIGINT)").unwrap();
        Arc::new(Database::online("orders".into(), 5, false, path, connection))
    }

    async fn count(database: &Arc<Database>) -> i64 {
        let (_, rows) = database
            .lease()
            .await
            .unwrap()
            .run(|c| Ok(c.query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0))?))
            .await;
        rows.unwrap()
    }

    #[tokio::test]
    async fn a_dropped_lease_rolls_its_transaction_back() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path());
        let (lease, result) = database
            .lease()
            .await
            .unwrap()
            .run(|c| Ok(c.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")?))
            .await;
        result.unwrap();
        drop(lease);
        assert_eq!(count(&database).await, 0);
    }

    #[tokio::test]
    async fn after_an_io_error_the_database_answers_nothing_but_suspect() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path());
        let (_, result) = database
            .lease()
            .await
            .unwrap()
            .run(|_| Err::<(), _>(Fault::Io("disk I/O error".into())))
            .await;
        assert!(matches!(result, Err(Fault::Io(_))));
        assert_eq!(database.state(), State::Suspect);
        assert!(matches!(database.lease().await, Err(Fault::Suspect)));
        assert!(matches!(database.close(true).await, Err(Fault::Suspect)));
    }

    #[tokio::test]
    async fn a_clean_close_leaves_no_log_and_an_unclean_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("orders.mdf-wal");
        let database = database(folder.path());
        assert!(log.exists());
        database.close(true).await.unwrap();
        assert!(!log.exists());
        let again = open(&folder.path().join("orders.mdf")).unwrap();
        again.execute_batch("INSERT INTO t VALUES (7)").unwrap();
        let database = Database::online("orders".into(), 5, false, folder.path().join("orders.mdf"), again);
        database.close(false).await.unwrap();
        assert!(log.metadata().unwrap().len() > 0);
    }
}
