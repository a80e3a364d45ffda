//! What parsing accepts, refuses and fills in.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::{Failover, Instance, Invalid};
use crate::api::{
    AccessMode, Agent, DeletionPolicy, Guard, LeaseRenewal, OnApiLoss, Proof, ServiceType, SqlEdgeInstance,
};
use crate::driver_class::DriverClass;

fn resource(name: &str, more: &Value) -> SqlEdgeInstance {
    let mut spec = json!({ "acceptEula": true, "image": "registry.example/engine:1" });
    for (key, value) in more.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "sqledge.io/v1alpha1",
        "kind": "SqlEdgeInstance",
        "metadata": { "name": name, "namespace": "shop", "uid": "u-1", "generation": 4 },
        "spec": spec,
    }))
    .expect("a resource")
}

fn parse(more: &Value) -> Result<Instance, Invalid> {
    Instance::parse(&resource("orders", more))
}

/// Each of these settings is refused, by its field.
fn refuses(cases: &[(Value, &str)]) {
    for (more, field) in cases {
        let invalid = parse(more).expect_err(&more.to_string());
        assert_eq!(invalid.field, *field, "{more}");
        assert!(invalid.message.starts_with(field), "{more}: {}", invalid.message);
        let (_, next_step) = invalid.message.split_once(": ").expect("a next step after a colon");
        assert!(!next_step.is_empty(), "{more}");
    }
}

#[test]
fn the_least_a_user_must_write_becomes_a_whole_instance() {
    let instance = parse(&json!({})).expect("valid");
    assert_eq!(
        (instance.name.as_str(), instance.namespace.as_str()),
        ("orders", "shop")
    );
    assert_eq!((instance.uid.as_str(), instance.generation), ("u-1", 4));
    assert_eq!(
        (instance.claim_name.as_str(), instance.claim_is_ours),
        ("orders-data", true)
    );
    assert_eq!(instance.size, Some(Quantity("8Gi".to_owned())));
    assert_eq!(
        (instance.access_mode, instance.storage_class),
        (AccessMode::ReadWriteOncePod, None)
    );
    assert_eq!(
        (
            instance.secret_name.as_str(),
            instance.secret_is_ours,
            instance.secret_key
        ),
        ("orders-sa", true, None)
    );
    assert_eq!((instance.service_name.as_str(), instance.port), ("orders", 1433));
    assert_eq!(instance.service_type, ServiceType::LoadBalancer);
    assert_eq!(
        (instance.agent, instance.deletion_policy),
        (Agent::Disabled, DeletionPolicy::Retain)
    );
    assert_eq!(
        (instance.termination_grace_period_seconds, instance.memory_limit_mb),
        (60, None)
    );
    assert_eq!(instance.confirm_node_dead, None);
}

#[test]
fn each_invalid_value_of_engine_storage_and_service_is_refused_with_a_sentence_that_names_its_field() {
    refuses(&[
        (json!({ "acceptEula": false }), "spec.acceptEula"),
        (json!({ "image": "" }), "spec.image"),
        (json!({ "image": "engine 1" }), "spec.image"),
        (json!({ "edition": "" }), "spec.edition"),
        (json!({ "collation": "" }), "spec.collation"),
        (json!({ "timeZone": "" }), "spec.timeZone"),
        (json!({ "priorityClassName": "" }), "spec.priorityClassName"),
        (
            json!({ "saPasswordSecretRef": { "name": "" } }),
            "spec.saPasswordSecretRef.name",
        ),
        (
            json!({ "saPasswordSecretRef": { "name": "Orders" } }),
            "spec.saPasswordSecretRef.name",
        ),
        (
            json!({ "saPasswordSecretRef": { "name": "a", "key": "" } }),
            "spec.saPasswordSecretRef.key",
        ),
        (
            json!({ "saPasswordSecretRef": { "name": "a", "key": "a/b" } }),
            "spec.saPasswordSecretRef.key",
        ),
        (json!({ "storage": { "size": "8GB" } }), "spec.storage.size"),
        (json!({ "storage": { "size": "0" } }), "spec.storage.size"),
        (json!({ "storage": { "size": "-8Gi" } }), "spec.storage.size"),
        (
            json!({ "storage": { "storageClassName": "" } }),
            "spec.storage.storageClassName",
        ),
        (
            json!({ "storage": { "storageClassName": "no_class" } }),
            "spec.storage.storageClassName",
        ),
        (json!({ "storage": { "accessModes": [] } }), "spec.storage.accessModes"),
        (
            json!({ "storage": { "accessModes": ["ReadWriteOnce", "ReadWriteMany"] } }),
            "spec.storage.accessModes",
        ),
        (
            json!({ "storage": { "existingClaim": "" } }),
            "spec.storage.existingClaim",
        ),
        (
            json!({ "storage": { "existingClaim": "old", "size": "8Gi" } }),
            "spec.storage.existingClaim",
        ),
        (json!({ "service": { "port": 0 } }), "spec.service.port"),
        (json!({ "service": { "port": 65_536 } }), "spec.service.port"),
        (
            json!({ "service": { "type": "NodePort", "loadBalancerClass": "a" } }),
            "spec.service.loadBalancerClass",
        ),
        (
            json!({ "service": { "type": "ClusterIP", "loadBalancerSourceRanges": ["192.0.2.0/24"] } }),
            "spec.service.loadBalancerSourceRanges",
        ),
        (
            json!({ "service": { "loadBalancerSourceRanges": ["192.0.2.0/33"] } }),
            "spec.service.loadBalancerSourceRanges",
        ),
        (
            json!({ "service": { "type": "ClusterIP", "externalTrafficPolicy": "Cluster" } }),
            "spec.service.externalTrafficPolicy",
        ),
    ]);
}

