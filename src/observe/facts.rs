//! From API objects to the plain facts of `scene`. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Affinity, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::{self, LeaseRenewal, SqlEdgeInstance};
use crate::cluster::Judged;
use crate::context::Memory;
use crate::desired;
use crate::driver_class::{self, DriverClass};
use crate::heartbeats::Heartbeats;
use crate::instance::{Failover, Instance};
use crate::lease::Record;
use crate::scene::{
    Attachment, Claim, Holder, LeaseFacts, NodeFacts, NodeReady, PodFacts, Policy, Proof, Pulse, Scene, Volume,
};
use crate::world::{
    AVOID_BOOTS, AVOID_NODES, HOLDER_NODE, HOLDER_NODE_PROVIDED, HOLDER_POD, PIN_REFUSED, annotation, is_finished,
    is_gated,
};

/// Label by which a pin sends a pod back to a node.
const HOSTNAME: &str = "kubernetes.io/hostname";

pub fn holder(claim: &PersistentVolumeClaim) -> Option<Holder> {
    let pod = annotation(claim, HOLDER_POD)?.to_owned();
    Some(Holder {
        pod,
        node: annotation(claim, HOLDER_NODE).map(str::to_owned),
    })
}

/// The nodes that were lost.
pub fn avoid(claim: &PersistentVolumeClaim) -> Vec<String> {
    let nodes = annotation(claim, AVOID_NODES).unwrap_or_default().split(',');
    nodes.filter(|node| !node.is_empty()).map(str::to_owned).collect()
}

/// Their boot IDs.
fn boots(claim: &PersistentVolumeClaim) -> BTreeMap<String, String> {
    let current = annotation(claim, HOLDER_POD).unwrap_or_default();
    let boots = annotation(claim, AVOID_BOOTS).and_then(|text| text.split_once(';'));
    let boots = boots.filter(|(holder, _)| *holder == current).map(|(_, boots)| boots);
    let lost = avoid(claim);
    boots
        .into_iter()
        .flat_map(|boots| boots.split(','))
        .filter_map(|boot| boot.split_once('='))
        .filter(|(node, _)| lost.iter().any(|lost| lost == node))
        .map(|(node, boot)| (node.to_owned(), boot.to_owned()))
        .collect()
}

fn is_exclusive(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.access_modes.as_deref())
        .unwrap_or_default();
    modes == ["ReadWriteOncePod"]
}

pub fn claim(instance: &Instance, claim: Option<&PersistentVolumeClaim>, heartbeats: &Heartbeats) -> Claim {
    Claim {
        name: instance.claim_name.clone(),
        exists: claim.is_some(),
        exclusive: claim.is_some_and(is_exclusive),
        holder: claim.and_then(holder),
        holder_node_is_provided: claim.is_some_and(|claim| annotation(claim, HOLDER_NODE_PROVIDED) == Some("true")),
        holder_stopped: claim
            .and_then(holder)
            .is_some_and(|holder| heartbeats.has_stopped(&holder.pod)),
        avoid: claim.map(avoid).unwrap_or_default(),
        boots: claim.map(boots).unwrap_or_default(),
        pin_refused: claim
            .and_then(|claim| annotation(claim, PIN_REFUSED))
            .map(str::to_owned),
    }
}

/// By what the renewals of an instance's Lease are known.
pub fn renewal_key(lease: &Lease) -> String {
    format!("{}/{}", lease.namespace().unwrap_or_default(), lease.name_any())
}

/// The Lease, and for how long it has been seen unchanged; one that was never seen before begins now.
pub fn lease(lease: &Lease, renewals: &Heartbeats) -> Option<LeaseFacts> {
    let key = renewal_key(lease);
    renewals.saw(&key, &lease.resource_version().unwrap_or_default());
    Some(LeaseFacts {
        judged: Judged::of(lease)?,
        record: Record::of(lease),
        unchanged: renewals.of(&key).map(|beat| beat.unchanged).unwrap_or_default(),
    })
}

/// What the resource asks of a failover.
pub fn policy(failover: &Failover) -> Policy {
    Policy {
        proof: match failover.proof {
            api::Proof::Storage => Proof::Storage,
            api::Proof::Lease => Proof::Lease,
            api::Proof::Manual => Proof::Manual,
        },
        moves_while_it_answers: failover.lease == LeaseRenewal::Always,
    }
}

