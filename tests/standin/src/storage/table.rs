//! Tables in `SQLite`'s words. Statements come parsed and their values resolved; names are quoted, values are bound.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::Fault;
use crate::statements::{Aggregate, ColumnDefinition, Projection};
use crate::value::{Column, MAX_CHARS, SqlType, Value};

/// Tables with this start are the stand-in's own, in master.
const RESERVED: &[&str] = &["standin_", "sqlite_"];

/// A condition whose value is known.
pub struct Filter {
    /// Column.
    pub column: String,
    /// Comparison.
    pub comparison: String,
    /// Value.
    pub value: Value,
}

/// A query whose values are known.
pub struct Selection {
    /// Columns and aggregates.
    pub projection: Vec<Projection>,
    /// All must hold.
    pub filters: Vec<Filter>,
    /// Sort keys, with true for descending.
    pub order: Vec<(String, bool)>,
}

/// A result.
pub struct Rows {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows.
    pub rows: Vec<Vec<Value>>,
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// Creates a table.
pub fn create(connection: &Connection, table: &str, columns: &[ColumnDefinition], key: &[String]) -> Result<(), Fault> {
    reject_reserved(table)?;
    let mut parts = Vec::new();
    let mut counted = false;
    for column in columns {
        if column.identity {
            if counted || !(key.is_empty() || key == [column.name.clone()]) {
                return Err(Fault::Other("an IDENTITY column must be the primary key".to_owned()));
            }
            counted = true;
            parts.push(format!("{} INTEGER PRIMARY KEY AUTOINCREMENT", quoted(&column.name)));
        } else {
            parts.push(column_sql(column));
        }
    }
    if !counted && !key.is_empty() {
        let names: Vec<String> = key.iter().map(|name| quoted(name)).collect();
        parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
    }
    // a key without row id forbids NULL, as the real engine does
    let rowid = if counted || key.is_empty() {
        ""
    } else {
        " WITHOUT ROWID"
    };
    Ok(connection.execute_batch(&format!("CREATE TABLE {} ({}){rowid}", quoted(table), parts.join(", ")))?)
}

fn column_sql(column: &ColumnDefinition) -> String {
    let name = quoted(&column.name);
    let null = if column.nullable { "" } else { " NOT NULL" };
    let (declared, check) = match column.sql_type {
        SqlType::Int => ("INT".to_owned(), format!("{name} BETWEEN -2147483648 AND 2147483647")),
        SqlType::BigInt => ("BIGINT".to_owned(), "TRUE".to_owned()),
        SqlType::NVarChar(chars) => (
            format!("NVARCHAR({chars}) COLLATE NOCASE"),
            format!("length({name}) <= {chars}"),
        ),
        SqlType::Variant => unreachable!("no statement creates a column of this type"),
    };
    let stored = if matches!(column.sql_type, SqlType::NVarChar(_)) {
        "text"
    } else {
        "integer"
    };
    let constraint = quoted(&format!("a value of column '{}' does not fit its type", column.name));
    format!(
        "{name} {declared}{null} CONSTRAINT {constraint} CHECK (({name} IS NULL OR typeof({name}) = '{stored}') AND {check})"
    )
}

/// True when the table is there.
pub fn exists(connection: &Connection, table: &str) -> Result<bool, Fault> {
    let sql = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE";
    Ok(connection.query_row(sql, [table], |row| row.get::<_, i64>(0))? > 0)
}

/// Removes a table.
pub fn drop(connection: &Connection, table: &str) -> Result<(), Fault> {
    reject_reserved(table)?;
    Ok(connection.execute_batch(&format!("DROP TABLE {}", quoted(table)))?)
}

/// Adds rows, all or none; yields how many.
pub fn insert(connection: &Connection, table: &str, columns: &[String], rows: &[Vec<Value>]) -> Result<u64, Fault> {
    reject_reserved(table)?;
    let names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
    let tuple = format!("({})", vec!["?"; columns.len()].join(", "));
    let sql = format!(
        "INSERT INTO {} ({}) VALUES {}",
        quoted(table),
        names.join(", "),
        vec![tuple; rows.len()].join(", ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.execute(params_from_iter(rows.iter().flatten()))? as u64)
}

/// Removes rows; yields how many.
pub fn delete(connection: &Connection, table: &str, filters: &[Filter]) -> Result<u64, Fault> {
    reject_reserved(table)?;
    let mut statement = connection.prepare_cached(&format!("DELETE FROM {}{}", quoted(table), where_sql(filters)))?;
    Ok(statement.execute(params_from_iter(filters.iter().map(|filter| &filter.value)))? as u64)
}

/// Reads rows.
pub fn select(connection: &Connection, table: &str, selection: &Selection) -> Result<Rows, Fault> {
    reject_reserved(table)?;
    let items: Vec<String> = selection.projection.iter().map(item_sql).collect();
    let order: Vec<String> = selection
        .order
        .iter()
        .map(|(name, descending)| format!("{}{}", quoted(name), if *descending { " DESC" } else { "" }))
        .collect();
    let order = if order.is_empty() {
        String::new()
    } else {
        format!(" ORDER BY {}", order.join(", "))
    };
    let filter = where_sql(&selection.filters);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM {}{filter}{order}",
        items.join(", "),
        quoted(table)
    ))?;
    let columns = result_columns(connection, table, selection, &statement)?;
    let mut found = statement.query(params_from_iter(selection.filters.iter().map(|filter| &filter.value)))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(
            (0..columns.len())
                .map(|index| read(row.get_ref(index)?))
                .collect::<Result<Vec<_>, Fault>>()?,
        );
    }
    Ok(Rows { columns, rows })
}

