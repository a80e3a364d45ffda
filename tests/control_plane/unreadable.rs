//! A resource that was stored before the schema knew better, and that this operator cannot read.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqledge_operator::api;

use crate::process::{PRESENT, Process, get, merge, namespaces, path, post, try_send};
use crate::server::{ControlPlane, play};
use crate::world::{INSTANCE, instance};

const NAMESPACE: &str = "unreadable";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sqledgeinstances.sqledge.io";

/// Takes the bounds off all numbers.
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

#[test]
fn a_resource_that_cannot_be_read_keeps_the_operator_from_no_other() {
    play(async {
        let at = ControlPlane::start().await;
        let client = at.client();
        namespaces(&client, &[NAMESPACE]).await;
        let mut versions = serde_json::to_value(api::crd()).expect("JSON")["spec"]["versions"].take();
        loosen(&mut versions);
        merge(&client, DEFINITION, &json!({"spec": {"versions": versions}})).await;
        let constraint = json!({"maxSkew": i64::MAX, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        let mut odd = instance(NAMESPACE, &json!({"topologySpreadConstraints": [constraint]}));
        odd["metadata"]["name"] = "odd".into();
        let all = path(NAMESPACE, "sqledge.io/v1alpha1", "sqledgeinstances", "");
        // the API server takes the new definition up a moment later
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while let Err(error) = try_send(&client, "POST", &all, "application/json", &odd).await {
            assert!(std::time::Instant::now() < end, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let operator = Process::start(
            Path::new(PRESENT),
            &at,
            NAMESPACE,
            "registry.example/operator:1",
            &[NAMESPACE],
        );
        // one that is made while it runs, too
        post(&client, &all, &instance(NAMESPACE, &json!({}))).await;
        let deployment = path(NAMESPACE, "apps/v1", "deployments", INSTANCE);
        operator.until(&deployment, Value::is_object).await;
        assert_eq!(
            get(&client, &path(NAMESPACE, "apps/v1", "deployments", "odd")).await,
            None
        );

        // what was readable and is edited beyond reading is kept as it was understood last
        let changed = json!({"spec": {"topologySpreadConstraints": [constraint], "terminationGracePeriodSeconds": 7}});
        let resource = path(NAMESPACE, "sqledge.io/v1alpha1", "sqledgeinstances", INSTANCE);
        merge(&client, &resource, &changed).await;
        // put right again, it is followed again, and so is one that never was right
        merge(
            &client,
            &resource,
            &json!({"spec": {"topologySpreadConstraints": null}}),
        )
        .await;
        let grace = |deployment: &Value| deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 7;
        operator.until(&deployment, grace).await;
        let odd = path(NAMESPACE, "sqledge.io/v1alpha1", "sqledgeinstances", "odd");
        merge(&client, &odd, &json!({"spec": {"topologySpreadConstraints": null}})).await;
        operator
            .until(&path(NAMESPACE, "apps/v1", "deployments", "odd"), Value::is_object)
            .await;
    });
}
