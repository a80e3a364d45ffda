//! I/O out: carries out the steps of a plan and the one irreversible act of a verdict. Decides nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt as _;
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Judged};
use crate::context::Context;
use crate::desired;
use crate::error::Result;
use crate::failover::{Act, Placement};
use crate::instance::Instance;
use crate::lease;
use crate::login::{Change, Target};
use crate::observe::usable_password;
use crate::password;
use crate::plan::Step;
use crate::scene::{Holder, Scene};
use crate::world::{
    AVOID_BOOTS, AVOID_NODES, EPOCH, HOLDER_NODE, HOLDER_NODE_PROVIDED, HOLDER_POD, PIN_REFUSED, World,
};

/// What came of the steps of a plan.
pub struct Applied {
    /// Whether the Deployment is another one now, so that a pod of its former template may be about to make way; that it was applied says
    /// nothing, because others may undo it each time.
    pub is_another: bool,
    /// The API server's words, if it will not let the claim grow: no reason to leave the other steps undone, or to fail the pass.
    pub refused: Option<String>,
    /// How it ended.
    pub outcome: Result<()>,
}

/// Carries out the steps, in order; the first error ends it, the next pass begins anew. Only a claim grows all the same: it may be a full volume that
/// somebody waits for.
pub async fn steps(context: &Context, world: &World, steps: &[Step]) -> Applied {
    let mut applied = Applied {
        is_another: false,
        refused: None,
        outcome: Ok(()),
    };
    for step in steps {
        if applied.outcome.is_ok() || matches!(step, Step::GrowClaim { .. }) {
            let outcome = Box::pin(carry_out(context, world, step, &mut applied)).await;
            applied.outcome = applied.outcome.and(outcome);
        }
    }
    applied
}

async fn carry_out(context: &Context, world: &World, step: &Step, applied: &mut Applied) -> Result<()> {
    let (cluster, instance) = (&context.cluster, &world.instance);
    let namespace = instance.namespace.as_str();
    match step {
        Step::CreateSecret => {
            let password = password::generate()?;
            created(cluster.create(namespace, &desired::secret(instance, &password)).await)?;
        }
        Step::CreateClaim => {
            let id = password::random_id()?;
            if let Some(claim) = desired::claim(instance, &id) {
                created(cluster.create(namespace, &claim).await)?;
            }
        }
        Step::PatchClaim { claim, operations } => {
            cluster.patch_judged::<PersistentVolumeClaim>(claim, operations).await?;
        }
        Step::GrowClaim { claim, size } => {
            let operation = json!({"op": "replace", "path": "/spec/resources/requests/storage", "value": size});
            let grown = cluster.patch_judged::<PersistentVolumeClaim>(claim, &[operation]).await;
            applied.refused = match grown {
                Ok(_) => None,
                Err(error) => Some(error.refusal().map(str::to_owned).ok_or(error)?),
            };
        }
        Step::DeleteUnboundClaim { claim } => cluster.delete_judged::<PersistentVolumeClaim>(claim, None).await?,
        Step::OwnSecret { owned } => own_secret(cluster, instance, *owned).await?,
        Step::ApplyService(service) => {
            cluster
                .apply(namespace, &instance.service_name, service.as_ref())
                .await?;
        }
        Step::ApplyServiceAccount(account) => {
            cluster
                .apply(namespace, &instance.guard_name(), account.as_ref())
                .await?;
        }
        Step::ApplyRole(role) => {
            cluster.apply(namespace, &instance.guard_name(), role.as_ref()).await?;
        }
        Step::ApplyRoleBinding(binding) => {
            cluster
                .apply(namespace, &instance.guard_name(), binding.as_ref())
                .await?;
        }
        // never by apply: that would take an existing one from its holder
        Step::CreateLease(lease) => created(cluster.create(namespace, lease.as_ref()).await)?,
        Step::PatchLease { lease, operations } => {
            cluster.patch_judged::<Lease>(lease, operations).await?;
        }
        Step::ApplyDeployment(deployment) => {
            let before = world.deployment.as_ref().and_then(|stored| stored.metadata.generation);
            let after = cluster.apply(namespace, &instance.name, deployment.as_ref()).await?;
            applied.is_another = after.metadata.generation != before;
        }
        Step::ChangePassword => change_password(context, world).await,
        Step::ScaleToOne { deployment } => {
            let operation = json!({"op": "replace", "path": "/spec/replicas", "value": 1});
            cluster.patch_judged::<Deployment>(deployment, &[operation]).await?;
        }
    }
    Ok(())
}

