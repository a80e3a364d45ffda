//! What the detach of a volume proves, by CSI driver. Pure.
//!
//! A row of the built-in table carries a source that was read. A driver without a row is [`DriverClass::Unknown`]: the operator
//! then holds a failover and says so, because "the attachment is gone" may mean nothing on that storage.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a driver's `ControllerUnpublishVolume` guarantees once it has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DriverClass {
    /// The storage accepts no write of that node any more.
    Revoke,
    /// Writes need a quorum that the new attachment takes over.
    Quorum,
    /// Refuses to detach while the volume is mounted: safe, but may hold for ever.
    Busy,
    /// Needs a fence of its own (Ceph: `NetworkFence`) before it proves anything.
    NeedsFence,
    /// The volume is bound to its node; there is no failover to another one.
    Local,
    /// Nobody has said; nothing is proved.
    Unknown,
}

impl DriverClass {
    /// Whether "the old node's attachment is gone" proves that the old node cannot write (`StorageRevoked`).
    pub fn detach_is_proof(self) -> bool {
        match self {
            Self::Revoke | Self::Quorum => true,
            Self::Busy | Self::NeedsFence | Self::Local | Self::Unknown => false,
        }
    }

    /// The name a user writes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Revoke => "Revoke",
            Self::Quorum => "Quorum",
            Self::Busy => "Busy",
            Self::NeedsFence => "NeedsFence",
            Self::Local => "Local",
            Self::Unknown => "Unknown",
        }
    }
}

/// `CSIDriver` name and class; docs/storage.md says what was read of others.
const BUILT_IN: &[(&str, DriverClass)] = &[
    // kubernetes-sigs/aws-ebs-csi-driver at 429e202e, pkg/cloud/cloud.go: DetachDisk without Force; the EC2 reference says of DetachVolume that a
    // mounted volume gets stuck in the busy state
    ("ebs.csi.aws.com", DriverClass::Busy),
    // ceph/ceph-csi at 52fcb7b00, internal/rbd/controllerserver.go: ControllerUnpublishVolume does nothing; fencing is by NetworkFence
    ("rbd.csi.ceph.com", DriverClass::NeedsFence),
];

/// The class of a driver: the administrator's word first, then the built-in table, else unknown.
pub fn classify(driver: Option<&str>, settings: &BTreeMap<String, DriverClass>) -> DriverClass {
    let Some(driver) = driver else {
        return DriverClass::Unknown;
    };
    settings
        .get(driver)
        .copied()
        .or_else(|| {
            BUILT_IN
                .iter()
                .find(|(name, _)| *name == driver)
                .map(|(_, class)| *class)
        })
        .unwrap_or(DriverClass::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_nobody_has_classified_is_unknown() {
        assert_eq!(
            classify(Some("disk.example.com"), &BTreeMap::new()),
            DriverClass::Unknown
        );
        assert_eq!(classify(None, &BTreeMap::new()), DriverClass::Unknown);
    }

    #[test]
    fn the_word_of_the_administrator_counts() {
        let settings = BTreeMap::from([("disk.example.com".to_owned(), DriverClass::Revoke)]);
        assert_eq!(classify(Some("disk.example.com"), &settings), DriverClass::Revoke);
    }
}
