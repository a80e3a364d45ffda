//! Puts the values of literals and parameters into parsed statements.

use super::Parameters;
use crate::error::ServerError;
use crate::statements::{Condition, Operand, Query};
use crate::storage::table::{Filter, Selection};
use crate::value::Value;

/// A query with its values.
pub fn selection(query: Query, parameters: &Parameters) -> Result<Selection, ServerError> {
    let Query {
        projection,
        conditions,
        order,
    } = query;
    Ok(Selection {
        projection,
        filters: filters(conditions, parameters)?,
        order,
    })
}

/// Conditions with their values.
pub fn filters(conditions: Vec<Condition>, parameters: &Parameters) -> Result<Vec<Filter>, ServerError> {
    let resolved = conditions.into_iter().map(
        |Condition {
             column,
             comparison,
             value,
         }| {
            Ok(Filter {
                column,
                comparison,
                value: resolve(&value, parameters)?,
            })
        },
    );
    resolved.collect()
}

/// A row of as many values as there are columns.
pub fn resolve_row(row: &[Operand], width: usize, parameters: &Parameters) -> Result<Vec<Value>, ServerError> {
    if row.len() != width {
        return Err(ServerError::value_count());
    }
    row.iter().map(|operand| resolve(operand, parameters)).collect()
}

/// The value of a literal or parameter.
pub fn resolve(operand: &Operand, parameters: &Parameters) -> Result<Value, ServerError> {
    match operand {
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Parameter(name) => parameters
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
            .ok_or_else(|| ServerError::undeclared(name)),
    }
}
