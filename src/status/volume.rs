//! The conditions about the volume behind the claim: whether the database has room on it, and whether it is growing.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::conditions::{FALSE, TRUE, UNKNOWN};
use crate::instance::exceeds;
use crate::scene::Login;
use crate::space::{LITTLE_PERCENT, Space, Told};
use crate::world::{World, claim_phase, requested_storage};

/// Status, reason, message.
pub type Said = (&'static str, &'static str, String);

fn said(status: &'static str, reason: &'static str, message: impl Into<String>) -> Said {
    (status, reason, message.into())
}

/// `VolumeHasSpace`; none where nothing new is known, because no login succeeded: what was known before then still holds.
pub fn has_space(world: &World) -> Option<Said> {
    match (&world.scene.login, world.space) {
        (Login::Succeeded, Told::Space(space)) => Some(space_left(world, space)),
        (Login::Succeeded, Told::Nothing) => Some(said(
            UNKNOWN,
            "SpaceNotReported",
            format!(
                "the engine does not say how much space is left on the volume of claim {}; the kubelet's metric \
                 kubelet_volume_stats_available_bytes does",
                world.instance.claim_name
            ),
        )),
        (Login::Succeeded, Told::NotYet)
        | (Login::NotTried | Login::NotYet(_) | Login::Failed(_) | Login::WrongPassword, _) => None,
    }
}

/// `VolumeHasSpace` before the first login.
pub fn has_unknown_space() -> Said {
    said(
        UNKNOWN,
        "NoLogin",
        "no login has succeeded yet, and only the engine knows how much space its volume has left",
    )
}

fn space_left(world: &World, space: Space) -> Said {
    let claim = &world.instance.claim_name;
    if !space.is_little() {
        return said(
            TRUE,
            "SpaceLeft",
            format!("at least {LITTLE_PERCENT} % of the volume of claim {claim} are left"),
        );
    }
    let field = if world.instance.claim_is_ours {
        "raise spec.storage.size"
    } else {
        "raise spec.resources.requests.storage of that claim, which is not the operator's"
    };
    let message = format!(
        "less than {LITTLE_PERCENT} % of the volume of claim {claim} are left, less than {}, and a full volume takes no more writes: {field}, or \
         delete data; where the storage class does not set allowVolumeExpansion, move the data to an instance with a larger volume",
        space.bound()
    );
    said(FALSE, "VolumeNearlyFull", message)
}

/// `VolumeResizing`. The driver's own words stay on the claim: many name each of their attempts anew.
pub fn resizing(world: &World) -> Said {
    let name = &world.instance.claim_name;
    let Some(claim) = world.claim.as_ref().filter(|claim| claim_phase(claim) == Some("Bound")) else {
        return said(
            FALSE,
            "NoVolume",
            format!("claim {name} has no volume yet that could grow"),
        );
    };
    let size = |quantity: Option<&Quantity>| quantity.map_or("an unknown size", |quantity| &quantity.0).to_owned();
    let (requested, capacity) = (requested_storage(claim), capacity(claim));
    let wanted = world.instance.size.as_ref().filter(|_| world.instance.claim_is_ours);
    let wants_more = requested.is_some_and(|requested| wanted.is_some_and(|wanted| exceeds(wanted, requested)));
    if let Some(words) = world.expansion_refused.as_ref().filter(|_| wants_more) {
        let message = format!(
            "spec.storage.size is {} and claim {name} requests {}, which the API server refuses to raise: {words}; set allowVolumeExpansion in \
             the claim's storage class if its driver can expand volumes, raise the quota that the words name, or move the data to an \
             instance with a larger volume; it is tried again every few minutes, and what runs is left as it is",
            size(wanted),
            size(requested)
        );
        return said(TRUE, "ExpansionRefused", message);
    }
    let has_less = capacity
        .zip(requested)
        .is_some_and(|(capacity, requested)| exceeds(requested, capacity));
    if !wants_more && !has_less {
        return said(
            FALSE,
            "SizeReached",
            format!("the volume of claim {name} is as large as was asked for"),
        );
    }
    let grows = format!(
        "the volume of claim {name} grows from {} to {}",
        size(capacity),
        size(if wants_more { wanted } else { requested })
    );
    let reports = |type_: &str| says(claim, type_);
    if is_infeasible(claim) || reports("ControllerResizeError") || reports("NodeResizeError") {
        let message = format!(
            "{grows}, but its driver or its node reports an error: `kubectl describe pvc {name}` shows the words, and whether it is tried again"
        );
        return said(TRUE, "ResizeFailed", message);
    }
    if reports("FileSystemResizePending") {
        let message =
            format!("{grows}: the storage is done, and the file system follows on the node that has it mounted");
        return said(TRUE, "FileSystemResizePending", message);
    }
    let message = format!("{grows}: if this lasts, `kubectl describe pvc {name}` shows what the driver's resizer says");
    said(TRUE, "Resizing", message)
}

