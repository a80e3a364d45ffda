//! The storage settings: a claim that the operator makes, or one that exists.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Invalid, names::is_object_name, quantity};
use crate::api::{AccessMode, StorageSpec};

/// Size of a volume when the resource names none: that of the vendor's own guide.
const DEFAULT_SIZE: &str = "8Gi";

/// The storage settings with defaults.
pub(super) struct Storage {
    pub(super) claim_name: String,
    pub(super) claim_is_ours: bool,
    pub(super) access_mode: AccessMode,
    pub(super) class: Option<String>,
    pub(super) size: Option<Quantity>,
}

impl Storage {
    pub(super) fn parse(spec: StorageSpec, name: &str) -> Result<Self, Invalid> {
        let StorageSpec {
            size,
            storage_class_name,
            access_modes,
            existing_claim,
        } = spec;
        if let Some(claim) = existing_claim {
            if size.is_some() || storage_class_name.is_some() || access_modes.is_some() {
                return Err(Invalid::new(
                    "spec.storage.existingClaim",
                    "excludes size, storageClassName and accessModes: the claim already has them, remove them here",
                ));
            }
            if !is_object_name(&claim) {
                return Err(Invalid::new(
                    "spec.storage.existingClaim",
                    "is no name of a claim: write the name of a PersistentVolumeClaim in the same namespace",
                ));
            }
            return Ok(Self {
                claim_name: claim,
                claim_is_ours: false,
                access_mode: AccessMode::default(),
                class: None,
                size: None,
            });
        }
        let size = size.unwrap_or_else(|| Quantity(DEFAULT_SIZE.to_owned()));
        let parsed = quantity::parse(&size.0)
            .filter(quantity::Parsed::is_positive)
            .ok_or_else(|| Invalid::new("spec.storage.size", "must be a quantity above 0: write it such as 8Gi"))?;
        if storage_class_name
            .as_deref()
            .is_some_and(|class| !is_object_name(class))
        {
            return Err(Invalid::new(
                "spec.storage.storageClassName",
                "is no name of a StorageClass: correct it, or remove it for the cluster's default class",
            ));
        }
        let access_mode = match access_modes.as_deref() {
            None => AccessMode::default(),
            Some([mode]) => *mode,
            Some(_) => {
                return Err(Invalid::new(
                    "spec.storage.accessModes",
                    "needs exactly one mode: ReadWriteOncePod, or ReadWriteOnce where the driver knows no other",
                ));
            }
        };
        Ok(Self {
            claim_name: format!("{name}-data"),
            claim_is_ours: true,
            access_mode,
            class: storage_class_name,
            size: Some(Quantity(parsed.canonical())),
        })
    }
}
