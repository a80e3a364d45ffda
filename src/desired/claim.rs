//! The `PersistentVolumeClaim` that holds the databases.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};

use super::{VOLUME_ID, kept};
use crate::instance::Instance;

/// The claim; none where the user brought one, because that one is not ours to shape.
///
/// `volume_id` is what the marker file on the volume must say. It is chosen once, when the claim is made, and read from
/// the claim ever after.
pub fn claim(instance: &Instance, volume_id: &str) -> Option<PersistentVolumeClaim> {
    let size = instance.size.clone().filter(|_| instance.claim_is_ours)?;
    let mut metadata = kept(instance, &instance.claim_name);
    metadata
        .annotations
        .get_or_insert_default()
        .insert(VOLUME_ID.to_owned(), volume_id.to_owned());
    Some(PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![instance.access_mode.as_str().to_owned()]),
            storage_class_name: instance.storage_class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size)].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}