/// Somebody was faster: the next pass sees whose object it is.
fn created<K>(result: Result<K>) -> Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.api_status().is_some_and(kube::core::Status::is_already_exists) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives the engine the password of the Secret in place of the one that let the operator in last. Whatever goes wrong leaves it the former one, or,
/// where there was no answer, shows with the next login.
async fn change_password(context: &Context, world: &World) {
    let (instance, known) = (&world.instance, context.logins.passwords());
    let host = |pod: &Pod| Some((pod.metadata.uid.clone()?, pod.status.as_ref()?.pod_ip.clone()?));
    let Some(((pod, host), wanted)) = world.current_pod().and_then(host).zip(usable_password(context, world)) else {
        return;
    };
    let Some(former) = known.former(&instance.uid, &wanted) else {
        return;
    };
    let target = Target::engine_at(host, former);
    // a leader that was held up may have read a Secret that has changed since
    if !context.leadership.holds() {
        return;
    }
    let change = context.logins.change_password(&pod, target, wanted.clone()).await;
    tracing::info!(instance = %instance.name, namespace = %instance.namespace, ?change, "password of sa");
    match change {
        Change::Done => {
            let message = format!("the engine has the password of Secret {} now", instance.secret_name);
            let events = &context.events;
            events.publish(&world.resource, EventType::Normal, "PasswordChanged", &message);
            known.worked(&instance.uid, wanted);
        }
        Change::Refused(words) => known.refused(&instance.uid, wanted, words),
        Change::NotTheFormer => known.is_another(&instance.uid),
        Change::NoAnswer(_) => known.perhaps(&instance.uid, wanted),
        Change::NotNow(_) => {}
    }
}

async fn own_secret(cluster: &Cluster, instance: &Instance, owned: bool) -> Result<()> {
    let Some(secret) = cluster
        .get::<Secret>(&instance.namespace, &instance.secret_name)
        .await?
    else {
        return Ok(());
    };
    let Some(judged) = Judged::of(&secret) else {
        return Ok(());
    };
    let owners = if owned {
        vec![instance.owner_reference()]
    } else {
        Vec::new()
    };
    let operation = json!({"op": "add", "path": "/metadata/ownerReferences", "value": owners});
    cluster.patch_judged::<Secret>(&judged, &[operation]).await?;
    Ok(())
}

/// Carries out an irreversible act on exactly what it was judged on.
pub async fn act(cluster: &Cluster, world: &World, act: &Act) -> Result<()> {
    match act {
        Act::Record(holder) => record(cluster, world, Some(holder), None).await,
        Act::RefusePin { pod, node } => {
            record(cluster, world, None, Some(node)).await?;
            cluster.delete_judged::<Pod>(pod, Some(0)).await
        }
        Act::Evict { pod } => cluster.delete_judged::<Pod>(pod, Some(0)).await,
        Act::Stop { pod } => cluster.delete_judged::<Pod>(pod, None).await,
        Act::ShrinkVolumesInUse {
            node,
            index,
            unique_name,
        } => {
            let path = format!("/status/volumesInUse/{index}");
            let operations = [
                json!({"op": "test", "path": path, "value": unique_name}),
                json!({"op": "remove", "path": path}),
            ];
            cluster.patch_status_judged::<Node>(node, &operations).await.map(|_| ())
        }
        Act::DeleteAttachment { attachment } => cluster.delete_judged::<VolumeAttachment>(attachment, None).await,
        Act::Lose { node } => lose(cluster, world, node).await,
        Act::Seal { lease, seal } => change_lease(cluster, world, lease, |record| record.sealed(seal.clone())).await,
        Act::OpenGate { pod, placement, name } => {
            if let Some(lease) = name {
                change_lease(cluster, world, lease, |record| record.named(&pod.uid)).await?;
            }
            open_gate(cluster, world, pod, placement).await
        }
    }
}

