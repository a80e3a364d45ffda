//! The record of a failover: begun when the volume has to change hands, advanced phase by phase, ended by a login. It stands in the status,
//! so an operator that is restarted in the middle goes on with it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use crate::api::{FailoverPhase, FailoverRecord, SqlEdgeInstanceStatus};
use crate::failover::{Evidence, State, Verdict};
use crate::world::{World, engine_status};

/// The phase whose beginning starts the clock of the detach fallback.
pub const DETACHING: &str = "Detaching";

/// The record in progress and the last one that ended.
pub struct Records {
    pub current: Option<FailoverRecord>,
    pub last: Option<FailoverRecord>,
}

pub fn advance(world: &World, verdict: &Verdict, serving: bool, previous: &SqlEdgeInstanceStatus) -> Records {
    let last = previous.last_failover.clone();
    let Some(mut record) = previous
        .failover
        .clone()
        .or_else(|| begin(world, verdict, serving, previous))
    else {
        return Records { current: None, last };
    };
    if let Some(evidence) = verdict
        .evidence
        .map(Evidence::name)
        .filter(|name| !record.evidence.iter().any(|e| e == name))
    {
        record.evidence.push(evidence.to_owned());
    }
    if !serving {
        enter(&mut record, phase(world, verdict), world.now);
        return Records {
            current: Some(record),
            last,
        };
    }
    let pod = world.current_pod();
    if record.from_pod_uid.is_some() && pod.and_then(|pod| pod.metadata.uid.as_ref()) == record.from_pod_uid.as_ref() {
        // its node came back before anything was taken from it
        return Records { current: None, last };
    }
    if let Some(open) = record.phases.last_mut().filter(|phase| phase.milliseconds.is_none()) {
        open.milliseconds = Some(milliseconds(open.started_at.0, world.now));
    }
    record.to_node = pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
    record.duration_milliseconds = Some(milliseconds(record.started_at.0, world.now));
    record.ended_at = Some(MicroTime(world.now));
    Records {
        current: None,
        last: Some(record),
    }
}

/// A first start is no failover, and a container that is restarted in its pod keeps the volume.
fn begin(world: &World, verdict: &Verdict, serving: bool, previous: &SqlEdgeInstanceStatus) -> Option<FailoverRecord> {
    let holder = world.scene.claim.holder.as_ref()?;
    let moves = matches!(
        verdict.state,
        State::Stopping
            | State::Sealing
            | State::Evicting
            | State::Releasing
            | State::Detaching
            | State::Opening
            | State::Blocked
    );
    // what never served has nothing to fail over from, but a volume that is taken from a dead node has a clock to run
    let fenced = matches!(
        verdict.state,
        State::Sealing | State::Evicting | State::Releasing | State::Detaching
    );
    let served = previous.engine_version.is_some();
    if serving || !moves || !(served || fenced) || verdict.evidence == Some(Evidence::FirstStart) {
        return None;
    }
    let reason = match verdict.state {
        State::Stopping => "PodDeleted",
        _ => verdict.reason,
    };
    // a dead node fell silent some time before it was called dead; how long is known by our own clock only
    let silence = holder
        .node
        .as_ref()
        .and_then(|node| world.scene.nodes.get(node)?.lease_unchanged);
    // a node renews its Lease every 10 s: what the guard's own silence told began with that, however long ago its node's last renewal was
    let of_guard = world.scene.lease.as_ref().map(|lease| lease.unchanged);
    let silence = if verdict.reason == "LeaseExpired" {
        of_guard
    } else {
        silence
    };
    let silence = silence.filter(|_| matches!(verdict.state, State::Sealing | State::Evicting));
    let started = silence
        .and_then(|silence| world.now.checked_sub(silence).ok())
        .map_or(world.now, whole_microseconds);
    let detecting = FailoverPhase {
        name: "Detecting".to_owned(),
        started_at: MicroTime(started),
        milliseconds: None,
    };
    let phases = if silence.is_some() { vec![detecting] } else { Vec::new() };
    Some(FailoverRecord {
        reason: if reason == "Opening" {
            "PodGone".to_owned()
        } else {
            reason.to_owned()
        },
        from_pod_uid: Some(holder.pod.clone()),
        from_node: holder.node.clone(),
        to_node: None,
        evidence: Vec::new(),
        started_at: MicroTime(started),
        ended_at: None,
        duration_milliseconds: None,
        phases,
    })
}

/// The phases by the names that also label the metric.
fn phase(world: &World, verdict: &Verdict) -> &'static str {
    match verdict.state {
        State::Suspect => "Detecting",
        State::Stopping => "Stopping",
        State::Sealing => "Sealing",
        State::Evicting => "Evicting",
        State::Releasing => "Releasing",
        State::Detaching => DETACHING,
        State::Blocked => "Held",
        State::Opening => "Opening",
        State::Scheduling => "Scheduling",
        State::Waiting => "Waiting",
        State::Running => {
            let engine = world
                .current_pod()
                .and_then(engine_status)
                .and_then(|status| status.state.as_ref());
            if engine.is_some_and(|state| state.running.is_some()) {
                "Recovering"
            } else {
                "Starting"
            }
        }
    }
}

fn enter(record: &mut FailoverRecord, name: &str, now: Timestamp) {
    if let Some(open) = record.phases.last_mut() {
        if open.name == name {
            return;
        }
        open.milliseconds = Some(milliseconds(open.started_at.0, now));
    }
    // a failover that is held for days goes back and forth: how it began and how it stands now are what counts
    if record.phases.len() >= MAX_PHASES {
        record.phases.remove(1);
    }
    record.phases.push(FailoverPhase {
        name: name.to_owned(),
        started_at: MicroTime(now),
        milliseconds: None,
    });
}

/// The most phases that one record keeps.
const MAX_PHASES: usize = 64;

/// As the API server stores it.
fn whole_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// A clock that was set back counts as no time.
fn milliseconds(since: Timestamp, now: Timestamp) -> i64 {
    (now.as_millisecond() - since.as_millisecond()).max(0)
}
