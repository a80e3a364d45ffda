//! The `ServiceAccount` as which the guard speaks with the API server.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::owned;
use crate::instance::Instance;

/// The account; none without a guard. Its token reaches only the engine's container, by a volume of the pod's template.
pub fn service_account(instance: &Instance) -> Option<ServiceAccount> {
    instance.is_guarded().then(|| ServiceAccount {
        metadata: owned(instance, &instance.guard_name()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
