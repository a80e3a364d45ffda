//! Whether a stored object still says what we want it to say. Pure.
//!
//! The API server adds defaults, so "equal" is the wrong question: everything that we state must be there with our value; what we
//! do not state is none of our business.

use serde::Serialize;
use serde_json::Value;

/// Whether everything that `wanted` states stands in `stored`.
pub fn is_stated<T: Serialize>(wanted: &T, stored: &T) -> bool {
    match (serde_json::to_value(wanted), serde_json::to_value(stored)) {
        (Ok(wanted), Ok(stored)) => stands(&wanted, &stored, ""),
        // an object of our own making that cannot be serialized could not be applied either
        _ => true,
    }
}

/// Strings that the API server drops when they are empty, by the field that they are in. Elsewhere an empty string says something and stays: as
/// the value of a label, an annotation or a `nodeSelector`, in a list, or where its absence means something else (`storageClassName`).
const DROPPED_IF_EMPTY: [(&str, &[&str]); 2] = [
    ("tolerations", &["key", "operator", "value", "effect"]),
    ("seLinuxOptions", &["user", "role", "type", "level"]),
];

/// `field` is the one that both are the value of, or a part of its value.
fn stands(wanted: &Value, stored: &Value, field: &str) -> bool {
    match (wanted, stored) {
        (Value::Object(wanted), Value::Object(stored)) => wanted.iter().all(|(key, value)| match stored.get(key) {
            Some(there) => stands(value, there, key),
            None => is_dropped(value, field, key),
        }),
        (Value::Array(wanted), Value::Array(stored)) => {
            let mut pairs = wanted.iter().zip(stored);
            wanted.len() == stored.len() && pairs.all(|(wanted, stored)| stands(wanted, stored, field))
        }
        (wanted, stored) => wanted == stored,
    }
}

/// Whether the API server stores nothing for it.
fn is_dropped(value: &Value, field: &str, key: &str) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => {
            let dropped = |(within, keys): &(&str, &[&str])| *within == field && keys.contains(&key);
            text.is_empty() && DROPPED_IF_EMPTY.iter().any(dropped)
        }
        Value::Bool(_) | Value::Number(_) => false,
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

    #[test]
    fn an_empty_string_is_no_drift_where_the_api_server_drops_it_and_only_there() {
        for (wanted, stored, same) in [
            (
                json!({"tolerations": [{"key": "", "operator": "Exists", "value": "", "effect": ""}]}),
                json!({"tolerations": [{"operator": "Exists"}]}),
                true,
            ),
            (
                json!({"seLinuxOptions": {"user": "", "level": "s0"}}),
                json!({"seLinuxOptions": {"level": "s0"}}),
                true,
            ),
            // somebody put something in its place
            (
                json!({"tolerations": [{"key": "", "operator": "Exists"}]}),
                json!({"tolerations": [{"key": "a", "operator": "Exists"}]}),
                false,
            ),
            // a label, whatever it is called; a pointer; an entry of a list
            (
                json!({"nodeSelector": {"value": ""}}),
                json!({"nodeSelector": {}}),
                false,
            ),
            (json!({"storageClassName": ""}), json!({}), false),
            (json!({"values": [""]}), json!({"values": []}), false),
        ] {
            assert_eq!(is_stated(&wanted, &stored), same, "{wanted}, {stored}");
        }
    }
}
