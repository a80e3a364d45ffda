//! The Secret with the password of `sa`, where the user brought none.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::{PASSWORD_KEY, kept};
use crate::instance::Instance;

/// The Secret. It outlives its instance like the volume does: the engine keeps the password it was first started with, so
/// data without its password would be lost data. It is not immutable, because the password may be changed one day.
pub fn secret(instance: &Instance, password: &str) -> Secret {
    Secret {
        metadata: kept(instance, &instance.secret_name),
        type_: Some("Opaque".to_owned()),
        data: Some([(PASSWORD_KEY.to_owned(), ByteString(password.as_bytes().to_vec()))].into()),
        ..Secret::default()
    }
}
