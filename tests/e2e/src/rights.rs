//! What the operator may do, by its roles, and what it did, by the API server's audit log.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;
use testbed::AuditEvent;

use crate::{
    error::{Error, Result},
    lab::Lab,
    operator::{NAMESPACE, USER},
};

/// Triples of API group, resource (with its subresource) and verb.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights(BTreeSet<(String, String, String)>);

impl Rights {
    /// All rules of all roles that are bound to the operator's service account.
    pub fn granted(lab: &Lab) -> Result<Self> {
        let mut rights = Self::default();
        for (bindings, roles) in [("clusterrolebindings", "clusterroles"), ("rolebindings", "roles")] {
            let text = lab.kubectl(&["get", bindings, "--all-namespaces", "--output=json"])?;
            let list: Value = serde_json::from_str(&text).map_err(Error::malformed(bindings))?;
            for binding in list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|binding| is_ours(binding))
            {
                // a RoleBinding may also point to a ClusterRole
                let kind = if binding["roleRef"]["kind"] == "ClusterRole" {
                    "clusterroles"
                } else {
                    roles
                };
                let namespace = binding["metadata"]["namespace"].as_str().unwrap_or("default");
                let role = lab.get(kind, namespace, binding["roleRef"]["name"].as_str().unwrap_or_default())?;
                let role = role
                    .ok_or_else(|| Error::Broken(format!("a binding names a role that does not exist: {binding}")))?;
                rights
                    .0
                    .extend(role["rules"].as_array().into_iter().flatten().flat_map(triples));
            }
        }
        Ok(rights)
    }

    /// What it asked for and was granted; and what it asked for and was refused.
    pub fn used(log: &[AuditEvent]) -> (Self, Self) {
        let (mut used, mut refused) = (Self::default(), Self::default());
        for event in log.iter().filter(|event| event.user.username == USER) {
            let (Some(object), Some(status)) = (&event.object_ref, &event.response_status) else {
                continue;
            };
            let resource = if object.subresource.is_empty() {
                object.resource.clone()
            } else {
                format!("{}/{}", object.resource, object.subresource)
            };
            let group = object.api_group.clone();
            if status.code == 403 {
                // a terminating namespace and an admission policy answer so too, and are no matter of rights
                if !status.message.contains("cannot ") {
                    continue;
                }
                refused.0.insert((group, resource, event.verb.clone()));
                continue;
            }
            // server-side apply of an object that was not there needs both
            if event.verb == "patch" && status.code == 201 {
                used.0.insert((group.clone(), resource.clone(), "create".to_owned()));
            }
            used.0.insert((group, resource, event.verb.clone()));
        }
        (used, refused)
    }

    /// Those that the other has not.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self
            .0
            .iter()
            .map(|(group, resource, verb)| format!("{verb} {resource}.{group}"))
            .collect();
        let words: Vec<&str> = words.iter().map(|word| word.trim_end_matches('.')).collect();
        f.write_str(if words.is_empty() { "none" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

fn is_ours(binding: &Value) -> bool {
    let account = USER.rsplit(':').next().unwrap_or_default();
    binding["subjects"].as_array().into_iter().flatten().any(|subject| {
        subject["kind"] == "ServiceAccount" && subject["name"] == account && subject["namespace"] == NAMESPACE
    })
}

fn triples(rule: &Value) -> Vec<(String, String, String)> {
    let list = |field: &str| -> Vec<String> {
        rule[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let (resources, verbs) = (list("resources"), list("verbs"));
    let mut found = Vec::new();
    for group in list("apiGroups") {
        for resource in &resources {
            found.extend(verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(verb: &str, resource: &str, code: u16, message: &str) -> AuditEvent {
        serde_json::from_value(json!({
            "auditID": "a", "stage": "ResponseComplete", "requestURI": "/", "verb": verb, "user": {"username": USER},
            "objectRef": {"resource": resource}, "responseStatus": {"code": code, "message": message},
            "requestReceivedTimestamp": "", "stageTimestamp": "",
        }))
        .unwrap()
    }

    #[test]
    fn an_apply_that_creates_uses_two_rights_and_a_refusal_none() {
        let log = [
            event("patch", "services", 201, ""),
            event("list", "secrets", 403, "user cannot list resource"),
        ];
        let (used, refused) = Rights::used(&log);
        assert_eq!(used.to_string(), "create services, patch services");
        assert_eq!(refused.to_string(), "list secrets");
    }

    #[test]
    fn a_rule_grants_every_pair_of_its_resources_and_verbs() {
        let rule = json!({"apiGroups": ["", "x"], "resources": ["a", "b/status"], "verbs": ["get", "list"]});
        let granted = Rights(triples(&rule).into_iter().collect());
        assert_eq!(granted.len(), 8);
        let (used, _) = Rights::used(&[event("get", "a", 200, "")]);
        assert_eq!(granted.without(&used).len(), 7);
        assert!(used.without(&granted).is_empty());
    }
}
