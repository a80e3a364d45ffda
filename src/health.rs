//! Why an instance is not Ready, in one sentence. Pure: an ordered chain, the first thing that stands in the way wins.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::desired::VOLUME_CHECK_CONTAINER;
use crate::failover::{State, UNSCHEDULABLE, Verdict};
use crate::guard::journal::VOICE;
use crate::plan::Plan;
use crate::scene::Login;
use crate::world::{PasswordChange, World, claim_phase, engine_status};

/// Condition reason and sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Condition reason, event reason and metric label.
    pub reason: &'static str,
    /// One sentence: what it waits for, and the next step where a human has one.
    pub message: String,
}

impl Finding {
    /// Whether this ends only when somebody does what the sentence says; kstatus calls that Stalled.
    pub fn needs_a_human(&self, verdict: &Verdict) -> bool {
        let engine = [
            "ContainerFailed",
            "DatabaseBroken",
            "EngineExits",
            "ImagePullFailed",
            "PasswordDoesNotFit",
            "PasswordRefused",
            UNSCHEDULABLE,
            "VolumeRefused",
        ];
        verdict.state == State::Blocked || engine.contains(&self.reason)
    }

    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Whether the database serves: the operator's login succeeded at the pod that holds the volume, and the engine can use every database on it.
pub fn is_serving(world: &World, verdict: &Verdict) -> bool {
    matches!(verdict.state, State::Running | State::Suspect)
        && world.scene.login == Login::Succeeded
        && world.broken_databases.is_empty()
}

/// Why it does not serve; asked only if it does not.
pub fn explain(world: &World, plan: &Plan, verdict: &Verdict) -> Finding {
    if let Some(problem) = &plan.problem {
        return Finding::new(problem.reason, problem.message.clone());
    }
    if world.claim.is_none() {
        return Finding::new("Creating", format!("making claim {}", world.instance.claim_name));
    }
    match verdict.state {
        State::Running => {}
        // where the scheduler chooses the volume's place, a claim is pending because its pod is
        State::Scheduling if volume_is_pending(world) && !is_unschedulable_itself(verdict) => {
            return pending_volume(world);
        }
        State::Suspect
        | State::Stopping
        | State::Blocked
        | State::Sealing
        | State::Evicting
        | State::Releasing
        | State::Detaching
        | State::Opening
        | State::Scheduling
        | State::Waiting => return Finding::new(verdict.reason, verdict.message.clone()),
    }
    let Some(pod) = world.current_pod() else {
        return Finding::new("NoPod", "waiting for the Deployment to create the pod");
    };
    init_container(pod)
        .or_else(|| engine_container(world, pod))
        .unwrap_or_else(|| not_yet(world, pod))
}

fn is_unschedulable_itself(verdict: &Verdict) -> bool {
    verdict.reason == UNSCHEDULABLE && !verdict.message.contains("PersistentVolumeClaim")
}

fn volume_is_pending(world: &World) -> bool {
    world.claim.as_ref().and_then(claim_phase) != Some("Bound")
}

fn pending_volume(world: &World) -> Finding {
    let name = &world.instance.claim_name;
    Finding::new(
        "VolumePending",
        format!(
            "claim {name} has no volume yet; if this lasts, `kubectl describe pvc {name}` shows what the provisioner says"
        ),
    )
}

/// The volume check refuses in its own words, which name the claim and the next step.
fn init_container(pod: &Pod) -> Option<Finding> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    let check = statuses.iter().find(|status| status.name == VOLUME_CHECK_CONTAINER)?;
    if let Some(finding) = pull(check) {
        return Some(finding);
    }
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref()?.terminated.clone();
    let terminated = ended(&check.state)
        .or_else(|| ended(&check.last_state))
        .filter(|t| t.exit_code != 0)?;
    let words = terminated
        .message
        .unwrap_or_else(|| format!("it ended with exit code {}", terminated.exit_code));
    Some(Finding::new(
        "VolumeRefused",
        format!("the check of the volume refuses to start the engine: {}", words.trim()),
    ))
}

fn pull(status: &ContainerStatus) -> Option<Finding> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable" => {
            let field = if status.name == VOLUME_CHECK_CONTAINER {
                "the operator's own image"
            } else {
                "spec.image"
            };
            let words = waiting.message.as_deref().unwrap_or(reason);
            Some(Finding::new(
                "ImagePullFailed",
                format!(
                    "image {} cannot be pulled ({words}); correct {field} or spec.imagePullSecrets",
                    status.image
                ),
            ))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            let words = waiting.message.as_deref().unwrap_or(reason);
            Some(Finding::new(
                "ContainerFailed",
                format!("the container cannot be created: {words}; correct the field it names"),
            ))
        }
        _ => None,
    }
}

