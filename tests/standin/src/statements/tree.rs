//! Parsed statements.

use crate::value::{SqlType, Value};

/// A parsed statement.
#[derive(Debug)]
pub enum Statement {
    /// Constants and properties: one row.
    Scalars(Vec<Scalar>),
    /// `sys.databases`.
    Databases(Query),
    /// `sys.dm_os_volume_stats`.
    VolumeStats {
        /// Number of the database.
        database: Operand,
        /// Number of its file.
        file: Operand,
        /// Which columns.
        query: Query,
    },
    /// When the engine started.
    StartTime,
    /// Rows of a table.
    Select {
        /// Its name.
        table: String,
        /// Which rows and columns.
        query: Query,
    },
    /// New rows.
    Insert {
        /// Their table.
        table: String,
        /// The columns named.
        columns: Vec<String>,
        /// A value for each column, row by row.
        rows: Vec<Vec<Operand>>,
    },
    /// Rows to remove.
    Delete {
        /// Their table.
        table: String,
        /// All must hold.
        conditions: Vec<Condition>,
    },
    /// A new table.
    CreateTable {
        /// Its name.
        table: String,
        /// Its columns.
        columns: Vec<ColumnDefinition>,
        /// Its primary key; may be empty.
        key: Vec<String>,
    },
    /// Remove a table.
    DropTable(String),
    /// A new database.
    CreateDatabase(String),
    /// Remove a database.
    DropDatabase(String),
    /// Run the statement if the object is not there.
    Unless(Exists, Box<Statement>),
    /// Change the session's database.
    Use(String),
    /// Ignored.
    Set,
    /// Start a transaction.
    Begin,
    /// End it well.
    Commit,
    /// Undo it.
    Rollback,
    /// Write logs into their files.
    Checkpoint,
    /// Stop the engine.
    Shutdown {
        /// Whether logs are written into their files first.
        checkpoint: bool,
    },
    /// A new password.
    AlterLogin {
        /// Whose.
        login: String,
        /// The new one.
        password: Operand,
        /// The present one, when the client proves that it knows it.
        old_password: Option<Operand>,
    },
}

/// The condition of an `IF .. IS NULL`.
#[derive(Debug)]
pub enum Exists {
    /// `DB_ID('name')`.
    Database(Operand),
    /// `OBJECT_ID('dbo.name')`.
    Table(Operand),
}

/// Which rows and columns of a table.
#[derive(Debug)]
pub struct Query {
    /// Columns and aggregates.
    pub projection: Vec<Projection>,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Sort keys, with true for descending.
    pub order: Vec<(String, bool)>,
}

/// An item of a select list.
#[derive(Debug)]
pub enum Projection {
    /// `*`.
    Everything,
    /// A column.
    Column {
        /// Its name.
        name: String,
        /// The name it shall have; empty for its own.
        alias: String,
    },
    /// A function over all rows.
    Aggregate {
        /// Which.
        aggregate: Aggregate,
        /// The name it shall have.
        alias: String,
    },
}

/// A function over all rows.
#[derive(Debug)]
pub enum Aggregate {
    /// `COUNT(*)`, an INT.
    Count,
    /// `COUNT_BIG(*)`, a BIGINT.
    CountBig,
    /// The largest value of a column.
    Max(String),
    /// The smallest value of a column.
    Min(String),
}

/// `column = value`.
#[derive(Debug)]
pub struct Condition {
    /// The column.
    pub column: String,
    /// `=`, `<`, `>`, `<=`, `>=` or `<>`.
    pub comparison: String,
    /// What it is compared with.
    pub value: Operand,
}

/// A value in a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// As written.
    Literal(Value),
    /// `@name`, brought by the call.
    Parameter(String),
}

/// A column of a new table.
#[derive(Clone, Debug)]
pub struct ColumnDefinition {
    /// Name.
    pub name: String,
    /// Type.
    pub sql_type: SqlType,
    /// Whether NULL may be stored.
    pub nullable: bool,
    /// Whether the engine counts it up.
    pub identity: bool,
}

/// A value that needs no table.
#[derive(Debug)]
pub struct Scalar {
    /// Which.
    pub kind: ScalarKind,
    /// The name it shall have.
    pub alias: String,
}

/// Where a scalar's value comes from.
#[derive(Debug)]
pub enum ScalarKind {
    /// The statement.
    Constant(Operand),
    /// `@@VERSION`.
    Version,
    /// `@@SERVERNAME`.
    ServerName,
    /// `@@TRANCOUNT`.
    TransactionCount,
    /// `DB_NAME()`.
    DatabaseName,
    /// `SERVERPROPERTY('name')`.
    ServerProperty(Operand),
    /// `CAST(.. AS type)`.
    Cast(Box<ScalarKind>, SqlType),
}
