//! The end of causes: a node gets its power back, a network is whole again. And what a human would do where only a human can help.

use std::time::Duration;

use e2e::Result;

use super::{Open, Run, say};
use crate::{
    fleet::Member,
    kind::{Hold, Kind},
    report::Held,
};

/// So long a reason to hold must stand before it counts: others pass it on their way.
const HELD: Duration = Duration::from_secs(6);
/// So long a database may take that only a human can help; then the soak does what the human would.
pub(super) const HELP: Duration = Duration::from_secs(45);

impl Run<'_> {
    pub(super) fn end_causes(&mut self) -> Result<()> {
        let mut open = std::mem::take(&mut self.open);
        for it in open.iter_mut().filter(|it| !it.undone) {
            self.answer_holds(it)?;
            let over = match it.planned.kind.hold() {
                Hold::None => true,
                Hold::Seconds(seconds) => it.began.elapsed() >= Duration::from_secs(seconds),
                Hold::UntilServed(seconds) => {
                    it.began.elapsed() >= Duration::from_secs(seconds) || self.is_done_with(it)
                }
            };
            if over {
                self.end_cause(it);
            }
        }
        open.append(&mut self.open);
        self.open = open;
        Ok(())
    }

    /// Whether each database it hit serves, or waits for what only the end of the cause will bring.
    fn is_done_with(&self, open: &Open) -> bool {
        // before the cluster has noticed, everything looks as it was
        if open.began.elapsed() < Duration::from_secs(4) {
            return false;
        }
        open.hit.iter().all(|at| {
            let held = open.holding.get(at).is_some_and(|since| since.elapsed() >= HELD);
            held || self.fleet[*at].trouble().is_none()
        })
    }

    /// A human's word, where it is true: a node without power runs nothing.
    fn answer_holds(&mut self, open: &Open) -> Result<()> {
        let truthful = matches!(open.planned.kind, Kind::NodePowerOff | Kind::NodePowerOffSlowDetach);
        if !truthful || open.planned.number.is_multiple_of(2) {
            return Ok(());
        }
        for (at, since) in &open.holding {
            let member = &self.fleet[*at];
            let answered = self
                .holds
                .iter()
                .any(|held| held.fault == open.planned.number && held.instance == member.name());
            let Some(pod) = member.state.serving_pod().filter(|_| member.unlisted) else {
                continue;
            };
            if since.elapsed() < HELD || answered {
                continue;
            }
            say(&format!(
                "           a human says that pod {} of {} is dead",
                pod.uid,
                member.name()
            ));
            member.instance.annotate("sqledge.io/confirm-node-dead", &pod.uid)?;
            self.holds.push(held(open, member, "human"));
        }
        Ok(())
    }

    fn end_cause(&mut self, open: &mut Open) {
        let (number, kind) = (open.planned.number, open.planned.kind);
        for at in open.hit.clone() {
            let member = &self.fleet[at];
            let waited = open.holding.get(&at).is_some_and(|since| since.elapsed() >= HELD);
            let known = self
                .holds
                .iter()
                .any(|it| it.fault == number && it.instance == member.name());
            if waited && !known {
                say(&format!(
                    "           {} is held: {}",
                    member.name(),
                    member.state.reason
                ));
                self.holds.push(held(open, member, "node"));
            } else if matches!(kind.hold(), Hold::UntilServed(_))
                && !known
                && let Some(trouble) = member.trouble()
            {
                let after = open.began.elapsed().as_secs();
                let text = format!(
                    "#{number} {kind}: {} does not serve after {after} s: {trouble}",
                    member.name()
                );
                self.find(&text);
            }
        }
        match open.undo.end(self.lab) {
            Ok(complaint) => {
                open.undone = true;
                if kind.hold() != Hold::None {
                    say(&format!(
                        "{:7.1} s  #{number} {kind}: its cause has ended",
                        self.seconds()
                    ));
                }
                if let Some(complaint) = complaint {
                    self.find(&format!("#{number} {kind}: {complaint}"));
                }
            }
            // as long as the rest of the cluster is being hurt; `settle` has the last word
            Err(error) => say(&format!(
                "           #{number} {kind}: its cause cannot be ended yet: {error}"
            )),
        }
        self.looked = None;
    }

    /// What an administrator would do about a database that is said to serve and does not: take its pod away. Once for each fault.
    pub(super) fn help(&mut self) -> Result<()> {
        let Some(last) = self.open.last() else { return Ok(()) };
        let fault = last.planned.number;
        let mut helped = Vec::new();
        for member in &self.fleet {
            let known = self.helped.contains(&(fault, member.name().to_owned()));
            // what is being started, however slowly, is left to it
            let pod = member
                .state
                .serving_pod()
                .filter(|pod| member.state.ready && pod.ready && !known);
            if let (Some(pod), Some(trouble)) = (pod, member.trouble()) {
                let sentence = format!(
                    "{} is Ready by its status for {} s, but {trouble}; its pod is deleted",
                    member.name(),
                    HELP.as_secs()
                );
                helped.push((held(last, member, "human"), pod.name.clone(), sentence));
            }
        }
        for (held, pod, sentence) in helped {
            self.helped.insert((fault, held.instance.clone()));
            self.holds.push(held);
            self.find(&sentence);
            let place = format!("--namespace={}", self.namespace);
            self.lab.kubectl(&["delete", "pod", &pod, &place, "--wait=false"])?;
        }
        Ok(())
    }
}

fn held(open: &Open, member: &Member, freed_by: &'static str) -> Held {
    Held {
        fault: open.planned.number,
        instance: member.name().to_owned(),
        reason: member.state.reason.clone(),
        message: member.state.message.clone(),
        freed_by,
    }
}
