//! When to try the operator's own login, and what its last result is.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::context::Context;
use crate::instance::ENGINE_PORT;
use crate::login::{Attempt, Target};
use crate::scene::{Login, Scene};
use crate::world::{engine_status, is_finished, is_gated};

/// How old a result may be before the next try, by what it was.
const STEADY: Duration = Duration::from_secs(15);
const UNSETTLED: Duration = Duration::from_millis(900);
const SILENCE: Duration = Duration::from_secs(3);
const WRONG_PASSWORD: Duration = Duration::from_secs(30);
/// How many logins must have failed in a row before the engine is taken for silent.
const FAILURES: u32 = 2;
/// A node whose Lease is about to be called stale: then the login must have been tried just now.
const SUSPICION: Duration = Duration::from_secs(4);

/// Tries if it is time to, and writes the result into the scene.
pub async fn look(
    context: &Context,
    scene: &mut Scene,
    pods: &[Pod],
    password: Option<&str>,
    version: &mut Option<String>,
) {
    let Some(pod) = pods.iter().rev().find(|pod| !is_gated(pod) && !is_finished(pod)) else {
        return;
    };
    let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else {
        return;
    };
    let unchanged = scene.nodes.get(node).and_then(|facts| facts.lease_unchanged);
    let suspicious = unchanged.is_none_or(|unchanged| unchanged + SUSPICION >= scene.timing.node_lease_stale);
    let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else {
        scene.login = if suspicious {
            Login::Failed("the pod has no address".into())
        } else {
            Login::NotTried
        };
        return;
    };
    let engine = engine_status(pod);
    let container = engine
        .and_then(|status| status.container_id.clone())
        .unwrap_or_default();
    let runs = engine.is_some_and(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    if !runs && !suspicious {
        return;
    }
    // without a usable password a login still tells whether the engine lives: a refusal is an answer
    let usable = password.is_some();
    let password = password.unwrap_or_default();
    let key = format!("{}/{container}", pod.uid().unwrap_or_default());
    let last = context.memory.login(&key);
    let patience = match last.as_ref().map(|last| &last.attempt) {
        None => Duration::ZERO,
        Some(Attempt::WrongPassword) => WRONG_PASSWORD,
        Some(Attempt::Succeeded { .. }) if !suspicious && engine.is_some_and(|status| status.ready) => STEADY,
        // the decision that waits for this must not wait for one more timeout
        Some(Attempt::NoAnswer(_)) if suspicious && last.as_ref().is_some_and(|last| last.failures >= FAILURES) => {
            SILENCE
        }
        Some(_) => UNSETTLED,
    };
    let last = match last {
        Some(last) if last.at.elapsed() < patience => last,
        last => {
            let port = u16::try_from(ENGINE_PORT).expect("the engine's port fits");
            let target = Target {
                host: address,
                port,
                password: password.to_owned(),
            };
            let attempt = context.door.login(target).await;
            tracing::debug!(pod = %pod.name_any(), ?attempt, "login");
            context.memory.remember_login(&key, attempt, last.as_ref())
        }
    };
    scene.login = match last.attempt {
        Attempt::Succeeded { version: found, .. } => {
            *version = Some(found);
            Login::Succeeded
        }
        Attempt::WrongPassword if !usable => {
            Login::NotYet("it lives, but there is no usable password to log in with".into())
        }
        Attempt::WrongPassword => Login::WrongPassword,
        Attempt::NotYet(answer) => Login::NotYet(answer),
        // once may be chance
        Attempt::NoAnswer(_) if last.failures < FAILURES => Login::NotTried,
        Attempt::NoAnswer(why) => Login::Failed(why),
    };
}
