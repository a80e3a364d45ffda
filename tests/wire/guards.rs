//! What a guard needs, and the orders it gets.

use serde_json::json;
use sqledge_operator::controller;

use crate::acts::patch;
use crate::canned::{JSON_PATCH, Sent};
use crate::passes::{MANAGER, Meeting, acts, operator};
use crate::shop::{ACCOUNT, ATTACHMENT, BINDING, DEPLOYMENT, INSTANCE, ROLE, WRITER, cluster, pod};

#[tokio::test]
async fn what_the_guard_needs_is_applied_and_its_lease_only_created() {
    let canned = cluster(
        &json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1", "sqledge.io/epoch": "6"}),
    );
    pod(&canned, "orders-1-a", false);
    for path in [ACCOUNT, ROLE, BINDING, WRITER] {
        canned.remove(path);
    }
    let sent = acts(&canned, Meeting::default()).await;
    let applied = [MANAGER, ("force", "true")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    for (sent, path) in sent.iter().zip([ACCOUNT, ROLE, BINDING]) {
        assert_eq!((sent.method.as_str(), sent.path.as_str()), ("PATCH", path));
        assert_eq!(
            (&sent.query, sent.content_type.as_str()),
            (&applied, "application/apply-patch+yaml")
        );
        assert_eq!(sent.body["metadata"]["ownerReferences"][0]["uid"], "uid-orders");
    }
    let lease = &sent[3];
    let leases = WRITER.trim_end_matches("/orders-writer");
    assert_eq!((lease.method.as_str(), lease.path.as_str()), ("POST", leases));
    assert_eq!(
        lease.body["spec"],
        json!({"holderIdentity": "for/uid-orders-1-a", "leaseTransitions": 7})
    );
}

#[tokio::test]
async fn orders_reach_the_guard_by_a_patch_of_exactly_the_lease_that_was_judged() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let mut resource = canned.get(INSTANCE);
    resource["spec"]["failover"] = json!({"lease": "Always"});
    canned.put(INSTANCE, resource);
    let orders = json!({"sqledge.io/on-api-loss": "Continue", "sqledge.io/renew": "2/10/15"});
    let operation = json!({"op": "add", "path": "/metadata/annotations", "value": orders});
    let body = patch("uid-of-the-guards", "20", &[operation]);
    assert_eq!(
        acts(&canned, Meeting::default()).await,
        [Sent::new("PATCH", WRITER, &[MANAGER], JSON_PATCH, body)]
    );
}

#[tokio::test]
async fn a_pass_that_changes_the_template_lets_none_of_the_former_ones_pods_in() {
    let canned = cluster(&json!({}));
    canned.remove(ATTACHMENT);
    let mut deployment = canned.under(DEPLOYMENT.trim_end_matches("/orders")).remove(0);
    deployment["metadata"]["annotations"]["sqledge.io/template-builder"] = "registry.example/operator:0".into();
    canned.put(DEPLOYMENT, deployment);
    pod(&canned, "orders-1-a", true);
    let sent = acts(&canned, Meeting::default()).await;
    let writes: Vec<_> = sent
        .iter()
        .map(|sent| (sent.method.as_str(), sent.path.as_str()))
        .collect();
    assert_eq!(writes, [("PATCH", DEPLOYMENT)]);
}

#[tokio::test]
async fn at_rest_nothing_is_asked_of_the_api_server() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let canned = canned.that_obeys();
    let meeting = Meeting::default();
    let (context, _publisher) = operator(&canned, &meeting);
    let instance = context.caches.instances.state().remove(0);
    for _ in 0..3 {
        controller::pass(instance.clone(), context.clone())
            .await
            .expect("a pass");
    }
    canned.reads();
    let before = canned.sent().len();
    controller::pass(instance, context.clone()).await.expect("a pass");
    assert_eq!(canned.reads(), [""; 0]);
    assert_eq!(canned.sent()[before..], []);
}
