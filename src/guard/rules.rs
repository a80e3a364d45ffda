//! What the guard does and when. Pure: one [`Input`] in, [`Action`]s out; no clock, no I/O. The runtime carries the actions out, and the model of
//! `tests/model` runs the same code.
//!
//! Every `now` is of one boot clock (it counts while the machine sleeps). Only the runtime knows the Lease as an object: [`Action::Write`] is the
//! wish to change the object that was read last, as a compare-and-swap on exactly that.
//!
//! | rule | |
//! |---|---|
//! | G1 | the engine starts only after the Lease was won; one compare-and-swap, of a Lease that is for this pod |
//! | G2 | a guard that promised to stop has killed everything so long after it *sent* its last successful renewal |
//! | G3 | after a conflict it reads; it kills if the Lease is another's, and an annotation kills nothing |
//! | G4 | it renews only for an engine that answers or may still be starting |

use std::time::Duration;

use crate::lease::{Orders, Promise, Whose};
use crate::rules::{Rule, Rules};

/// A Lease that is not for this pod is read again so soon.
pub const WAIT_FOR_TURN: Duration = Duration::from_secs(1);
/// A Lease that is not renewed is read so often: for new orders, and to learn that it is another's.
pub const LOOK: Duration = Duration::from_secs(30);
/// Failed probes in a row after which an engine that had answered counts as hung.
pub const PROBES: u8 = 3;
/// An engine may take so long to answer: recovery of a large database takes minutes.
pub const START_BUDGET: Duration = Duration::from_secs(3600);
/// A killed engine that has not ended by then hangs in the kernel.
pub const KILL_BUDGET: Duration = Duration::from_secs(10);
/// The longest pause before an engine that ends by itself is started again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After answering for so long an engine is well again.
pub const WELL_AGAIN: Duration = Duration::from_secs(60);
/// The acknowledgement of an orderly stop may take so long; then the guard ends without it.
pub const ACKNOWLEDGE: Duration = Duration::from_secs(2);

pub use super::state::{Action, Change, Engine, Guard, Input, Request, Seen, Tenure};

impl Guard {
    /// A guard whose container has just been started.
    pub fn new(now: Duration) -> Self {
        Self {
            tenure: Tenure::Waiting,
            engine: Engine::None,
            request: None,
            next_request: now,
            last_ok: now,
            promised: false,
            stops_after: None,
            orders: Orders::default(),
            epoch: 0,
            last_sign: now,
            ends: 0,
        }
    }

    /// When it wants to be told the time, at the latest.
    pub fn wake_at(&self, rules: Rules) -> Option<Duration> {
        if self.tenure == Tenure::Ended {
            return None;
        }
        let request = (self.request.is_none() && self.asks()).then_some(self.next_request);
        let pause = match self.engine {
            Engine::Pausing { until } => Some(until),
            Engine::None | Engine::Starting | Engine::Answering { .. } | Engine::Dying { .. } => None,
        };
        let patience = match self.tenure {
            Tenure::Acknowledging { until } => Some(until),
            Tenure::Waiting | Tenure::Holding | Tenure::Stopping | Tenure::Ended => None,
        };
        [request, pause, patience, self.deadline(rules)]
            .into_iter()
            .flatten()
            .min()
    }

    /// G2: when everything has to be killed, unless a renewal succeeds before.
    pub fn deadline(&self, rules: Rules) -> Option<Duration> {
        let bound = matches!(self.tenure, Tenure::Holding | Tenure::Stopping) && rules.has(Rule::StopInTime);
        Some(self.last_ok + self.stops_after.filter(|_| bound)?)
    }

