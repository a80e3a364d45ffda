//! The look before an irreversible act: what the decision rests on, and nothing else, from the API server itself.
//!
//! Four rounds; what is in one round is read at the same time, and their order is part of the proof:
//! 1. resource, claim and the guard's Lease: the holder is recorded by a compare-and-swap of this claim, which fails if another holder was let
//!    in while the rest was read;
//! 2. pods;
//! 3. attachments: an attachment that is gone counts only behind the pod, for which it could come again. And the nodes' Leases: what is to
//!    count as "renewed after the pod was gone" begins with what they are *after* a read of the pods has shown that it is;
//! 4. the nodes: a volume that a node has just begun to use is seen behind its renewal.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::{try_join, try_join_all, try_join3};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt as _;

use super::{Parts, concerned, facts, login, now, of_volume, volume};
use crate::api::SqlEdgeInstance;
use crate::cluster::CLUSTER_WIDE;
use crate::context::Context;
use crate::error::Result;
use crate::heartbeats::Asked;
use crate::instance::Instance;
use crate::readable::Readable;
use crate::scene::{Holder, PodFacts};
use crate::watch::NODE_LEASES;
use crate::world::{GuardObjects, World, is_finished};

/// Which nodes the decision looks at.
#[derive(Debug, PartialEq, Eq)]
enum Nodes {
    /// The holder was let at the volume and is gone, and nobody saw where it was: it may have been anywhere.
    All,
    These(BTreeSet<String>),
}

/// Looks again at a world that was seen in the caches; nothing if the resource is not what it was.
pub async fn look_again(context: &Context, world: &World) -> Result<Option<Box<World>>> {
    let cluster = &context.cluster;
    let Instance {
        namespace,
        name,
        claim_name,
        ..
    } = &world.instance;
    let (resource, claim, lease) = try_join3(
        cluster.get::<SqlEdgeInstance>(namespace, name),
        cluster.get::<PersistentVolumeClaim>(namespace, claim_name),
        lease(context, &world.instance),
    )
    .await?;
    let is_known = |resource: &SqlEdgeInstance| {
        resource.metadata.deletion_timestamp.is_none() && resource.metadata.uid == world.resource.metadata.uid
    };
    let Some(resource) = resource.filter(is_known) else {
        return Ok(None);
    };
    let Ok(instance) = Instance::parse(&resource) else {
        return Ok(None);
    };
    if instance.claim_name != *claim_name {
        return Ok(None);
    }
    let volume = volume(context, &instance, claim.as_ref()).await?;
    let pods = concerned(cluster.list(namespace).await?, &instance);
    let holder = claim.as_ref().and_then(facts::holder);
    let gone = holder.as_ref().filter(|holder| !runs(&pods, &holder.pod));
    // a cache may show of a lost node what was written before it was lost
    let lost = claim
        .as_ref()
        .map(facts::avoid)
        .unwrap_or_default()
        .into_iter()
        .collect();
    let behind_pods = wanted(&pods, holder.as_ref(), gone.is_some()).with(&lost);
    let (attachments, ()) = try_join(
        cluster.list::<VolumeAttachment>(CLUSTER_WIDE),
        look_at_leases(context, gone, &behind_pods),
    )
    .await?;
    let attachments = of_volume(attachments.into_iter().map(Arc::new).collect(), volume.as_ref());
    let attached = attachments.iter().map(|a| a.spec.node_name.clone()).collect();
    let (all, late) = (behind_pods.with(&attached), behind_pods.missing_of(&attached));
    let (nodes, ()) = try_join(refreshed(context, &all), look_at_leases(context, None, &late)).await?;
    let parts = Parts {
        claim,
        volume,
        pods,
        attachments,
        nodes,
    };
    let now = now();
    let mut again = World {
        now,
        scene: parts.scene(context, &instance, &resource, lease.as_ref(), now),
        resource: Arc::new(resource),
        instance,
        pods: parts.ours(&world.instance),
        claim: parts.claim,
        guard: GuardObjects {
            lease,
            ..world.guard.clone()
        },
        ..world.clone()
    };
    login::recall(context, &mut again);
    Ok(Some(Box::new(again)))
}

pub async fn lease(context: &Context, instance: &Instance) -> Result<Option<Lease>> {
    if !instance.is_guarded() {
        return Ok(None);
    }
    let asked = context.renewals.asking();
    let lease: Option<Lease> = context.cluster.get(&instance.namespace, &instance.lease_name()).await?;
    if let Some(lease) = &lease {
        let version = lease.resource_version().unwrap_or_default();
        context.renewals.read(&facts::renewal_key(lease), &version, asked);
    }
    Ok(lease)
}

