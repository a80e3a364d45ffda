//! Acts: each is a compare-and-swap on exactly what it was judged on.

use serde_json::{Value, json};
use sqledge_operator::settings::Switch;

use crate::canned::{JSON_PATCH, Sent};
use crate::passes::{Engine, MANAGER, Meeting, acts};
use crate::shop::{ATTACHMENT, CLAIM, NODE, PODS, VOLUME, lost, pod, without_guard};

/// What makes a JSON patch a compare-and-swap.
fn judged(uid: &str, version: &str) -> [Value; 2] {
    [
        json!({"op": "test", "path": "/metadata/uid", "value": uid}),
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}),
    ]
}

pub fn patch(uid: &str, version: &str, operations: &[Value]) -> Value {
    judged(uid, version).iter().chain(operations).cloned().collect()
}

pub fn deletion(uid: &str, version: &str, grace: Option<u32>) -> Value {
    let mut body = json!({"preconditions": {"uid": uid, "resourceVersion": version}});
    if let Some(seconds) = grace {
        body["gracePeriodSeconds"] = seconds.into();
    }
    body
}

#[tokio::test]
async fn the_holder_is_recorded_on_exactly_the_claim_that_was_judged() {
    let canned = without_guard(&json!({}));
    canned.remove(ATTACHMENT);
    let mut node = canned.get(NODE);
    node["status"]["volumesInUse"] = json!(["another"]);
    canned.put(NODE, node);
    pod(&canned, "orders-1-a", true);
    let annotations = json!({"sqledge.io/instance-uid": "uid-orders", "sqledge.io/volume-id": "volume-1",
        "sqledge.io/holder-pod": "uid-orders-1-a"});
    let operation = json!({"op": "add", "path": "/metadata/annotations", "value": annotations});
    let body = patch("uid-claim", "30", &[operation]);
    assert_eq!(
        acts(&canned, Meeting::default()).await,
        [Sent::new("PATCH", CLAIM, &[MANAGER], JSON_PATCH, body)]
    );
}

#[tokio::test]
async fn the_node_of_the_holder_is_recorded_as_soon_as_it_is_known() {
    let canned = without_guard(&json!({"sqledge.io/holder-pod": "uid-orders-1-a"}));
    pod(&canned, "orders-1-a", false);
    let annotations = json!({"sqledge.io/instance-uid": "uid-orders", "sqledge.io/volume-id": "volume-1",
        "sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"});
    let operation = json!({"op": "add", "path": "/metadata/annotations", "value": annotations});
    let body = patch("uid-claim", "30", &[operation]);
    assert_eq!(
        acts(&canned, Meeting::default()).await,
        [Sent::new("PATCH", CLAIM, &[MANAGER], JSON_PATCH, body)]
    );
}

/// It is written by what the caches show, which may be older than the note.
#[tokio::test]
async fn the_node_of_the_holder_is_recorded_beside_what_was_noted_of_lost_nodes_as_it_was() {
    let noted = json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/avoid-nodes": "n2",
        "sqledge.io/avoid-boots": "uid-orders-1-a;n2=second"});
    let canned = without_guard(&noted);
    pod(&canned, "orders-1-a", false);
    let (mut node, mut attachment) = (canned.get(NODE), canned.get(ATTACHMENT));
    node["metadata"]["name"] = "n2".into();
    canned.put("/api/v1/nodes/n2", node);
    attachment["metadata"]["name"] = "csi-2".into();
    attachment["spec"]["nodeName"] = "n2".into();
    canned.put(&ATTACHMENT.replace("csi-1", "csi-2"), attachment);
    let sent = acts(&canned, Meeting::default()).await;
    let written = &sent[0].body.as_array().expect("a patch")[2]["value"];
    assert_eq!(written["sqledge.io/holder-node"], "n1");
    assert_eq!(written["sqledge.io/avoid-nodes"], "n2");
    assert_eq!(written["sqledge.io/avoid-boots"], "uid-orders-1-a;n2=second");
}

#[tokio::test]
async fn a_gate_is_opened_and_pinned_in_one_patch_of_exactly_the_pod_that_was_judged() {
    let canned = without_guard(&json!({"sqledge.io/holder-pod": "uid-orders-1-b", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-b", true);
    let selector = json!({"kubernetes.io/arch": "amd64", "kubernetes.io/hostname": "host-1"});
    let operations = [
        json!({"op": "add", "path": "/spec/nodeSelector", "value": selector}),
        json!({"op": "add", "path": "/spec/schedulingGates", "value": []}),
    ];
    let body = patch("uid-orders-1-b", "60", &operations);
    let path = format!("{PODS}/orders-1-b");
    assert_eq!(
        acts(&canned, Meeting::default()).await,
        [Sent::new("PATCH", &path, &[MANAGER], JSON_PATCH, body)]
    );
}

#[tokio::test]
async fn a_pod_is_evicted_without_grace_and_only_if_it_is_still_the_one_that_was_judged() {
    let canned = without_guard(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-a", false);
    let meeting = Meeting {
        node_silent: true,
        engine: Engine::Refuses,
        ..Meeting::default()
    };
    let body = deletion("uid-orders-1-a", "60", Some(0));
    let path = format!("{PODS}/orders-1-a");
    assert_eq!(
        acts(&canned, meeting).await,
        [Sent::new("DELETE", &path, &[], "application/json", body)]
    );
}

#[tokio::test]
async fn only_our_entry_of_volumes_in_use_is_taken_and_only_from_the_node_that_was_judged() {
    let canned = without_guard(&lost());
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting {
        node_silent: true,
        ..Meeting::default()
    };
    let operations = [
        json!({"op": "test", "path": "/status/volumesInUse/1", "value": VOLUME}),
        json!({"op": "remove", "path": "/status/volumesInUse/1"}),
    ];
    let body = patch("uid-n1", "40", &operations);
    let path = format!("{NODE}/status");
    assert_eq!(
        acts(&canned, meeting).await,
        [Sent::new("PATCH", &path, &[MANAGER], JSON_PATCH, body)]
    );
}

#[tokio::test]
async fn without_fast_detach_exactly_the_attachment_that_was_judged_is_deleted() {
    let canned = without_guard(&lost());
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting {
        node_silent: true,
        fast_detach: Switch::Disabled,
        ..Meeting::default()
    };
    let body = deletion("uid-csi-1", "50", None);
    assert_eq!(
        acts(&canned, meeting).await,
        [Sent::new("DELETE", ATTACHMENT, &[], "application/json", body)]
    );
}

#[tokio::test]
async fn a_node_is_written_down_as_lost_on_exactly_the_claim_that_was_judged() {
    let canned =
        without_guard(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"})).that_obeys();
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting {
        node_silent: true,
        ..Meeting::default()
    };
    let sent = acts(&canned, meeting).await;
    let written = &sent[0];
    assert_eq!((written.method.as_str(), written.path.as_str()), ("PATCH", CLAIM));
    let operations = written.body.as_array().expect("a patch");
    assert_eq!(operations[0]["value"], "uid-claim");
    assert_eq!(operations[2]["value"]["sqledge.io/avoid-nodes"], "n1");
    assert_eq!(
        operations[2]["value"]["sqledge.io/avoid-boots"],
        "uid-orders-1-a;n1=first"
    );
    assert_eq!(
        sent[1].path,
        format!("{NODE}/status"),
        "then the volume is taken from it, in the same pass"
    );
}