fn read(value: ValueRef<'_>) -> Result<Value, Fault> {
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(number) => Ok(Value::Int(number)),
        ValueRef::Text(text) => Ok(Value::Text(String::from_utf8_lossy(text).into_owned())),
        ValueRef::Real(_) | ValueRef::Blob(_) => Err(Fault::Corrupt("a value has a type nobody stored".to_owned())),
    }
}

/// Names as the client wrote them, types as the table declares them.
fn result_columns(
    connection: &Connection,
    table: &str,
    selection: &Selection,
    statement: &rusqlite::Statement<'_>,
) -> Result<Vec<Column>, Fault> {
    let mut columns = Vec::new();
    let mut declared = statement.columns();
    for item in &selection.projection {
        let count = match item {
            Projection::Everything => statement.column_count() + 1 - selection.projection.len(),
            Projection::Column { .. } | Projection::Aggregate { .. } => 1,
        };
        for column in declared.by_ref().take(count) {
            let (name, sql_type) = match item {
                Projection::Everything => (column.name().to_owned(), sql_type(column.decl_type())),
                Projection::Column { name, alias } if alias.is_empty() => (name.clone(), sql_type(column.decl_type())),
                Projection::Column { alias, .. } => (alias.clone(), sql_type(column.decl_type())),
                Projection::Aggregate { aggregate, alias } => {
                    (alias.clone(), aggregate_type(connection, table, aggregate)?)
                }
            };
            columns.push(Column { name, sql_type });
        }
    }
    Ok(columns)
}

fn aggregate_type(connection: &Connection, table: &str, aggregate: &Aggregate) -> Result<SqlType, Fault> {
    let column = match aggregate {
        Aggregate::Count => return Ok(SqlType::Int),
        Aggregate::CountBig => return Ok(SqlType::BigInt),
        Aggregate::Max(column) | Aggregate::Min(column) => column,
    };
    let statement = connection.prepare_cached(&format!("SELECT {} FROM {}", quoted(column), quoted(table)))?;
    let column = statement.columns().next();
    Ok(sql_type(column.as_ref().and_then(rusqlite::Column::decl_type)))
}

/// The type behind a declaration of [`column_sql`]; `SQLite`'s own `INTEGER` is an IDENTITY column.
fn sql_type(declared: Option<&str>) -> SqlType {
    match declared {
        Some("INT") => SqlType::Int,
        Some("BIGINT" | "INTEGER") => SqlType::BigInt,
        Some(text) => {
            let chars = text.trim_start_matches("NVARCHAR(").trim_end_matches(')').parse();
            SqlType::NVarChar(chars.unwrap_or(MAX_CHARS))
        }
        None => SqlType::NVarChar(MAX_CHARS),
    }
}

