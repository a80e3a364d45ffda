//! The Role of the guard: its one Lease.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};

use super::owned;
use crate::instance::Instance;

/// The Role; none without a guard. Whoever breaks into the engine gets this right with the token: it must not reach any
/// other object, and not make or delete this one. The operator's admission policy allows it no other shape.
pub fn role(instance: &Instance) -> Option<Role> {
    let words = |word: &str| vec![word.to_owned()];
    instance.is_guarded().then(|| Role {
        metadata: owned(instance, &instance.guard_name()),
        rules: Some(vec![PolicyRule {
            api_groups: Some(words("coordination.k8s.io")),
            resources: Some(words("leases")),
            resource_names: Some(vec![instance.lease_name()]),
            verbs: vec!["get".to_owned(), "update".to_owned()],
            non_resource_urls: None,
        }]),
    })
}