/// The CSI driver of a volume.
pub fn driver(volume: &PersistentVolume) -> Option<&str> {
    Some(volume.spec.as_ref()?.csi.as_ref()?.driver.as_str())
}

/// `class` is the word of the instance's owner, `classes` that of the administrator.
pub fn volume(
    volume: &PersistentVolume,
    driver: Option<&CSIDriver>,
    class: Option<DriverClass>,
    classes: &BTreeMap<String, DriverClass>,
) -> Volume {
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let class = if lives_on_its_node(volume) {
        DriverClass::Local
    } else if driver.is_some_and(|driver| driver.spec.attach_required == Some(false)) {
        // nothing is ever attached, so "the attachment is gone" says nothing, whatever the administrator declared
        DriverClass::Unknown
    } else {
        class.unwrap_or_else(|| driver_class::classify(self::driver(volume), classes))
    };
    Volume {
        name: volume.name_any(),
        driver: csi.map(|csi| csi.driver.clone()),
        attachable: csi.is_some() && driver.is_none_or(|driver| driver.spec.attach_required != Some(false)),
        class,
        // the name that kubelet and attach-detach controller give a CSI volume
        unique_name: csi.map(|csi| format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle)),
    }
}

/// Volumes of these types are a folder or disk of one node, whatever made them.
fn lives_on_its_node(volume: &PersistentVolume) -> bool {
    volume
        .spec
        .as_ref()
        .is_some_and(|spec| spec.local.is_some() || spec.host_path.is_some())
}

/// Made from the template of a Deployment of ours: no other pod carries both our labels and our claim.
pub fn is_ours(pod: &Pod, instance: &Instance) -> bool {
    mentions(pod, &instance.claim_name)
        && instance.has_labelled(pod.labels())
        && pod
            .owner_references()
            .iter()
            .any(|owner| owner.kind == "ReplicaSet" && owner.controller == Some(true))
}

/// Whether one of its volumes is the claim.
pub fn mentions(pod: &Pod, claim: &str) -> bool {
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    volumes.iter().any(|v| {
        v.persistent_volume_claim
            .as_ref()
            .is_some_and(|source| source.claim_name == claim)
    })
}

pub fn pod(pod: &Pod, instance: &Instance, now: Timestamp) -> PodFacts {
    let spec = pod.spec.clone().unwrap_or_default();
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let unschedulable = conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable"));
    let node_selector = spec.node_selector.unwrap_or_default();
    PodFacts {
        judged: judged(pod),
        ours: is_ours(pod, instance),
        gated: is_gated(pod),
        guarded: desired::has_guard(pod),
        node: spec.node_name,
        deleting: pod.metadata.deletion_timestamp.is_some(),
        finished: is_finished(pod),
        pinned: node_selector.contains_key(HOSTNAME) && !instance.node_selector.contains_key(HOSTNAME),
        unschedulable_for: unschedulable
            .and_then(|c| c.last_transition_time.as_ref())
            .map_or(Duration::ZERO, |time| elapsed(time.0, now)),
        has_finalizers: !pod.finalizers().is_empty(),
        avoids: kept_off(spec.affinity.as_ref(), instance.affinity.as_ref()),
        unschedulable: unschedulable.map(|c| c.message.clone().unwrap_or_default()),
        node_selector,
    }
}

/// The nodes that an opened gate kept the pod off, but for those that the resource itself keeps it off.
fn kept_off(pods: Option<&Affinity>, resources: Option<&Affinity>) -> Vec<String> {
    let users = avoids(resources);
    let mut nodes = avoids(pods);
    nodes.retain(|node| !users.contains(node));
    nodes
}

