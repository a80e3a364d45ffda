//! What a guard needs, and the orders it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sqledge_operator::controller;

use crate::acts::{deletion, patch};
use crate::canned::{JSON_PATCH, Sent};
use crate::passes::{Engine, MANAGER, Meeting, acts, operator, pass, passes};
use crate::shop::{ACCOUNT, ATTACHMENT, BINDING, DRIVER, INSTANCE, PODS, ROLE, WRITER, cluster, hold, pod};

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
    canned.sent();
    controller::pass(instance, context.clone()).await.expect("a pass");
    assert_eq!(canned.reads(), [""; 0]);
    assert_eq!(canned.sent(), []);
}

#[tokio::test]
async fn before_anything_is_taken_from_a_dead_node_exactly_the_lease_that_was_judged_is_sealed() {
    let canned =
        cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"})).that_obeys();
    pod(&canned, "orders-1-a", false);
    let meeting = Meeting {
        node_silent: true,
        engine: Engine::Refuses,
        ..Meeting::default()
    };
    let sent = acts(&canned, meeting).await;
    assert_eq!((sent[0].method.as_str(), sent[0].path.as_str()), ("PUT", WRITER));
    let metadata = &sent[0].body["metadata"];
    assert_eq!(
        (&metadata["uid"], &metadata["resourceVersion"]),
        (&json!("uid-of-the-guards"), &json!("20"))
    );
    let spec = &sent[0].body["spec"];
    assert_eq!(spec["holderIdentity"], "sealed/taken/uid-orders-1-a");
    assert_eq!(spec["leaseTransitions"], 2);
    let next = (sent[1].method.as_str(), sent[1].path.as_str());
    assert_eq!(
        next,
        ("DELETE", format!("{PODS}/orders-1-a").as_str()),
        "in the same pass"
    );
}

// a replica that has stood by may have met a silent engine hours before it leads
#[tokio::test]
async fn an_old_silence_moves_no_database_before_it_was_asked_again() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    hold(&canned, "uid-orders-1-a/1");
    let mut lease = canned.get(WRITER);
    lease["spec"]["leaseDurationSeconds"] = 15.into();
    canned.put(WRITER, lease);
    pod(&canned, "orders-1-a", false);
    let answers = Arc::new(AtomicBool::new(false));
    let meeting = Meeting {
        engine: Engine::AnswersFrom(answers.clone()),
        ..Meeting::default()
    };
    let (context, _publisher) = operator(&canned, &meeting);
    let writes_the_lease = || {
        canned
            .sent()
            .iter()
            .any(|sent| (sent.method.as_str(), sent.path.as_str()) == ("PUT", WRITER))
    };
    pass(&context, &meeting).await;
    context.renewals.age(Duration::from_secs(60));
    answers.store(true, Ordering::Relaxed);
    pass(&context, &meeting).await;
    assert!(!writes_the_lease(), "{:#?}", canned.sent());
    answers.store(false, Ordering::Relaxed);
    pass(&context, &meeting).await;
    assert!(writes_the_lease(), "one that is silent now is sealed");
}

#[tokio::test]
async fn the_pod_of_a_live_node_whose_end_only_the_kubelet_can_report_is_deleted_with_its_own_grace() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    canned.remove(ATTACHMENT);
    let mut driver = canned.get(DRIVER);
    driver["spec"]["attachRequired"] = false.into();
    canned.put(DRIVER, driver);
    hold(&canned, "sealed/taken/uid-orders-1-a");
    pod(&canned, "orders-1-a", false);
    let path = format!("{PODS}/orders-1-a");
    let body = deletion("uid-orders-1-a", "60", None);
    let sent = acts(&canned, Meeting::default()).await;
    let deleted = sent.into_iter().find(|sent| sent.method == "DELETE");
    assert_eq!(deleted, Some(Sent::new("DELETE", &path, &[], "application/json", body)));
}

