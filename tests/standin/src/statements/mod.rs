//! Every statement the stand-in knows stands in [`TABLE`], and nowhere else; any other is answered with error 102 that
//! names it. `sqledge-standin --statements` prints the table.
//!
//! Parsing only: what a statement does is in [`crate::execute`].

mod lexer;
mod pattern;
mod tree;

use crate::error::ServerError;
use lexer::{Kind, Token};
use pattern::Captures;
pub use tree::{
    Aggregate, ColumnDefinition, Condition, Exists, Operand, Projection, Query, Scalar, ScalarKind, Statement,
};

/// One kind of statement.
pub struct Entry {
    /// How it is written; the language is described in [`pattern`].
    pub pattern: &'static str,
    /// What it does, for readers.
    pub meaning: &'static str,
    build: fn(Captures) -> Statement,
}

/// All statements. The first entry that fits a statement up to its end is taken.
pub const TABLE: &[Entry] = &[
    Entry {
        pattern: "SELECT {scalars}",
        meaning: "numbers, texts, parameters, @@VERSION, @@SERVERNAME, @@TRANCOUNT, DB_NAME(), SERVERPROPERTY('..'), CAST(.. AS type)",
        build: |c| Statement::Scalars(c.scalars),
    },
    Entry {
        pattern: "SELECT {projection} FROM sys.databases [WHERE {where}] [ORDER BY {order}]",
        meaning: "columns name, database_id, state, state_desc",
        build: |c| Statement::Databases(Query::from(c)),
    },
    Entry {
        pattern: "SELECT {projection} FROM sys.dm_os_volume_stats({value}, {value}) [WHERE {where}]",
        meaning: "total_bytes and available_bytes of the volume under the databases, by database_id and file_id",
        build: |mut c| Statement::VolumeStats {
            database: first(&mut c.values),
            file: first(&mut c.values),
            query: Query::from(c),
        },
    },
    Entry {
        pattern: "SELECT CONVERT(NVARCHAR(33), sqlserver_start_time, 126) FROM sys.dm_os_sys_info",
        meaning: "when this engine process started: tells two processes apart",
        build: |_| Statement::StartTime,
    },
    Entry {
        pattern: "SELECT {projection} FROM {table} [WHERE {where}] [ORDER BY {order}]",
        meaning: "columns, *, COUNT(*), COUNT_BIG(*), MAX(column), MIN(column); conditions joined by AND",
        build: |mut c| Statement::Select {
            table: first(&mut c.names),
            query: Query::from(c),
        },
    },
    Entry {
        pattern: "INSERT [INTO] {table} ({names}) VALUES {tuples}",
        meaning: "acknowledged after the commit has reached the disk",
        build: |mut c| Statement::Insert {
            table: first(&mut c.names),
            columns: first(&mut c.lists),
            rows: c.tuples,
        },
    },
    Entry {
        pattern: "DELETE [FROM] {table} [WHERE {where}]",
        meaning: "rows of a table",
        build: |mut c| Statement::Delete {
            table: first(&mut c.names),
            conditions: c.conditions,
        },
    },
    Entry {
        pattern: "CREATE TABLE {table} ({columns})",
        meaning: "columns of INT, BIGINT [IDENTITY], NVARCHAR(n), [NOT] NULL, PRIMARY KEY",
        build: create_table,
    },
    Entry {
        pattern: "IF OBJECT_ID({value} [, {value}]) IS NULL CREATE TABLE {table} ({columns})",
        meaning: "the same, once",
        build: |mut c| {
            let object = first(&mut c.values);
            Statement::Unless(Exists::Table(object), Box::new(create_table(c)))
        },
    },
    Entry {
        pattern: "DROP TABLE {table}",
        meaning: "a table and its rows",
        build: |mut c| Statement::DropTable(first(&mut c.names)),
    },
    Entry {
        pattern: "CREATE DATABASE {name}",
        meaning: "one SQLite file beside master.mdf",
        build: |mut c| Statement::CreateDatabase(first(&mut c.names)),
    },
    Entry {
        pattern: "IF DB_ID({value}) IS NULL CREATE DATABASE {name}",
        meaning: "the same, once",
        build: |mut c| {
            let create = Statement::CreateDatabase(first(&mut c.names));
            Statement::Unless(Exists::Database(first(&mut c.values)), Box::new(create))
        },
    },
    Entry {
        pattern: "DROP DATABASE {name}",
        meaning: "a database and its file",
        build: |mut c| Statement::DropDatabase(first(&mut c.names)),
    },
    Entry {
        pattern: "USE {name}",
        meaning: "change the session's database",
        build: |mut c| Statement::Use(first(&mut c.names)),
    },
    Entry {
        pattern: "SET {option}",
        meaning: "ignored: drivers send many of them",
        build: |_| Statement::Set,
    },
    Entry {
        pattern: "BEGIN TRAN",
        meaning: "writes of one database until COMMIT",
        build: |_| Statement::Begin,
    },
    Entry {
        pattern: "BEGIN TRANSACTION",
        meaning: "the same",
        build: |_| Statement::Begin,
    },
    Entry {
        pattern: "COMMIT [TRAN] [TRANSACTION]",
        meaning: "acknowledged after it has reached the disk",
        build: |_| Statement::Commit,
    },
    Entry {
        pattern: "ROLLBACK [TRAN] [TRANSACTION]",
        meaning: "forget the writes",
        build: |_| Statement::Rollback,
    },
    Entry {
        pattern: "CHECKPOINT",
        meaning: "write the log into the database's file",
        build: |_| Statement::Checkpoint,
    },
    Entry {
        pattern: "SHUTDOWN",
        meaning: "checkpoint every database and exit",
        build: |_| Statement::Shutdown { checkpoint: true },
    },
    Entry {
        pattern: "SHUTDOWN WITH NOWAIT",
        meaning: "exit and leave the log for the next start",
        build: |_| Statement::Shutdown { checkpoint: false },
    },
    Entry {
        pattern: "ALTER LOGIN {name} WITH PASSWORD = {value} [OLD_PASSWORD = {value}]",
        meaning: "change the password of sa, the only login",
        build: |mut c| Statement::AlterLogin {
            login: first(&mut c.names),
            password: first(&mut c.values),
            old_password: c.values.pop(),
        },
    },
];

