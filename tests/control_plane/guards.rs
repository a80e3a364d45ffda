//! The guards, as one more part of the rest of the cluster: the production's rules and its way to read and write the Lease, with a clock that
//! moves only when the test says so. A guard's request is carried out in a step of its own, so that others may write between its reading and
//! its writing.

use std::time::Duration;

use serde_json::Value;
use sqledge_operator::guard::lease_object::LeaseObject;
use sqledge_operator::guard::rules::{Action, Change, Guard, Input, Tenure};
use sqledge_operator::lease::{self, Hold, Record};

use sqledge_operator::rules::Rules;

use crate::rights;
use crate::world::{INSTANCE, State, World};

/// Longer than any promise: so much time goes by for those who cannot keep theirs.
pub const LONG: Duration = Duration::from_secs(400);
/// Requests that may follow from one waking.
const FOLLOWING: usize = 6;

/// Process 1 of a container.
#[derive(Debug)]
pub struct Keeper {
    /// Its rules.
    pub guard: Guard,
    /// What the Lease says since it has taken it.
    pub won: Option<Hold>,
    object: LeaseObject,
    /// Its boot clock.
    now: Duration,
}

impl Keeper {
    /// Of a container that was just started.
    pub fn new(pod: &str) -> Self {
        let now = Duration::ZERO;
        Self {
            guard: Guard::new(now),
            won: None,
            object: LeaseObject::new(pod.to_owned()).expect("chance"),
            now,
        }
    }

    /// Whether the container has ended.
    pub fn has_ended(&self) -> bool {
        self.guard.tenure == Tenure::Ended
    }

    /// Its clock goes on to when it wants to be woken.
    fn sleep(&mut self, rules: Rules) {
        self.now = self.guard.wake_at(rules).map_or(self.now, |due| due.max(self.now));
    }
}

impl World {
    /// The guards of a node go on: who has asked is answered, who waits for its turn asks again. Whether more follows.
    pub async fn guards(&self, node: &str) -> bool {
        let mut more = false;
        for pod in self.guarded_containers(node) {
            more |= self.guard_goes_on(&pod).await;
        }
        more
    }

    /// Time goes by for the guards: who reaches the API server renews and looks as often as it is due, who does not misses all of it.
    pub async fn guards_age(&self) {
        for number in 1..=3 {
            let node = self.node(number);
            for pod in self.guarded_containers(&node) {
                let reaches = self.lock().physics.machine(&node).reaches_api();
                self.lock().wake(&pod, reaches);
                for _ in 0..FOLLOWING {
                    if !self.answer(&pod).await {
                        break;
                    }
                }
            }
        }
        let mut state = self.lock();
        // one that hangs misses it, too, and will see by its clock how long it did
        let hang = state.physics.slow_to_end.clone();
        for pod in hang {
            if let Some(keeper) = state.keeper(&pod) {
                keeper.now += LONG;
            }
        }
        for broken in rights::disobedience(&state) {
            state.broken("time going by", &broken);
        }
    }

    /// Those of a node that do not hang.
    fn guarded_containers(&self, node: &str) -> Vec<String> {
        let state = self.lock();
        let hangs = |pod: &String| state.physics.slow_to_end.contains(pod);
        let containers = state.physics.containers.iter();
        containers
            .filter(|(pod, container)| container.node == node && container.keeper.is_some() && !hangs(pod))
            .map(|(pod, _)| pod.clone())
            .collect()
    }

    async fn guard_goes_on(&self, pod: &str) -> bool {
        {
            let mut state = self.lock();
            let Some(keeper) = state.keeper(pod) else { return false };
            if let Tenure::Waiting | Tenure::Acknowledging { .. } = keeper.guard.tenure {
                state.wake(pod, true);
            }
        }
        self.answer(pod).await
    }