/// Changes the Lease as a compare-and-swap on exactly what was judged: the object that is put carries the judged UID and resourceVersion, and
/// what is read again is only what else stands on it.
async fn change_lease(
    cluster: &Cluster,
    world: &World,
    judged: &Judged,
    change: impl Fn(&lease::Record) -> lease::Record,
) -> Result<()> {
    // one that is gone is put all the same: the API server refuses it by its UID, and nothing further is done
    let stored = cluster.get::<Lease>(&judged.namespace, &judged.name).await?;
    let mut stored = stored.unwrap_or_default();
    stored.metadata.name = Some(judged.name.clone());
    stored.metadata.namespace = Some(judged.namespace.clone());
    let changed = change(&lease::Record::of(&stored));
    changed.write(&mut stored, world.now);
    stored.metadata.uid = Some(judged.uid.clone());
    stored.metadata.resource_version = Some(judged.resource_version.clone());
    cluster.replace(&judged.namespace, &judged.name, &stored).await?;
    Ok(())
}

/// Writes the holder (or that a pin was refused) on the claim, as a compare-and-swap.
async fn record(cluster: &Cluster, world: &World, holder: Option<&Holder>, pin_refused: Option<&str>) -> Result<()> {
    let Some(claim) = &world.claim else { return Ok(()) };
    let Some(judged) = Judged::of(claim) else { return Ok(()) };
    let mut annotations = claim.annotations().clone();
    if let Some(Holder { pod, node }) = holder {
        // a refusal holds as long as the volume stays with that node
        if node.is_none() {
            annotations.remove(PIN_REFUSED);
        }
        match node {
            // the caches may show it, and say nothing about the lost nodes: only the pod's successor may go back to them
            Some(node) => {
                let lost = world.scene.claim.avoid.iter().filter(|lost| *lost != node);
                avoid(&mut annotations, pod, lost, |node| noted(&world.scene, node));
            }
            None => avoid(&mut annotations, pod, &world.scene.lost_nodes(), |node| {
                boot(&world.scene, node)
            }),
        }
        annotations.insert(HOLDER_POD.into(), pod.clone());
        // a Lease that somebody deletes is made again, and must not begin its count anew
        if let Some(lease) = &world.scene.lease {
            annotations.insert(EPOCH.into(), lease.record.epoch.to_string());
        }
        match node {
            Some(node) => annotations.insert(HOLDER_NODE.into(), node.clone()),
            None => annotations.remove(HOLDER_NODE),
        };
        let facts = node.as_ref().and_then(|node| world.scene.nodes.get(node));
        if facts.is_some_and(|node| node.is_provided) {
            annotations.insert(HOLDER_NODE_PROVIDED.into(), "true".into());
        } else {
            annotations.remove(HOLDER_NODE_PROVIDED);
        }
    }
    if let Some(node) = pin_refused {
        annotations.insert(PIN_REFUSED.into(), node.to_owned());
    }
    let operation = json!({"op": "add", "path": "/metadata/annotations", "value": annotations});
    cluster
        .patch_judged::<PersistentVolumeClaim>(&judged, &[operation])
        .await?;
    Ok(())
}

/// Writes down which nodes were lost, and their boot IDs.
fn avoid<'a, 'b>(
    annotations: &mut BTreeMap<String, String>,
    holder: &str,
    lost: impl IntoIterator<Item = &'a String>,
    boot: impl Fn(&str) -> Option<&'b str>,
) {
    let lost: Vec<&str> = lost.into_iter().map(String::as_str).collect();
    let boots: Vec<String> = lost
        .iter()
        .filter_map(|node| Some(format!("{node}={}", boot(node)?)))
        .collect();
    let boots = format!("{holder};{}", boots.join(","));
    for (key, value) in [(AVOID_NODES, lost.join(",")), (AVOID_BOOTS, boots)] {
        if lost.is_empty() {
            annotations.remove(key);
        } else {
            annotations.insert(key.to_owned(), value);
        }
    }
}