fn capacity(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage")
}

fn says(claim: &PersistentVolumeClaim, type_: &str) -> bool {
    let conditions = claim.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == type_ && condition.status == TRUE)
}

/// Whether driver or kubelet has given up at this size.
fn is_infeasible(claim: &PersistentVolumeClaim) -> bool {
    let statuses = claim
        .status
        .as_ref()
        .and_then(|status| status.allocated_resource_statuses.as_ref());
    statuses
        .and_then(|statuses| statuses.get("storage"))
        .is_some_and(|status| status.ends_with("Infeasible"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::world::samples;

    fn claim(requested: &str, status: &Value) -> PersistentVolumeClaim {
        let claim = json!({"metadata": {"name": "orders-data"},
            "spec": {"volumeName": "pv-1", "resources": {"requests": {"storage": requested}}}, "status": status});
        serde_json::from_value(claim).expect("a claim")
    }

    #[test]
    fn whether_a_volume_has_space_is_said_after_a_login_and_stays_known_without_one() {
        let space = |available| {
            Told::Space(Space {
                total: 100 << 20,
                available,
            })
        };
        let table = [
            (Login::Succeeded, space(50 << 20), Some((TRUE, "SpaceLeft"))),
            (Login::Succeeded, space(3 << 20), Some((FALSE, "VolumeNearlyFull"))),
            (Login::Succeeded, space(0), Some((FALSE, "VolumeNearlyFull"))),
            (Login::Succeeded, Told::Nothing, Some((UNKNOWN, "SpaceNotReported"))),
            (Login::Succeeded, Told::NotYet, None),
            (Login::NotTried, Told::NotYet, None),
            (Login::Failed("no answer".into()), Told::NotYet, None),
            (Login::NotYet("recovering".into()), Told::NotYet, None),
            (Login::WrongPassword, Told::NotYet, None),
        ];
        for (login, space, expected) in table {
            let mut world = samples::world(&json!({}));
            (world.scene.login, world.space) = (login.clone(), space);
            let found = has_space(&world).map(|(status, reason, _)| (status, reason));
            assert_eq!(found, expected, "{login:?}, {space:?}");
        }
    }

    #[test]
    fn a_nearly_full_volume_is_told_with_its_claim_and_with_the_field_that_whoever_owns_it_can_raise() {
        let ours = json!({});
        let theirs = json!({"storage": {"existingClaim": "mssql-data"}});
        let table = [
            (&ours, "orders-data", "raise spec.storage.size"),
            (
                &theirs,
                "mssql-data",
                "raise spec.resources.requests.storage of that claim",
            ),
        ];
        for (spec, name, field) in table {
            let mut world = samples::world(spec);
            world.scene.login = Login::Succeeded;
            world.space = Told::Space(Space {
                total: 8 << 30,
                available: 300 << 20,
            });
            let (_, _, message) = has_space(&world).expect("known");
            for words in [name, field, "less than 512 MiB", "allowVolumeExpansion"] {
                assert!(message.contains(words), "{words}: {message}");
            }
        }
    }

    #[test]
    fn what_becomes_of_an_expansion_is_read_from_the_claim() {
        let bound = |more: Value| {
            let mut status = json!({"phase": "Bound", "capacity": {"storage": "8Gi"}});
            for (key, value) in more.as_object().expect("an object") {
                status[key] = value.clone();
            }
            status
        };
        let says = |type_: &str| bound(json!({"conditions": [{"type": type_, "status": "True"}]}));
        let stopped = |word: &str| bound(json!({"allocatedResourceStatuses": {"storage": word}}));
        let refused = Some("only dynamically provisioned pvc can be resized");
        // size wanted, size requested, status of the claim, refusal, what is said
        let table = [
            ("8Gi", "8Gi", json!({"phase": "Pending"}), None, (FALSE, "NoVolume")),
            ("8Gi", "8Gi", bound(json!({})), None, (FALSE, "SizeReached")),
            ("8192Mi", "8Gi", bound(json!({})), None, (FALSE, "SizeReached")),
            ("8Gi", "8Gi", json!({"phase": "Bound"}), None, (FALSE, "SizeReached")),
            ("4Gi", "8Gi", bound(json!({})), None, (FALSE, "SizeReached")),
            ("16Gi", "8Gi", bound(json!({})), None, (TRUE, "Resizing")),
            ("16Gi", "8Gi", bound(json!({})), refused, (TRUE, "ExpansionRefused")),
            ("8Gi", "8Gi", bound(json!({})), refused, (FALSE, "SizeReached")),
            ("16Gi", "16Gi", bound(json!({})), None, (TRUE, "Resizing")),
            ("16Gi", "16Gi", says("Resizing"), None, (TRUE, "Resizing")),
            (
                "16Gi",
                "16Gi",
                says("FileSystemResizePending"),
                None,
                (TRUE, "FileSystemResizePending"),
            ),
            (
                "16Gi",
                "16Gi",
                says("ControllerResizeError"),
                None,
                (TRUE, "ResizeFailed"),
            ),
            ("16Gi", "16Gi", says("NodeResizeError"), None, (TRUE, "ResizeFailed")),
            (
                "16Gi",
                "16Gi",
                stopped("ControllerResizeInfeasible"),
                None,
                (TRUE, "ResizeFailed"),
            ),
            (
                "16Gi",
                "16Gi",
                stopped("ControllerResizeInProgress"),
                None,
                (TRUE, "Resizing"),
            ),
        ];
        for (wanted, requested, status, words, expected) in table {
            let mut world = samples::world(&json!({"storage": {"size": wanted}}));
            world.claim = Some(claim(requested, &status));
            world.expansion_refused = words.map(str::to_owned);
            let (found, reason, message) = resizing(&world);
            assert_eq!((found, reason), expected, "{wanted} of {requested}, {status}");
            assert!(message.contains("orders-data"), "{message}");
            if reason == "ExpansionRefused" {
                for words in [
                    "spec.storage.size is 16Gi",
                    "requests 8Gi",
                    "only dynamically provisioned",
                ] {
                    assert!(message.contains(words), "{words}: {message}");
                }
            }
        }
    }

    #[test]
    fn a_claim_that_is_not_ours_grows_at_its_owners_word() {
        let mut world = samples::world(&json!({"storage": {"existingClaim": "mssql-data"}}));
        let capacity = json!({"phase": "Bound", "capacity": {"storage": "8Gi"}});
        world.claim = Some(claim("16Gi", &capacity));
        let (status, reason, message) = resizing(&world);
        assert_eq!((status, reason), (TRUE, "Resizing"));
        assert!(message.contains("mssql-data grows from 8Gi to 16Gi"), "{message}");
    }
}
