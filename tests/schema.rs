//! The schema: every rule accepts and rejects what it should, and the committed definition is the one we print.
//!
//! The rules are evaluated on the definition itself, as the API server would, with no cluster. `UPDATE_GOLDEN=1` writes
//! the committed file anew.

use std::collections::BTreeSet;
use std::path::Path;

use kube::core::cel::Validator;
use serde_json::{Value, json};
use sqledge_operator::api;

const FILE: &str = "crds/sqledgeinstances.sqledge.io.yaml";

fn schema() -> Value {
    let crd = serde_json::to_value(api::crd()).expect("JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// A resource with the least a user must write, changed at one place.
fn resource(path: &str, value: &Value) -> Value {
    let mut resource = json!({
        "apiVersion": "sqledge.io/v1alpha1",
        "kind": "SqlEdgeInstance",
        "metadata": { "name": "orders", "namespace": "shop" },
        "spec": { "acceptEula": true, "image": "registry.example/engine:1" },
    });
    if !path.is_empty() {
        *resource.pointer_mut(path).expect("a place that exists") = value.clone();
    }
    resource
}

/// The least a user must write, and more.
fn spec(more: &Value) -> Value {
    let mut spec = json!({ "acceptEula": true, "image": "registry.example/engine:1" });
    for (key, value) in more.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    resource("/spec", &spec)
}

/// The same with a volume in its status: from here on storage settings are fixed.
fn bound(more: &Value) -> Value {
    let mut resource = spec(more);
    resource["status"] = json!({ "volume": "pv-1" });
    resource
}

fn messages(new: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate(&schema(), new, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

/// Resources that must be accepted when they are created.
fn accepted() -> Vec<Value> {
    vec![
        resource("", &json!(null)),
        resource("/metadata/name", &json!("o")),
        resource("/metadata/name", &json!("o".repeat(63))),
        resource("/metadata/name", &json!("orders-2")),
        spec(&json!({ "storage": {} })),
        spec(&json!({ "storage": { "size": "16Gi", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"] } })),
        spec(&json!({ "storage": { "size": 8_589_934_592_i64 } })),
        spec(&json!({ "storage": { "existingClaim": "old-data" } })),
        spec(&json!({ "service": {} })),
        spec(
            &json!({ "service": { "loadBalancerClass": "metal", "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8::/32"],
            "externalTrafficPolicy": "Local" } }),
        ),
        spec(&json!({ "service": { "type": "LoadBalancer", "loadBalancerClass": "metal" } })),
        spec(&json!({ "service": { "type": "NodePort", "externalTrafficPolicy": "Local", "port": 14330 } })),
        spec(&json!({ "service": { "type": "ClusterIP", "loadBalancerSourceRanges": [] } })),
        spec(&json!({ "resources": { "limits": { "memory": "4Gi", "cpu": 2 }, "requests": { "cpu": "500m" } } })),
        spec(&json!({ "resources": {} })),
        spec(
            &json!({ "tolerations": [{ "key": "dedicated", "operator": "Exists", "tolerationSeconds": 60, "effect": "NoExecute" },
            { "operator": "Exists" }, { "key": "node.kubernetes.io/unreachable", "operator": "Exists" }] }),
        ),
        spec(&json!({ "imagePullSecrets": [{ "name": "registry" }] })),
        spec(
            &json!({ "env": [{ "name": "MSSQL_MEMORY_LIMIT_MB", "value": "2048" }, { "name": "ACCEPT_EULA_2", "value": "Y" }] }),
        ),
        failover(&json!({})),
        failover(&json!({ "guard": "Disabled", "lease": "Auto", "onApiLoss": "Auto", "proof": "Manual" })),
        failover(&json!({ "guard": "Disabled", "lease": "Never", "onApiLoss": "Continue" })),
        failover(&json!({ "guard": "Enabled", "lease": "Always", "onApiLoss": "Continue" })),
        failover(&json!({ "proof": "Lease" })),
        failover(&json!({ "proof": "Lease", "lease": "Always", "onApiLoss": "Stop", "driverClass": "Unknown" })),
        failover(&json!({ "lease": "Always", "renewSeconds": 1, "stopAfterSeconds": 5, "takeoverAfterSeconds": 8 })),
        failover(&json!({ "renewSeconds": 3 })),
        failover(&json!({ "stopAfterSeconds": 12 })),
        failover(&json!({ "takeoverAfterSeconds": 13 })),
        failover(&json!({ "renewSeconds": 1, "stopAfterSeconds": 3, "takeoverAfterSeconds": 6 })),
    ]
}

/// The least a user must write, and settings of the failover.
fn failover(settings: &Value) -> Value {
    spec(&json!({ "failover": settings }))
}

/// Failover settings that must be rejected, with the field that the message names.
fn rejected_failover() -> Vec<(Value, &'static str)> {
    [
        (
            json!({ "takeoverAfterSeconds": 12 }),
            "spec.failover.takeoverAfterSeconds",
        ),
        (json!({ "stopAfterSeconds": 13 }), "spec.failover.takeoverAfterSeconds"),
        (
            json!({ "renewSeconds": 1, "stopAfterSeconds": 5, "takeoverAfterSeconds": 7 }),
            "spec.failover.takeoverAfterSeconds",
        ),
        (
            json!({ "stopAfterSeconds": 600, "takeoverAfterSeconds": 614 }),
            "spec.failover.takeoverAfterSeconds",
        ),
        (json!({ "renewSeconds": 4 }), "spec.failover.renewSeconds"),
        (json!({ "stopAfterSeconds": 5 }), "spec.failover.renewSeconds"),
        (json!({ "proof": "Lease", "guard": "Disabled" }), "spec.failover.proof"),
        (json!({ "proof": "Lease", "lease": "Never" }), "spec.failover.proof"),
        (
            json!({ "proof": "Lease", "onApiLoss": "Continue" }),
            "spec.failover.onApiLoss",
        ),
        (json!({ "lease": "Always", "guard": "Disabled" }), "spec.failover.lease"),
        (
            json!({ "onApiLoss": "Stop", "guard": "Disabled" }),
            "spec.failover.onApiLoss",
        ),
        (
            json!({ "onApiLoss": "Stop", "lease": "Never" }),
            "spec.failover.onApiLoss",
        ),
    ]
    .map(|(settings, field)| (failover(&settings), field))
    .into()
}

/// Resources that must be rejected when they are created, with the field that the message names.
fn rejected() -> Vec<(Value, &'static str)> {
    let mut cases = vec![
        (resource("/metadata/name", &json!("Orders")), "metadata.name"),
        (resource("/metadata/name", &json!("orders.shop")), "metadata.name"),
        (resource("/metadata/name", &json!("2orders")), "metadata.name"),
        (resource("/metadata/name", &json!("orders-")), "metadata.name"),
        (resource("/metadata/name", &json!("o".repeat(64))), "metadata.name"),
        (resource("/spec/acceptEula", &json!(false)), "spec.acceptEula"),
        (resource("/spec/image", &json!("engine 1")), "spec.image"),
        (resource("/spec/image", &json!("engine:1\n")), "spec.image"),
    ];
    let more = [
        (json!({ "storage": { "size": "8GB" } }), "spec.storage.size"),
        (json!({ "storage": { "size": "lots" } }), "spec.storage.size"),
        (json!({ "storage": { "size": "" } }), "spec.storage.size"),
        (json!({ "storage": { "size": 0 } }), "spec.storage.size"),
        (json!({ "storage": { "size": "-1Gi" } }), "spec.storage.size"),
        (json!({ "storage": { "accessModes": [] } }), "spec.storage.accessModes"),
        (
            json!({ "storage": { "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"] } }),
            "spec.storage.accessModes",
        ),
        (
            json!({ "storage": { "existingClaim": "old", "size": "8Gi" } }),
            "spec.storage.existingClaim",
        ),
        (
            json!({ "storage": { "existingClaim": "old", "storageClassName": "fast" } }),
            "spec.storage.existingClaim",
        ),
        (
            json!({ "storage": { "existingClaim": "old", "accessModes": ["ReadWriteOnce"] } }),
            "spec.storage.existingClaim",
        ),
        (
            json!({ "service": { "type": "ClusterIP", "loadBalancerClass": "metal" } }),
            "spec.service.loadBalancerClass",
        ),
        (
            json!({ "service": { "type": "NodePort", "loadBalancerSourceRanges": ["192.0.2.0/24"] } }),
            "spec.service.loadBalancerSourceRanges",
        ),
        (
            json!({ "service": { "loadBalancerSourceRanges": ["192.0.2.1"] } }),
            "spec.service.loadBalancerSourceRanges",
        ),
        (
            json!({ "service": { "loadBalancerSourceRanges": ["everywhere"] } }),
            "spec.service.loadBalancerSourceRanges",
        ),
        (
            json!({ "service": { "type": "ClusterIP", "externalTrafficPolicy": "Local" } }),
            "spec.service.externalTrafficPolicy",
        ),
        (
            json!({ "resources": { "limits": { "memory": "4GB" } } }),
            "spec.resources.limits",
        ),
        (
            json!({ "resources": { "requests": { "cpu": "two" } } }),
            "spec.resources.requests",
        ),
        (
            json!({ "tolerations": [{ "operator": "Exists", "tolerationSeconds": 60 }] }),
            "spec.tolerations",
        ),
        (
            json!({ "tolerations": [{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 60 }] }),
            "spec.tolerations",
        ),
        (json!({ "imagePullSecrets": [{ "name": "" }] }), "spec.imagePullSecrets"),
    ];
    cases.extend(more.map(|(more, field)| (spec(&more), field)));
    cases.extend(rejected_failover());
    let reserved = [
        "ACCEPT_EULA",
        "MSSQL_SA_PASSWORD",
        "SA_PASSWORD",
        "MSSQL_PID",
        "MSSQL_AGENT_ENABLED",
        "MSSQL_COLLATION",
        "MSSQL_LCID",
        "TZ",
        "MSSQL_TCP_PORT",
        "MSSQL_IP_ADDRESS",
        "MSSQL_MASTER_DATA_FILE",
        "SQLEDGE_POD_UID",
    ];
    cases.extend(reserved.map(|name| (spec(&json!({ "env": [{ "name": name, "value": "x" }] })), "spec.env")));
    cases
}

/// Changes: from, to, and the field that the message names, or none where the change is accepted.
fn changes() -> Vec<(Value, Value, Option<&'static str>)> {
    let class = |name: &str| json!({ "storage": { "storageClassName": name } });
    let mode = |name: &str| json!({ "storage": { "accessModes": [name] } });
    let claim = |name: &str| json!({ "storage": { "existingClaim": name } });
    let size = |size: &str| json!({ "storage": { "size": size } });
    let service = |value: Value| json!({ "service": value });
    let none = json!({});
    let storage = [
        (class("slow"), class("fast"), "spec.storage.storageClassName"),
        (class("slow"), none.clone(), "spec.storage.storageClassName"),
        (none.clone(), class("fast"), "spec.storage.storageClassName"),
        (
            mode("ReadWriteOnce"),
            mode("ReadWriteOncePod"),
            "spec.storage.accessModes",
        ),
        (none.clone(), mode("ReadWriteOnce"), "spec.storage.accessModes"),
        (mode("ReadWriteMany"), none.clone(), "spec.storage.accessModes"),
        (claim("old"), claim("new"), "spec.storage.existingClaim"),
        (claim("old"), none.clone(), "spec.storage.existingClaim"),
        (none.clone(), claim("new"), "spec.storage.existingClaim"),
        (size("16Gi"), size("15Gi"), "spec.storage.size"),
        (size("16Gi"), none.clone(), "spec.storage.size"),
        (none.clone(), size("7Gi"), "spec.storage.size"),
    ];
    let mut cases = Vec::new();
    for (old, new, field) in storage {
        cases.push((bound(&old), bound(&new), Some(field)));
        // a claim without a volume holds nothing, and a typing error must be correctable
        cases.push((spec(&old), spec(&new), None));
    }
    let harmless = [
        (
            class("fast"),
            json!({ "storage": { "storageClassName": "fast", "size": "9Gi" } }),
        ),
        (none.clone(), mode("ReadWriteOncePod")),
        (mode("ReadWriteOncePod"), none.clone()),
        (none.clone(), json!({ "storage": {} })),
        (size("8Gi"), none.clone()),
        (size("16Gi"), size("16384Mi")),
        (size("16Gi"), json!({ "storage": { "size": 17_179_869_184_i64 } })),
        (size("16Gi"), size("17Gi")),
        (none.clone(), json!({ "image": "registry.example/engine:2" })),
    ];
    cases.extend(harmless.map(|(old, new)| (bound(&old), bound(&new), None)));
    let fixed = Some("spec.service.loadBalancerClass");
    let classes = [
        (
            json!({ "loadBalancerClass": "a" }),
            json!({ "loadBalancerClass": "b" }),
            fixed,
        ),
        (json!({}), json!({ "loadBalancerClass": "b" }), fixed),
        (
            json!({ "loadBalancerClass": "a", "type": "LoadBalancer" }),
            json!({}),
            fixed,
        ),
        (
            json!({ "loadBalancerClass": "a" }),
            json!({ "loadBalancerClass": "a", "port": 1434 }),
            None,
        ),
        (
            json!({ "loadBalancerClass": "a" }),
            json!({ "type": "ClusterIP" }),
            None,
        ),
        (
            json!({ "type": "ClusterIP" }),
            json!({ "loadBalancerClass": "b" }),
            None,
        ),
        (json!({ "type": "NodePort" }), json!({ "type": "ClusterIP" }), None),
    ];
    cases.extend(classes.map(|(old, new, field)| (spec(&service(old)), spec(&service(new)), field)));
    cases
}

#[test]
fn what_is_right_is_accepted() {
    for resource in accepted() {
        assert_eq!(messages(&resource, None), Vec::<String>::new(), "{resource}");
    }
}

#[test]
fn what_is_wrong_is_rejected_with_a_message_that_names_the_field() {
    for (resource, field) in rejected() {
        let messages = messages(&resource, None);
        assert!(
            messages.iter().any(|message| message.starts_with(field)),
            "{resource}: {messages:?}"
        );
    }
}

#[test]
fn storage_is_fixed_once_there_is_a_volume_and_the_balancers_class_while_there_is_a_balancer() {
    for (old, new, field) in changes() {
        let messages = messages(&new, Some(&old));
        match field {
            None => assert_eq!(messages, Vec::<String>::new(), "{old} -> {new}"),
            Some(field) => {
                assert!(
                    messages.iter().any(|message| message.starts_with(field)),
                    "{old} -> {new}: {messages:?}"
                );
            }
        }
    }
}

#[test]
fn every_rule_of_the_schema_is_seen_to_reject_something() {
    let mut rules = BTreeSet::new();
    collect(&schema(), &mut rules);
    let mut seen: BTreeSet<String> = rejected()
        .iter()
        .flat_map(|(resource, _)| messages(resource, None))
        .collect();
    seen.extend(changes().iter().flat_map(|(old, new, _)| messages(new, Some(old))));
    assert!(rules.len() > 15, "the rules got lost: {rules:?}");
    assert_eq!(rules, seen);
}

#[test]
fn every_message_names_a_field_and_the_next_step() {
    let mut rules = BTreeSet::new();
    collect(&schema(), &mut rules);
    for message in rules {
        assert!(
            message.starts_with("spec.") || message.starts_with("metadata."),
            "{message}"
        );
        assert!(
            message.contains(": ") || message.contains(" unless "),
            "no next step: {message}"
        );
    }
}

/// The messages of all rules below a schema.
fn collect(schema: &Value, messages: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for rule in map
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                messages.insert(rule["message"].as_str().expect("every rule has a message").to_owned());
            }
            map.values().for_each(|value| collect(value, messages));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, messages)),
        _ => {}
    }
}

#[test]
fn the_definition_is_small_enough_for_a_client_side_apply_and_easy_to_read() {
    let size = serde_json::to_string(&api::crd()).expect("JSON").len();
    assert!(size < 64 * 1024, "{size} bytes");
}

#[test]
fn the_stored_spec_gets_no_defaults() {
    fn find(schema: &Value, path: &str) {
        if let Value::Object(map) = schema {
            for (key, value) in map {
                assert!(key != "default" || path.ends_with("/properties"), "a default at {path}");
                find(value, &format!("{path}/{key}"));
            }
        }
    }
    // Kubernetes' own types have defaults inside (`name: ""` of a reference); ours must add none
    let schema = schema();
    let ours = [
        "storage",
        "service",
        "failover",
        "saPasswordSecretRef",
        "agent",
        "deletionPolicy",
        "terminationGracePeriodSeconds",
    ];
    for field in ours {
        let field = &schema["properties"]["spec"]["properties"][field];
        assert!(field.is_object());
        find(field, "");
    }
}

#[test]
fn enumerations_list_names_only_and_keep_their_description() {
    let schema = schema();
    let spec = &schema["properties"]["spec"]["properties"];
    let of_failover = &spec["failover"]["properties"];
    for (field, names) in [
        (&spec["agent"], json!(["Enabled", "Disabled"])),
        (&spec["deletionPolicy"], json!(["Retain", "Delete"])),
        (
            &spec["service"]["properties"]["type"],
            json!(["LoadBalancer", "NodePort", "ClusterIP"]),
        ),
        (
            &spec["service"]["properties"]["externalTrafficPolicy"],
            json!(["Cluster", "Local"]),
        ),
        (&of_failover["guard"], json!(["Enabled", "Disabled"])),
        (&of_failover["proof"], json!(["Storage", "Lease", "Manual"])),
        (&of_failover["lease"], json!(["Auto", "Always", "Never"])),
        (&of_failover["onApiLoss"], json!(["Auto", "Stop", "Continue"])),
        (
            &of_failover["driverClass"],
            json!(["Revoke", "Quorum", "Busy", "NeedsFence", "Local", "Unknown"]),
        ),
    ] {
        assert_eq!(field["enum"], names, "{field}");
        assert!(
            field["description"]
                .as_str()
                .is_some_and(|text| text.contains("Default:")),
            "{field}"
        );
        assert!(field.get("nullable").is_none(), "{field}");
    }
    assert_eq!(
        spec["storage"]["properties"]["accessModes"]["items"]["enum"],
        json!(["ReadWriteOncePod", "ReadWriteOnce", "ReadWriteMany"])
    );
}

#[test]
fn the_committed_definition_is_the_one_we_print() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let printed = serde_yaml::to_string(&api::crd()).expect("YAML");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &printed).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == printed,
        "{FILE} is stale: run `UPDATE_GOLDEN=1 cargo test --test schema`"
    );
}
