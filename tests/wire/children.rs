//! The status and the children: whose fields they are, and what is only ever created.

use std::collections::BTreeMap;

use serde_json::json;

use crate::canned::Sent;
use crate::passes::{MANAGER, Meeting, acts, passes};
use crate::shop::{CLAIM, DEPLOYMENT, INSTANCE, cluster, meta, pod};

#[tokio::test]
async fn the_status_is_applied_with_force_under_a_manager_of_its_own_and_to_this_uid_only() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let sent = passes(&canned, Meeting::default()).await;
    let path = format!("{INSTANCE}/status");
    let mut status = sent.into_iter().find(|sent| sent.path == path).expect("a status");
    let conditions = status.body["status"]["conditions"].take();
    status.body["status"]
        .as_object_mut()
        .expect("an object")
        .remove("conditions");
    let body = json!({
        "apiVersion": "sqledge.io/v1alpha1", "kind": "SqlEdgeInstance", "metadata": {"name": "orders", "uid": "uid-orders"},
        "status": {"observedGeneration": 1, "address": "192.0.2.10", "port": 1433, "node": "n1", "podName": "orders-1-a",
            "volumeClaim": "orders-data", "volume": "pv-1", "secret": "orders-sa", "engineVersion": "16.0.1000.6"},
    });
    let query = [("fieldManager", "sqledge-operator/status"), ("force", "true")];
    assert_eq!(
        status,
        Sent::new("PATCH", &path, &query, "application/apply-patch+yaml", body)
    );
    let types: Vec<&str> = conditions
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|condition| condition["type"].as_str())
        .collect();
    assert!(types.is_sorted() && types.contains(&"Ready"), "{types:?}");
}

#[tokio::test]
async fn children_are_applied_with_force_under_our_manager_and_what_holds_data_is_only_created() {
    let canned = cluster(&json!({}));
    for path in [
        DEPLOYMENT,
        "/api/v1/namespaces/shop/services/orders",
        "/api/v1/namespaces/shop/secrets/orders-sa",
        CLAIM,
    ] {
        canned.remove(path);
    }
    let class = json!({"metadata": meta("disk", "uid-class", "5", &json!({})), "provisioner": "disk.storage.test"});
    canned.put("/apis/storage.k8s.io/v1/storageclasses/disk", class);
    let sent = acts(&canned, Meeting::default()).await;
    let seen: Vec<_> = sent
        .iter()
        .take(3)
        .map(|sent| {
            (
                sent.method.as_str(),
                sent.path.as_str(),
                sent.content_type.as_str(),
                sent.query.clone(),
            )
        })
        .collect();
    let query = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let (plain, forced) = (query(&[MANAGER]), query(&[MANAGER, ("force", "true")]));
    assert_eq!(
        seen,
        [
            (
                "POST",
                "/api/v1/namespaces/shop/secrets",
                "application/json",
                plain.clone()
            ),
            (
                "POST",
                "/api/v1/namespaces/shop/persistentvolumeclaims",
                "application/json",
                plain
            ),
            (
                "PATCH",
                "/api/v1/namespaces/shop/services/orders",
                "application/apply-patch+yaml",
                forced
            ),
        ]
    );
}
