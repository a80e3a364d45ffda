//! Which fields of the resource restart a database, and which do not.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{Rendering, TEMPLATE_BUILDER, TEMPLATE_INPUTS, deployment};
use super::{Fingerprint, template_inputs};
use crate::api::{self, SqlEdgeInstance};
use crate::instance::Instance;

fn instance(more: &Value) -> Instance {
    let mut spec = json!({ "acceptEula": true, "image": "registry.example/engine:1" });
    for (key, value) in more.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    let resource: SqlEdgeInstance = serde_json::from_value(json!({
        "apiVersion": "sqledge.io/v1alpha1",
        "kind": "SqlEdgeInstance",
        "metadata": { "name": "orders", "namespace": "shop", "uid": "u-1" },
        "spec": spec,
    }))
    .expect("a resource");
    Instance::parse(&resource).expect("valid")
}

fn inputs(instance: &Instance) -> String {
    template_inputs(instance, "id-1", "MSSQL_SA_PASSWORD")
}

fn template(instance: &Instance) -> Value {
    let rendering = Rendering {
        operator_image: "operator:1",
        volume_id: "id-1",
        secret_key: "MSSQL_SA_PASSWORD",
    };
    let deployment = deployment(instance, &rendering);
    serde_json::to_value(deployment.spec.expect("a spec").template).expect("JSON")
}

