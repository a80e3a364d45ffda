//! What the children of an instance are to look like: one function per object.
//!
//! Pure: no I/O, no clock, no chance. The same instance always gives the same bytes, so that applying them again changes
//! nothing. Only what we mean to decide is filled in; everything else is the API server's default or another writer's.

mod claim;
mod container;
mod deployment;
mod inputs;
mod lease;
mod role;
mod role_binding;
mod secret;
mod service;
mod service_account;

pub use claim::claim;
pub use container::{ENGINE_CONTAINER, VOLUME_CHECK_CONTAINER, has_guard};
pub use deployment::{Rendering, deployment};
pub use inputs::template_inputs;
pub use lease::{lease, orders};
pub use role::role;
pub use role_binding::role_binding;
pub use secret::secret;
pub use service::service;
pub use service_account::service_account;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::DeletionPolicy;
use crate::instance::Instance;

/// The scheduling gate with which every pod is born: only the operator opens it, and only with proof.
pub const VOLUME_FENCE: &str = "sqledge.io/volume-fence";

/// Annotation of the Deployment: [`template_inputs`] of what its pod template was made from.
pub const TEMPLATE_INPUTS: &str = "sqledge.io/template-inputs";

/// Annotation of the Deployment: image of the operator that made its pod template. A newer operator leaves the template
/// alone as long as the inputs are the same, so that an upgrade restarts no database.
pub const TEMPLATE_BUILDER: &str = "sqledge.io/template-builder";

/// Annotation of a claim or Secret that outlives its instance: UID of the instance that made or adopted it.
pub const INSTANCE_UID: &str = "sqledge.io/instance-uid";

/// Annotation of the claim: what the marker file on its volume must say.
pub const VOLUME_ID: &str = "sqledge.io/volume-id";

/// Key of the password in a Secret that the operator makes: the engine's own variable, so that the Secret also serves
/// with `envFrom`.
pub const PASSWORD_KEY: &str = "MSSQL_SA_PASSWORD";

/// Metadata of a child that goes with its instance.
fn owned(instance: &Instance, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(instance.namespace.clone()),
        labels: Some(instance.labels()),
        owner_references: Some(vec![instance.owner_reference()]),
        ..ObjectMeta::default()
    }
}

/// Metadata of a child that holds data: it goes with its instance only where the user asked for that, and otherwise is
/// recognised by the UID in its annotation.
fn kept(instance: &Instance, name: &str) -> ObjectMeta {
    let meta = owned(instance, name);
    ObjectMeta {
        annotations: Some([(INSTANCE_UID.to_owned(), instance.uid.clone())].into()),
        owner_references: match instance.deletion_policy {
            DeletionPolicy::Delete => meta.owner_references,
            DeletionPolicy::Retain => None,
        },
        ..meta
    }
}
