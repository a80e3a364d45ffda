//! Conditions with a transition time that moves only when the status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::scene::Login;
use crate::text::cut;

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
