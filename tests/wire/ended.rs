//! What is told of a failover when it ends: the event, the metrics and the record, once each.

use serde_json::json;

use crate::canned::{Canned, Sent};
use crate::passes::{Meeting, operator, pass};
use crate::shop::{INSTANCE, cluster, pod};

/// The pod after the failed one runs; the record of the failover is still open.
fn about_to_end() -> Canned {
    let canned = cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-b", "sqledge.io/holder-node": "n1"}));
    pod(&canned, "orders-1-b", false);
    let mut resource = canned.get(INSTANCE);
    resource["status"] = json!({
        "engineVersion": "16.0.1000.6",
        "failover": {
            "reason": "NodeDead", "fromPodUid": "uid-orders-1-a", "fromNode": "n0", "evidence": ["StorageRevoked"],
            "startedAt": "2026-01-02T03:04:05.000000Z",
            "phases": [
                {"name": "Detecting", "startedAt": "2026-01-02T03:04:05.000000Z", "milliseconds": 15_000},
                {"name": "Starting", "startedAt": "2026-01-02T03:04:20.000000Z"},
            ],
        },
    });
    canned.put(INSTANCE, resource);
    canned
}

fn events(sent: &[Sent]) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    sent.iter()
        .filter(|sent| sent.path.contains("/events") && sent.body["reason"] == "FailedOver")
        .map(|sent| (text(&sent.body["type"]), text(&sent.body["note"])))
        .collect()
}

#[tokio::test]
async fn a_failover_that_ends_is_an_event_with_its_proof_and_counts_by_its_reason_and_its_phases() {
    let canned = about_to_end();
    let meeting = Meeting::default();
    let (context, mut publisher) = operator(&canned, &meeting);
    pass(&context, &meeting).await;
    publisher.drain().await;
    let sent = canned.sent();
    let events = events(&sent);
    let [(type_, note)] = events.as_slice() else {
        panic!("{events:?} of {sent:#?}");
    };
    assert_eq!(type_, "Normal");
    assert!(note.starts_with("NodeDead: from n0 to n1 in "), "{note}");
    assert!(
        note.contains("on StorageRevoked") && note.contains("Detecting 15.0 s"),
        "{note}"
    );
    let status = sent.iter().find(|sent| sent.path == format!("{INSTANCE}/status"));
    let last = &status.expect("a status").body["status"]["lastFailover"];
    assert_eq!((&last["toNode"], &last["reason"]), (&json!("n1"), &json!("NodeDead")));
    let metrics = context.metrics.text().expect("a text");
    for line in [
        "sqledge_failovers_total{reason=\"NodeDead\"} 1",
        "sqledge_failover_phase_seconds_sum{phase=\"Detecting\"} 15.0",
        "sqledge_failover_phase_seconds_count{phase=\"Detecting\"} 1",
        "sqledge_failover_phase_seconds_count{phase=\"Starting\"} 1",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_failover_that_has_ended_is_told_once() {
    let canned = about_to_end();
    let mut resource = canned.get(INSTANCE);
    let mut record = resource["status"]["failover"].take();
    record["endedAt"] = "2026-01-02T03:04:25.000000Z".into();
    resource["status"] = json!({"engineVersion": "16.0.1000.6", "lastFailover": record});
    canned.put(INSTANCE, resource);
    let meeting = Meeting::default();
    let (context, mut publisher) = operator(&canned, &meeting);
    pass(&context, &meeting).await;
    publisher.drain().await;
    let sent = canned.sent();
    assert!(
        sent.iter().any(|sent| sent.path == format!("{INSTANCE}/status")),
        "{sent:#?}"
    );
    assert_eq!(events(&sent), []);
    assert!(
        !context
            .metrics
            .text()
            .expect("a text")
            .contains("sqledge_failovers_total{")
    );
}