    /// Takes one step. `now` never goes backwards.
    pub fn step(&mut self, now: Duration, input: Input, rules: Rules) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.tenure == Tenure::Ended {
            return actions;
        }
        // before anything else: an answer that comes too late is too late
        if self.deadline(rules).is_some_and(|deadline| now >= deadline) {
            self.kill(&mut actions);
            return actions;
        }
        match input {
            Input::Tick => {}
            Input::Read(seen) => self.read(now, seen, rules, &mut actions),
            Input::Written => self.written(now, rules, &mut actions),
            Input::Conflict => {
                self.request = None;
                if rules.has(Rule::ReadAgain) || self.tenure == Tenure::Waiting {
                    self.ask(now, None, &mut actions);
                } else {
                    self.kill(&mut actions);
                }
            }
            Input::Away => self.away(now),
            Input::Answered => self.answered(now),
            Input::Silent => self.silent(now, &mut actions),
            Input::Exited => self.exited(now),
            Input::Terminate => self.terminate(now, rules, &mut actions),
        }
        self.go_on(now, rules, &mut actions);
        actions
    }

    fn read(&mut self, now: Duration, seen: Seen, rules: Rules, actions: &mut Vec<Action>) {
        let sent = self.request.take().map_or(now, |request| request.sent);
        self.orders = seen.orders;
        let takes = |whose| whose != Whose::Others || !rules.has(Rule::TakeOnlyOnes);
        match (self.tenure, seen.whose) {
            // also one that it has by a take whose answer was lost: what was promised then may be over
            (Tenure::Waiting, whose) if takes(whose) => self.take(now, seen, rules, actions),
            (Tenure::Waiting, _) => self.next_request = now + WAIT_FOR_TURN,
            (Tenure::Holding | Tenure::Stopping, Whose::Mine) => {
                self.epoch = seen.epoch;
                // after a conflict, or on new orders, at once
                let due = self.owes() && self.renews(now, rules);
                self.next_request = if due { now } else { sent + self.pace() };
            }
            // made anew after somebody deleted it; or etcd was set back, and to leave a stop there that is not true any more would prove too much
            (Tenure::Holding | Tenure::Stopping, Whose::Free) => self.take(now, seen, rules, actions),
            (Tenure::Holding | Tenure::Stopping, _) if rules.has(Rule::ObeyTheLease) => self.kill(actions),
            (Tenure::Holding | Tenure::Stopping, _) => self.next_request = sent + self.pace(),
            (Tenure::Acknowledging { .. }, Whose::Mine) => self.ask(now, Some(Change::Stopped), actions),
            (Tenure::Acknowledging { .. }, _) => self.end(actions),
            (Tenure::Ended, _) => {}
        }
    }

    fn take(&mut self, now: Duration, seen: Seen, rules: Rules, actions: &mut Vec<Action>) {
        self.epoch = self.epoch.max(seen.epoch);
        let promise = self.orders.promise();
        self.promise(now, promise, rules);
        let known = self.epoch;
        self.ask(now, Some(Change::Take { known, promise }), actions);
    }

    /// What is about to be written may stand on the Lease whatever becomes of the answer.
    fn promise(&mut self, now: Duration, promise: Option<Promise>, rules: Rules) {
        let new = promise.and_then(|promise| promise.stops_after);
        if self.stops_after.is_none() && new.is_some() {
            self.last_ok = now;
        }
        self.promised |= promise.is_some();
        self.stops_after = match (self.stops_after, new) {
            (old, Some(new)) if !rules.has(Rule::PromiseFirst) => Some(new).or(old),
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
    }

    fn written(&mut self, now: Duration, rules: Rules, actions: &mut Vec<Action>) {
        let Some(Request { change, sent }) = self.request.take() else {
            return;
        };
        let promise = match change {
            None => return,
            Some(Change::Stopped) if matches!(self.tenure, Tenure::Acknowledging { .. }) => return self.end(actions),
            Some(Change::Stopped) => None,
            Some(Change::Take { promise, .. } | Change::Renew { promise }) => promise,
        };
        self.last_ok = if rules.has(Rule::CountFromSending) { sent } else { now };
        self.promised = promise.is_some();
        self.stops_after = promise.and_then(|promise| promise.stops_after);
        if let Some(Change::Take { known, .. }) = change {
            self.epoch = known.saturating_add(1);
            if self.tenure == Tenure::Waiting {
                // a machine that slept hears late that it has won what is another's by now
                if rules.has(Rule::StopInTime) && self.stops_after.is_some_and(|stop| now >= sent + stop) {
                    return self.ask(now, None, actions);
                }
                self.win(now, actions);
            }
        }
        self.next_request = match self.tenure {
            Tenure::Acknowledging { .. } => now,
            Tenure::Waiting | Tenure::Holding | Tenure::Stopping | Tenure::Ended => sent + self.pace(),
        };
    }

    fn win(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.tenure = Tenure::Holding;
        if self.engine == Engine::None {
            self.last_sign = now;
            self.start(actions);
        }
        self.next_request = if self.owes() { now } else { now + LOOK };
    }

    fn start(&mut self, actions: &mut Vec<Action>) {
        self.engine = Engine::Starting;
        actions.push(Action::Start);
    }

    fn away(&mut self, now: Duration) {
        let sent = self.request.take().map_or(now, |request| request.sent);
        self.next_request = match self.tenure {
            Tenure::Waiting => now + WAIT_FOR_TURN,
            // a refusal comes at once, a lost packet after the runtime's own time limit
            Tenure::Holding | Tenure::Stopping => (sent + self.pace()).max(now + self.pace() / 4),
            Tenure::Acknowledging { .. } | Tenure::Ended => now + ACKNOWLEDGE / 8,
        };
    }

    fn answered(&mut self, now: Duration) {
        let since = match self.engine {
            Engine::Answering { since, .. } => since,
            Engine::Starting => now,
            // an answer from before the kill
            Engine::None | Engine::Pausing { .. } | Engine::Dying { .. } => return,
        };
        self.last_sign = now;
        if now >= since + WELL_AGAIN {
            self.ends = 0;
        }
        self.engine = Engine::Answering { since, failed: 0 };
    }

    fn silent(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Engine::Answering { since, failed } = self.engine else {
            return;
        };
        // one that is stopping closes its port first
        if self.tenure != Tenure::Holding {
            return;
        }
        let failed = failed.saturating_add(1);
        if failed < PROBES {
            self.engine = Engine::Answering { since, failed };
        } else {
            self.engine = Engine::Dying { since: now };
            actions.push(Action::KillEngine);
        }
    }

    fn exited(&mut self, now: Duration) {
        if self.engine == Engine::None {
            return;
        }
        if self.tenure == Tenure::Stopping {
            self.engine = Engine::None;
            return;
        }
        // killed for a hang: it has waited long enough
        let pause = match self.engine {
            Engine::Dying { .. } => Duration::ZERO,
            Engine::None | Engine::Pausing { .. } | Engine::Starting | Engine::Answering { .. } => self.pause(),
        };
        self.ends = self.ends.saturating_add(1);
        self.engine = Engine::Pausing { until: now + pause };
    }

    /// 0, 1, 2, 4 ... 30 s.
    fn pause(&self) -> Duration {
        match self.ends {
            0 => Duration::ZERO,
            ends => Duration::from_secs(1 << (ends - 1).min(5)).min(LONGEST_PAUSE),
        }
    }

    fn terminate(&mut self, now: Duration, rules: Rules, actions: &mut Vec<Action>) {
        match (self.tenure, self.engine) {
            (Tenure::Waiting, _) => self.end(actions),
            (Tenure::Holding, Engine::None | Engine::Pausing { .. }) => {
                self.tenure = Tenure::Stopping;
                self.engine = Engine::None;
            }
            (Tenure::Holding, Engine::Starting | Engine::Answering { .. } | Engine::Dying { .. }) => {
                self.tenure = Tenure::Stopping;
                actions.push(Action::Forward);
                if !rules.has(Rule::AcknowledgeAfterTheEnd) {
                    self.ask(now, Some(Change::Stopped), actions);
                }
            }
            (Tenure::Stopping | Tenure::Acknowledging { .. } | Tenure::Ended, _) => {}
        }
    }

    fn acknowledge(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.tenure = Tenure::Acknowledging {
            until: now + ACKNOWLEDGE,
        };
        self.next_request = now;
        actions.push(Action::Sync);
    }

    fn end(&mut self, actions: &mut Vec<Action>) {
        self.tenure = Tenure::Ended;
        actions.push(Action::Exit);
    }

    fn kill(&mut self, actions: &mut Vec<Action>) {
        self.tenure = Tenure::Ended;
        self.engine = Engine::None;
        actions.push(Action::KillAll);
    }

    /// What is due, whatever happened.
    fn go_on(&mut self, now: Duration, rules: Rules, actions: &mut Vec<Action>) {
        if self.tenure == Tenure::Stopping && self.engine == Engine::None {
            self.acknowledge(now, actions);
        }
        if let Tenure::Acknowledging { until } = self.tenure
            && now >= until
        {
            self.end(actions);
        }
        if let Engine::Pausing { until } = self.engine
            && self.tenure == Tenure::Holding
            && now >= until
        {
            self.start(actions);
        }
        if self.tenure == Tenure::Waiting && !rules.has(Rule::WinFirst) && self.engine == Engine::None {
            self.last_sign = now;
            self.start(actions);
        }
        if self.request.is_some() || !self.asks() || now < self.next_request {
            return;
        }
        match self.tenure {
            Tenure::Acknowledging { .. } => self.ask(now, Some(Change::Stopped), actions),
            Tenure::Holding | Tenure::Stopping if self.renews(now, rules) => {
                let promise = self.orders.promise();
                self.promise(now, promise, rules);
                self.ask(now, Some(Change::Renew { promise }), actions);
            }
            Tenure::Waiting | Tenure::Holding | Tenure::Stopping => self.ask(now, None, actions),
            Tenure::Ended => {}
        }
    }

    /// Whether it wants anything from the API server. One that is stopping learns nothing that it does not do already, unless it owes renewals.
    fn asks(&self) -> bool {
        match self.tenure {
            Tenure::Waiting | Tenure::Holding | Tenure::Acknowledging { .. } => true,
            Tenure::Stopping => self.owes(),
            Tenure::Ended => false,
        }
    }

    /// A promise stands or is to be made; taking one back is a write, too.
    fn owes(&self) -> bool {
        self.orders.promise().is_some() || self.promised
    }

    /// G4.
    fn renews(&self, now: Duration, rules: Rules) -> bool {
        let lives = match self.engine {
            Engine::Dying { since } => now < since + KILL_BUDGET,
            Engine::None | Engine::Pausing { .. } | Engine::Starting | Engine::Answering { .. } => {
                now < self.last_sign + START_BUDGET
            }
        };
        self.owes() && (lives || !rules.has(Rule::RenewForTheLiving))
    }

    /// From one request to the next.
    fn pace(&self) -> Duration {
        self.orders.renewal.map_or(LOOK, |renewal| renewal.every)
    }

    fn ask(&mut self, now: Duration, change: Option<Change>, actions: &mut Vec<Action>) {
        self.request = Some(Request { change, sent: now });
        actions.push(change.map_or(Action::Read, Action::Write));
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