/// A lost node's boot ID when it was lost: as it stands on the node where that was read for this act, or as it was noted. A node that
/// is only silent, and does not have the volume, is noted with nothing: it may have it again as soon as it is heard of.
fn boot<'a>(scene: &'a Scene, node: &str) -> Option<&'a str> {
    let holder = scene.claim.holder.as_ref();
    let of_record = holder.is_some_and(|holder| holder.node.as_deref() == Some(node));
    if of_record || scene.attachment(node).is_some() {
        return scene.nodes.get(node)?.boot.as_deref();
    }
    if scene.claim.has_lost(node) {
        return noted(scene, node);
    }
    (!scene.in_use(node)).then_some("")
}

fn noted<'a>(scene: &'a Scene, node: &str) -> Option<&'a str> {
    scene.claim.boots.get(node).map(String::as_str)
}

/// Adds a node to those that were lost, as a compare-and-swap of the claim.
async fn lose(cluster: &Cluster, world: &World, node: &str) -> Result<()> {
    let Some((claim, judged)) = world.claim.as_ref().and_then(|claim| Some((claim, Judged::of(claim)?))) else {
        return Ok(());
    };
    let scene = &world.scene;
    let others = scene.claim.avoid.iter().filter(|lost| *lost != node).cloned();
    let lost: Vec<String> = others.chain([node.to_owned()]).collect();
    let holder = scene.claim.holder.as_ref().map_or("", |holder| &holder.pod);
    let mut annotations = claim.annotations().clone();
    avoid(&mut annotations, holder, &lost, |node| boot(scene, node));
    let operation = json!({"op": "add", "path": "/metadata/annotations", "value": annotations});
    cluster
        .patch_judged::<PersistentVolumeClaim>(&judged, &[operation])
        .await?;
    Ok(())
}

/// Takes our gate away and says where the pod may go, in one patch: the scheduler never sees the one without the other.
async fn open_gate(cluster: &Cluster, world: &World, pod: &Judged, placement: &Placement) -> Result<()> {
    let Some(stored) = world
        .pods
        .iter()
        .find(|stored| stored.uid().as_deref() == Some(&pod.uid))
    else {
        return Ok(());
    };
    let operations = gate_operations(stored, placement);
    cluster.patch_judged::<Pod>(pod, &operations).await?;
    Ok(())
}