    /// Carries out what a guard asks for. Whether it then asks for more, or is about to.
    async fn answer(&self, pod: &str) -> bool {
        let (change, reaches) = {
            let mut state = self.lock();
            let Some(keeper) = state.keeper(pod) else { return false };
            let Some(request) = keeper.guard.request else {
                return false;
            };
            let node = state.physics.containers[pod].node.clone();
            (request.change, state.physics.machine(&node).reaches_api())
        };
        let answer = if reaches {
            self.ask_the_api(pod, change).await
        } else {
            None
        };
        let mut state = self.lock();
        let Some(keeper) = state.keeper(pod) else { return false };
        let input = match answer {
            None => Input::Away,
            Some(Err(())) => Input::Conflict,
            Some(Ok(lease)) => {
                if let Some(Change::Take { .. }) = change {
                    keeper.won = Some(rights::record(&lease).hold);
                }
                let seen = keeper
                    .object
                    .receive(lease)
                    .expect("the API server's own object parses");
                change.map_or(Input::Read(seen), |_| Input::Written)
            }
        };
        state.tell(pod, input);
        let Some(keeper) = state.keeper(pod) else { return true };
        keeper.guard.request.is_some() || matches!(keeper.guard.tenure, Tenure::Acknowledging { .. })
    }

    /// What the API server says; an error is a conflict, nothing is everything else that is no Lease.
    async fn ask_the_api(&self, pod: &str, change: Option<Change>) -> Option<Result<Value, ()>> {
        let path = self.path("coordination.k8s.io/v1", "leases", &lease::name(INSTANCE));
        let Some(change) = change else {
            return self.get(&path).await.map(Ok);
        };
        let body = {
            let mut state = self.lock();
            let keeper = state.keeper(pod)?;
            keeper.object.write(change).expect("it was read")
        };
        match self.try_send("PUT", &path, "application/json", body).await {
            Ok(lease) => Some(Ok(lease)),
            Err(kube::Error::Api(status)) if status.code == 409 => Some(Err(())),
            Err(_) => None,
        }
    }
}

impl State {
    /// What the instance's Lease says.
    pub fn lease(&self) -> Option<Record> {
        let lease = self.mirror.get("leases", &lease::name(INSTANCE))?;
        Some(rights::record(lease))
    }

    fn keeper(&mut self, pod: &str) -> Option<&mut Keeper> {
        self.physics.containers.get_mut(pod)?.keeper.as_mut()
    }

    /// Time goes by for one guard: until it is due again, or so much that all it has promised is over.
    fn wake(&mut self, pod: &str, is_in_time: bool) {
        let rules = self.guard_rules;
        let Some(keeper) = self.keeper(pod) else { return };
        if !is_in_time {
            keeper.now += LONG;
        } else if keeper.guard.request.is_none() {
            keeper.sleep(rules);
        }
        self.tell(pod, Input::Tick);
    }

    /// Tells a guard what has happened, and does what it wants done but for its requests.
    pub fn tell(&mut self, pod: &str, input: Input) {
        let rules = self.guard_rules;
        let Some(keeper) = self.keeper(pod) else { return };
        let actions = keeper.guard.step(keeper.now, input, rules);
        for action in actions {
            match action {
                // a request is carried out in a step of its own, and what an engine here has written is on the volume
                Action::Read | Action::Write(_) | Action::Sync => {}
                Action::Start => {
                    self.set_engine(pod, true);
                    if let Some(broken) = rights::started_without_the_lease(self, pod) {
                        self.broken("a guard's start", &broken);
                    }
                    self.happened(&format!("(the guard of pod {pod} started the engine)"));
                }
                Action::Forward => {
                    self.set_engine(pod, false);
                    self.happened(&format!("(the engine of pod {pod} ended in order)"));
                    self.tell(pod, Input::Exited);
                }
                Action::KillEngine => panic!("nobody has told the guard of pod {pod} that its engine hangs"),
                Action::KillAll => {
                    self.set_engine(pod, false);
                    self.happened(&format!("(the guard of pod {pod} killed everything)"));
                }
                Action::Exit => {
                    self.physics.containers.remove(pod);
                    self.happened(&format!("(the guard of pod {pod} ended)"));
                }
            }
        }
    }

    fn set_engine(&mut self, pod: &str, runs: bool) {
        if let Some(container) = self.physics.containers.get_mut(pod) {
            container.engine = runs;
        }
    }
}
