//! A small world for tests of the pure modules: an instance and nothing of it yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{GuardObjects, SecretFacts, StorageClassFacts, World};
use crate::api::SqlEdgeInstance;
use crate::instance::Instance;
use crate::scene::{Claim, Login, Policy, Scene};
use crate::settings::Timing;

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
            reports: BTreeMap::new(),
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
        service: None,
        deployment: None,
        guard: GuardObjects::default(),
        pods: Vec::new(),
        scene,
        engine_version: None,
        broken_databases: Vec::new(),
    }
}
