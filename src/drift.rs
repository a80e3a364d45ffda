//! Whether a stored object still says what we want it to say. Pure.
//!
//! The API server adds defaults, so "equal" is the wrong question: everything that we state must be there with our value; what we
//! do not state is none of our business.

use serde::Serialize;
use serde_json::Value;

/// Whether everything that `wanted` states stands in `stored`.
pub fn is_stated<T: Serialize>(wanted: &T, stored: &T) -> bool {
    match (serde_json::to_value(wanted), serde_json::to_value(stored)) {
        (Ok(wanted), Ok(stored)) => stands(&wanted, &stored),
        // an object of our own making that cannot be serialized could not be applied either
        _ => true,
    }
}

fn stands(wanted: &Value, stored: &Value) -> bool {
    match (wanted, stored) {
        (Value::Object(wanted), Value::Object(stored)) => wanted.iter().all(|(key, value)| match stored.get(key) {
            Some(there) => stands(value, there),
            None => is_empty(value),
        }),
        (Value::Array(wanted), Value::Array(stored)) => {
            wanted.len() == stored.len() && wanted.iter().zip(stored).all(|(wanted, stored)| stands(wanted, stored))
        }
        (wanted, stored) => wanted == stored,
    }
}

/// The API server drops what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_that_the_server_added_are_no_drift() {
        assert!(is_stated(
            &json!({"a": [{"name": "x"}]}),
            &json!({"a": [{"name": "x", "policy": "Always"}], "b": 1})
        ));
        assert!(is_stated(&json!({"a": {}, "b": []}), &json!({})));
    }

    #[test]
    fn a_changed_a_missing_and_an_added_list_entry_are_drift() {
        assert!(!is_stated(&json!({"replicas": 1}), &json!({"replicas": 2})));
        assert!(!is_stated(&json!({"a": {"b": "c"}}), &json!({"a": {}})));
        assert!(!is_stated(
            &json!({"gates": [{"name": "ours"}]}),
            &json!({"gates": [{"name": "ours"}, {"name": "other"}]})
        ));
    }
}