fn engine_container(world: &World, pod: &Pod) -> Option<Finding> {
    let status = engine_status(pod)?;
    if let Some(finding) = pull(status) {
        return Some(finding);
    }
    let state = status.state.as_ref()?;
    if state.running.is_some() {
        return None;
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let last = state
        .terminated
        .as_ref()
        .or_else(|| status.last_state.as_ref()?.terminated.as_ref());
    let last = last?;
    // a database that was serving and ended is being restarted; one that keeps ending needs somebody to look
    let reason = if status.restart_count > 1 {
        "EngineExits"
    } else {
        "EngineRestarting"
    };
    let cause = match last.reason.as_deref() {
        Some("OOMKilled") => "it ran out of memory; raise spec.resources.limits.memory".to_owned(),
        _ => match last.message.as_deref().and_then(last_words) {
            Some(words) => format!("its last words: {words}"),
            None => format!("`kubectl logs {name} -c {} --previous` shows why", status.name),
        },
    };
    Some(Finding::new(
        reason,
        format!(
            "the engine of {} ended with exit code {} and is restarted by the kubelet; {cause}",
            world.instance.name, last.exit_code
        ),
    ))
}

/// The last line of a termination message, cut to what fits a sentence. The kubelet fills it from the log if nobody wrote one, and there the guard
/// has the last word: what the engine said before it says more.
fn last_words(message: &str) -> Option<String> {
    let lines = || message.lines().rev().filter(|line| !line.trim().is_empty());
    let line = lines()
        .find(|line| !line.starts_with(VOICE))
        .or_else(|| lines().next())?;
    Some(line.trim().chars().take(300).collect())
}

fn not_yet(world: &World, pod: &Pod) -> Finding {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or("its node");
    let runs = engine_status(pod).is_some_and(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()));
    if !runs {
        return Finding::new(
            "PodStarting",
            format!("pod {name} is being started on node {node}: attaching and mounting the volume comes first"),
        );
    }
    match (&world.scene.login, &world.password_change) {
        (Login::WrongPassword, PasswordChange::Due) => Finding::new(
            "PasswordChanging",
            format!(
                "the engine is being given the password in Secret {} in place of the one it has",
                world.instance.secret_name
            ),
        ),
        (Login::WrongPassword, PasswordChange::Refused(words)) => Finding::new(
            "PasswordRefused",
            format!(
                "the engine does not take the password in Secret {} and keeps its former one ({words}); put another one, or the former one, \
                 into the Secret",
                world.instance.secret_name
            ),
        ),
        (Login::WrongPassword, PasswordChange::None) => Finding::new(
            "PasswordDoesNotFit",
            format!(
                "the password in Secret {} is not the one on the volume of claim {}; put the password that this volume was last used with \
                 into the Secret",
                world.instance.secret_name, world.instance.claim_name
            ),
        ),
        (Login::NotYet(words), _) => Finding::new(
            "Recovering",
            format!("the engine answers but lets nobody in yet: {words}"),
        ),
        (Login::Succeeded, _) if !world.broken_databases.is_empty() => Finding::new(
            "DatabaseBroken",
            format!(
                "the engine serves, but database {}; see `kubectl logs {name}`: if it lost its volume for a while, delete pod {name} so that the \
                 volume is mounted anew; else restore the database from a backup",
                world.broken_databases.join(", database ")
            ),
        ),
        (Login::Failed(_) | Login::NotTried | Login::Succeeded, _) => Finding::new(
            "EngineNotAnswering",
            format!(
                "pod {name} runs on node {node}, but its engine does not answer a login yet; `kubectl logs {name}` shows what it does"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::world::samples;

    fn held() -> Verdict {
        Verdict {
            state: State::Running,
            reason: "PodRunning",
            message: "pod orders-1 runs on node n1".into(),
            recheck: Duration::from_secs(5),
            act: None,
            evidence: None,
        }
    }

    #[test]
    fn an_engine_that_keeps_ending_is_quoted_and_its_guard_only_where_the_engine_said_nothing() {
        let said = |log: &str| {
            let terminated = json!({"exitCode": 1, "message": log});
            let engine = json!({"name": "engine", "ready": false, "restartCount": 3, "image": "", "imageID": "",
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": terminated}});
            let pod = json!({"metadata": {"name": "orders-1"}, "spec": {"containers": [], "nodeName": "n1"},
                "status": {"containerStatuses": [engine]}});
            let pod = serde_json::from_value(pod).expect("a pod");
            engine_container(&samples::world(&json!({})), &pod).expect("a finding")
        };
        let finding = said(
            "bad setting: MEMORY\nsqledge-guard 1.000 the engine exited with code 1\nsqledge-guard 1.001 stopped\n",
        );
        assert_eq!(finding.reason, "EngineExits");
        assert!(
            finding.message.ends_with("its last words: bad setting: MEMORY"),
            "{}",
            finding.message
        );
        let finding = said("sqledge-guard 1.000 cannot start the engine: no such file\n\n");
        assert!(finding.message.contains("no such file"), "{}", finding.message);
    }

    #[test]
    fn an_engine_that_cannot_use_a_database_does_not_serve_although_it_lets_the_operator_in() {
        let mut world = samples::world(&json!({}));
        world.scene.login = Login::Succeeded;
        world.claim = Some(serde_json::from_value(json!({"metadata": {"name": "orders-data"}})).expect("a claim"));
        let engine = json!({"name": "engine", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": {"running": {}}});
        let pod = json!({"metadata": {"name": "orders-1"}, "spec": {"containers": [], "nodeName": "n1"},
            "status": {"containerStatuses": [engine]}});
        world.pods = vec![serde_json::from_value(pod).expect("a pod")];
        assert!(is_serving(&world, &held()));
        world.broken_databases = vec!["shop is SUSPECT".into(), "stock is RECOVERY_PENDING".into()];
        assert!(!is_serving(&world, &held()));
        let finding = explain(&world, &Plan::default(), &held());
        assert_eq!(finding.reason, "DatabaseBroken");
        assert!(
            finding
                .message
                .contains("database shop is SUSPECT, database stock is RECOVERY_PENDING"),
            "{}",
            finding.message
        );
        assert!(finding.message.contains("delete pod orders-1"), "{}", finding.message);
        assert!(finding.needs_a_human(&held()));
    }
}
