//! When to try the operator's own login, and what its last result means.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use super::password;
use crate::context::Context;
use crate::login::{Attempt, Target};
use crate::logins::Ended;
use crate::scene::{Login, Scene};
use crate::world::{SecretFacts, World, engine_status, is_finished, is_gated};

/// How old a result may be before the next try, by what it was.
const STEADY: Duration = Duration::from_secs(15);
const UNSETTLED: Duration = Duration::from_millis(900);
const SILENCE: Duration = Duration::from_secs(3);
const WRONG_PASSWORD: Duration = Duration::from_secs(30);

/// The pod that a login goes to.
struct Goal {
    /// Of pod and container: the next container is another engine.
    key: String,
    /// Where its engine can be reached, if it may be.
    address: Option<String>,
    /// The kubelet calls it ready.
    ready: bool,
    /// The engine's container runs.
    runs: bool,
    /// Its node may be dead, since so long.
    suspicious_for: Option<Duration>,
}

/// Puts the result of the last login into the scene.
pub fn recall(context: &Context, world: &mut World) {
    let Some(goal) = goal(&world.scene, &world.pods) else {
        return;
    };
    world.scene.login = match context.logins.last(&goal.key) {
        _ if goal.address.is_none() => no_address(&goal),
        None => Login::NotTried,
        Some(_) if !goal.runs && goal.suspicious_for.is_none() => Login::NotTried,
        Some(ended) if is_outdated(&ended.attempt, ended.at.elapsed(), context.timing.asking()) => Login::NotTried,
        Some(Ended { attempt, .. }) => {
            if let Attempt::Succeeded { version, broken, space } = &attempt {
                world.engine_version = Some(version.clone());
                world.broken_databases.clone_from(broken);
                world.space = *space;
            }
            meaning(attempt, &world.secret)
        }
    };
    world.password_change = password::change(context, world);
}

/// Logs in if it is time to. Whether the scene may say something else than before.
pub async fn log_in(context: &Context, world: &mut World) -> bool {
    let before = world.scene.login.clone();
    if let Some(goal) = goal(&world.scene, &world.pods)
        && let Some(host) = goal.address.clone()
        && (goal.runs || goal.suspicious_for.is_some())
        && is_due(context.logins.last(&goal.key).as_ref(), &goal)
    {
        let instance = &world.instance;
        // without a usable password a login still tells whether the engine lives: a refusal is an answer
        let target = Target::engine_at(host, password::usable(context, world).unwrap_or_default());
        let of = ObjectRef::new(&instance.name).within(&instance.namespace);
        context.logins.log_in(of, &instance.uid, &goal.key, target).await;
        recall(context, world);
    }
    if world.scene.login == Login::WrongPassword {
        password::forget(context, &world.instance);
    }
    world.scene.login != before
}

fn goal(scene: &Scene, pods: &[Pod]) -> Option<Goal> {
    let pod = pods.iter().rev().find(|pod| !is_gated(pod) && !is_finished(pod))?;
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    let unchanged = scene.nodes.get(node).and_then(|facts| facts.lease_unchanged);
    let of_node = match unchanged {
        Some(unchanged) => unchanged.checked_sub(scene.timing.suspicion()),
        None => Some(Duration::MAX),
    };
    let suspicious_for = of_node.max(of_guard(scene));
    let engine = engine_status(pod);
    let container = engine
        .and_then(|status| status.container_id.clone())
        .unwrap_or_default();
    Some(Goal {
        key: format!("{}/{container}", pod.uid().unwrap_or_default()),
        address: pod.status.as_ref().and_then(|status| status.pod_ip.clone()),
        ready: engine.is_some_and(|status| status.ready),
        runs: engine.is_some_and(|status| status.state.as_ref().is_some_and(|state| state.running.is_some())),
        suspicious_for,
    })
}

/// For how long the holder's Lease has been about to run out, or been so.
fn of_guard(scene: &Scene) -> Option<Duration> {
    let lease = scene.lease.as_ref()?;
    let promised = lease.record.promise?.takeover_after;
    lease
        .unchanged
        .checked_sub(promised.saturating_sub(scene.timing.asking()))
}

