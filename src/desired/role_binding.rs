//! The `RoleBinding` that gives the guard its Role.

use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};

use super::owned;
use crate::instance::Instance;

/// The binding; none without a guard.
pub fn role_binding(instance: &Instance) -> Option<RoleBinding> {
    instance.is_guarded().then(|| RoleBinding {
        metadata: owned(instance, &instance.guard_name()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: instance.guard_name(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: instance.guard_name(),
            namespace: Some(instance.namespace.clone()),
            api_group: None,
        }]),
    })
}