/// What stands in every term where we put it there.
fn avoids(affinity: Option<&Affinity>) -> Vec<String> {
    let required = affinity.and_then(|affinity| {
        affinity
            .node_affinity
            .as_ref()?
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let fields = required.and_then(|required| required.node_selector_terms.first()?.match_fields.as_ref());
    let fields = fields.into_iter().flatten();
    fields
        .filter(|field| field.key == "metadata.name" && field.operator == "NotIn")
        .flat_map(|field| field.values.clone().unwrap_or_default())
        .collect()
}

pub fn attachment(attachment: &VolumeAttachment) -> Option<Attachment> {
    Some(Attachment {
        judged: Judged::of(attachment)?,
        node: attachment.spec.node_name.clone(),
        deleting: attachment.metadata.deletion_timestamp.is_some(),
        detach_error: attachment
            .status
            .as_ref()
            .and_then(|s| s.detach_error.as_ref()?.message.clone()),
    })
}

pub fn node(node: &Node, heartbeats: &Heartbeats, holder: Option<&str>) -> Option<(String, NodeFacts)> {
    let name = node.name_any();
    let status = node.status.clone().unwrap_or_default();
    let spec = node.spec.clone().unwrap_or_default();
    let ready = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .find(|c| c.type_ == "Ready");
    let reported = ready
        .as_ref()
        .and_then(|c| c.last_heartbeat_time.as_ref())
        .map(|time| time.0);
    let ready = ready.map(|c| c.status);
    let taints = spec.taints.unwrap_or_default();
    let beat = heartbeats.of(&name);
    let reported = reported.as_ref().map(ToString::to_string).unwrap_or_default();
    let facts = NodeFacts {
        judged: Judged::of(node)?,
        lease_unchanged: beat.map(|beat| beat.unchanged),
        lease_renewed: beat.is_some_and(|beat| beat.renewed),
        reported_since_release: holder
            .is_some_and(|holder| heartbeats.reported_since_release(holder, &name, &reported)),
        // written into a list on the claim, which these characters would break
        boot: status
            .node_info
            .map(|info| info.boot_id)
            .filter(|boot| !boot.is_empty() && !boot.contains([',', ';', '='])),
        unlisted_for: Duration::ZERO,
        renewed_since_release: holder.is_some_and(|holder| heartbeats.renewed_since_release(holder, &name)),
        ready: match ready.as_deref() {
            Some("True") => NodeReady::True,
            Some("False") => NodeReady::False,
            _ => NodeReady::Unknown,
        },
        schedulable: spec.unschedulable != Some(true)
            && !taints
                .iter()
                .any(|t| t.effect == "NoSchedule" || t.effect == "NoExecute"),
        out_of_service: taints.iter().any(|t| t.key == "node.kubernetes.io/out-of-service"),
        is_provided: spec.provider_id.is_some_and(|id| !id.is_empty()),
        labels: node.labels().clone(),
        volumes_in_use: status.volumes_in_use.unwrap_or_default(),
        volumes_attached: status
            .volumes_attached
            .unwrap_or_default()
            .into_iter()
            .map(|v| v.name)
            .collect(),
    };
    Some((name, facts))
}

/// Counts for how long lost nodes have been heard of without the volume.
pub fn count_without_volume(scene: &mut Scene, claim: &str, heartbeats: &Heartbeats) {
    let is_quiet = |node: &&str| scene.pulse(node) == Pulse::Alive && !scene.in_use(node);
    let quiet: Vec<&str> = scene.claim.avoid.iter().map(String::as_str).filter(is_quiet).collect();
    let times = heartbeats.unlisted_for(claim, &quiet, scene.timing.node_lease_stale);
    for (node, time) in times {
        if let Some(facts) = scene.nodes.get_mut(&node) {
            facts.unlisted_for = time;
        }
    }
}

/// For how long this process has seen that the volume is being taken from the old node. The time at which that phase began stands in the status, but
/// may be by another replica's clock.
pub fn detaching_for(resource: &SqlEdgeInstance, memory: &Memory) -> Option<Duration> {
    let phase = resource.status.as_ref()?.failover.as_ref()?.phases.last()?;
    let under_way = phase.name == crate::status::DETACHING && phase.milliseconds.is_none();
    under_way.then(|| memory.seen_for(resource.metadata.uid.as_deref().unwrap_or_default(), phase.started_at.0))
}

fn judged(pod: &Pod) -> Judged {
    Judged {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        resource_version: pod.resource_version().unwrap_or_default(),
    }
}

/// Of an API timestamp; for waiting and wording only, never for safety. A clock that runs behind counts as no time at all.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn starts_of_lost_nodes_count_for_the_holder_under_which_they_were_noted_and_need_not_be_there() {
        let noted = |annotations: serde_json::Value| {
            let claim = json!({"metadata": {"annotations": annotations}});
            let claim: PersistentVolumeClaim = serde_json::from_value(claim).expect("a claim");
            (avoid(&claim), boots(&claim))
        };
        let (holder, lost, written) = (HOLDER_POD, AVOID_NODES, crate::world::AVOID_BOOTS);
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        let boots = |boots: &[(&str, &str)]| -> BTreeMap<String, String> {
            boots.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let text = "uid-1;n1=first,n3=second";
        assert_eq!(
            noted(json!({holder: "uid-1", lost: "n1,n2", written: text})),
            (names(&["n1", "n2"]), boots(&[("n1", "first")]))
        );
        let unknown = (names(&["n1", "n2"]), BTreeMap::new());
        assert_eq!(noted(json!({holder: "uid-2", lost: "n1,n2", written: text})), unknown);
        assert_eq!(noted(json!({holder: "uid-1", lost: "n1,n2"})), unknown);
        assert_eq!(
            noted(json!({holder: "uid-1", lost: "n1,n2", written: "uid-1;"})),
            unknown
        );
        assert_eq!(noted(json!({})), (names(&[]), BTreeMap::new()));
    }

    #[test]
    fn a_node_that_the_resource_keeps_the_pod_off_was_not_lost() {
        let term = |nodes: &[&str]| {
            let fields: Vec<_> = nodes
                .iter()
                .map(|node| json!({"key": "metadata.name", "operator": "NotIn", "values": [node]}))
                .collect();
            let terms = json!([{"matchFields": fields}]);
            let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
            serde_json::from_value::<Affinity>(affinity).expect("an affinity")
        };
        let (users, ours) = (term(&["n1"]), term(&["n1", "n2"]));
        assert_eq!(kept_off(Some(&ours), Some(&users)), ["n2"]);
        assert_eq!(kept_off(Some(&ours), None), ["n1", "n2"]);
        assert_eq!(kept_off(None, Some(&users)), [""; 0]);
    }

    fn a_volume(source: &serde_json::Value) -> PersistentVolume {
        let mut spec = json!({"capacity": {"storage": "1Gi"}});
        spec.as_object_mut()
            .expect("a map")
            .extend(source.as_object().expect("a map").clone());
        serde_json::from_value(json!({"metadata": {"name": "pv-1"}, "spec": spec})).expect("a volume")
    }

    #[test]
    fn what_a_detach_proves_depends_on_volume_driver_and_declaration() {
        let declared = BTreeMap::from([("disk.example.com".to_owned(), DriverClass::Revoke)]);
        let csi = a_volume(&json!({"csi": {"driver": "disk.example.com", "volumeHandle": "v"}}));
        let attaches = |attach: Option<bool>| -> CSIDriver {
            serde_json::from_value(
                json!({"metadata": {"name": "disk.example.com"}, "spec": {"attachRequired": attach}}),
            )
            .expect("a driver")
        };
        let class = |pv: &PersistentVolume, driver: Option<&CSIDriver>| volume(pv, driver, None, &declared).class;
        assert_eq!(class(&csi, None), DriverClass::Revoke);
        assert_eq!(class(&csi, Some(&attaches(None))), DriverClass::Revoke);
        assert_eq!(class(&csi, Some(&attaches(Some(true)))), DriverClass::Revoke);
        assert_eq!(
            class(&csi, Some(&attaches(Some(false)))),
            DriverClass::Unknown,
            "there is no attachment to be gone"
        );
        assert_eq!(
            class(&a_volume(&json!({"hostPath": {"path": "/x"}})), None),
            DriverClass::Local
        );
        assert_eq!(
            class(&a_volume(&json!({"local": {"path": "/x"}})), None),
            DriverClass::Local
        );
        assert_eq!(
            class(&a_volume(&json!({"nfs": {"path": "/x", "server": "s"}})), None),
            DriverClass::Unknown
        );
    }

    #[test]
    fn the_instances_own_word_outweighs_the_administrators_but_not_what_is_seen() {
        let declared = BTreeMap::from([("disk.example.com".to_owned(), DriverClass::Revoke)]);
        let class = |source: &serde_json::Value, driver: Option<&CSIDriver>| {
            volume(&a_volume(source), driver, Some(DriverClass::Busy), &declared).class
        };
        let csi = json!({"csi": {"driver": "disk.example.com", "volumeHandle": "v"}});
        assert_eq!(class(&csi, None), DriverClass::Busy);
        assert_eq!(class(&json!({"hostPath": {"path": "/x"}}), None), DriverClass::Local);
        let never_attached: CSIDriver = serde_json::from_value(
            json!({"metadata": {"name": "disk.example.com"}, "spec": {"attachRequired": false}}),
        )
        .expect("a driver");
        assert_eq!(class(&csi, Some(&never_attached)), DriverClass::Unknown);
    }
}