#[test]
fn each_invalid_value_of_the_pod_is_refused_with_a_sentence_that_names_its_field() {
    refuses(&[
        (
            json!({ "resources": { "limits": { "memory": "4GB" } } }),
            "spec.resources.limits.memory",
        ),
        (
            json!({ "resources": { "limits": { "cpu": "-1" } } }),
            "spec.resources.limits.cpu",
        ),
        (
            json!({ "resources": { "requests": { "ephemeral-storage": "much" } } }),
            "spec.resources.requests.ephemeral-storage",
        ),
        (
            json!({ "resources": { "limits": { "memory": "2" } } }),
            "spec.resources.limits.memory",
        ),
        (
            json!({ "resources": { "limits": { "memory": "4Gi" }, "requests": { "memory": "5Gi" } } }),
            "spec.resources.requests.memory",
        ),
        (
            json!({ "tolerations": [{ "operator": "Exists", "tolerationSeconds": 1 }] }),
            "spec.tolerations[0].tolerationSeconds",
        ),
        (
            json!({ "tolerations": [{ "key": "a" }, { "key": "node.kubernetes.io/not-ready", "tolerationSeconds": 300 }] }),
            "spec.tolerations[1].tolerationSeconds",
        ),
        (json!({ "imagePullSecrets": [{ "name": "" }] }), "spec.imagePullSecrets"),
        (json!({ "env": [{ "name": "" }] }), "spec.env[0].name"),
        (json!({ "env": [{ "name": "A=B" }] }), "spec.env[0].name"),
        (
            json!({ "env": [{ "name": "A" }, { "name": "SA_PASSWORD", "value": "x" }] }),
            "spec.env[1].name",
        ),
        (
            json!({ "env": [{ "name": "A" }, { "name": "B" }, { "name": "A" }] }),
            "spec.env[2].name",
        ),
        (
            json!({ "terminationGracePeriodSeconds": 0 }),
            "spec.terminationGracePeriodSeconds",
        ),
    ]);
}

#[test]
fn a_name_that_no_service_can_have_is_refused() {
    for name in ["Orders", "2orders", "orders.shop", "orders-", "-orders", ""] {
        let invalid = Instance::parse(&resource(name, &json!({}))).expect_err(name);
        assert_eq!(invalid.field, "metadata.name", "{name}");
    }
    for name in ["o", "orders", "orders-2", &"o".repeat(63)] {
        Instance::parse(&resource(name, &json!({}))).expect(name);
    }
}

#[test]
fn an_existing_claim_is_the_users_own() {
    let instance = parse(&json!({ "storage": { "existingClaim": "mssql-data" } })).expect("valid");
    assert_eq!(
        (instance.claim_name.as_str(), instance.claim_is_ours, instance.size),
        ("mssql-data", false, None)
    );
}

#[test]
fn the_users_secret_is_never_ours() {
    let instance = parse(&json!({ "saPasswordSecretRef": { "name": "credentials" } })).expect("valid");
    assert_eq!(
        (
            instance.secret_name.as_str(),
            instance.secret_is_ours,
            instance.secret_key
        ),
        ("credentials", false, None)
    );
}

#[test]
fn quantities_are_in_the_form_that_the_api_server_stores() {
    let instance = parse(&json!({
        "storage": { "size": "2048Mi" },
        "resources": { "limits": { "cpu": "0.5", "memory": "1.5Gi" }, "requests": {} },
    }))
    .expect("valid");
    assert_eq!(instance.size, Some(Quantity("2Gi".to_owned())));
    let resources = serde_json::to_value(instance.resources).expect("JSON");
    assert_eq!(resources, json!({ "limits": { "cpu": "500m", "memory": "1536Mi" } }));
}

#[test]
fn the_engine_is_told_80_percent_of_the_containers_memory_unless_the_user_says_otherwise() {
    let limit = |memory: &str| json!({ "limits": { "memory": memory } });
    for (memory, megabytes) in [
        ("4Gi", 3276),
        ("2G", 1525),
        ("2000Mi", 1600),
        ("64Mi", 51),
        ("16Mi", 12),
    ] {
        let instance = parse(&json!({ "resources": limit(memory) })).expect("valid");
        assert_eq!(instance.memory_limit_mb, Some(megabytes), "{memory}");
    }
    let own = json!({ "resources": limit("4Gi"), "env": [{ "name": "MSSQL_MEMORY_LIMIT_MB", "value": "1000" }] });
    assert_eq!(parse(&own).expect("valid").memory_limit_mb, None);
    let no_limit = json!({ "resources": { "requests": { "memory": "4Gi" } } });
    assert_eq!(parse(&no_limit).expect("valid").memory_limit_mb, None);
}

