//! Values that need no table: constants, properties of the server, casts.

use super::resolve::resolve;
use super::{Parameters, Session};
use crate::engine::PRODUCT_VERSION;
use crate::error::ServerError;
use crate::statements::{Scalar, ScalarKind};
use crate::storage::Fault;
use crate::storage::table::Rows;
use crate::value::{Column, MAX_CHARS, SqlType, Value};

impl Session {
    pub(super) fn scalars(&self, scalars: &[Scalar], parameters: &Parameters) -> Result<Rows, ServerError> {
        let (mut columns, mut row) = (Vec::new(), Vec::new());
        for Scalar { kind, alias } in scalars {
            let (sql_type, value) = self.scalar(kind, parameters)?;
            columns.push(Column {
                name: alias.clone(),
                sql_type,
            });
            row.push(value);
        }
        Ok(Rows {
            columns,
            rows: vec![row],
        })
    }

    fn scalar(&self, kind: &ScalarKind, parameters: &Parameters) -> Result<(SqlType, Value), ServerError> {
        let name = SqlType::NVarChar(128);
        Ok(match kind {
            ScalarKind::Constant(operand) => match resolve(operand, parameters)? {
                Value::Int(number) if i32::try_from(number).is_err() => (SqlType::BigInt, Value::Int(number)),
                Value::Text(text) => (SqlType::NVarChar(MAX_CHARS), Value::Text(text)),
                small => (SqlType::Int, small),
            },
            ScalarKind::Version => (SqlType::NVarChar(300), Value::Text(self.version())),
            ScalarKind::ServerName => (name, Value::Text(self.engine.host.clone())),
            ScalarKind::TransactionCount => (
                SqlType::Int,
                Value::Int(self.transaction.as_ref().map_or(0, |transaction| transaction.depth)),
            ),
            ScalarKind::DatabaseName => (name, Value::Text(self.database.clone())),
            ScalarKind::ServerProperty(property) => {
                let Value::Text(property) = resolve(property, parameters)? else {
                    return Ok((SqlType::Variant, Value::Null));
                };
                (SqlType::Variant, self.property(&property))
            }
            ScalarKind::Cast(inner, sql_type) => {
                let (_, value) = self.scalar(inner, parameters)?;
                (*sql_type, cast(value, *sql_type)?)
            }
        })
    }

    fn version(&self) -> String {
        format!(
            "Stand-in for Azure SQL Edge {} - {PRODUCT_VERSION} (X64), sqledge-standin {} over SQLite {}: for demos and \
             tests, not a Microsoft product",
            self.engine.settings.edition,
            env!("CARGO_PKG_VERSION"),
            rusqlite::version()
        )
    }

    fn property(&self, name: &str) -> Value {
        Value::Text(match name.to_ascii_lowercase().as_str() {
            "productversion" => PRODUCT_VERSION.to_owned(),
            "edition" => format!("Stand-in for Azure SQL Edge {}", self.engine.settings.edition),
            "servername" | "machinename" => self.engine.host.clone(),
            "collation" => self.engine.collation.clone(),
            "processid" => return Value::Int(i64::from(std::process::id())),
            _ => return Value::Null,
        })
    }
}

fn cast(value: Value, sql_type: SqlType) -> Result<Value, ServerError> {
    let converted = match (sql_type, value) {
        (_, Value::Null) => Some(Value::Null),
        (SqlType::NVarChar(chars), Value::Text(text)) => Some(Value::Text(text.chars().take(chars.into()).collect())),
        (SqlType::NVarChar(_), Value::Int(number)) => Some(Value::Text(number.to_string())),
        (SqlType::Int, Value::Int(number)) => i32::try_from(number).ok().map(|number| Value::Int(number.into())),
        (SqlType::Int, Value::Text(text)) => text.trim().parse::<i32>().ok().map(|number| Value::Int(number.into())),
        (SqlType::BigInt, Value::Text(text)) => text.trim().parse().ok().map(Value::Int),
        (SqlType::BigInt | SqlType::Variant, value) => Some(value),
    };
    converted.ok_or_else(|| {
        ServerError::from_fault(
            Fault::WrongValue("the value does not fit the type".to_owned()),
            "master",
        )
    })
}