impl From<Captures> for Query {
    fn from(c: Captures) -> Self {
        Self {
            projection: c.projection,
            conditions: c.conditions,
            order: c.order,
        }
    }
}

/// The statements of a batch. Like the real engine, a batch with a statement that cannot be read runs none of them.
pub fn parse(sql: &str) -> Result<Vec<Statement>, ServerError> {
    let tokens = lexer::tokens(sql);
    let mut statements = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is_symbol(';') {
            at += 1;
            continue;
        }
        let (statement, taken) = statement(&tokens[at..]).ok_or_else(|| unknown(sql, &tokens[at..]))?;
        statements.push(statement);
        at += taken;
    }
    Ok(statements)
}

fn statement(tokens: &[Token]) -> Option<(Statement, usize)> {
    TABLE.iter().find_map(|entry| {
        let (captures, taken) = pattern::matches(entry.pattern, tokens)?;
        let ends = tokens
            .get(taken)
            .is_none_or(|next| next.is_symbol(';') || pattern::starts_statement(next));
        ends.then(|| ((entry.build)(captures), taken))
    })
}

fn unknown(sql: &str, tokens: &[Token]) -> ServerError {
    let end = tokens
        .iter()
        .find(|token| token.is_symbol(';'))
        .map_or(sql.len(), |token| token.span.start);
    let start = tokens[0].span.start;
    ServerError::unknown_statement(&sql[tokens[0].span.clone()], sql[start..end].trim_end())
}

/// The names that `sp_executesql` gives its positional parameters.
pub fn declared_names(declarations: &str) -> Vec<String> {
    let names = lexer::tokens(declarations)
        .into_iter()
        .filter_map(|token| match token.kind {
            Kind::Parameter(name) => Some(name),
            _ => None,
        });
    names.collect()
}

fn create_table(mut c: Captures) -> Statement {
    Statement::CreateTable {
        table: first(&mut c.names),
        columns: c.columns,
        key: c.key,
    }
}

/// The first capture of a kind that the entry's pattern always captures.
fn first<T>(captures: &mut Vec<T>) -> T {
    captures.remove(0)
}

#[cfg(test)]
mod tests;
