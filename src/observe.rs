//! I/O in: reads the world of one instance. Ordinary passes read the watch caches; before an irreversible act every object that
//! it is judged on is read from the API server again. The only module that reads the clock for the pure ones.

mod facts;
mod login;
mod password;
pub use password::forget as forget_password;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass, VolumeAttachment};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::SqlEdgeInstance;
use crate::cluster::{CLUSTER_WIDE, Kind};
use crate::context::Context;
use crate::error::Result;
use crate::instance::{Instance, Invalid};
use crate::scene::{Scene, Volume};
use crate::settings::Switch;
use crate::watch::NODE_LEASES;
use crate::world::{HOLDER_NODE, StorageClassFacts, World, annotation, is_finished};

/// How far the answer may lag behind the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As far as the watches lag.
    Cached,
    /// Not at all: quorum reads. For irreversible acts.
    Quorum,
}

/// What there is to see.
pub enum Observed {
    /// The resource is gone, being deleted, or another one of the same name.
    Gone,
    /// The resource cannot be understood.
    Invalid(Invalid),
    /// All of it.
    World(Box<World>),
}

/// Looks.
#[allow(clippy::disallowed_methods)] // the place that reads the clock for all pure modules
pub async fn observe(context: &Context, resource: &Arc<SqlEdgeInstance>, freshness: Freshness) -> Result<Observed> {
    let Some(resource) = current(context, resource, freshness).await? else {
        return Ok(Observed::Gone);
    };
    let instance = match Instance::parse(&resource) {
        Ok(instance) => instance,
        Err(invalid) => return Ok(Observed::Invalid(invalid)),
    };
    let namespace = &instance.namespace;
    let deployment: Option<Deployment> = child(context, &context.caches.deployments, namespace, &instance.name).await?;
    let service: Option<Service> = child(context, &context.caches.services, namespace, &instance.service_name).await?;
    let claim: Option<PersistentVolumeClaim> = match freshness {
        Freshness::Cached => child(context, &context.caches.claims, namespace, &instance.claim_name).await?,
        Freshness::Quorum => context.cluster.get(namespace, &instance.claim_name).await?,
    };
    let mut pods = pods(context, &instance, freshness).await?;
    let holder = claim.as_ref().and_then(facts::holder);
    let volume = volume(context, &instance, claim.as_ref()).await?;
    let attachments = attachments(context, volume.as_ref(), freshness).await?;
    if freshness == Freshness::Cached && holder.is_none() && !attachments.is_empty() {
        // attached although nobody of ours was let at it: by a pod that the caches do not show and the user must be told about
        pods = self::pods(context, &instance, Freshness::Quorum).await?;
    }
    let mut nodes: Vec<Arc<Node>> = context.caches.nodes.state();
    if freshness == Freshness::Quorum {
        let mut wanted: Vec<&str> = attachments.iter().map(|a| a.spec.node_name.as_str()).collect();
        wanted.extend(pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()));
        wanted.extend(claim.as_ref().and_then(|claim| annotation(claim, HOLDER_NODE)));
        wanted.sort_unstable();
        wanted.dedup();
        refresh_nodes(context, &mut nodes, &wanted).await?;
    }
    if let Some(holder) = &holder {
        let gone = !pods.iter().any(|pod| is_running_holder(pod, &holder.pod));
        if gone && !context.heartbeats.knows_release_of(&holder.pod) {
            note_release(context, &instance, &holder.pod).await?;
        }
    }
    // as the API server stores it, so that what is read back is what was written
    let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).expect("a time of today");
    let (secret, password) = password::read(context, &instance).await?;
    let mut scene = Scene {
        claim: facts::claim(&instance, claim.as_ref(), &context.heartbeats),
        volume,
        pods: pods.iter().map(|pod| facts::pod(pod, &instance, now)).collect(),
        attachments: attachments.iter().filter_map(|a| facts::attachment(a)).collect(),
        nodes: nodes
            .iter()
            .filter_map(|node| facts::node(node, &context.heartbeats, holder.as_ref().map(|h| h.pod.as_str())))
            .collect(),
        login: crate::scene::Login::NotTried,
        confirmed_dead: instance.confirm_node_dead.clone(),
        fast_detach: context.settings.fast_detach == Switch::Enabled,
        detaching_for: facts::detaching_for(&resource, now),
        timing: context.timing,
    };
    let ours: Vec<Pod> = pods
        .iter()
        .filter(|pod| facts::is_ours(pod, &instance))
        .cloned()
        .collect();
    let mut engine_version = resource
        .status
        .as_ref()
        .and_then(|status| status.engine_version.clone());
    login::look(context, &mut scene, &ours, password.as_deref(), &mut engine_version).await;
    if scene.login == crate::scene::Login::WrongPassword {
        password::forget(context, &instance);
    }
    Ok(Observed::World(Box::new(World {
        now,
        storage_class: storage_class(context, &instance, claim.as_ref()).await?,
        claim_rival: claim_rival(context, &instance, claim.as_ref()),
        resource,
        instance,
        claim,
        secret,
        service,
        deployment,
        pods: ours,
        scene,
        engine_version,
    })))
}

