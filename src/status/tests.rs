//! What the conditions say together, and what becomes of the record of a failover.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::api::FailoverRecord;
use crate::failover::State;
use crate::plan::{Problem, Step};
use crate::scene::{Holder, Login};
use crate::world::samples;

/// Pod `orders-1` holds the volume on n1, and its engine runs.
fn running() -> World {
    let mut world = samples::world(&json!({}));
    world.scene.login = Login::Succeeded;
    world.scene.claim.holder = Some(Holder {
        pod: "uid-1".into(),
        node: Some("n1".into()),
    });
    world.claim = Some(serde_json::from_value(json!({"metadata": {"name": "orders-data"}})).expect("a claim"));
    let engine = json!({"name": "engine", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": {"running": {}}});
    let pod = json!({"metadata": {"name": "orders-1", "uid": "uid-1"}, "spec": {"containers": [], "nodeName": "n1"},
        "status": {"containerStatuses": [engine]}});
    world.pods = vec![serde_json::from_value(pod).expect("a pod")];
    world
}

fn verdict(state: State, reason: &'static str) -> Verdict {
    Verdict {
        state,
        reason,
        message: format!("{reason} of pod orders-1"),
        recheck: Duration::from_secs(5),
        act: None,
        evidence: None,
    }
}

fn with_record(mut world: World, from_pod: &str) -> World {
    let record: Value = json!({"reason": "NodeDead", "fromPodUid": from_pod, "fromNode": "n1",
        "startedAt": "1970-01-01T00:00:00.000000Z", "phases": []});
    let record: FailoverRecord = serde_json::from_value(record).expect("a record");
    let mut resource = (*world.resource).clone();
    resource.status.get_or_insert_default().failover = Some(record);
    world.resource = resource.into();
    world
}

/// Status, reason and message of a condition.
fn condition(status: &SqlEdgeInstanceStatus, type_: &str) -> (String, String, String) {
    let found = status.conditions.iter().find(|c| c.type_ == type_).expect(type_);
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

#[test]
fn stalled_and_reconciling_are_never_both_true_and_each_says_its_own_reason() {
    let problem = |passes| Plan {
        problem: Some(Problem {
            reason: "SecretMissing",
            message: "Secret orders-sa is gone".into(),
            passes,
        }),
        ..Plan::default()
    };
    let steps = Plan {
        steps: vec![Step::CreateSecret],
        ..Plan::default()
    };
    let served = Login::Succeeded;
    let silent = Login::Failed("no answer".into());
    let refused = Login::WrongPassword;
    let runs = verdict(State::Running, "PodRunning");
    let blocked = verdict(State::Blocked, "DriverClassUnknown");
    let detaching = verdict(State::Detaching, "Detaching");
    let nothing = Plan::default();
    let table = [
        // login, verdict, plan, Reconciling, Stalled
        (&served, &runs, &nothing, ("False", "Settled"), ("False", "Progressing")),
        (&served, &runs, &steps, ("True", "Applying"), ("False", "Progressing")),
        (
            &served,
            &runs,
            &problem(true),
            ("True", "SecretMissing"),
            ("False", "Progressing"),
        ),
        (
            &served,
            &runs,
            &problem(false),
            ("False", "SecretMissing"),
            ("True", "SecretMissing"),
        ),
        (
            &silent,
            &runs,
            &nothing,
            ("True", "EngineNotAnswering"),
            ("False", "Progressing"),
        ),
        (
            &silent,
            &runs,
            &steps,
            ("True", "EngineNotAnswering"),
            ("False", "Progressing"),
        ),
        (
            &refused,
            &runs,
            &nothing,
            ("False", "PasswordDoesNotFit"),
            ("True", "PasswordDoesNotFit"),
        ),
        (
            &silent,
            &detaching,
            &nothing,
            ("True", "Detaching"),
            ("False", "Progressing"),
        ),
        (
            &silent,
            &blocked,
            &nothing,
            ("False", "DriverClassUnknown"),
            ("True", "DriverClassUnknown"),
        ),
        (
            &silent,
            &blocked,
            &problem(false),
            ("False", "SecretMissing"),
            ("True", "SecretMissing"),
        ),
    ];
    for (login, verdict, plan, reconciling, stalled) in table {
        let mut world = running();
        world.scene.login = login.clone();
        let status = of(&world, plan, verdict, None);
        let about = format!("{login:?}, {verdict:?}, {plan:?}");
        for (type_, expected) in [("Reconciling", reconciling), ("Stalled", stalled)] {
            let (status, reason, _) = condition(&status, type_);
            assert_eq!((status.as_str(), reason.as_str()), expected, "{type_}: {about}");
        }
    }
}

#[test]
fn a_silent_node_whose_database_serves_is_told_without_a_failover() {
    let suspect = verdict(State::Suspect, "NodeSilentDatabaseAnswers");
    let status = of(&running(), &Plan::default(), &suspect, None);
    assert_eq!(condition(&status, "Ready").0, TRUE);
    let (in_progress, reason, message) = condition(&status, "FailoverInProgress");
    assert_eq!(
        (in_progress.as_str(), reason.as_str(), message),
        (FALSE, "NodeSilentDatabaseAnswers", suspect.message)
    );
    assert_eq!(status.failover, None);
}

#[test]
fn a_failover_says_what_the_new_pod_waits_for() {
    let mut world = with_record(running(), "uid-0");
    world.scene.login = Login::NotYet("recovering orders".into());
    let status = of(&world, &Plan::default(), &verdict(State::Running, "PodRunning"), None);
    let (in_progress, reason, message) = condition(&status, "FailoverInProgress");
    assert_eq!((in_progress.as_str(), reason.as_str()), (TRUE, "Recovering"));
    assert!(
        message.starts_with("NodeDead; ") && message.contains("recovering orders"),
        "{message}"
    );
}

#[test]
fn a_failover_ends_with_another_pod_that_serves_and_leaves_no_trace_if_the_old_one_goes_on() {
    let runs = verdict(State::Running, "PodRunning");
    let moved = of(&with_record(running(), "uid-0"), &Plan::default(), &runs, None);
    let last = moved.last_failover.expect("a failover that ended");
    assert_eq!(
        (last.from_pod_uid.as_deref(), last.to_node.as_deref()),
        (Some("uid-0"), Some("n1"))
    );
    assert!(last.ended_at.is_some() && moved.failover.is_none());
    let came_back = of(&with_record(running(), "uid-1"), &Plan::default(), &runs, None);
    assert_eq!((came_back.failover, came_back.last_failover), (None, None));
}
