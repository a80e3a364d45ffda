//! Each child as YAML: what a reviewer wants to see changing.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes the files anew; read the difference before committing it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use sqledge_operator::api::SqlEdgeInstance;
use sqledge_operator::desired::{self, Rendering};
use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::instance::Instance;
use sqledge_operator::lease::Record;

const VOLUME_ID: &str = "5f0c6a1e9d3b47288c1f5a7e2b904d63";

fn instance(spec: &serde_json::Value) -> Instance {
    let resource: SqlEdgeInstance = serde_json::from_value(json!({
        "apiVersion": "sqledge.io/v1alpha1",
        "kind": "SqlEdgeInstance",
        "metadata": {
            "name": "orders",
            "namespace": "shop",
            "uid": "9e1b7c52-6d0f-4a3b-8f57-0c2d4e6a8b10",
            "generation": 3,
        },
        "spec": spec,
    }))
    .expect("a resource");
    Instance::parse(&resource).expect("a valid resource")
}

/// The least a user must write.
fn minimal() -> Instance {
    instance(&json!({ "acceptEula": true, "image": "registry.example/engine:2.0" }))
}

/// Every field.
fn full() -> Instance {
    instance(&json!({
        "acceptEula": true,
        "image": "registry.example/engine:2.0",
        "edition": "Premium",
        "agent": "Enabled",
        "collation": "Latin1_General_100_CI_AS_SC",
        "lcid": 1031,
        "timeZone": "Europe/Berlin",
        "saPasswordSecretRef": { "name": "orders-credentials", "key": "SA_PASSWORD" },
        "storage": { "size": "1.5Gi", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"] },
        "service": {
            "type": "LoadBalancer",
            "port": 14330,
            "annotations": { "balancer.example/pool": "databases" },
            "loadBalancerClass": "balancer.example/metal",
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "externalTrafficPolicy": "Local",
        },
        "resources": { "requests": { "cpu": "2000m", "memory": "4Gi" }, "limits": { "cpu": 2, "memory": "4096Mi" } },
        "nodeSelector": { "kubernetes.io/arch": "arm64", "disk": "nvme" },
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a", "b"] }] },
        ] } } },
        "tolerations": [
            { "key": "dedicated", "operator": "Equal", "value": "databases", "effect": "NoSchedule" },
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute" },
        ],
        "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway" }],
        "priorityClassName": "databases",
        "imagePullSecrets": [{ "name": "registry" }],
        "podSecurityContext": { "fsGroup": 10001, "runAsUser": 10001, "supplementalGroups": [7] },
        "securityContext": { "capabilities": { "add": ["SYS_PTRACE"] } },
        "env": [
            { "name": "MSSQL_TELEMETRY_ENABLED", "value": "FALSE" },
            { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
        ],
        "terminationGracePeriodSeconds": 120,
        "failover": {
            "guard": "Enabled",
            "proof": "Lease",
            "lease": "Always",
            "renewSeconds": 1,
            "stopAfterSeconds": 5,
            "takeoverAfterSeconds": 8,
            "onApiLoss": "Stop",
            "driverClass": "Busy",
        },
        "deletionPolicy": "Delete",
    }))
}

/// An engine by itself.
fn unguarded() -> Instance {
    instance(&json!({
        "acceptEula": true,
        "image": "registry.example/engine:2.0",
        "failover": { "guard": "Disabled" },
    }))
}

/// A claim of the user's own.
fn adopting() -> Instance {
    instance(&json!({
        "acceptEula": true,
        "image": "registry.example/engine:2.0",
        "storage": { "existingClaim": "mssql-data" },
        "service": { "type": "ClusterIP" },
    }))
}

fn deployment(instance: &Instance) -> impl Serialize {
    let secret_key = instance.secret_key.as_deref().unwrap_or(desired::PASSWORD_KEY);
    let rendering = Rendering {
        operator_image: "registry.example/operator:1.0",
        volume_id: VOLUME_ID,
        secret_key,
    };
    desired::deployment(instance, &rendering)
}

fn check(name: &str, object: &impl Serialize) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.yaml"));
    let made = serde_yaml::to_string(object).expect("YAML");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &made).expect("written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    if golden != made {
        let difference = made.lines().zip(golden.lines()).find(|(made, golden)| made != golden);
        panic!(
            "{name}.yaml differs, first at {difference:?}; if that is meant: UPDATE_GOLDEN=1 cargo test --test golden"
        );
    }
}

#[test]
fn the_deployment_is_as_committed() {
    check("minimal-deployment", &deployment(&minimal()));
    check("full-deployment", &deployment(&full()));
    check("adopting-deployment", &deployment(&adopting()));
    check("unguarded-deployment", &deployment(&unguarded()));
}

#[test]
fn the_service_is_as_committed() {
    check("minimal-service", &desired::service(&minimal()));
    check("full-service", &desired::service(&full()));
    check("adopting-service", &desired::service(&adopting()));
}

#[test]
fn the_claim_is_as_committed_and_there_is_none_beside_the_users_own() {
    check("minimal-claim", &desired::claim(&minimal(), VOLUME_ID));
    check("full-claim", &desired::claim(&full(), VOLUME_ID));
    assert_eq!(desired::claim(&adopting(), VOLUME_ID), None);
}

#[test]
fn the_secret_is_as_committed() {
    check("minimal-secret", &desired::secret(&minimal(), "an-Example-1"));
}

#[test]
fn what_the_guard_needs_is_as_committed_and_there_is_nothing_where_there_is_no_guard() {
    let orders = desired::orders(&full().failover, DriverClass::Busy);
    let beginning = Record::anew(None, 0, orders);
    check("full-serviceaccount", &desired::service_account(&full()));
    check("full-role", &desired::role(&full()));
    check("full-rolebinding", &desired::role_binding(&full()));
    check("full-lease", &desired::lease(&full(), &beginning));
    let instance = unguarded();
    assert_eq!(desired::service_account(&instance), None);
    assert_eq!(desired::role(&instance), None);
    assert_eq!(desired::role_binding(&instance), None);
    assert_eq!(desired::lease(&instance, &beginning), None);
}
