//! Requests to the API server, counted in its audit log: nothing is subtracted, and everyone is named.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use e2e::{Conditions, Lab, Result, operator};
use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::AuditEvent;

use crate::{
    report::Report,
    say,
    subject::{Subject, Variant},
};

/// Instances from creation to Ready, one after the other, then one of them idle.
pub fn measure(lab: &Lab, samples: usize, idle: Duration, report: &mut Report) -> Result<()> {
    let conditions = Conditions::now(&lab.programs().checkout);
    let mut put = |key: &str, value: Value| {
        say(&format!("  {key}: {value}"));
        report
            .requests
            .insert(key.to_owned(), json!({"conditions": conditions, "counted": value}));
    };
    put("idle, no instance", idle_for(lab, idle)?);

    let mut to_ready = Vec::new();
    let mut last = None;
    for number in 1..=samples {
        if let Some(earlier) = last.take() {
            Subject::destroy(earlier)?;
            // what follows a deletion is no part of the next creation
            thread::sleep(Duration::from_secs(5));
        }
        let began = Timestamp::now();
        let subject = Subject::create_serving(lab, Variant::Operator, &format!("ours-requests-{number}"))?;
        let ended = Timestamp::now();
        to_ready.push(count(&lab.bed().audit_log()?, began, ended, &subject.namespace));
        last = Some(subject);
    }
    put("creation to Ready", json!(to_ready));
    // probes, leases and first reports of the new pod settle
    thread::sleep(Duration::from_secs(20));
    put("idle, one instance", idle_for(lab, idle)?);
    last.map_or(Ok(()), Subject::destroy)
}

/// Counts while nothing is asked of the cluster.
pub fn idle_for(lab: &Lab, time: Duration) -> Result<Value> {
    let began = Timestamp::now();
    thread::sleep(time);
    Ok(count(&lab.bed().audit_log()?, began, Timestamp::now(), ""))
}

/// What the operator asked between two instants, but for the Lease of its leader and the watches, which go on all the time. The audit log
/// is read from where it ended at the first of them.
pub fn of_a_failover(lab: &Lab, length: u64, from: Timestamp, to: Timestamp) -> Result<Value> {
    let mut log = lab.bed().audit_log_since(length)?;
    log.retain(|event| {
        let object = event.object_ref.clone().unwrap_or_default();
        event.verb != "watch" && !(object.resource == "leases" && object.namespace == operator::NAMESPACE)
    });
    Ok(count(&log, from, to, "")["of_the_operator"].take())
}

/// Requests that came in between two instants: of each user, of each user about one namespace, and the operator's one by one.
fn count(log: &[AuditEvent], from: Timestamp, to: Timestamp, namespace: &str) -> Value {
    let received = |event: &AuditEvent| event.request_received_timestamp.parse::<Timestamp>().ok();
    let mut seen = BTreeSet::new();
    let (mut all, mut about, mut operators) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for event in log
        .iter()
        .filter(|event| received(event).is_some_and(|at| at >= from && at <= to))
    {
        // a watch has a line when it begins and one when it ends
        if !seen.insert(&event.audit_id) {
            continue;
        }
        let user = event.user.username.as_str();
        *all.entry(user).or_insert(0_u32) += 1;
        let object = event.object_ref.clone().unwrap_or_default();
        if !namespace.is_empty()
            && (object.namespace == namespace || (object.resource == "namespaces" && object.name == namespace))
        {
            *about.entry(user).or_insert(0_u32) += 1;
        }
        if user == operator::USER {
            let part = if object.subresource.is_empty() {
                String::new()
            } else {
                format!("/{}", object.subresource)
            };
            *operators
                .entry(format!("{} {}{part}", event.verb, object.resource))
                .or_insert(0_u32) += 1;
        }
    }
    let seconds = (to - from).total(jiff::Unit::Second).unwrap_or_default();
    json!({"seconds": seconds.round(), "by_user": all, "about_its_namespace_by_user": about, "of_the_operator": operators})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, user: &str, verb: &str, second: u32, namespace: &str) -> AuditEvent {
        let time = format!("2026-01-01T00:00:{second:02}.000000Z");
        serde_json::from_value(json!({
            "auditID": id, "stage": "ResponseComplete", "requestURI": "/x", "verb": verb, "user": {"username": user},
            "objectRef": {"resource": "services", "namespace": namespace, "name": "x"},
            "requestReceivedTimestamp": time, "stageTimestamp": time,
        }))
        .unwrap()
    }

    #[test]
    fn a_request_counts_once_and_only_in_its_window() {
        let log = [
            event("early", operator::USER, "patch", 1, "a"),
            event("watch", operator::USER, "watch", 10, "a"),
            event("watch", operator::USER, "watch", 10, "a"),
            event("write", operator::USER, "patch", 11, "b"),
            event("other", "kubelet", "get", 12, "a"),
        ];
        let instant = |second: &str| format!("2026-01-01T00:00:{second}Z").parse::<Timestamp>().unwrap();
        let counted = count(&log, instant("05"), instant("20"), "a");
        assert_eq!(counted["by_user"], json!({"kubelet": 1, operator::USER: 2}));
        assert_eq!(
            counted["about_its_namespace_by_user"],
            json!({"kubelet": 1, operator::USER: 1})
        );
        assert_eq!(
            counted["of_the_operator"],
            json!({"watch services": 1, "patch services": 1})
        );
    }
}