#[tokio::test]
async fn a_pod_is_named_on_exactly_the_lease_that_was_judged_and_then_let_in() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-b", "sqledge.io/holder-node": "n1"}));
    hold(&canned, "uid-orders-1-a/1");
    pod(&canned, "orders-1-b", true);
    let sent = acts(&canned, Meeting::default()).await;
    assert_eq!((sent[0].method.as_str(), sent[0].path.as_str()), ("PUT", WRITER));
    let metadata = &sent[0].body["metadata"];
    assert_eq!(
        (&metadata["uid"], &metadata["resourceVersion"]),
        (&json!("uid-of-the-guards"), &json!("20"))
    );
    assert_eq!(sent[0].body["spec"]["holderIdentity"], "for/uid-orders-1-b");
    let next = (sent[1].method.as_str(), sent[1].path.as_str());
    assert_eq!(next, ("PATCH", format!("{PODS}/orders-1-b").as_str()));
}

#[tokio::test]
async fn a_lease_that_has_changed_since_it_was_judged_lets_nobody_in() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-b", "sqledge.io/holder-node": "n1"}));
    hold(&canned, "uid-orders-1-a/1");
    pod(&canned, "orders-1-b", true);
    canned.refuse_once(WRITER);
    let sent = acts(&canned, Meeting::default()).await;
    let paths: Vec<&str> = sent.iter().map(|sent| sent.path.as_str()).collect();
    let gate = format!("{PODS}/orders-1-b");
    assert_eq!(
        paths[..3],
        [WRITER, WRITER, &gate],
        "it is judged and named once more before that"
    );
}

#[tokio::test]
async fn a_lease_that_is_not_ours_is_never_written_to_and_nobody_is_let_in_by_it() {
    for (owner, reason, stalled) in [
        (Value::Null, "NameConflict", "True"),
        // that of an earlier resource goes with it
        (json!("earlier"), "PredecessorTerminating", "False"),
    ] {
        let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-b", "sqledge.io/holder-node": "n1"}));
        hold(&canned, "uid-orders-1-a/1");
        let mut lease = canned.get(WRITER);
        if owner.is_null() {
            lease["metadata"]["ownerReferences"] = owner;
        } else {
            lease["metadata"]["ownerReferences"][0]["uid"] = owner;
        }
        canned.put(WRITER, lease);
        pod(&canned, "orders-1-b", true);
        let sent = passes(&canned, Meeting::default()).await;
        let status = format!("{INSTANCE}/status");
        let others: Vec<_> = sent
            .iter()
            .filter(|sent| sent.path != status && !sent.path.contains("/events"))
            .collect();
        assert!(others.is_empty(), "{others:#?}");
        let status = sent.iter().rfind(|sent| sent.path == status).expect("a status");
        let conditions = status.body["status"]["conditions"].as_array().expect("conditions");
        let condition = |type_: &str| conditions.iter().find(|c| c["type"] == type_).expect("a condition");
        assert_eq!(condition("Ready")["reason"], reason);
        assert_eq!(condition("Stalled")["status"], stalled);
        let message = condition("Ready")["message"].as_str().expect("a message");
        assert!(message.contains("Lease orders-writer"), "{message}");

        // once it is gone there is one of ours
        canned.remove(WRITER);
        let sent = acts(&canned, Meeting::default()).await;
        let leases = WRITER.trim_end_matches("/orders-writer");
        assert_eq!((sent[0].method.as_str(), sent[0].path.as_str()), ("POST", leases));
        assert_eq!(sent[0].body["metadata"]["ownerReferences"][0]["uid"], "uid-orders");
    }
}

#[tokio::test]
async fn a_driver_that_says_later_that_it_attaches_nothing_is_believed() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let mut driver = canned.get(DRIVER);
    canned.remove(DRIVER);
    let meeting = Meeting::default();
    let (context, _publisher) = operator(&canned, &meeting);
    let orders = || canned.sent().into_iter().find(|sent| sent.path == WRITER);
    pass(&context, &meeting).await;
    assert_eq!(orders(), None, "the administrator says that a detach revokes");
    driver["spec"]["attachRequired"] = false.into();
    canned.put(DRIVER, driver);
    pass(&context, &meeting).await;
    // for a volume that is never attached a detach proves nothing
    let orders = orders().expect("other orders").body[2]["value"].clone();
    assert_eq!(
        orders,
        json!({"sqledge.io/on-api-loss": "Stop", "sqledge.io/renew": "2/10/15"})
    );
}
