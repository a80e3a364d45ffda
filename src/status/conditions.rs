//! Conditions with a transition time that moves only when the status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::desired::has_guard;
use crate::scene::Login;
use crate::text::cut;
use crate::world::{World, is_gated};

pub const TRUE: &str = "True";
pub const FALSE: &str = "False";
pub const UNKNOWN: &str = "Unknown";

/// The longest message; beyond it the API server would refuse the whole status.
const MAX_MESSAGE: usize = 32_768;

/// Collects the conditions of one status.
pub struct Conditions<'a> {
    previous: &'a [Condition],
    generation: i64,
    now: Timestamp,
    next: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    pub fn new(previous: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self {
            previous,
            generation,
            now,
            next: Vec::new(),
        }
    }

    /// Begins with all that stood before; for a resource about which nothing new is known.
    pub fn keep_all(&mut self) {
        self.next = self.previous.to_vec();
    }

    /// Takes over what stood before under this type; whether anything did.
    pub fn keep(&mut self, type_: &str) -> bool {
        let before = self.previous.iter().find(|condition| condition.type_ == type_);
        self.next.extend(before.cloned());
        before.is_some()
    }

    pub fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let before = self.previous.iter().find(|c| c.type_ == type_ && c.status == status);
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: cut(message, MAX_MESSAGE).to_owned(),
            observed_generation: Some(self.generation),
            last_transition_time: before
                .map_or_else(|| Time(whole_seconds(self.now)), |c| c.last_transition_time.clone()),
        };
        match self.next.iter_mut().find(|c| c.type_ == type_) {
            Some(there) => *there = condition,
            None => self.next.push(condition),
        }
    }

    /// In one order, whatever order they were set in.
    pub fn finish(mut self) -> Vec<Condition> {
        self.next.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.next
    }
}

/// The API server stores whole seconds; anything finer would differ from what is read back.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// `DatabaseReachable`: status, reason, message.
pub fn reachable(login: &Login) -> (&'static str, &'static str, String) {
    match login {
        Login::Succeeded => (TRUE, "LoginSucceeded", "a login succeeded".into()),
        Login::WrongPassword => (
            FALSE,
            "PasswordDoesNotFit",
            "the engine refuses the password in the Secret".into(),
        ),
        Login::NotYet(words) => (FALSE, "Recovering", format!("the engine answers: {words}")),
        Login::Failed(why) => (FALSE, "NoAnswer", format!("a login failed: {why}")),
        Login::NotTried => (UNKNOWN, "NotTried", "there is nothing to log in to".into()),
    }
}

/// `Guarded`: status, reason, message.
pub fn guarded(world: &World) -> (&'static str, &'static str, String) {
    if !world.instance.is_guarded() {
        return (
            FALSE,
            "GuardDisabled",
            "spec.failover.guard is Disabled: a database that is cut off writes on until its volume is taken away, an engine that fails is \
             restarted after ever longer pauses, and no stop is acknowledged; set it to Enabled to have a guard"
                .into(),
        );
    }
    let Some(pod) = world.current_pod().filter(|pod| !is_gated(pod)) else {
        return (UNKNOWN, "NoPod", "no pod has been let at the volume".into());
    };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if has_guard(pod) {
        (TRUE, "Guarded", format!("the engine of pod {name} runs under a guard"))
    } else {
        (
            FALSE,
            "TemplateOlder",
            format!(
                "pod {name} was made without a guard and is left as it is; the next one has a guard, and comes with a change of the spec, \
                 a failure, or when you delete this one"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::desired::{self, Rendering};
    use crate::world::samples;

    fn pod(instance: &crate::instance::Instance) -> Pod {
        let rendering = Rendering {
            operator_image: "operator:1",
            volume_id: "id-1",
            secret_key: "MSSQL_SA_PASSWORD",
        };
        let template = desired::deployment(instance, &rendering).spec.expect("a spec").template;
        let mut spec = template.spec.expect("a pod");
        spec.scheduling_gates = None;
        let mut pod = Pod {
            spec: Some(spec),
            ..Pod::default()
        };
        pod.metadata.name = Some("orders-1".into());
        pod
    }

    fn said(world: &World) -> (&'static str, &'static str) {
        let (status, reason, message) = guarded(world);
        assert!(!message.is_empty());
        (status, reason)
    }

    #[test]
    fn a_database_is_guarded_when_its_pod_has_a_guard_and_not_before() {
        let disabled: Value = json!({ "failover": { "guard": "Disabled" } });
        let mut world = samples::world(&json!({}));
        assert_eq!(said(&world), (UNKNOWN, "NoPod"));
        world.pods = vec![pod(&world.instance)];
        assert_eq!(said(&world), (TRUE, "Guarded"));
        world.pods = vec![pod(&samples::world(&disabled).instance)];
        assert_eq!(said(&world), (FALSE, "TemplateOlder"));
        let mut without = samples::world(&disabled);
        without.pods.clone_from(&world.pods);
        assert_eq!(said(&without), (FALSE, "GuardDisabled"));
    }

    #[test]
    fn a_condition_about_which_nothing_new_is_known_stays_as_it_was() {
        let mut before = Conditions::new(&[], 1, Timestamp::UNIX_EPOCH);
        before.set("VolumeHasSpace", FALSE, "VolumeNearlyFull", "little is left");
        let previous = before.finish();
        let mut conditions = Conditions::new(&previous, 2, Timestamp::MAX);
        assert!(conditions.keep("VolumeHasSpace") && !conditions.keep("Guarded"));
        assert_eq!(conditions.finish(), previous);
    }

    #[test]
    fn a_pod_behind_its_gate_guards_nothing() {
        let mut world = samples::world(&json!({}));
        let mut gated = pod(&world.instance);
        let gate = serde_json::from_value(json!({"name": desired::VOLUME_FENCE})).expect("a gate");
        gated.spec.get_or_insert_default().scheduling_gates = Some(vec![gate]);
        world.pods = vec![gated];
        assert_eq!(said(&world), (UNKNOWN, "NoPod"));
    }
}
