//! Two builds: what an operator built from an earlier commit has made is left as it is by the operator of this build, until the
//! resource itself changes. The commit stands in `former.commit`, and `former.sh` builds it once.

use std::path::{Path, PathBuf};

use kube::Client;
use serde_json::{Value, json};

use crate::process::{PRESENT, Process, get, merge, namespaces, path, post};
use crate::server::{cache, play, shared};
use crate::world::instance;

const HOME: &str = "two-builds-home";
const SHOP: &str = "two-builds-shop";

/// The program of the earlier commit.
fn former() -> PathBuf {
    let commit = include_str!("former.commit").trim();
    let program = cache().join("former").join(commit).join("sqledge-operator");
    assert!(
        program.exists(),
        "the operator of commit {commit} is not built; run tests/control_plane/former.sh and try again"
    );
    program
}

/// One with the least a user must write, and one with much more.
fn instances() -> [(&'static str, Value); 2] {
    let more = json!({
        "edition": "Premium", "agent": "Enabled", "collation": "Latin1_General_100_CI_AS_SC", "lcid": 1031, "timeZone": "Europe/Berlin",
        "storage": {"size": "1.5Gi", "storageClassName": "disk", "accessModes": ["ReadWriteOnce"]},
        "service": {"type": "ClusterIP", "port": 14330},
        "resources": {"requests": {"cpu": "2000m", "memory": "4Gi"}, "limits": {"cpu": 2, "memory": "4096Mi"}},
        "nodeSelector": {"kubernetes.io/arch": "arm64", "disk": "nvme"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "databases", "effect": "NoSchedule"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "imagePullSecrets": [{"name": "registry"}],
        "podSecurityContext": {"fsGroup": 10001, "runAsUser": 10001, "supplementalGroups": [7]},
        "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}},
        "env": [{"name": "MSSQL_TELEMETRY_ENABLED", "value": "FALSE"}],
        "terminationGracePeriodSeconds": 120,
    });
    [("least", json!({})), ("most", more)]
}

fn resource(name: &str) -> String {
    path(SHOP, "sqledge.io/v1alpha1", "sqledgeinstances", name)
}

fn deployment(name: &str) -> String {
    path(SHOP, "apps/v1", "deployments", name)
}

/// The pod of a Deployment that was let in before: only while none runs may a template be brought up to date.
async fn run_pod(client: &Client, deployment: &Value) {
    let name = deployment["metadata"]["name"].as_str().expect("a name");
    let template = &deployment["spec"]["template"];
    let mut spec = template["spec"].clone();
    spec["schedulingGates"] = json!([]);
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "uid-of-it", "controller": true});
    let metadata =
        json!({"name": format!("{name}-0"), "labels": template["metadata"]["labels"], "ownerReferences": [owner]});
    post(
        client,
        &path(SHOP, "v1", "pods", ""),
        &json!({"metadata": metadata, "spec": spec}),
    )
    .await;
}

#[test]
fn an_upgrade_from_an_earlier_build_leaves_every_deployment_as_it_is_until_its_resource_changes() {
    play(async {
        let at = shared().await;
        let client = at.client();
        namespaces(&client, &[HOME, SHOP]).await;
        for (name, spec) in instances() {
            let mut object = instance(SHOP, &spec);
            object["metadata"]["name"] = name.into();
            post(&client, &resource(""), &object).await;
        }
        let operator = Process::start(&former(), at, HOME, "registry.example/operator:former", &[SHOP]);
        let mut made = Vec::new();
        for (name, _) in instances() {
            made.push(operator.until(&deployment(name), Value::is_object).await);
        }
        drop(operator);
        for deployment in &made {
            run_pod(&client, deployment).await;
        }

        let operator = Process::start(
            Path::new(PRESENT),
            at,
            HOME,
            "registry.example/operator:present",
            &[SHOP],
        );
        for ((name, _), made) in instances().into_iter().zip(&made) {
            // a change that reaches another child shows that this operator has looked
            merge(&client, &resource(name), &json!({"spec": {"deletionPolicy": "Delete"}})).await;
            let claim = path(SHOP, "v1", "persistentvolumeclaims", &format!("{name}-data"));
            operator
                .until(&claim, |claim| !claim["metadata"]["ownerReferences"].is_null())
                .await;
            let seen =
                |resource: &Value| resource["status"]["observedGeneration"] == resource["metadata"]["generation"];
            operator.until(&resource(name), seen).await;
            // byte for byte, resourceVersion and managers included
            assert_eq!(get(&client, &deployment(name)).await.as_ref(), Some(made), "{name}");
        }
        for ((name, _), made) in instances().into_iter().zip(&made) {
            merge(
                &client,
                &resource(name),
                &json!({"spec": {"image": "registry.example/engine:2"}}),
            )
            .await;
            let newer = |stored: &Value| stored["metadata"]["generation"] != made["metadata"]["generation"];
            let stored = operator.until(&deployment(name), newer).await["spec"]["template"].to_string();
            for (image, is_there) in [
                ("engine:2", true),
                ("operator:present", true),
                ("operator:former", false),
            ] {
                assert_eq!(stored.contains(image), is_there, "{name}, {image}: {stored}");
            }
        }
    });
}