async fn current(
    context: &Context,
    known: &Arc<SqlEdgeInstance>,
    freshness: Freshness,
) -> Result<Option<Arc<SqlEdgeInstance>>> {
    let resource = match freshness {
        Freshness::Cached => Some(known.clone()),
        Freshness::Quorum => {
            let namespace = known.namespace().unwrap_or_default();
            context
                .cluster
                .get::<SqlEdgeInstance>(&namespace, &known.name_any())
                .await?
                .map(Arc::new)
        }
    };
    Ok(resource.filter(|r| r.metadata.deletion_timestamp.is_none() && r.metadata.uid == known.metadata.uid))
}

/// From the cache; an object that is not there is looked up once more, because it may be a foreign one without our label, or one
/// that we have just made.
async fn child<K: Kind + Send + Sync + 'static>(
    context: &Context,
    store: &Store<K>,
    namespace: &str,
    name: &str,
) -> Result<Option<K>> {
    match store.get(&ObjectRef::new(name).within(namespace)) {
        Some(object) => Ok(Some((*object).clone())),
        None => context.cluster.get(namespace, name).await,
    }
}

/// All pods that mention the claim or carry our labels; only a quorum read sees those of others.
async fn pods(context: &Context, instance: &Instance, freshness: Freshness) -> Result<Vec<Pod>> {
    let mut pods: Vec<Pod> = match freshness {
        Freshness::Cached => {
            let cached = context.caches.pods.state();
            let here = cached
                .iter()
                .filter(|pod| pod.namespace().as_deref() == Some(&instance.namespace));
            here.map(|pod| (**pod).clone()).collect()
        }
        Freshness::Quorum => context.cluster.list(&instance.namespace).await?,
    };
    pods.retain(|pod| facts::is_ours(pod, instance) || facts::mentions(pod, &instance.claim_name));
    pods.sort_by_key(|pod| (pod.creation_timestamp(), pod.name_any()));
    Ok(pods)
}

/// The volume behind a bound claim. What is read of it and of its driver never changes, so it is read once.
async fn volume(
    context: &Context,
    instance: &Instance,
    claim: Option<&PersistentVolumeClaim>,
) -> Result<Option<Volume>> {
    let Some(claim) = claim else { return Ok(None) };
    let Some(name) = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) else {
        return Ok(None);
    };
    // a binding lasts as long as the claim; a volume made by hand may come back under the same name for another one
    let binding = format!("{}/{}", instance.uid, claim.uid().unwrap_or_default());
    if let Some(known) = context.memory.volume(&binding) {
        return Ok(Some(known));
    }
    let Some(volume) = context.cluster.get::<PersistentVolume>(CLUSTER_WIDE, name).await? else {
        return Ok(None);
    };
    let driver = match facts::driver(&volume) {
        Some(driver) => context.cluster.get::<CSIDriver>(CLUSTER_WIDE, driver).await?,
        None => None,
    };
    let facts = facts::volume(&volume, driver.as_ref(), &context.settings.driver_classes);
    context.memory.remember_volume(binding, facts.clone());
    Ok(Some(facts))
}

