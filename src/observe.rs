//! I/O in: reads the world of one instance. Ordinary passes read the watch caches; before an irreversible act every object that
//! it is judged on is read from the API server again (`fresh`). The only module that reads the clock for the pure ones.

mod expansion;
mod facts;
mod fresh;
mod login;
mod password;
pub use expansion::note_refusal;
pub use facts::renewal_key;
pub use fresh::{look_again, note_release};
pub use login::log_in;
pub use password::{forget as forget_password, usable as usable_password};

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass, VolumeAttachment};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::SqlEdgeInstance;
use crate::cluster::{CLUSTER_WIDE, Kind};
use crate::context::Context;
use crate::driver_class::DriverClass;
use crate::error::Result;
use crate::instance::{Instance, Invalid};
use crate::scene::{Login, Scene, Volume};
use crate::settings::Switch;
use crate::space::Told;
use crate::world::{GuardObjects, PasswordChange, StorageClassFacts, World, annotation};

/// What there is to see.
pub enum Observed {
    /// The resource is gone, being deleted, or another one of the same name.
    Gone,
    /// The resource cannot be understood.
    Invalid(Invalid),
    /// All of it.
    World(Box<World>),
}

/// Looks at what the watches have delivered.
pub async fn observe(context: &Context, resource: &Arc<SqlEdgeInstance>) -> Result<Observed> {
    if resource.metadata.deletion_timestamp.is_some() {
        return Ok(Observed::Gone);
    }
    let instance = match Instance::parse(resource) {
        Ok(instance) => instance,
        Err(invalid) => return Ok(Observed::Invalid(invalid)),
    };
    let namespace = &instance.namespace;
    let deployment: Option<Deployment> = child(context, &context.caches.deployments, namespace, &instance.name).await?;
    let service: Option<Service> = child(context, &context.caches.services, namespace, &instance.service_name).await?;
    let claim: Option<PersistentVolumeClaim> =
        child(context, &context.caches.claims, namespace, &instance.claim_name).await?;
    let guard = guard(context, &instance).await?;
    let volume = volume(context, &instance, claim.as_ref()).await?;
    let mut parts = Parts {
        pods: cached_pods(context, &instance),
        attachments: of_volume(context.caches.attachments.state(), volume.as_ref()),
        nodes: context.caches.nodes.state(),
        claim,
        volume,
    };
    if parts.claim.as_ref().and_then(facts::holder).is_none() && !parts.attachments.is_empty() {
        // attached although nobody of ours was let at it: by a pod that the caches do not show and the user must be told about
        parts.pods = concerned(context.cluster.list(namespace).await?, &instance);
    }
    let now = now();
    let secret = password::read(context, &instance).await?;
    let mut world = World {
        now,
        storage_class: storage_class(context, &instance, parts.claim.as_ref()).await?,
        claim_rival: claim_rival(context, &instance, parts.claim.as_ref()),
        scene: parts.scene(context, &instance, resource, guard.lease.as_ref(), now),
        resource: resource.clone(),
        pods: parts.ours(&instance),
        expansion_refused: expansion::refusal(context, &instance, parts.claim.as_ref()),
        claim: parts.claim,
        engine_version: resource
            .status
            .as_ref()
            .and_then(|status| status.engine_version.clone()),
        broken_databases: Vec::new(),
        space: Told::NotYet,
        instance,
        secret,
        password_change: PasswordChange::None,
        service,
        deployment,
        guard,
    };
    login::recall(context, &mut world);
    Ok(Observed::World(Box::new(world)))
}

/// As the API server stores it, so that what is read back is what was written.
#[allow(clippy::disallowed_methods)] // the place that reads the clock for all pure modules
fn now() -> Timestamp {
    Timestamp::from_microsecond(Timestamp::now().as_microsecond()).expect("a time of today")
}

/// What the failover decision rests on, as read.
struct Parts {
    claim: Option<PersistentVolumeClaim>,
    volume: Option<Volume>,
    pods: Vec<Pod>,
    attachments: Vec<Arc<VolumeAttachment>>,
    nodes: Vec<Arc<Node>>,
}

