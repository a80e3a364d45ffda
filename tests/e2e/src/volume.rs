//! The judges of at-most-one-writer: the storage host's log and the API server's audit log. Never the operator's own words.

use std::{
    fs::{self, File},
    io::BufReader,
};

use jiff::Timestamp;
use oracle::writers::{self, Findings};
use serde_json::Value;
use testbed::AuditEvent;

use crate::{
    error::{Error, Result, ensure},
    lab::Lab,
    operator,
};

/// Who wrote a volume, by the storage host's log.
pub fn findings(lab: &Lab, volume: &str) -> Result<Findings> {
    let path = lab.bed().storage_log();
    let file = File::open(&path).map_err(Error::file("read", path))?;
    let events = writers::read(BufReader::new(file)).map_err(Error::malformed("the storage host's log"))?;
    Ok(writers::judge(&events, Some(volume)))
}

/// Fails unless one node at a time wrote the volume, and none after it had lost it.
pub fn one_writer(lab: &Lab, volume: &str) -> Result<Findings> {
    let found = findings(lab, volume)?;
    ensure(found.is_clean(), || {
        format!("volume {volume} had a second or a late writer: {found:?}")
    })?;
    ensure(found.accepted > 0, || {
        format!("nothing was ever written to volume {volume}")
    })?;
    Ok(found)
}

/// When a node last wrote to a volume, by the storage host's log.
pub fn last_write(lab: &Lab, volume: &str, node: &str) -> Result<Timestamp> {
    let path = lab.bed().storage_log();
    let text = fs::read_to_string(&path).map_err(Error::file("read", path))?;
    let mut writes = text
        .lines()
        // the last line may be on its way
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|entry| entry["event"] == "write" && entry["volume"] == volume && entry["node"] == node)
        .filter(|entry| entry["accepted"] == true);
    let last = writes
        .next_back()
        .and_then(|entry| entry["time"].as_str()?.parse().ok());
    last.ok_or_else(|| Error::Broken(format!("node {node} has never written to volume {volume}")))
}

/// What the API server granted the operator about a failover of one pod, in the order in which it was asked.
pub struct Fencing {
    /// The Lease was sealed against the old pod.
    pub sealed: String,
    /// The old pod was deleted without grace.
    pub pod_deleted: String,
    /// The volume left the dead node's list of volumes in use (or its attachment was deleted).
    pub detach_asked: String,
    /// The attachment to the dead node was gone.
    pub attachment_gone: String,
    /// The Lease named the new pod.
    pub named: String,
    /// The new pod's gate was opened.
    pub gate_opened: String,
}

/// Name and UID of a pod.
pub type PodId<'a> = (&'a str, &'a str);

/// Reads the order of fencing from the audit log: all times are the API server's own.
pub fn fencing(lab: &Lab, old: PodId, new: PodId, node: &str, volume: &str) -> Result<Fencing> {
    let ((old_pod, old_uid), (new_pod, new_uid)) = (old, new);
    let log = lab.bed().audit_log()?;
    let granted: Vec<&AuditEvent> = log
        .iter()
        .filter(|e| e.stage == "ResponseComplete" && e.response_status.as_ref().is_some_and(|s| s.code < 300))
        .collect();
    let about = |event: &AuditEvent, resource: &str, subresource: &str, name: &str| {
        event
            .object_ref
            .as_ref()
            .is_some_and(|o| o.resource == resource && o.subresource == subresource && o.name == name)
    };
    let by_operator = |event: &AuditEvent| event.user.username == operator::USER;
    let first = |what: &str, fits: &dyn Fn(&AuditEvent) -> bool| {
        let found = granted
            .iter()
            .find(|event| fits(event))
            .map(|event| event.stage_timestamp.clone());
        found.ok_or_else(|| Error::Broken(format!("the audit log does not show that {what}")))
    };
    let lease_says = |event: &AuditEvent, fits: &dyn Fn(&str) -> bool| {
        let lease = event.object_ref.as_ref().is_some_and(|o| o.resource == "leases");
        let body = event.request_object.as_ref();
        let holder = body.and_then(|body| body["spec"]["holderIdentity"].as_str());
        by_operator(event) && event.verb == "update" && lease && holder.is_some_and(fits)
    };
    let sealed = first(&format!("the Lease was sealed against pod {old_pod}"), &|e| {
        lease_says(e, &|holder| {
            let sealed = holder.strip_prefix("sealed/").and_then(|rest| rest.split_once('/'));
            sealed.is_some_and(|(_, pod)| pod == old_uid)
        })
    })?;
    let named = first(&format!("the Lease named pod {new_pod}"), &|e| {
        lease_says(e, &|holder| holder == format!("for/{new_uid}"))
    })?;
    let pod_deleted = first(&format!("the operator deleted pod {old_pod}"), &|e| {
        by_operator(e) && e.verb == "delete" && about(e, "pods", "", old_pod)
    })?;
    let attachment = attachment_of(&log, node, volume)?;
    let detach_asked = first("the operator asked for the detach", &|e| {
        let listed = e.verb == "patch" && about(e, "nodes", "status", node) && e.stage_timestamp >= pod_deleted;
        by_operator(e) && (listed || (e.verb == "delete" && about(e, "volumeattachments", "", &attachment)))
    })?;
    // the object goes with the removal of its finalizer by the attacher, after the driver has answered
    let attachment_gone = first(&format!("attachment {attachment} went away"), &|e| {
        e.verb == "patch"
            && about(e, "volumeattachments", "", &attachment)
            && e.stage_timestamp > detach_asked
            && empties_finalizers(e)
    })?;
    let gate_opened = first(&format!("the operator opened the gate of pod {new_pod}"), &|e| {
        by_operator(e) && e.verb == "patch" && about(e, "pods", "", new_pod)
    })?;
    Ok(Fencing {
        sealed,
        pod_deleted,
        detach_asked,
        attachment_gone,
        named,
        gate_opened,
    })
}

impl Fencing {
    /// Fails unless it went: Lease sealed, pod, detach, attachment gone, Lease for the new pod, gate.
    pub fn check_order(&self) -> Result<()> {
        let Self {
            sealed,
            pod_deleted,
            detach_asked,
            attachment_gone,
            named,
            gate_opened,
        } = self;
        let order = [sealed, pod_deleted, detach_asked, attachment_gone, named, gate_opened];
        ensure(order.is_sorted(), || {
            format!(
                "fenced in the wrong order: Lease sealed {sealed}, pod deleted {pod_deleted}, detach asked {detach_asked}, attachment gone \
                 {attachment_gone}, Lease for the new pod {named}, gate opened {gate_opened}"
            )
        })
    }
}

fn empties_finalizers(event: &AuditEvent) -> bool {
    let body = event
        .request_object
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    body.contains("finalizers")
}

/// The attachment of a volume to a node, by the request that created it last.
fn attachment_of(log: &[AuditEvent], node: &str, volume: &str) -> Result<String> {
    let created = log.iter().rev().find_map(|event| {
        let body = event.request_object.as_ref()?;
        let fits = event.verb == "create"
            && event.object_ref.as_ref()?.resource == "volumeattachments"
            && body["spec"]["nodeName"] == node
            && body["spec"]["source"]["persistentVolumeName"] == volume;
        fits.then(|| body["metadata"]["name"].as_str().map(str::to_owned))?
    });
    created.ok_or_else(|| {
        Error::Broken(format!(
            "the audit log shows no attachment of volume {volume} to node {node}"
        ))
    })
}
