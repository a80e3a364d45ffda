//! The master database: which databases there are, the password of sa, and what was fixed at the first start.
//! Everything here blocks; callers run it on a thread that may.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use super::claim::sync_folder;
use super::database::open;
use super::{Fault, database};
use crate::password::Hash;

/// Names and files of the databases that every instance has, in the order of their numbers.
const SYSTEM: &[(&str, &str)] = &[
    ("master", "master.mdf"),
    ("tempdb", "tempdb.mdf"),
    ("model", "model.mdf"),
    ("msdb", "msdbdata.mdf"),
];
/// The number of the first database that users create.
const FIRST_USER_ID: i64 = 5;

/// A database as master lists it.
pub struct Listed {
    /// Number.
    pub id: i64,
    /// Name as created.
    pub name: String,
    /// File.
    pub path: PathBuf,
    /// One of the four that every instance has.
    pub system: bool,
}

/// What master knows.
pub struct Contents {
    /// The stored password of sa.
    pub password: Hash,
    /// The collation of the first start.
    pub collation: String,
    /// All databases.
    pub databases: Vec<Listed>,
}

/// True when the folder has been set up. A first start that was cut off leaves a master that has not.
pub fn is_set_up(master: &Connection) -> Result<bool, Fault> {
    let sql = "SELECT COUNT(*) FROM sqlite_master WHERE name = 'standin_logins'";
    Ok(master.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0)
}

/// Sets a new folder up: the template databases, then in one transaction everything master knows.
pub fn set_up(master: &mut Connection, data: &Path, password: &Hash, collation: &str) -> Result<(), Fault> {
    for (name, file) in SYSTEM {
        if *name != "master" {
            make_file(&data.join(file))?;
        }
    }
    let transaction = master.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE standin_logins (name TEXT PRIMARY KEY COLLATE NOCASE, salt BLOB NOT NULL, hash BLOB NOT NULL);
         CREATE TABLE standin_databases (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, file TEXT NOT NULL);
         CREATE TABLE standin_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);",
    )?;
    transaction.execute(
        "INSERT INTO standin_logins VALUES ('sa', ?, ?)",
        (&password.salt, &password.hash),
    )?;
    transaction.execute("INSERT INTO standin_settings VALUES ('collation', ?)", [collation])?;
    for (id, (name, file)) in (1_i64..).zip(SYSTEM) {
        transaction.execute("INSERT INTO standin_databases VALUES (?, ?, ?)", (id, name, file))?;
    }
    Ok(transaction.commit()?)
}

/// Reads what master knows.
pub fn read(master: &Connection, data: &Path) -> Result<Contents, Fault> {
    let password = master
        .query_row("SELECT salt, hash FROM standin_logins WHERE name = 'sa'", [], |row| {
            Ok(Hash {
                salt: row.get(0)?,
                hash: row.get(1)?,
            })
        })
        .optional()?
        .ok_or_else(|| Fault::Corrupt("master has no login sa".to_owned()))?;
    let collation = master.query_row(
        "SELECT value FROM standin_settings WHERE name = 'collation'",
        [],
        |row| row.get(0),
    )?;
    let mut statement = master.prepare("SELECT id, name, file FROM standin_databases ORDER BY id")?;
    let databases = statement
        .query_map([], |row| {
            let (id, file): (i64, String) = (row.get(0)?, row.get(2)?);
            Ok(Listed {
                id,
                name: row.get(1)?,
                path: data.join(file),
                system: id < FIRST_USER_ID,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(Contents {
        password,
        collation,
        databases,
    })
}

/// Stores a new password of sa.
pub fn set_password(master: &Connection, password: &Hash) -> Result<(), Fault> {
    let sql = "UPDATE standin_logins SET salt = ?, hash = ? WHERE name = 'sa'";
    master.execute(sql, (&password.salt, &password.hash))?;
    Ok(())
}

/// Makes a database: the file first, then its entry, so that a listed database always has its file.
pub fn create_database(master: &Connection, data: &Path, name: &str) -> Result<(Listed, Connection), Fault> {
    let file = format!("{name}.mdf");
    let path = data.join(&file);
    make_file(&path)?;
    let connection = open(&path)?;
    let sql = "INSERT INTO standin_databases (id, name, file) SELECT max(?, max(id) + 1), ?, ? FROM standin_databases";
    master.execute(sql, (FIRST_USER_ID, name, &file))?;
    Ok((
        Listed {
            id: master.last_insert_rowid(),
            name: name.to_owned(),
            path,
            system: false,
        },
        connection,
    ))
}

/// Removes a database: its entry first, then its file.
pub fn drop_database(master: &Connection, data: &Path, name: &str) -> Result<(), Fault> {
    master.execute("DELETE FROM standin_databases WHERE name = ?", [name])?;
    remove_file(&data.join(format!("{name}.mdf")))?;
    sync_folder(data).map_err(|error| Fault::Io(error.to_string()))
}

/// Makes an empty database file, in place of what a cut-off attempt may have left.
pub fn make_file(path: &Path) -> Result<(), Fault> {
    remove_file(path)?;
    let connection = open(path)?;
    database::write_log_into_file(&connection)?;
    connection.close().map_err(|(_, error)| Fault::from(error))?;
    let folder = path.parent().expect("a database file lies in a folder");
    sync_folder(folder).map_err(|error| Fault::Io(error.to_string()))
}

fn remove_file(path: &Path) -> Result<(), Fault> {
    for suffix in ["-wal", "-journal", ""] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Fault::Io(error.to_string())),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_up_folder(data: &Path) -> Connection {
        let mut master = open(&data.join("master.mdf")).unwrap();
        assert!(!is_set_up(&master).unwrap());
        set_up(&mut master, data, &Hash::of("Str0ng!Passw0rd"), "Latin1").unwrap();
        assert!(is_set_up(&master).unwrap());
        master
    }

    #[test]
    fn a_new_folder_has_the_four_system_databases() {
        let folder = tempfile::tempdir().unwrap();
        let contents = read(&set_up_folder(folder.path()), folder.path()).unwrap();
        let names: Vec<&str> = contents.databases.iter().map(|listed| listed.name.as_str()).collect();
        assert_eq!(names, ["master", "tempdb", "model", "msdb"]);
        assert!(
            contents
                .databases
                .iter()
                .all(|listed| listed.system && listed.path.exists())
        );
        assert!(contents.password.matches("Str0ng!Passw0rd"));
        assert_eq!(contents.collation, "Latin1");
    }

    #[test]
    fn databases_come_and_go_with_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let master = set_up_folder(folder.path());
        let (listed, _connection) = create_database(&master, folder.path(), "orders").unwrap();
        assert_eq!((listed.id, listed.system), (5, false));
        assert_eq!(create_database(&master, folder.path(), "stock").unwrap().0.id, 6);
        drop_database(&master, folder.path(), "orders").unwrap();
        assert!(!listed.path.exists());
        assert_eq!(read(&master, folder.path()).unwrap().databases.len(), 5);
    }

    #[test]
    fn the_leftovers_of_a_cut_off_creation_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let master = set_up_folder(folder.path());
        std::fs::write(folder.path().join("orders.mdf"), b"half a file").unwrap();
        create_database(&master, folder.path(), "orders").unwrap();
    }
}
