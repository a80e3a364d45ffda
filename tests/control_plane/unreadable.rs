//! Objects that the API server stores and the operator's types refuse: each is told, and holds up nothing but itself.

use std::path::Path;
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};
use sqledge_operator::api;

use crate::process::{PRESENT, Process, get, merge, namespaces, path, post, try_send};
use crate::server::{ControlPlane, play};
use crate::world::{INSTANCE, instance};

const NAMESPACE: &str = "unreadable";
const IMAGE: &str = "registry.example/operator:1";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sqledgeinstances.sqledge.io";
/// The last second that Kubernetes writes, and one that the operator's library does not know.
const LATE: &str = "9999-12-31T23:59:59Z";

/// Takes the bounds off all numbers, as an older definition had none.
fn loosen(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("type").is_some_and(|type_| type_ == "integer") {
                map.retain(|key, _| key != "minimum" && key != "maximum");
            }
            map.values_mut().for_each(loosen);
        }
        Value::Array(items) => items.iter_mut().for_each(loosen),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn resource(name: &str) -> String {
    path(NAMESPACE, "sqledge.io/v1alpha1", "sqledgeinstances", name)
}

fn named(name: &str, spec: &Value) -> Value {
    let mut resource = instance(NAMESPACE, spec);
    resource["metadata"]["name"] = name.into();
    resource
}

fn deployment(name: &str) -> String {
    path(NAMESPACE, "apps/v1", "deployments", name)
}

fn skewed() -> Value {
    json!([{"maxSkew": i64::MAX, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}])
}

/// Objects with our label, as anybody may write who may write anything in one namespace.
async fn post_others(client: &Client) {
    let metadata = json!({"name": "odd", "labels": {"app.kubernetes.io/managed-by": "sqledge-operator"}});
    let containers = json!([{"name": "a", "image": "registry.example/other:1"}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}});
    post(client, &path(NAMESPACE, "v1", "pods", ""), &pod).await;
    let odd = path(NAMESPACE, "v1", "pods", "odd");
    let mut pod = get(client, &odd).await.expect("made");
    let somebody = json!({"manager": "somebody", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:app.kubernetes.io/managed-by": {}}}}, "time": LATE});
    pod["metadata"]["managedFields"]
        .as_array_mut()
        .expect("a list")
        .push(somebody);
    try_send(client, "PUT", &odd, "application/json", &pod)
        .await
        .expect("written");
    let stored = get(client, &odd).await.expect("stored");
    assert!(
        stored.to_string().contains(LATE),
        "the API server corrects such a time: {stored}"
    );
    let late = LATE.replace('Z', ".000000Z");
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {"renewTime": late}});
    post(client, &path(NAMESPACE, "coordination.k8s.io/v1", "leases", ""), &lease).await;
}

#[test]
fn an_object_that_cannot_be_read_keeps_the_operator_from_no_other() {
    play(async {
        let at = ControlPlane::start().await;
        let client = at.client();
        namespaces(&client, &[NAMESPACE]).await;
        post_others(&client).await;
        let mut versions = serde_json::to_value(api::crd()).expect("JSON")["spec"]["versions"].take();
        loosen(&mut versions);
        merge(&client, DEFINITION, &json!({"spec": {"versions": versions}})).await;
        let all = resource("");
        // the API server takes the new definition up a moment later
        let odd = named("odd", &json!({"topologySpreadConstraints": skewed()}));
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = try_send(&client, "POST", &all, "application/json", &odd).await {
            assert!(Instant::now() < end, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let operator = Process::start(Path::new(PRESENT), &at, NAMESPACE, IMAGE, &[NAMESPACE]);
        post(&client, &all, &instance(NAMESPACE, &json!({}))).await;
        operator.until(&deployment(INSTANCE), Value::is_object).await;

        // the one that cannot be read is told so
        let events = path(NAMESPACE, "events.k8s.io/v1", "events", "");
        let told = |events: &Value| {
            let mut all = events["items"].as_array().into_iter().flatten();
            all.any(|event| {
                let note = event["note"].as_str().unwrap_or_default();
                event["reason"] == "Unreadable" && event["regarding"]["name"] == "odd" && note.contains("maxSkew")
            })
        };
        operator.until(&events, told).await;
        assert_eq!(get(&client, &deployment("odd")).await, None);

        // one that was read before is kept as it was: what it needs is made again, and by its former spec
        let beyond = json!({"spec": {"topologySpreadConstraints": skewed(), "terminationGracePeriodSeconds": 7}});
        merge(&client, &resource(INSTANCE), &beyond).await;
        post(&client, &all, &named("third", &json!({}))).await;
        operator.until(&deployment("third"), Value::is_object).await;
        let service = path(NAMESPACE, "v1", "services", INSTANCE);
        let before = get(&client, &service).await.expect("made");
        try_send(&client, "DELETE", &service, "application/json", &json!({}))
            .await
            .expect("deleted");
        operator
            .until(&service, |service| {
                service["metadata"]["uid"] != before["metadata"]["uid"]
            })
            .await;
        let grace =
            |deployment: &Value| deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone();
        assert_ne!(grace(&get(&client, &deployment(INSTANCE)).await.expect("made")), 7);

        // an operator that has never read it leaves its claim to nobody else
        drop(operator);
        let operator = Process::start(Path::new(PRESENT), &at, NAMESPACE, IMAGE, &[NAMESPACE]);
        let claim = json!({"storage": {"existingClaim": format!("{INSTANCE}-data")}});
        post(&client, &all, &named("thief", &claim)).await;
        let refused = |resource: &Value| {
            let mut conditions = resource["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|condition| condition["type"] == "Stalled" && condition["reason"] == "ClaimInUse")
        };
        operator.until(&resource("thief"), refused).await;

        // put right, both are followed
        let right = json!({"spec": {"topologySpreadConstraints": null}});
        merge(&client, &resource(INSTANCE), &right).await;
        operator
            .until(&deployment(INSTANCE), |deployment| grace(deployment) == 7)
            .await;
        merge(&client, &resource("odd"), &right).await;
        operator.until(&deployment("odd"), Value::is_object).await;
    });
}
