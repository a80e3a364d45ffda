//! A small world for tests of the pure modules: an instance and nothing of it yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{GuardObjects, PasswordChange, SecretFacts, StorageClassFacts, World};
use crate::api::SqlEdgeInstance;
use crate::cluster::Judged;
use crate::instance::Instance;
use crate::scene::{Claim, Login, NodeFacts, NodeReady, Policy, Scene};
use crate::settings::Timing;
use crate::space::Told;

/// An object of the instance's namespace, as it was judged.
pub fn judged(name: &str) -> Judged {
    Judged {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        resource_version: "7".to_owned(),
    }
}

/// A healthy node that was heard of three seconds ago, with nothing on it.
pub fn node(name: &str) -> NodeFacts {
    let labels = [("kubernetes.io/hostname", name), ("kubernetes.io/arch", "amd64")];
    NodeFacts {
        judged: Judged {
            namespace: String::new(),
            ..judged(name)
        },
        lease_unchanged: Some(Duration::from_secs(3)),
        lease_renewed: true,
        renewed_since_release: false,
        reported_since_release: false,
        boot: Some("first".to_owned()),
        unlisted_for: Duration::ZERO,
        ready: NodeReady::True,
        schedulable: true,
        out_of_service: false,
        is_provided: false,
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        volumes_in_use: Vec::new(),
        volumes_attached: Vec::new(),
    }
}

/// The instance `orders` with these settings beside the required ones, with a password and without anything else.
pub fn world(more: &Value) -> World {
    let mut spec = json!({ "acceptEula": true, "image": "registry.example/engine:1" });
    for (key, value) in more.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    let resource: SqlEdgeInstance = serde_json::from_value(json!({
        "apiVersion": "sqledge.io/v1alpha1",
        "kind": "SqlEdgeInstance",
        "metadata": { "name": "orders", "namespace": "shop", "uid": "u-1", "generation": 1 },
        "spec": spec,
    }))
    .expect("a resource");
    let instance = Instance::parse(&resource).expect("valid");
    let scene = Scene {
        claim: Claim {
            name: instance.claim_name.clone(),
            exists: false,
            exclusive: true,
            holder: None,
            holder_node_is_provided: false,
            holder_stopped: false,
            avoid: Vec::new(),
            boots: BTreeMap::new(),
            pin_refused: None,
        },
        volume: None,
        pods: Vec::new(),
        attachments: Vec::new(),
        nodes: BTreeMap::new(),
        login: Login::NotTried,
        confirmed_dead: None,
        fast_detach: true,
        detaching_for: None,
        lease: None,
        policy: Policy::default(),
        timing: Timing::default(),
    };
    World {
        now: Timestamp::UNIX_EPOCH,
        resource: Arc::new(resource),
        instance,
        claim: None,
        storage_class: StorageClassFacts::NotLookedUp,
        claim_rival: None,
        secret: SecretFacts::Usable {
            key: "MSSQL_SA_PASSWORD".to_owned(),
            owned: false,
        },
        password_change: PasswordChange::None,
        service: None,
        deployment: None,
        guard: GuardObjects::default(),
        pods: Vec::new(),
        scene,
        engine_version: None,
        broken_databases: Vec::new(),
        space: Told::NotYet,
        expansion_refused: None,
    }
}
