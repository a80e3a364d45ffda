//! I/O out: the status, the events and the metrics of an instance. Decides nothing but what is worth saying twice.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use crate::api::{FailoverRecord, SqlEdgeInstance, SqlEdgeInstanceStatus};
use crate::context::Context;
use crate::error::Result;
use crate::status::{HAS_SPACE, RESIZING};

/// Writes the status if it differs, and publishes what changed. Returns the resource as it is then.
pub async fn report(
    context: &Context,
    resource: &Arc<SqlEdgeInstance>,
    wanted: SqlEdgeInstanceStatus,
) -> Result<Arc<SqlEdgeInstance>> {
    let namespace = resource.namespace().unwrap_or_default();
    let name = resource.name_any();
    context.metrics.ready(&namespace, &name, is_true(&wanted, "Ready"));
    if resource.status.as_ref() == Some(&wanted) {
        return Ok(resource.clone());
    }
    let body = json!({
        "apiVersion": SqlEdgeInstance::api_version(&()),
        "kind": SqlEdgeInstance::kind(&()),
        "metadata": {"name": name, "uid": resource.metadata.uid},
        "status": wanted,
    });
    let written: SqlEdgeInstance = match context.cluster.apply_status(&namespace, &name, &body).await {
        Ok(written) => written,
        // deleted meanwhile
        Err(error) if error.api_status().is_some_and(kube::core::Status::is_not_found) => {
            return Ok(resource.clone());
        }
        Err(error) => return Err(error),
    };
    let written = Arc::new(written);
    context.memory.remember_written(resource, written.clone());
    let before = resource.status.clone().unwrap_or_default();
    if let Some(record) = newly_ended(&before, &wanted) {
        context.metrics.failover(record);
        context
            .events
            .publish(resource, EventType::Normal, "FailedOver", &summary(record));
    }
    for (type_, condition) in news(&before, &wanted).into_iter().chain(volume_news(&before, &wanted)) {
        context
            .events
            .publish(resource, type_, &condition.reason, &condition.message);
    }
    Ok(written)
}

/// What somebody should know about the volume before the database suffers from it, when it begins.
fn volume_news<'a>(
    before: &'a SqlEdgeInstanceStatus,
    now: &'a SqlEdgeInstanceStatus,
) -> impl Iterator<Item = (EventType, &'a Condition)> {
    let warnings = [
        (HAS_SPACE, "VolumeNearlyFull"),
        (RESIZING, "ExpansionRefused"),
        (RESIZING, "ResizeFailed"),
    ];
    warnings.into_iter().filter_map(move |(type_, reason)| {
        let of = |status: &'a SqlEdgeInstanceStatus| condition(status, type_).filter(|c| c.reason == reason);
        let begun = of(now).filter(|_| of(before).is_none())?;
        Some((EventType::Warning, begun))
    })
}

/// What is worth an event: Ready was gained or lost, or something new stands in the way. The steps in between stand in the status.
fn news<'a>(before: &SqlEdgeInstanceStatus, now: &'a SqlEdgeInstanceStatus) -> Option<(EventType, &'a Condition)> {
    let ready = condition(now, "Ready")?;
    if is_true(before, "Ready") != is_true(now, "Ready") {
        let type_ = if is_true(now, "Ready") {
            EventType::Normal
        } else {
            EventType::Warning
        };
        return Some((type_, ready));
    }
    let stalled = condition(now, "Stalled").filter(|_| is_true(now, "Stalled"));
    let changed = |now: &&Condition| {
        condition(before, &now.type_).is_none_or(|b| (&b.status, &b.reason) != (&now.status, &now.reason))
    };
    stalled.filter(changed).map(|stalled| (EventType::Warning, stalled))
}

fn condition<'a>(status: &'a SqlEdgeInstanceStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

fn is_true(status: &SqlEdgeInstanceStatus, type_: &str) -> bool {
    condition(status, type_).is_some_and(|c| c.status == "True")
}

fn newly_ended<'a>(before: &SqlEdgeInstanceStatus, now: &'a SqlEdgeInstanceStatus) -> Option<&'a FailoverRecord> {
    let ended =
        |status: &SqlEdgeInstanceStatus| status.last_failover.as_ref().and_then(|record| record.ended_at.clone());
    now.last_failover.as_ref().filter(|_| ended(before) != ended(now))
}

fn summary(record: &FailoverRecord) -> String {
    let from = record.from_node.as_deref().unwrap_or("an unknown node");
    let to = record.to_node.as_deref().unwrap_or("an unknown node");
    let milliseconds = record
        .duration_milliseconds
        .and_then(|ms| u64::try_from(ms).ok())
        .unwrap_or_default();
    let seconds = Duration::from_millis(milliseconds).as_secs_f64();
    let phases = record.phases.iter().filter_map(|phase| {
        let milliseconds = u64::try_from(phase.milliseconds?).ok()?;
        let seconds = Duration::from_millis(milliseconds).as_secs_f64();
        Some(format!("{} {seconds:.1} s", phase.name))
    });
    format!(
        "{}: from {from} to {to} in {seconds:.1} s on {} ({})",
        record.reason,
        record.evidence.join(", "),
        phases.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_gets_full_or_cannot_grow_is_news_once() {
        let status = |space: &str, resizing: &str| -> SqlEdgeInstanceStatus {
            let condition = |type_: &str, reason: &str| json!({"type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"});
            let conditions = [condition(HAS_SPACE, space), condition(RESIZING, resizing)];
            serde_json::from_value(json!({"conditions": conditions})).expect("a status")
        };
        let nothing: [&str; 0] = [];
        let table = [
            (("SpaceLeft", "SizeReached"), ("SpaceLeft", "SizeReached"), &nothing[..]),
            (
                ("SpaceLeft", "SizeReached"),
                ("VolumeNearlyFull", "SizeReached"),
                &["VolumeNearlyFull"][..],
            ),
            (
                ("VolumeNearlyFull", "SizeReached"),
                ("VolumeNearlyFull", "Resizing"),
                &nothing,
            ),
            (
                ("VolumeNearlyFull", "SizeReached"),
                ("VolumeNearlyFull", "ExpansionRefused"),
                &["ExpansionRefused"],
            ),
            (
                ("VolumeNearlyFull", "Resizing"),
                ("SpaceLeft", "ResizeFailed"),
                &["ResizeFailed"],
            ),
            (
                ("VolumeNearlyFull", "ResizeFailed"),
                ("SpaceLeft", "SizeReached"),
                &nothing,
            ),
        ];
        for (before, now, expected) in table {
            let (before, now) = (status(before.0, before.1), status(now.0, now.1));
            let found: Vec<_> = volume_news(&before, &now)
                .map(|(_, condition)| condition.reason.as_str())
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_event_of_a_failover_tells_its_reason_its_nodes_its_proof_and_its_phases() {
        let phase = |name, milliseconds| json!({"name": name, "startedAt": "2026-01-02T03:04:05.000000Z", "milliseconds": milliseconds});
        let record = json!({
            "reason": "NodeDead", "fromNode": "n1", "toNode": "n2", "evidence": ["StorageRevoked"],
            "startedAt": "2026-01-02T03:04:05.000000Z", "durationMilliseconds": 19_400,
            "phases": [phase("Detecting", 15_000), phase("Starting", 4_400)],
        });
        let record: FailoverRecord = serde_json::from_value(record).expect("a record");
        assert_eq!(
            summary(&record),
            "NodeDead: from n1 to n2 in 19.4 s on StorageRevoked (Detecting 15.0 s, Starting 4.4 s)"
        );
    }
}