async fn attachments(
    context: &Context,
    volume: Option<&Volume>,
    freshness: Freshness,
) -> Result<Vec<Arc<VolumeAttachment>>> {
    let Some(name) = volume.map(|volume| volume.name.as_str()) else {
        return Ok(Vec::new());
    };
    let mut attachments = match freshness {
        Freshness::Cached => context.caches.attachments.state(),
        Freshness::Quorum => context
            .cluster
            .list::<VolumeAttachment>(CLUSTER_WIDE)
            .await?
            .into_iter()
            .map(Arc::new)
            .collect(),
    };
    attachments.retain(|a| a.spec.source.persistent_volume_name.as_deref() == Some(name));
    Ok(attachments)
}

/// Reads the named nodes and their Leases again.
async fn refresh_nodes(context: &Context, nodes: &mut Vec<Arc<Node>>, wanted: &[&str]) -> Result<()> {
    for name in wanted {
        nodes.retain(|node| node.metadata.name.as_deref() != Some(name));
        if let Some(node) = context.cluster.get::<Node>(CLUSTER_WIDE, name).await? {
            nodes.push(Arc::new(node));
        }
        if let Some(lease) = context.cluster.get::<Lease>(NODE_LEASES, name).await? {
            context
                .heartbeats
                .saw(name, &lease.resource_version().unwrap_or_default());
        }
    }
    Ok(())
}

/// The baseline of "renewed after the pod was gone": the Leases as they are *after* a quorum read has shown that it is.
async fn note_release(context: &Context, instance: &Instance, holder: &str) -> Result<()> {
    let pods = context.cluster.list::<Pod>(&instance.namespace).await?;
    if pods.iter().any(|pod| is_running_holder(pod, holder)) {
        return Ok(());
    }
    let leases = context.cluster.list::<Lease>(NODE_LEASES).await?;
    let versions: Vec<(String, String)> = leases
        .iter()
        .map(|lease| (lease.name_any(), lease.resource_version().unwrap_or_default()))
        .collect();
    for (node, version) in &versions {
        context.heartbeats.saw(node, version);
    }
    context.heartbeats.released(holder, versions);
    Ok(())
}

/// A finished pod is as good as gone: its containers have ended or its node was given up, and neither proves anything by itself.
fn is_running_holder(pod: &Pod, holder: &str) -> bool {
    pod.uid().as_deref() == Some(holder) && !is_finished(pod)
}

/// Only worth a request while the claim is unbound.
async fn storage_class(
    context: &Context,
    instance: &Instance,
    claim: Option<&PersistentVolumeClaim>,
) -> Result<StorageClassFacts> {
    let bound = claim.is_some_and(|claim| claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_some()));
    if bound || !instance.claim_is_ours {
        return Ok(StorageClassFacts::NotLookedUp);
    }
    let of_claim = claim.and_then(|claim| claim.spec.as_ref()?.storage_class_name.clone());
    let Some(name) = of_claim.or_else(|| instance.storage_class.clone()) else {
        let classes = context.cluster.list::<StorageClass>(CLUSTER_WIDE).await?;
        let default =
            |class: &StorageClass| annotation(class, "storageclass.kubernetes.io/is-default-class") == Some("true");
        return Ok(if classes.iter().any(default) {
            StorageClassFacts::Exists
        } else {
            StorageClassFacts::NoDefault
        });
    };
    Ok(match context.cluster.get::<StorageClass>(CLUSTER_WIDE, &name).await? {
        Some(_) => StorageClassFacts::Exists,
        None => StorageClassFacts::Missing(name),
    })
}

/// Another resource of this namespace that has adopted the claim and still exists.
fn claim_rival(context: &Context, instance: &Instance, claim: Option<&PersistentVolumeClaim>) -> Option<String> {
    let name = claim?
        .labels()
        .get("app.kubernetes.io/instance")
        .filter(|name| **name != instance.name)?;
    let rival = context
        .caches
        .instances
        .get(&ObjectRef::new(name).within(&instance.namespace))?;
    let uses = Instance::parse(&rival).is_ok_and(|rival| rival.claim_name == instance.claim_name);
    uses.then(|| name.clone())
}
