//! System views: filled on demand, so that they take the same conditions as any table.

use rusqlite::Connection;

use super::Session;
use crate::error::ServerError;
use crate::storage::Fault;
use crate::storage::table::{self, Rows, Selection};
use crate::value::Value;

/// A database has its rows in file 1 and its log in file 2.
const FILES: std::ops::RangeInclusive<i64> = 1..=2;

impl Session {
    /// `sys.databases`.
    pub(super) fn list_databases(&self, selection: &Selection) -> Result<Rows, ServerError> {
        let answer = || -> Result<Rows, Fault> {
            let catalog = Connection::open_in_memory()?;
            catalog.execute_batch(
                "CREATE TABLE \"databases\" (name NVARCHAR(128) COLLATE NOCASE, database_id INT, state INT, state_desc NVARCHAR(60))",
            )?;
            for database in self.engine.databases() {
                let state = database.state();
                let row = (&database.name, database.id, state as i64, state.describe());
                catalog.execute("INSERT INTO \"databases\" VALUES (?, ?, ?, ?)", row)?;
            }
            table::select(&catalog, "databases", selection)
        };
        answer().map_err(in_master)
    }

    /// `sys.dm_os_volume_stats` of one file: all are on one volume. No row for a file that is not there.
    pub(super) async fn volume_stats(
        &mut self,
        database: &Value,
        file: &Value,
        selection: &Selection,
    ) -> Result<Rows, ServerError> {
        let folder = self.engine.data().to_owned();
        // it may hang with the volume
        let asking = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder));
        let space = match asking.await {
            Ok(Ok(space)) => space,
            Ok(Err(error)) => return Err(in_master(Fault::Other(error.to_string()))),
            Err(error) => return Err(in_master(Fault::Other(error.to_string()))),
        };
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(space.f_frsize)).unwrap_or(i64::MAX);
        let is_there = |id: i64| self.engine.databases().iter().any(|known| known.id == id);
        let answer = || -> Result<Rows, Fault> {
            let catalog = Connection::open_in_memory()?;
            catalog.execute_batch(
                "CREATE TABLE stats (database_id INT, file_id INT, volume_mount_point NVARCHAR(512), volume_id NVARCHAR(512), \
                 logical_volume_name NVARCHAR(512), file_system_type NVARCHAR(512), total_bytes BIGINT, available_bytes BIGINT)",
            )?;
            if let (Value::Int(database), Value::Int(file)) = (database, file)
                && is_there(*database)
                && FILES.contains(file)
            {
                // names are NULL on Linux in the real engine too
                let row = (database, file, bytes(space.f_blocks), bytes(space.f_bavail));
                catalog.execute("INSERT INTO stats VALUES (?, ?, NULL, NULL, NULL, NULL, ?, ?)", row)?;
            }
            table::select(&catalog, "stats", selection)
        };
        answer().map_err(in_master)
    }
}

fn in_master(fault: Fault) -> ServerError {
    ServerError::from_fault(fault, "master")
}
