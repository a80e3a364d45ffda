//! The one place that calls kube, but for the watches (`watch`) and events (`report`). Every call has a timeout and no hidden retry:
//! kube 5 retries 15 times by default and waits for ever for an answer, and both are poison for a decision that must be taken in seconds.
//! I/O only; decides nothing.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::{Error, Result};
use crate::readable::{Readable, Unreadable};

/// Field manager of everything but the status.
pub const FIELD_MANAGER: &str = "sqledge-operator";
/// Field manager of the status.
pub const STATUS_MANAGER: &str = "sqledge-operator/status";

/// The identity of an object as it was judged; an act on it is refused by the API server if it is another one or has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// resourceVersion at which it was judged.
    pub resource_version: String,
}

impl Judged {
    /// The identity of an object that was read from the API server; `None` for one that never was there.
    pub fn of<K: Resource>(object: &K) -> Option<Self> {
        let meta = object.meta();
        Some(Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            resource_version: meta.resource_version.clone()?,
        })
    }
}

/// A Kubernetes client whose every call ends in bounded time.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    timeout: Duration,
}

/// What a kind needs so that it can be sent and received.
pub trait Kind: Resource<DynamicType = (), Scope: Scope> + Clone + Debug + DeserializeOwned + Serialize {}
impl<K: Resource<DynamicType = (), Scope: Scope> + Clone + Debug + DeserializeOwned + Serialize> Kind for K {}

/// Where objects of a kind live.
pub trait Scope: Sized {
    /// The API of a kind of this scope.
    fn api<K: Resource<DynamicType = (), Scope = Self>>(client: Client, namespace: &str) -> Api<K>;
}

impl Scope for NamespaceResourceScope {
    fn api<K: Resource<DynamicType = (), Scope = Self>>(client: Client, namespace: &str) -> Api<K> {
        Api::namespaced(client, namespace)
    }
}

impl Scope for ClusterResourceScope {
    fn api<K: Resource<DynamicType = (), Scope = Self>>(client: Client, _namespace: &str) -> Api<K> {
        Api::all(client)
    }
}

/// The namespace argument of calls on kinds that have none.
pub const CLUSTER_WIDE: &str = "";

impl Cluster {
    /// A client for the cluster this process runs in, or the one of the user's kubeconfig.
    pub async fn connect(timeout: Duration) -> Result<Self> {
        let mut config = Config::infer()
            .await
            .map_err(|e| Error::Settings(format!("no Kubernetes API server is configured: {e}")))?;
        config.default_retry = false;
        // Both are needed: alone, the read timeout kills healthy pooled connections (idle time counts).
        config.read_timeout = Some(Duration::from_secs(60));
        config.reset_reader_on_write = true;
        config.connect_timeout = Some(Duration::from_secs(5));
        let client = Client::try_from(config).map_err(|e| Error::Settings(format!("no Kubernetes client: {e}")))?;
        Ok(Self::new(client, timeout))
    }

    /// Wraps an existing client; tests pass one with a fault layer below it.
    pub fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// For watches, which have their own timeouts, and for the event recorder.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Quorum read of one object.
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>> {
        let found = self.get_readable::<K>(namespace, name).await?;
        found.map(|object| read("get", object)).transpose()
    }

    /// Quorum list of a namespace, or of a cluster-scoped kind. One object that cannot be read fails it: it may be the one that matters.
    pub async fn list<K: Kind>(&self, namespace: &str) -> Result<Vec<K>> {
        let found = self.list_readable::<K>(namespace).await?;
        found.into_iter().map(|object| read("list", object)).collect()
    }

    /// Quorum read of an object of which only the metadata matters, whatever else stands in it.
    pub async fn get_readable<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<Readable<K>>> {
        self.limited::<K, _>("get", self.api::<Readable<K>>(namespace).get_opt(name))
            .await
    }

    /// Quorum list of such objects.
    pub async fn list_readable<K: Kind>(&self, namespace: &str) -> Result<Vec<Readable<K>>> {
        let api = self.api::<Readable<K>>(namespace);
        Ok(self
            .limited::<K, _>("list", api.list(&ListParams::default()))
            .await?
            .items)
    }