#[test]
fn the_word_of_a_human_is_read_from_the_annotation() {
    let mut resource = resource("orders", &json!({}));
    let word = ("sqledge.io/confirm-node-dead".to_owned(), "pod-uid".to_owned());
    resource.metadata.annotations = Some([word].into());
    assert_eq!(
        Instance::parse(&resource).expect("valid").confirm_node_dead.as_deref(),
        Some("pod-uid")
    );
}

#[test]
fn a_toleration_with_a_limit_is_fine_where_it_is_not_about_failed_nodes() {
    let more = json!({ "tolerations": [{ "key": "maintenance", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60 }] });
    parse(&more).expect("valid");
}

#[test]
fn failover_has_a_guard_and_safe_times_unless_the_user_says_otherwise() {
    let usual = Failover {
        guard: Guard::Enabled,
        proof: Proof::Storage,
        lease: LeaseRenewal::Auto,
        renew_seconds: 2,
        stop_after_seconds: 10,
        takeover_after_seconds: 15,
        on_api_loss: OnApiLoss::Auto,
        driver_class: None,
    };
    assert_eq!(parse(&json!({})).expect("valid").failover, usual);
    assert_eq!(parse(&json!({ "failover": {} })).expect("valid").failover, usual);
    let all = json!({ "failover": { "guard": "Enabled", "proof": "Lease", "lease": "Always", "renewSeconds": 1,
        "stopAfterSeconds": 5, "takeoverAfterSeconds": 8, "onApiLoss": "Stop", "driverClass": "Quorum" } });
    assert_eq!(
        parse(&all).expect("valid").failover,
        Failover {
            guard: Guard::Enabled,
            proof: Proof::Lease,
            lease: LeaseRenewal::Always,
            renew_seconds: 1,
            stop_after_seconds: 5,
            takeover_after_seconds: 8,
            on_api_loss: OnApiLoss::Stop,
            driver_class: Some(DriverClass::Quorum),
        }
    );
}

#[test]
fn each_invalid_failover_setting_is_refused_with_a_sentence_that_names_its_field() {
    let failover = |settings: Value| json!({ "failover": settings });
    refuses(&[
        (failover(json!({ "renewSeconds": 0 })), "spec.failover.renewSeconds"),
        (failover(json!({ "renewSeconds": -2 })), "spec.failover.renewSeconds"),
        (failover(json!({ "renewSeconds": 4 })), "spec.failover.renewSeconds"),
        (
            failover(json!({ "renewSeconds": 61, "stopAfterSeconds": 600, "takeoverAfterSeconds": 900 })),
            "spec.failover.renewSeconds",
        ),
        (
            failover(json!({ "renewSeconds": 1, "stopAfterSeconds": 2 })),
            "spec.failover.stopAfterSeconds",
        ),
        (
            failover(json!({ "stopAfterSeconds": 601 })),
            "spec.failover.stopAfterSeconds",
        ),
        (
            failover(json!({ "takeoverAfterSeconds": i32::MAX })),
            "spec.failover.takeoverAfterSeconds",
        ),
        (
            failover(json!({ "takeoverAfterSeconds": 5 })),
            "spec.failover.takeoverAfterSeconds",
        ),
        (
            failover(json!({ "takeoverAfterSeconds": 12 })),
            "spec.failover.takeoverAfterSeconds",
        ),
        (
            failover(json!({ "stopAfterSeconds": 13 })),
            "spec.failover.takeoverAfterSeconds",
        ),
        (
            failover(json!({ "renewSeconds": 1, "stopAfterSeconds": 5, "takeoverAfterSeconds": 7 })),
            "spec.failover.takeoverAfterSeconds",
        ),
        (
            failover(json!({ "guard": "Disabled", "proof": "Lease" })),
            "spec.failover.proof",
        ),
        (
            failover(json!({ "lease": "Never", "proof": "Lease" })),
            "spec.failover.proof",
        ),
        (
            failover(json!({ "onApiLoss": "Continue", "proof": "Lease" })),
            "spec.failover.onApiLoss",
        ),
        (
            failover(json!({ "guard": "Disabled", "lease": "Always" })),
            "spec.failover.lease",
        ),
        (
            failover(json!({ "guard": "Disabled", "onApiLoss": "Stop" })),
            "spec.failover.onApiLoss",
        ),
        (
            failover(json!({ "lease": "Never", "onApiLoss": "Stop" })),
            "spec.failover.onApiLoss",
        ),
    ]);
}

#[test]
fn the_shortest_times_that_are_safe_are_accepted() {
    for (renew, stop, takeover) in [(1, 3, 6), (1, 5, 8), (2, 10, 13), (60, 600, 900)] {
        let settings = json!({ "failover": { "renewSeconds": renew, "stopAfterSeconds": stop, "takeoverAfterSeconds": takeover } });
        assert!(parse(&settings).is_ok(), "{settings}");
    }
}