impl Parts {
    fn scene(
        &self,
        context: &Context,
        instance: &Instance,
        resource: &SqlEdgeInstance,
        lease: Option<&Lease>,
        now: Timestamp,
    ) -> Scene {
        let claim = facts::claim(instance, self.claim.as_ref(), &context.heartbeats);
        let holder = claim.holder.as_ref().map(|holder| holder.pod.as_str());
        let mut scene = Scene {
            volume: self.volume.clone(),
            pods: self.pods.iter().map(|pod| facts::pod(pod, instance, now)).collect(),
            attachments: self.attachments.iter().filter_map(|a| facts::attachment(a)).collect(),
            nodes: self
                .nodes
                .iter()
                .filter_map(|node| facts::node(node, &context.heartbeats, holder))
                .collect(),
            login: Login::NotTried,
            confirmed_dead: instance.confirm_node_dead.clone(),
            fast_detach: context.settings.fast_detach == Switch::Enabled,
            detaching_for: facts::detaching_for(resource, &context.memory),
            // one that is not ours is none for the decision, which would write to it; the plan says what is to be done about it
            lease: lease
                .filter(|lease| instance.owns(*lease))
                .and_then(|lease| facts::lease(lease, &context.renewals)),
            policy: facts::policy(&instance.failover),
            timing: context.timing,
            claim,
        };
        let claim = self.claim.as_ref().and_then(kube::ResourceExt::uid).unwrap_or_default();
        facts::count_without_volume(&mut scene, &claim, &context.heartbeats);
        scene
    }

    fn ours(&self, instance: &Instance) -> Vec<Pod> {
        let ours = self.pods.iter().filter(|pod| facts::is_ours(pod, instance));
        ours.cloned().collect()
    }
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

/// What the guard needs.
async fn guard(context: &Context, instance: &Instance) -> Result<GuardObjects> {
    if !instance.is_guarded() {
        return Ok(GuardObjects::default());
    }
    let (caches, namespace) = (&context.caches, instance.namespace.as_str());
    let (name, lease) = (instance.guard_name(), instance.lease_name());
    Ok(GuardObjects {
        account: child::<ServiceAccount>(context, &caches.accounts, namespace, &name).await?,
        role: child::<Role>(context, &caches.roles, namespace, &name).await?,
        binding: child::<RoleBinding>(context, &caches.bindings, namespace, &name).await?,
        lease: newest_lease(
            context,
            instance,
            child(context, &caches.leases, namespace, &lease).await?,
        )
        .await?,
    })
}

/// A cache that shows an older Lease than a read has shown lags, and would be judged with the age of the newer one.
async fn newest_lease(context: &Context, instance: &Instance, cached: Option<Lease>) -> Result<Option<Lease>> {
    let lags = |lease: &Lease| {
        let version = lease.resource_version().unwrap_or_default();
        context.renewals.knows_newer(&facts::renewal_key(lease), &version)
    };
    if cached.as_ref().is_some_and(lags) {
        return Box::pin(fresh::lease(context, instance)).await;
    }
    Ok(cached)
}

fn cached_pods(context: &Context, instance: &Instance) -> Vec<Pod> {
    let cached = context.caches.pods.state();
    let here = cached
        .iter()
        .filter(|pod| pod.namespace().as_deref() == Some(&instance.namespace));
    concerned(here.map(|pod| (**pod).clone()).collect(), instance)
}

/// The pods that mention the claim or carry our labels; only a quorum read sees those of others.
fn concerned(mut pods: Vec<Pod>, instance: &Instance) -> Vec<Pod> {
    pods.retain(|pod| facts::is_ours(pod, instance) || facts::mentions(pod, &instance.claim_name));
    pods.sort_by_key(|pod| (pod.creation_timestamp(), pod.name_any()));
    pods
}

fn of_volume(mut attachments: Vec<Arc<VolumeAttachment>>, volume: Option<&Volume>) -> Vec<Arc<VolumeAttachment>> {
    let name = volume.map(|volume| volume.name.as_str());
    attachments.retain(|a| name.is_some() && a.spec.source.persistent_volume_name.as_deref() == name);
    attachments
}

/// The volume behind a bound claim. What is read of it and of its driver never changes, so it is read once it is there.
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
    let class = instance.failover.driver_class;
    let binding = format!(
        "{}/{}/{}",
        instance.uid,
        claim.uid().unwrap_or_default(),
        class.map_or("", DriverClass::name)
    );
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
    let facts = facts::volume(&volume, driver.as_ref(), class, &context.settings.driver_classes);
    // a driver that has not said whether it attaches may yet say so
    if facts.driver.is_none() || driver.is_some() {
        context.memory.remember_volume(binding, facts.clone());
    }
    Ok(Some(facts))
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
    let reference = ObjectRef::new(name).within(&instance.namespace);
    let caches = &context.caches;
    // one that cannot be understood at the moment may have been what filled the volume
    let uses = match caches.instances.get(&reference) {
        Some(rival) => Instance::parse(&rival).map_or(true, |rival| rival.claim_name == instance.claim_name),
        None => caches.unreadable.get(&reference).is_some(),
    };
    uses.then(|| name.clone())
}