/// One change of each field of the resource, and whether it reaches the pod.
fn changes() -> Vec<(Value, bool)> {
    vec![
        (json!({ "acceptEula": true }), false),
        (json!({ "image": "registry.example/engine:2" }), true),
        (json!({ "edition": "Premium" }), true),
        (json!({ "agent": "Enabled" }), true),
        (json!({ "agent": "Disabled" }), false),
        (json!({ "collation": "Latin1_General_100_CI_AS_SC" }), true),
        (json!({ "lcid": 1031 }), true),
        (json!({ "timeZone": "Europe/Berlin" }), true),
        (json!({ "saPasswordSecretRef": { "name": "credentials" } }), true),
        (json!({ "storage": { "existingClaim": "mssql-data" } }), true),
        (json!({ "storage": { "existingClaim": "orders-data" } }), true),
        (
            json!({ "storage": { "size": "16Gi", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"] } }),
            false,
        ),
        (
            json!({ "service": { "type": "NodePort", "port": 14330, "annotations": { "a": "b" } } }),
            false,
        ),
        (
            json!({ "service": { "loadBalancerClass": "a", "loadBalancerSourceRanges": ["192.0.2.0/24"] } }),
            false,
        ),
        (json!({ "service": { "externalTrafficPolicy": "Local" } }), false),
        (json!({ "resources": { "requests": { "cpu": "1" } } }), true),
        (json!({ "resources": { "limits": { "memory": "4Gi" } } }), true),
        (json!({ "nodeSelector": { "disk": "nvme" } }), true),
        (json!({ "affinity": { "podAntiAffinity": {} } }), true),
        (
            json!({ "tolerations": [{ "key": "dedicated", "operator": "Exists" }] }),
            true,
        ),
        (
            json!({ "topologySpreadConstraints": [
            { "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway" }] }),
            true,
        ),
        (json!({ "priorityClassName": "databases" }), true),
        (json!({ "imagePullSecrets": [{ "name": "registry" }] }), true),
        (json!({ "podSecurityContext": {} }), true),
        (
            json!({ "securityContext": { "capabilities": { "add": ["SYS_PTRACE"] } } }),
            true,
        ),
        (json!({ "env": [{ "name": "A", "value": "b" }] }), true),
        (json!({ "terminationGracePeriodSeconds": 61 }), true),
        (json!({ "terminationGracePeriodSeconds": 60 }), false),
        (json!({ "deletionPolicy": "Delete" }), false),
        (json!({ "failover": { "guard": "Disabled" } }), true),
        (json!({ "failover": { "guard": "Enabled" } }), false),
        (
            json!({ "failover": { "lease": "Always", "renewSeconds": 1, "stopAfterSeconds": 5, "takeoverAfterSeconds": 8 } }),
            false,
        ),
        (
            json!({ "failover": { "proof": "Lease", "onApiLoss": "Stop", "driverClass": "Quorum" } }),
            false,
        ),
    ]
}

#[test]
fn the_inputs_change_exactly_when_the_template_does() {
    let before = instance(&json!({}));
    for (change, restarts) in changes() {
        let after = instance(&change);
        assert_eq!(template(&before) != template(&after), restarts, "template, {change}");
        assert_eq!(inputs(&before) != inputs(&after), restarts, "inputs, {change}");
    }
}

#[test]
fn every_field_of_the_resource_is_in_that_table() {
    let crd = serde_json::to_value(api::crd()).expect("JSON");
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let fields: BTreeSet<String> = spec.as_object().expect("fields").keys().cloned().collect();
    let tried: BTreeSet<String> = changes()
        .iter()
        .flat_map(|(change, _)| {
            change
                .as_object()
                .expect("an object")
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(fields, tried);
}

#[test]
fn another_volume_or_key_changes_the_inputs() {
    let instance = instance(&json!({}));
    assert_ne!(
        inputs(&instance),
        template_inputs(&instance, "id-2", "MSSQL_SA_PASSWORD")
    );
    assert_ne!(inputs(&instance), template_inputs(&instance, "id-1", "SA_PASSWORD"));
}

#[test]
fn a_newer_operator_renders_another_template_from_the_same_inputs() {
    let instance = instance(&json!({}));
    let [old, new] = ["operator:1", "operator:2"].map(|operator_image| {
        deployment(
            &instance,
            &Rendering {
                operator_image,
                volume_id: "id-1",
                secret_key: "MSSQL_SA_PASSWORD",
            },
        )
    });
    let annotation = |deployment: &k8s_openapi::api::apps::v1::Deployment, key: &str| {
        deployment
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(key).cloned())
    };
    assert_eq!(annotation(&old, TEMPLATE_INPUTS), Some(inputs(&instance)));
    assert_eq!(annotation(&old, TEMPLATE_INPUTS), annotation(&new, TEMPLATE_INPUTS));
    assert_eq!(annotation(&new, TEMPLATE_BUILDER).as_deref(), Some("operator:2"));
    assert_ne!(old.spec, new.spec);
}

#[test]
fn the_fingerprint_of_a_known_instance_never_changes() {
    // A different number here means: every database of every cluster restarts when the operator is upgraded.
    assert_eq!(inputs(&instance(&json!({}))), "668af5f111b08f97");
    let more = json!({ "nodeSelector": { "b": "1", "a": "2" }, "resources": { "limits": { "memory": "4Gi" } },
        "env": [{ "name": "A", "value": "b" }], "affinity": { "podAntiAffinity": {} } });
    assert_eq!(inputs(&instance(&more)), "d55bc7b15732426f");
}

fn of(value: &Value) -> String {
    let mut fingerprint = Fingerprint::new();
    fingerprint.value(value);
    fingerprint.finish()
}

#[test]
fn the_function_is_fnv_1a() {
    for (text, hash) in [
        ("", "cbf29ce484222325"),
        ("a", "af63dc4c8601ec8c"),
        ("foobar", "85944171f73967e8"),
    ] {
        let mut fingerprint = Fingerprint::new();
        fingerprint.bytes(text.as_bytes());
        assert_eq!(fingerprint.finish(), hash);
    }
}

#[test]
fn neighbours_cannot_run_into_each_other() {
    assert_ne!(of(&json!(["ab", "c"])), of(&json!(["a", "bc"])));
    assert_ne!(of(&json!([["a"], "b"])), of(&json!([["a", "b"]])));
    assert_ne!(of(&json!({"a": {"b": "c"}})), of(&json!({"a": {}, "b": "c"})));
    assert_ne!(of(&json!(1)), of(&json!("1")));
}
