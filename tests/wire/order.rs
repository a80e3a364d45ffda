//! What follows what: reads before an act, acts and statuses, and what none of them waits for.

use std::time::Duration;

use serde_json::json;
use sqledge_operator::controller;

use crate::canned::Sent;
use crate::passes::{Engine, Meeting, operator, pass, replica};
use crate::shop::{ATTACHMENT, CLAIM, INSTANCE, LEASE, NODE, PODS, WRITER, cluster, hold, lost, pod};

#[tokio::test]
async fn a_second_look_reads_once_what_the_decision_rests_on_in_the_order_that_the_proof_needs() {
    let canned = cluster(&lost());
    hold(&canned, "sealed/taken/uid-orders-1-a");
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting {
        node_silent: true,
        ..Meeting::default()
    };
    let (context, _publisher) = operator(&canned, &meeting);
    let leases = LEASE.trim_end_matches("/n1");
    let attachments = ATTACHMENT.trim_end_matches("/csi-1");
    // in the first pass the release begins, with the Leases of all nodes
    for leases in [leases, LEASE] {
        pass(&context, &meeting).await;
        let mut reads = canned.reads();
        // what never changes is read in the first pass, ahead of the second look
        let begins = |path: &String| path == CLAIM || path == WRITER || path == INSTANCE;
        reads.drain(..reads.iter().position(begins).expect("a second look"));
        // what is read at the same time comes in any order
        reads[..3].sort();
        reads[4..6].sort();
        assert_eq!(reads, [CLAIM, WRITER, INSTANCE, PODS, leases, attachments, NODE]);
    }
}

// a cache may show what a lost node's kubelet wrote before it was lost
#[tokio::test]
async fn a_second_look_reads_the_nodes_that_were_lost() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-b", "sqledge.io/avoid-nodes": "n1"}));
    canned.remove(ATTACHMENT);
    let mut node = canned.get(NODE);
    node["status"]["volumesInUse"] = json!([]);
    node["status"]["volumesAttached"] = json!([]);
    canned.put(NODE, node);
    hold(&canned, "for/uid-orders-1-b");
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting {
        node_silent: true,
        ..Meeting::default()
    };
    let (context, _publisher) = operator(&canned, &meeting);
    pass(&context, &meeting).await;
    let reads = canned.reads();
    let position = |path: &str| reads.iter().position(|read| read == path);
    assert!(
        position(LEASE).is_some() && position(LEASE) < position(NODE),
        "{reads:?}"
    );
}

#[tokio::test]
async fn nothing_that_can_be_done_waits_for_a_login_or_an_event() {
    // the record does not say yet where its pod runs
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a"}));
    pod(&canned, "orders-1-a", false);
    let meeting = Meeting {
        engine: Engine::Hangs,
        ..Meeting::default()
    };
    let (context, _nobody_publishes) = operator(&canned, &meeting);
    let in_time = tokio::time::timeout(Duration::from_secs(5), pass(&context, &meeting)).await;
    assert!(in_time.is_ok(), "the pass waits for the engine");
    let sent = canned.sent();
    let recorded = sent
        .iter()
        .any(|sent| (sent.method.as_str(), sent.path.as_str()) == ("PATCH", CLAIM));
    assert!(recorded, "{sent:#?}");
}

#[tokio::test]
async fn record_and_gate_follow_each_other_in_one_pass_and_each_status_stands_before_the_next_act() {
    let canned =
        cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"})).that_obeys();
    // it was Ready, or there would be nothing to fail over from
    let mut resource = canned.get(INSTANCE);
    resource["status"] = json!({"engineVersion": "16.0.1000.6"});
    canned.put(INSTANCE, resource);
    pod(&canned, "orders-1-b", true);
    let meeting = Meeting::default();
    let (context, _publisher) = operator(&canned, &meeting);
    pass(&context, &meeting).await;
    let sent = canned.sent();
    let status = format!("{INSTANCE}/status");
    let gate = format!("{PODS}/orders-1-b");
    let paths: Vec<&str> = sent.iter().map(|sent| sent.path.as_str()).collect();
    assert_eq!(paths, [CLAIM, &status, WRITER, &gate, &status]);
    let record = |sent: &Sent| sent.body["status"]["failover"].clone();
    let (first, last) = (record(&sent[1]), record(&sent[4]));
    assert_eq!(first["reason"], "PodGone", "{first}");
    assert_eq!(first["fromPodUid"], "uid-orders-1-a");
    assert_eq!(first["evidence"], json!(["PinnedRestart"]));
    assert_eq!(first["phases"][0]["name"], "Opening", "{first}");
    assert_eq!(last, first, "the gate opens in the same phase, from the same record");
}

#[tokio::test]
async fn whoever_takes_over_from_a_leader_that_went_with_the_node_has_logged_in_already_and_written_nothing() {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"}));
    let mut resource = canned.get(INSTANCE);
    resource["status"] = json!({"node": "n1"});
    canned.put(INSTANCE, resource);
    pod(&canned, "orders-1-a", false);
    let meeting = Meeting {
        node_silent: true,
        engine: Engine::Refuses,
        ..Meeting::default()
    };
    let (context, _publisher, leads) = replica(&canned, &meeting);
    let now = leads.send_replace(None);
    pass(&context, &meeting).await;
    assert_eq!(canned.sent(), []);
    leads.send_replace(now);
    let instance = context.caches.instances.state().remove(0);
    controller::pass(instance, context.clone()).await.expect("a pass");
    let sent = canned.sent();
    assert_eq!((sent[0].method.as_str(), sent[0].path.as_str()), ("PUT", WRITER));
}

#[tokio::test]
async fn what_has_changed_since_it_was_judged_is_judged_once_more_in_the_same_pass() {
    let canned = cluster(&lost());
    hold(&canned, "sealed/taken/uid-orders-1-a");
    pod(&canned, "orders-1-b", true);
    let path = format!("{NODE}/status");
    canned.refuse_once(&path);
    let meeting = Meeting {
        node_silent: true,
        ..Meeting::default()
    };
    let (context, _publisher) = operator(&canned, &meeting);
    pass(&context, &meeting).await;
    let sent = canned.sent();
    assert_eq!(sent.iter().filter(|sent| sent.path == path).count(), 2, "{sent:#?}");
    let looks = canned.reads().iter().filter(|read| *read == CLAIM).count();
    assert_eq!(looks, 2, "a conflict is no reason to try the same again");
}