fn no_address(goal: &Goal) -> Login {
    match goal.suspicious_for {
        Some(_) => Login::Failed("the pod has no address".into()),
        None => Login::NotTried,
    }
}

fn is_due(last: Option<&Ended>, goal: &Goal) -> bool {
    last.is_none_or(|last| last.at.elapsed() >= patience(&last.attempt, goal.suspicious_for, goal.ready))
}

/// For how long a result stands.
fn patience(last: &Attempt, suspicious_for: Option<Duration>, ready: bool) -> Duration {
    match (last, suspicious_for) {
        // an answer from before the suspicion says nothing about it
        (Attempt::Succeeded { .. } | Attempt::NotYet(_), Some(since)) => UNSETTLED.min(since),
        (Attempt::WrongPassword, Some(since)) => WRONG_PASSWORD.min(since),
        (Attempt::WrongPassword, None) => WRONG_PASSWORD,
        (Attempt::Succeeded { .. }, None) if ready => STEADY,
        (Attempt::NoAnswer(_), Some(_)) => SILENCE,
        (Attempt::Succeeded { .. } | Attempt::NotYet(_) | Attempt::NoAnswer(_), None) => UNSETTLED,
    }
}

/// Silence allows to move a database, and so has to be of now: a replica that leads since a moment ago may remember one from long before. While
/// nobody answers it is asked again and again.
fn is_outdated(last: &Attempt, age: Duration, asking: Duration) -> bool {
    matches!(last, Attempt::NoAnswer(_)) && age > (SILENCE + asking) * 2
}

fn meaning(attempt: Attempt, secret: &SecretFacts) -> Login {
    match attempt {
        Attempt::Succeeded { .. } => Login::Succeeded,
        Attempt::WrongPassword if !matches!(secret, SecretFacts::Usable { .. }) => {
            Login::NotYet("it lives, but there is no usable password to log in with".into())
        }
        Attempt::WrongPassword => Login::WrongPassword,
        Attempt::NotYet(answer) => Login::NotYet(answer),
        Attempt::NoAnswer(why) => Login::Failed(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Told;

    #[test]
    fn only_silence_grows_old() {
        let asking = Duration::from_millis(4_400);
        let silent = Attempt::NoAnswer("no answer within 2 s".into());
        for (result, seconds, outdated) in [
            // the next attempt began 3 s later and has not ended yet
            (&silent, 8, false),
            (&silent, 14, false),
            (&silent, 15, true),
            (&Attempt::WrongPassword, 3600, false),
            (&Attempt::NotYet("recovering".into()), 3600, false),
        ] {
            let age = Duration::from_secs(seconds);
            assert_eq!(
                is_outdated(result, age, asking),
                outdated,
                "{result:?} of {seconds} s ago"
            );
        }
    }

    #[test]
    fn a_result_stands_as_long_as_it_says_something() {
        let succeeded = || Attempt::Succeeded {
            version: "16".into(),
            broken: Vec::new(),
            space: Told::Nothing,
        };
        let silent = || Attempt::NoAnswer("no answer within 2 s".into());
        let not_yet = || Attempt::NotYet("recovering".into());
        let milliseconds = Duration::from_millis;
        let table = [
            // result, node suspicious for (ms), pod ready, stands for (ms)
            (succeeded(), None, true, 15_000),
            (succeeded(), None, false, 900),
            (succeeded(), Some(0), true, 0),
            (succeeded(), Some(100), true, 100),
            (succeeded(), Some(4_000), true, 900),
            (not_yet(), None, true, 900),
            (not_yet(), Some(0), true, 0),
            (silent(), None, true, 900),
            (silent(), Some(0), true, 3_000),
            (Attempt::WrongPassword, None, true, 30_000),
            (Attempt::WrongPassword, Some(0), true, 0),
            (Attempt::WrongPassword, Some(60_000), true, 30_000),
        ];
        for (result, suspicious_for, ready, stands) in table {
            assert_eq!(
                patience(&result, suspicious_for.map(milliseconds), ready),
                milliseconds(stands),
                "{result:?}, suspicious for {suspicious_for:?} ms, ready: {ready}"
            );
        }
    }
}
