//! The status and the children: whose fields they are, and what is only ever created.

use std::collections::BTreeMap;

use serde_json::json;
use sqledge_operator::controller;

use crate::acts::patch;
use crate::canned::{Canned, JSON_PATCH, Sent};
use crate::passes::{MANAGER, Meeting, acts, operator, passes};
use crate::shop::{ACCOUNT, CLAIM, DEPLOYMENT, INSTANCE, cluster, meta, pod};

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

/// A claim of which the resource wants more than it has.
fn with_a_small_claim() -> Canned {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let mut claim = canned.get(CLAIM);
    claim["spec"]["resources"]["requests"]["storage"] = "4Gi".into();
    canned.put(CLAIM, claim);
    canned
}

fn growth() -> Sent {
    let operation = json!({"op": "replace", "path": "/spec/resources/requests/storage", "value": "8Gi"});
    let body = patch("uid-claim", "30", &[operation]);
    Sent::new("PATCH", CLAIM, &[MANAGER], JSON_PATCH, body)
}

#[tokio::test]
async fn a_claim_grows_by_a_patch_of_exactly_the_claim_that_was_judged() {
    assert_eq!(acts(&with_a_small_claim(), Meeting::default()).await, [growth()]);
}

#[tokio::test]
async fn a_claim_grows_although_another_child_is_refused() {
    let canned = with_a_small_claim();
    canned.remove(ACCOUNT);
    let words = "serviceaccounts \"orders-guard\" is forbidden: a policy of yours";
    let refusal = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403, "message": words});
    canned.refuse(ACCOUNT, refusal);
    let meeting = Meeting::default();
    let (context, _publisher) = operator(&canned, &meeting);
    let instance = context.caches.instances.state().remove(0);
    let refused = controller::pass(instance, context.clone()).await;
    refused.expect_err("the account is needed");
    let sent = canned.sent();
    assert!(sent.contains(&growth()), "{sent:#?}");
}

#[tokio::test]
async fn a_claim_that_may_not_grow_is_asked_for_once_and_the_status_repeats_the_api_servers_words() {
    let words = "persistentvolumeclaims \"orders-data\" is forbidden: exceeded quota";
    let cause = json!({"causes": [{"reason": "FieldValueForbidden", "message": words, "field": "spec.resources"}]});
    let refusals = [
        json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403, "message": words}),
        json!({"kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422, "message": words, "details": cause}),
    ];
    for refusal in refusals {
        let canned = with_a_small_claim();
        canned.refuse(CLAIM, refusal.clone());
        let sent = passes(&canned, Meeting::default()).await;
        let to_claim: Vec<&Sent> = sent.iter().filter(|sent| sent.path == CLAIM).collect();
        assert_eq!(to_claim, [&growth()], "{refusal}");
        let statuses = sent.iter().filter(|sent| sent.path == format!("{INSTANCE}/status"));
        let said: Vec<_> = statuses
            .flat_map(|sent| {
                sent.body["status"]["conditions"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
            })
            .filter(|condition| condition["type"] == "VolumeResizing")
            .collect();
        assert!(!said.is_empty(), "{refusal}");
        for condition in said {
            let message = condition["message"].as_str().unwrap_or_default();
            assert_eq!(condition["reason"], "ExpansionRefused");
            assert!(
                message.contains(words) && message.contains("spec.storage.size"),
                "{message}"
            );
        }
        let events = sent.iter().filter(|sent| sent.body["reason"] == "ExpansionRefused");
        assert!(events.count() > 0, "no event tells of {refusal}");
    }
}
