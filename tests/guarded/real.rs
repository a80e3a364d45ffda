//! The guard and the real kube-apiserver: what a compare-and-swap is worth there.

use std::fs;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, TOKEN};
use crate::engine;
use crate::stage::{PATIENCE, POD, Stage, is_possible};
use crate::{LONG, named};

const NAME: &str = "orders-writer";

fn lease(epoch: i32) -> Lease {
    serde_json::from_value(json!({
        "metadata": {"name": NAME, "annotations": {LONG.0: LONG.1, "sqledge.io/on-api-loss": "Continue"}},
        "spec": {"holderIdentity": named(), "leaseTransitions": epoch},
    }))
    .expect("a Lease")
}

/// Waits until the Lease is as it should be.
async fn until(leases: &Api<Lease>, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = leases.get_opt(NAME).await.expect("read");
        let found = serde_json::to_value(found).expect("JSON");
        if holds(&found) {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "waited in vain: {what}: {found}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Waits for two more renewals.
async fn renewed(leases: &Api<Lease>) -> Value {
    let mut found = until(leases, "the Lease is held", |lease| {
        lease["spec"]["renewTime"].is_string()
    })
    .await;
    for _ in 0..2 {
        let before = found["spec"]["renewTime"].clone();
        found = until(leases, "the Lease is renewed", |lease| {
            lease["spec"]["renewTime"].is_string() && lease["spec"]["renewTime"] != before
        })
        .await;
    }
    found
}

#[test]
#[ignore = "needs etcd and kube-apiserver, which the stage test-control-plane builds"]
fn the_real_api_server_keeps_what_the_guard_relies_on() {
    if is_possible() {
        crate::control_plane::play(story());
    }
}

async fn story() {
    let plane = ControlPlane::start().await;
    let client = plane.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let shop = serde_json::from_value(json!({"metadata": {"name": "shop"}})).expect("a namespace");
    namespaces.create(&PostParams::default(), &shop).await.expect("created");
    let leases: Api<Lease> = Api::namespaced(client, "shop");
    leases.create(&PostParams::default(), &lease(7)).await.expect("created");

    let stage = Stage::new("real", "sealed", &[]);
    fs::write(stage.at("credentials/ca.crt"), &plane.certificate).expect("written");
    fs::write(stage.at("credentials/token"), TOKEN).expect("written");
    let port = plane.port.to_string();
    let mut guard = stage.guard_with(&[("KUBERNETES_SERVICE_PORT", &port)]);
    guard.says("the engine answers");
    let held = renewed(&leases).await;
    assert_eq!(held["spec"]["leaseTransitions"], 8, "{held}");
    assert_eq!(held["spec"]["leaseDurationSeconds"], 12, "{held}");

    // somebody else's annotation, and a field manager of its own
    let note = Patch::Merge(json!({"metadata": {"annotations": {"somebody/else": "x"}, "labels": {"team": "shop"}}}));
    leases
        .patch(NAME, &PatchParams::default(), &note)
        .await
        .expect("patched");
    let after = renewed(&leases).await;
    assert_eq!(after["metadata"]["annotations"]["somebody/else"], "x", "{after}");
    assert_eq!(after["metadata"]["labels"]["team"], "shop", "{after}");

    // orders are followed without a restart
    let orders = Patch::Merge(json!({"metadata": {"annotations": {LONG.0: "1/9/13"}}}));
    leases
        .patch(NAME, &PatchParams::default(), &orders)
        .await
        .expect("patched");
    until(&leases, "the new promise is made", |lease| {
        lease["spec"]["leaseDurationSeconds"] == 13
    })
    .await;

    // A renewal of a deleted Lease must not bring it back: the API server creates on PUT, but not with a uid in it. The guard
    // says that there is none only after it has tried.
    leases.delete(NAME, &DeleteParams::default()).await.expect("deleted");
    guard.says("there is no Lease");
    assert!(
        leases.get_opt(NAME).await.expect("read").is_none(),
        "a deleted Lease came back"
    );
    leases
        .create(&PostParams::default(), &lease(30))
        .await
        .expect("created");
    until(&leases, "it is taken again", |lease| {
        lease["spec"]["leaseTransitions"] == 31
    })
    .await;
    assert_eq!(stage.notes(engine::STARTS).len(), 1, "the engine was restarted");

    // the seal, as the operator writes it: of the Lease that it has just read
    loop {
        let mut sealed = leases.get(NAME).await.expect("read");
        let spec = sealed.spec.as_mut().expect("a spec");
        spec.holder_identity = Some(format!("sealed/taken/{POD}"));
        spec.lease_transitions = Some(32);
        spec.lease_duration_seconds = None;
        if leases.replace(NAME, &PostParams::default(), &sealed).await.is_ok() {
            break;
        }
    }
    guard.says("is another's now (sealed/taken/");
    assert_eq!(guard.ends().code(), Some(1));
    let left = leases.get(NAME).await.expect("read");
    assert_eq!(
        left.spec.and_then(|spec| spec.lease_transitions),
        Some(32),
        "it wrote over the seal"
    );
}