    /// Creates an object; one that exists already is a conflict.
    pub async fn create<K: Kind>(&self, namespace: &str, object: &K) -> Result<K> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        self.limited::<K, _>("create", self.api::<K>(namespace).create(&params, object))
            .await
    }

    /// Replaces an object as it was read (uid and resourceVersion inside): a true compare-and-swap.
    pub async fn replace<K: Kind>(&self, namespace: &str, name: &str, object: &K) -> Result<K> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        self.limited::<K, _>("replace", self.api::<K>(namespace).replace(name, &params, object))
            .await
    }

    /// Server-side apply with force: our fields are ours.
    pub async fn apply<K: Kind>(&self, namespace: &str, name: &str, object: &K) -> Result<K> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.limited::<K, _>(
            "apply",
            self.api::<K>(namespace).patch(name, &params, &Patch::Apply(object)),
        )
        .await
    }

    /// Server-side apply of a status.
    pub async fn apply_status<K: Kind>(&self, namespace: &str, name: &str, body: &serde_json::Value) -> Result<K> {
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let api = self.api::<K>(namespace);
        self.limited::<K, _>(
            "update the status of",
            api.patch_status(name, &params, &Patch::Apply(body)),
        )
        .await
    }

    /// JSON patch of exactly the object that was judged; see [`Error::is_moved`] for "it has changed".
    pub async fn patch_judged<K: Kind>(&self, judged: &Judged, operations: &[serde_json::Value]) -> Result<K> {
        let patch = guarded::<K>(judged, operations)?;
        let api = self.api::<K>(&judged.namespace);
        self.limited::<K, _>(
            "patch",
            api.patch(&judged.name, &json_patch_params(), &Patch::Json::<()>(patch)),
        )
        .await
    }

    /// The same on the status subresource.
    pub async fn patch_status_judged<K: Kind>(&self, judged: &Judged, operations: &[serde_json::Value]) -> Result<K> {
        let patch = guarded::<K>(judged, operations)?;
        let (api, patch) = (self.api::<K>(&judged.namespace), Patch::Json::<()>(patch));
        self.limited::<K, _>(
            "patch the status of",
            api.patch_status(&judged.name, &json_patch_params(), &patch),
        )
        .await
    }

    /// Deletes exactly the object that was judged; `None` leaves the grace period to the object.
    pub async fn delete_judged<K: Kind>(&self, judged: &Judged, grace_seconds: Option<u32>) -> Result<()> {
        let params = DeleteParams {
            grace_period_seconds: grace_seconds,
            preconditions: Some(Preconditions {
                uid: Some(judged.uid.clone()),
                resource_version: Some(judged.resource_version.clone()),
            }),
            ..DeleteParams::default()
        };
        let api = self.api::<K>(&judged.namespace);
        self.limited::<K, _>("delete", api.delete(&judged.name, &params))
            .await
            .map(|_| ())
    }

    fn api<K: Resource<DynamicType = (), Scope: Scope>>(&self, namespace: &str) -> Api<K> {
        <K::Scope as Scope>::api(self.client.clone(), namespace)
    }

    async fn limited<K: Resource<DynamicType = ()>, T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T> {
        let kind = || K::kind(&()).to_string();
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(Error::Api {
                verb,
                kind: kind(),
                source: Box::new(source),
            }),
            Err(_) => Err(Error::Timeout {
                verb,
                kind: kind(),
                seconds: self.timeout.as_secs(),
            }),
        }
    }
}

fn read<K: Kind>(verb: &'static str, object: Readable<K>) -> Result<K> {
    object.0.map_err(|Unreadable { error, metadata }| Error::Unreadable {
        verb,
        kind: K::kind(&()).into_owned(),
        name: metadata.name.unwrap_or_default(),
        error,
    })
}

fn json_patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}

/// Puts the identity in front of the operations. Replacing the resourceVersion by the judged one makes the API server compare it
/// (409 when stale); a deleted and re-created object fails the UID test.
fn guarded<K: Kind>(judged: &Judged, operations: &[serde_json::Value]) -> Result<json_patch::Patch> {
    let mut all = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": judged.uid}),
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": judged.resource_version}),
    ];
    all.extend_from_slice(operations);
    serde_json::from_value(all.into()).map_err(|source| Error::Patch {
        kind: K::kind(&()).into_owned(),
        source,
    })
}