fn item_sql(item: &Projection) -> String {
    match item {
        Projection::Everything => "*".to_owned(),
        Projection::Column { name, .. } => quoted(name),
        Projection::Aggregate { aggregate, .. } => match aggregate {
            Aggregate::Count | Aggregate::CountBig => "COUNT(*)".to_owned(),
            Aggregate::Max(column) => format!("MAX({})", quoted(column)),
            Aggregate::Min(column) => format!("MIN({})", quoted(column)),
        },
    }
}

fn where_sql(filters: &[Filter]) -> String {
    let parts: Vec<String> = filters
        .iter()
        .map(|filter| format!("{} {} ?", quoted(&filter.column), filter.comparison))
        .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", parts.join(" AND "))
    }
}

fn reject_reserved(table: &str) -> Result<(), Fault> {
    let lower = table.to_ascii_lowercase();
    if RESERVED.iter().any(|start| lower.starts_with(start)) {
        return Err(Fault::NoTable(table.to_owned()));
    }
    Ok(())
}

/// Backticks, because `SQLite` takes an unknown name in double quotes for a text.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, sql_type: SqlType) -> ColumnDefinition {
        ColumnDefinition {
            name: name.into(),
            sql_type,
            nullable: false,
            identity: false,
        }
    }

    fn everything() -> Selection {
        Selection {
            projection: vec![Projection::Everything],
            filters: vec![],
            order: vec![],
        }
    }

    fn orders() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let columns = [column("number", SqlType::Int), column("note", SqlType::NVarChar(3))];
        create(&connection, "orders", &columns, &["number".to_owned()]).unwrap();
        connection
    }

    fn put(connection: &Connection, number: Value, note: Value) -> Result<u64, Fault> {
        insert(
            connection,
            "orders",
            &["number".into(), "note".into()],
            &[vec![number, note]],
        )
    }

    #[test]
    fn values_that_do_not_fit_their_column_are_refused() {
        let connection = orders();
        assert!(matches!(
            put(&connection, Value::Int(1 << 40), Value::Text("x".into())),
            Err(Fault::WrongValue(_))
        ));
        assert!(matches!(
            put(&connection, Value::Int(1), Value::Text("four".into())),
            Err(Fault::WrongValue(_))
        ));
        assert!(matches!(
            put(&connection, Value::Text("a".into()), Value::Text("x".into())),
            Err(Fault::WrongValue(_))
        ));
        assert!(matches!(
            put(&connection, Value::Int(1), Value::Null),
            Err(Fault::NullNotAllowed(_))
        ));
        assert_eq!(select(&connection, "orders", &everything()).unwrap().rows.len(), 0);
    }

    #[test]
    fn a_key_is_stored_once() {
        let connection = orders();
        put(&connection, Value::Int(1), Value::Text("x".into())).unwrap();
        assert!(matches!(
            put(&connection, Value::Int(1), Value::Text("y".into())),
            Err(Fault::Duplicate(_))
        ));
    }

    #[test]
    fn results_carry_the_types_that_were_declared() {
        let connection = orders();
        let rows = select(&connection, "orders", &everything()).unwrap();
        let types: Vec<SqlType> = rows.columns.iter().map(|column| column.sql_type).collect();
        assert_eq!(types, [SqlType::Int, SqlType::NVarChar(3)]);
    }

    #[test]
    fn missing_tables_and_columns_are_named() {
        let connection = orders();
        assert_eq!(
            select(&connection, "nowhere", &everything()).err(),
            Some(Fault::NoTable("nowhere".into()))
        );
        let mut selection = everything();
        selection.projection = vec![Projection::Column {
            name: "nothing".into(),
            alias: String::new(),
        }];
        assert_eq!(
            select(&connection, "orders", &selection).err(),
            Some(Fault::NoColumn("nothing".into()))
        );
    }

    #[test]
    fn the_stand_ins_own_tables_are_out_of_reach() {
        let connection = orders();
        assert!(matches!(
            delete(&connection, "Standin_logins", &[]),
            Err(Fault::NoTable(_))
        ));
    }
}