fn gate_operations(pod: &Pod, placement: &Placement) -> Vec<Value> {
    let spec = pod.spec.clone().unwrap_or_default();
    let gates: Vec<_> = spec
        .scheduling_gates
        .unwrap_or_default()
        .into_iter()
        .filter(|g| g.name != desired::VOLUME_FENCE)
        .collect();
    let mut operations = Vec::new();
    match placement {
        Placement::Pinned(host) => {
            let mut selector = spec.node_selector.unwrap_or_default();
            selector.insert("kubernetes.io/hostname".into(), host.clone());
            operations.push(json!({"op": "add", "path": "/spec/nodeSelector", "value": selector}));
        }
        Placement::Avoiding(nodes) if nodes.is_empty() => {}
        Placement::Avoiding(nodes) => {
            // one requirement a node: the API server takes a single value where the field is the name
            let avoid = nodes
                .iter()
                .map(|node| json!({"key": "metadata.name", "operator": "NotIn", "values": [node]}));
            let mut affinity = json!(spec.affinity.unwrap_or_default());
            let node_affinity = &mut affinity["nodeAffinity"];
            let required = &mut node_affinity["requiredDuringSchedulingIgnoredDuringExecution"];
            match required["nodeSelectorTerms"].as_array_mut() {
                // the terms are alternatives, so each of them needs the exception
                Some(terms) => {
                    for term in terms {
                        let fields = term["matchFields"].take();
                        let mut fields = fields.as_array().cloned().unwrap_or_default();
                        fields.extend(avoid.clone());
                        term["matchFields"] = fields.into();
                    }
                }
                None => *required = json!({"nodeSelectorTerms": [{"matchFields": avoid.collect::<Vec<_>>()}]}),
            }
            operations.push(json!({"op": "add", "path": "/spec/affinity", "value": affinity}));
        }
    }
    operations.push(json!({"op": "add", "path": "/spec/schedulingGates", "value": gates}));
    operations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::Attachment;
    use crate::world::samples;

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    /// The caches may show an older start of the machine than the one that had the volume.
    #[test]
    fn a_lost_node_keeps_the_start_it_was_lost_with_and_a_new_one_is_noted_only_where_it_was_read() {
        let mut scene = samples::world(&json!({})).scene;
        let claim = &mut scene.claim;
        claim.avoid = vec!["again".into(), "used".into(), "unknown".into()];
        claim.boots = [
            ("again".to_owned(), "zeroth".to_owned()),
            ("used".to_owned(), String::new()),
        ]
        .into();
        claim.holder = Some(Holder {
            pod: "uid-old".into(),
            node: Some("holders".into()),
        });
        for name in ["again", "unknown", "holders", "silent", "attached", "used"] {
            scene.nodes.insert(name.to_owned(), samples::node(name));
        }
        for name in ["attached", "used"] {
            scene.attachments.push(Attachment {
                judged: samples::judged("va"),
                node: name.into(),
                deleting: false,
                detach_error: None,
            });
        }
        let lost: Vec<String> = ["again", "attached", "holders", "silent", "unknown", "used"]
            .map(str::to_owned)
            .into();
        let mut annotations = BTreeMap::new();
        avoid(&mut annotations, "uid-new", &lost, |node| boot(&scene, node));
        assert_eq!(annotations[AVOID_NODES], lost.join(","));
        assert_eq!(
            annotations[AVOID_BOOTS],
            "uid-new;again=zeroth,attached=first,holders=first,silent=,used=first"
        );
        avoid(&mut annotations, "uid-new", &[], |node| boot(&scene, node));
        assert!(annotations.is_empty(), "{annotations:?}");
    }

    #[test]
    fn opening_takes_only_our_gate_and_pins_in_the_same_patch() {
        let pod = pod(&json!({"containers": [], "nodeSelector": {"a": "b"},
            "schedulingGates": [{"name": "sqledge.io/volume-fence"}, {"name": "example.com/other"}]}));
        let operations = gate_operations(&pod, &Placement::Pinned("n1".into()));
        assert_eq!(
            operations[0]["value"],
            json!({"a": "b", "kubernetes.io/hostname": "n1"})
        );
        assert_eq!(operations[1]["value"], json!([{"name": "example.com/other"}]));
    }

    #[test]
    fn avoiding_a_dead_node_adds_to_every_alternative_the_user_gave() {
        let terms = json!([{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]);
        let pod = pod(
            &json!({"containers": [], "schedulingGates": [{"name": "sqledge.io/volume-fence"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}),
        );
        let operations = gate_operations(&pod, &Placement::Avoiding(vec!["n1".into()]));
        let result = &operations[0]["value"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        assert_eq!(result[0]["matchFields"][0]["values"], json!(["n1"]));
        assert_eq!(result[0]["matchExpressions"][0]["key"], "zone");
        assert_eq!(result[1]["matchFields"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn avoiding_works_without_any_affinity_and_nothing_to_avoid_changes_nothing() {
        let pod = pod(&json!({"containers": [], "schedulingGates": [{"name": "sqledge.io/volume-fence"}]}));
        let operations = gate_operations(&pod, &Placement::Avoiding(vec!["n1".into(), "n2".into()]));
        let not = |node: &str| json!({"key": "metadata.name", "operator": "NotIn", "values": [node]});
        assert_eq!(
            operations[0]["value"],
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
                [{"matchFields": [not("n1"), not("n2")]}]}}})
        );
        assert_eq!(gate_operations(&pod, &Placement::Avoiding(Vec::new())).len(), 1);
    }
}
