//! `watchNamespaces`: those are served, and nothing is touched in any other.

use std::path::Path;

use serde_json::{Value, json};

use crate::process::{PRESENT, Process, get, merge, namespaces, path, post};
use crate::server::{play, shared};
use crate::world::{INSTANCE, instance};

const IMAGE: &str = "registry.example/operator:1";

fn resource(namespace: &str) -> String {
    path(namespace, "sqledge.io/v1alpha1", "sqledgeinstances", INSTANCE)
}

/// The operator has looked at the instance as it is now, and made what it needs.
async fn await_served(operator: &Process, namespace: &str) {
    let seen = |resource: &Value| {
        let generation = &resource["metadata"]["generation"];
        !generation.is_null() && resource["status"]["observedGeneration"] == *generation
    };
    operator.until(&resource(namespace), seen).await;
    for (version, plural, name) in [
        ("apps/v1", "deployments", "orders"),
        ("v1", "services", "orders"),
        ("v1", "persistentvolumeclaims", "orders-data"),
        ("v1", "secrets", "orders-sa"),
    ] {
        operator
            .until(&path(namespace, version, plural, name), Value::is_object)
            .await;
    }
}

#[test]
fn an_operator_of_two_namespaces_serves_both_and_touches_nothing_in_a_third() {
    play(async {
        let at = shared().await;
        let client = at.client();
        namespaces(&client, &["ns-home", "ns-one", "ns-two", "ns-other"]).await;
        // the one that is not watched is there first, so that it would be seen first
        for namespace in ["ns-other", "ns-one", "ns-two"] {
            let all = path(namespace, "sqledge.io/v1alpha1", "sqledgeinstances", "");
            post(&client, &all, &instance(namespace, &json!({}))).await;
        }
        let untouched = get(&client, &resource("ns-other")).await;
        let operator = Process::start(Path::new(PRESENT), at, "ns-home", IMAGE, &["ns-one", "ns-two"]);
        for namespace in ["ns-one", "ns-two"] {
            await_served(&operator, namespace).await;
        }
        // and so is what happens later, in both
        for namespace in ["ns-one", "ns-two"] {
            merge(
                &client,
                &resource(namespace),
                &json!({"spec": {"deletionPolicy": "Delete"}}),
            )
            .await;
            let claim = path(namespace, "v1", "persistentvolumeclaims", "orders-data");
            let owned = |claim: &Value| !claim["metadata"]["ownerReferences"].is_null();
            operator.until(&claim, owned).await;
        }
        assert_eq!(get(&client, &resource("ns-other")).await, untouched);
        for (version, plural) in [
            ("apps/v1", "deployments"),
            ("v1", "services"),
            ("v1", "persistentvolumeclaims"),
            ("v1", "secrets"),
            ("events.k8s.io/v1", "events"),
        ] {
            let all = get(&client, &path("ns-other", version, plural, ""))
                .await
                .expect("a list");
            assert_eq!(all["items"], json!([]), "{plural}");
        }
        drop(operator);
        // nothing was wrong with that instance
        let operator = Process::start(
            Path::new(PRESENT),
            at,
            "ns-home",
            IMAGE,
            &["ns-one", "ns-two", "ns-other"],
        );
        await_served(&operator, "ns-other").await;
    });
}
