//! Where the password of `sa` is.

use super::{Invalid, names::is_object_name};
use crate::api::SecretKeyReference;

/// Where the password is.
pub(super) struct Password {
    pub(super) secret_name: String,
    pub(super) key: Option<String>,
    pub(super) is_ours: bool,
}

impl Password {
    pub(super) fn parse(reference: Option<SecretKeyReference>, name: &str) -> Result<Self, Invalid> {
        let Some(SecretKeyReference { name: secret_name, key }) = reference else {
            return Ok(Self {
                secret_name: format!("{name}-sa"),
                key: None,
                is_ours: true,
            });
        };
        if !is_object_name(&secret_name) {
            return Err(Invalid::new(
                "spec.saPasswordSecretRef.name",
                "is no name of a Secret: write the name of one in the same namespace, or remove saPasswordSecretRef to have one made",
            ));
        }
        if key.as_deref().is_some_and(|key| !is_secret_key(key)) {
            return Err(Invalid::new(
                "spec.saPasswordSecretRef.key",
                "is no key of a Secret: use letters, digits, '-', '_' and '.', or remove it for MSSQL_SA_PASSWORD",
            ));
        }
        Ok(Self {
            secret_name,
            key,
            is_ours: false,
        })
    }
}

fn is_secret_key(key: &str) -> bool {
    (1..=253).contains(&key.len())
        && key != "."
        && !key.starts_with("..")
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
