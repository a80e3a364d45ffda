//! The Deployment's template and the pods of the one before.

use std::time::Duration;

use kube::runtime::controller::Action;
use serde_json::json;
use sqledge_operator::controller;

use crate::canned::Canned;
use crate::passes::{Meeting, operator};
use crate::shop::{ATTACHMENT, CLAIM, DEPLOYMENT, INSTANCE, NODE, cluster, pod};

/// A first pod that waits, and nothing in its way.
fn waiting() -> Canned {
    let canned = cluster(&json!({}));
    canned.remove(ATTACHMENT);
    let mut node = canned.get(NODE);
    node["status"]["volumesInUse"] = json!([]);
    canned.put(NODE, node);
    pod(&canned, "orders-1-a", true);
    let mut deployment = canned.get(DEPLOYMENT);
    deployment["metadata"]["generation"] = 1.into();
    canned.put(DEPLOYMENT, deployment);
    canned
}

/// A pass: what it wrote first, apart from events and status, and when the next one comes.
async fn first_writes(canned: &Canned) -> (Vec<(String, String)>, Action) {
    let (context, _publisher) = operator(canned, &Meeting::default());
    let instance = context.caches.instances.state().remove(0);
    let next = controller::pass(instance, context.clone()).await.expect("a pass");
    let mut sent = canned.sent();
    sent.retain(|sent| !sent.path.contains("/events") && !sent.path.starts_with(&format!("{INSTANCE}/")));
    let writes = sent.into_iter().map(|sent| (sent.method, sent.path)).take(2).collect();
    (writes, next)
}

fn patch(path: &str) -> (String, String) {
    ("PATCH".to_owned(), path.to_owned())
}

#[tokio::test]
async fn a_pass_that_changes_the_template_lets_none_of_the_former_ones_pods_in_and_looks_again_in_a_second() {
    let canned = waiting().that_obeys();
    let mut deployment = canned.get(DEPLOYMENT);
    deployment["metadata"]["annotations"]["sqledge.io/template-builder"] = "registry.example/operator:0".into();
    canned.put(DEPLOYMENT, deployment);
    let (writes, next) = first_writes(&canned).await;
    assert_eq!(writes, [patch(DEPLOYMENT)]);
    assert_eq!(next, Action::requeue(Duration::from_secs(1)));
    // and with that it is done
    let (writes, _) = first_writes(&canned).await;
    assert_eq!(writes[0], patch(CLAIM));
}

#[tokio::test]
async fn a_deployment_that_others_change_back_each_time_keeps_no_pod_waiting() {
    let canned = waiting();
    let mut deployment = canned.get(DEPLOYMENT);
    deployment["spec"]["template"]["spec"]["hostname"] = "of-a-webhook".into();
    canned.put(DEPLOYMENT, deployment);
    let (writes, _) = first_writes(&canned).await;
    assert_eq!(writes, [patch(DEPLOYMENT), patch(CLAIM)]);
}