/// Where the caches say that the holder is gone and nothing can be done yet: looks whether it is, and notes since when.
pub async fn note_release(context: &Context, world: &World) -> Result<()> {
    let Some(Holder { pod: holder, .. }) = &world.scene.claim.holder else {
        return Ok(());
    };
    let runs_here = |pod: &PodFacts| pod.judged.uid == *holder && !pod.finished;
    if world.scene.pods.iter().any(runs_here) || context.heartbeats.knows_release_of(holder) {
        return Ok(());
    }
    let pods: Vec<Pod> = context.cluster.list(&world.instance.namespace).await?;
    if runs(&pods, holder) {
        return Ok(());
    }
    begin_release(context, holder).await
}

/// A finished pod is as good as gone: its containers have ended or its node was given up, and neither proves anything by itself.
fn runs(pods: &[Pod], holder: &str) -> bool {
    pods.iter()
        .any(|pod| pod.uid().as_deref() == Some(holder) && !is_finished(pod))
}

/// Call only after a quorum read has shown that the holder's pod is gone.
async fn begin_release(context: &Context, holder: &str) -> Result<()> {
    let asked = context.heartbeats.asking();
    let leases = context.cluster.list_readable(NODE_LEASES).await?;
    see(context, asked, &leases);
    let versions = leases
        .iter()
        .map(|lease| (lease.name_any(), lease.resource_version().unwrap_or_default()));
    context.heartbeats.released(holder, versions);
    Ok(())
}

/// That a Lease changes is all that is asked of it.
fn see(context: &Context, asked: Asked, leases: &[Readable<Lease>]) {
    for lease in leases {
        let version = lease.resource_version().unwrap_or_default();
        context.heartbeats.read(&lease.name_any(), &version, asked);
    }
}

/// The nodes of pods that want the volume, and the holder's.
fn wanted(pods: &[Pod], holder: Option<&Holder>, gone: bool) -> Nodes {
    if gone && holder.is_some_and(|holder| holder.node.is_none()) {
        return Nodes::All;
    }
    let pods = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
    Nodes::These(pods.chain(holder.and_then(|holder| holder.node.clone())).collect())
}

impl Nodes {
    fn with(&self, more: &BTreeSet<String>) -> Self {
        match self {
            Self::All => Self::All,
            Self::These(names) => Self::These(names | more),
        }
    }

    /// What of these is not among them.
    fn missing_of(&self, names: &BTreeSet<String>) -> Self {
        match self {
            Self::All => Self::These(BTreeSet::new()),
            Self::These(known) => Self::These(names - known),
        }
    }
}

/// Looks at these nodes' Leases; at all of them where a release begins.
async fn look_at_leases(context: &Context, gone: Option<&Holder>, nodes: &Nodes) -> Result<()> {
    let asked = context.heartbeats.asking();
    match (gone, nodes) {
        (Some(holder), _) if !context.heartbeats.knows_release_of(&holder.pod) => {
            begin_release(context, &holder.pod).await?;
        }
        (_, Nodes::All) => see(context, asked, &context.cluster.list_readable(NODE_LEASES).await?),
        (_, Nodes::These(names)) => {
            let leases = names
                .iter()
                .map(|name| context.cluster.get_readable::<Lease>(NODE_LEASES, name));
            let leases: Vec<_> = try_join_all(leases).await?.into_iter().flatten().collect();
            see(context, asked, &leases);
        }
    }
    Ok(())
}

/// All nodes, these of them read again.
async fn refreshed(context: &Context, wanted: &Nodes) -> Result<Vec<Arc<Node>>> {
    let mut nodes: Vec<Arc<Node>> = context.caches.nodes.state();
    let fresh: Vec<Node> = match wanted {
        Nodes::All => {
            nodes.clear();
            context.cluster.list(CLUSTER_WIDE).await?
        }
        Nodes::These(names) => {
            nodes.retain(|node| !names.contains(&node.name_any()));
            let reads = names.iter().map(|name| context.cluster.get::<Node>(CLUSTER_WIDE, name));
            try_join_all(reads).await?.into_iter().flatten().collect()
        }
    };
    nodes.extend(fresh.into_iter().map(Arc::new));
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn these(names: &[&str]) -> Nodes {
        Nodes::These(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn only_nodes_that_matter_are_read_and_all_where_nobody_knows_which() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "nodeName": "n2"}}))
                .expect("a pod");
        let holder = |node: Option<&str>| Holder {
            pod: "uid".into(),
            node: node.map(str::to_owned),
        };
        let pods = std::slice::from_ref(&pod);
        assert_eq!(wanted(pods, Some(&holder(Some("n1"))), true), these(&["n1", "n2"]));
        assert_eq!(wanted(pods, Some(&holder(None)), false), these(&["n2"]));
        assert_eq!(wanted(pods, Some(&holder(None)), true), Nodes::All);
        assert_eq!(wanted(&[], None, false), these(&[]));
        let attached = BTreeSet::from(["n1".to_owned(), "n3".to_owned()]);
        assert_eq!(these(&["n1"]).with(&attached), these(&["n1", "n3"]));
        assert_eq!(these(&["n1"]).missing_of(&attached), these(&["n3"]));
        assert_eq!(Nodes::All.missing_of(&attached), these(&[]));
    }
}
