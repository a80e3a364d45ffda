//! etcd loses its latest past: an older copy of it is put in its place while a failover goes on or after it, under an operator that goes on
//! running (with caches and a memory of what never happened) or under one that has just started.
//!
//! The API then says less than is so: a pod that has followed another one is not there, the other one is there again, and so are its record
//! and its attachment. Nothing that the operator does may let a further pod at the volume while an engine runs that the API has forgotten.

use serde_json::json;
use tokio::sync::{Barrier, Semaphore};

use crate::chance::Chance;
use crate::invariant::{is_gated, node_of};
use crate::mirror::{name, version};
use crate::operator::{Lag, Operator, Setup};
use crate::physics::Machine;
use crate::server::{ControlPlane, play};
use crate::settle::{Fair, Weather, assert_at_rest, begin, settle};
use crate::story::{Event, Story};
use crate::wire::Fault;
use crate::world::{INSTANCE, Make, World};

/// Turns of a story after which etcd is copied.
const COPIED_AFTER: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 8];
/// Of all cases one in so many is tried; `SQLEDGE_EVERY_LOSS=1` tries all.
const ONE_IN: usize = 7;
/// Worlds that are worked on at the same time.
const AT_ONCE: usize = 4;

/// When etcd is set back, all worlds have come to the same moment.
struct Moments {
    work: Semaphore,
    ripe: Barrier,
    done: Barrier,
}

impl Moments {
    fn new(worlds: usize) -> Self {
        Self {
            work: Semaphore::new(AT_ONCE),
            ripe: Barrier::new(worlds + 1),
            done: Barrier::new(worlds + 1),
        }
    }

    /// What a world does between two moments, a few worlds at a time.
    async fn work<T>(&self, work: impl Future<Output = T>) -> T {
        let _permit = self.work.acquire().await.expect("never closed");
        work.await
    }

    /// Everybody waits while something happens to etcd.
    async fn stand_still(&self) {
        self.ripe.wait().await;
        self.done.wait().await;
    }

    async fn happens(&self, what: impl Future<Output = ()>) {
        self.ripe.wait().await;
        what.await;
        self.done.wait().await;
    }
}

/// One way in which it happens.
#[derive(Clone, Debug)]
struct Case {
    story: Story,
    copied_after: usize,
    /// Another operator takes over at the moment of the loss.
    restarted: bool,
    seed: u64,
}

impl Case {
    fn all() -> Vec<Self> {
        let stories = Story::all().into_iter().filter(|story| {
            [
                "creation",
                "pod force-deleted",
                "pod force-deleted, ReadWriteOnce",
                "node off, storage revokes",
                "node cut, storage revokes",
                "node cut, storage revokes, ReadWriteOnce",
                "node off, class unknown, confirmed",
                "node cordoned and pod deleted",
                "pod deleted, class unknown",
                "node deaf, Lease renewed",
                "node off, no guard",
            ]
            .contains(&story.name)
        });
        let mut cases = Vec::new();
        for story in stories {
            for copied_after in COPIED_AFTER {
                for restarted in [false, true] {
                    let seed = u64::try_from(cases.len()).expect("small");
                    cases.push(Self {
                        story: story.clone(),
                        copied_after,
                        restarted,
                        seed,
                    });
                }
            }
        }
        cases
    }

    /// Others for each beginning, and over all stories and moments.
    fn some(beginning: usize) -> Vec<Self> {
        let one_in = std::env::var_os("SQLEDGE_EVERY_LOSS").map_or(ONE_IN, |_| 1);
        Self::all()
            .into_iter()
            .skip(beginning % one_in)
            .step_by(one_in)
            .collect()
    }

    fn about(&self) -> String {
        format!(
            "{} (seed {}), copied after turn {}, {}",
            self.story.name,
            self.seed,
            self.copied_after,
            if self.restarted {
                "a new operator"
            } else {
                "the same operator"
            }
        )
    }
}

/// The caches of an operator that goes on show for a while what was before the loss: no watch has told it that this never happened.
struct Lost {
    turns: usize,
    at: usize,
}

impl Weather for Lost {
    fn lag(&mut self, turn: usize, moment: usize) -> Lag {
        if turn >= self.turns {
            return Lag::default();
        }
        let behind = moment - self.at;
        Lag {
            instances: behind,
            deployments: behind,
            services: behind,
            claims: behind,
            pods: behind,
            nodes: behind,
            attachments: behind,
            guards: behind,
            leases: behind,
        }
    }
}

async fn turns(world: &World, operator: &mut Operator, chance: &mut Chance, number: usize) {
    for _ in 0..number {
        operator.look(&Lag::default());
        operator.pass().await;
        if !world.round(chance).await {
            world.heartbeat().await;
            operator.age();
        }
    }
}

fn is_bound(world: &World) -> bool {
    let state = world.lock();
    let claim = state.mirror.get("persistentvolumeclaims", &state.claim);
    claim.is_some_and(|claim| claim["status"]["phase"] == "Bound")
}

async fn live_through(case: Case, control_plane: &ControlPlane, moments: &Moments) -> String {
    let about = case.about();
    let story = &case.story;
    let mut chance = Chance::new(case.seed);
    let (world, mut operator) = moments
        .work(async {
            let world = World::at(control_plane.client(), &story.make).await;
            let mut operator = Operator::new(&world, &story.setup, Fault::None);
            if story.event != Event::Created {
                world.create_instance(&story.make.spec).await;
                begin(&world, &mut operator, &mut chance).await;
            }
            story.happen(&world).await;
            // with its claim etcd would lose the volume itself: the next one is another volume, and empty
            while !is_bound(&world) {
                turns(&world, &mut operator, &mut chance, 1).await;
            }
            turns(&world, &mut operator, &mut chance, case.copied_after).await;
            (world, operator)
        })
        .await;
    moments.stand_still().await;
    world.lock().trace.push("--- etcd is copied".into());
    moments
        .work(async {
            settle(&world, &mut operator, &mut chance, &mut Fair).await;
            world.assert_sound(&about);
        })
        .await;
    let before = world.lock().mirror.moment();
    moments.stand_still().await;
    moments
        .work(async {
            world.is_set_back().await;
            let mut lost = Lost {
                turns: if case.restarted { 0 } else { chance.below(12) },
                at: before,
            };
            if case.restarted {
                operator.restart();
            }
            let forgotten: Vec<String> = {
                let state = world.lock();
                state
                    .physics
                    .containers
                    .keys()
                    .filter(|pod| pod.contains("forgotten"))
                    .cloned()
                    .collect()
            };
            if chance.percent(60) {
                world.lock().physics.slow_to_end.extend(forgotten);
            }
            // kubelets have said what they use before a silent node can be called dead
            for number in 1..=3 {
                world.kubelet(&world.node(number)).await;
            }
            settle(&world, &mut operator, &mut chance, &mut lost).await;
            world.assert_sound(&about);
            let told = assert_says_why(&world, &about);
            world.lock().physics.slow_to_end.clear();
            settle(&world, &mut operator, &mut chance, &mut Fair).await;
            world.assert_sound(&about);
            assert_says_why(&world, &about);
            put_right(&world, &mut operator, &mut chance).await;
            assert_at_rest(&world, &mut operator, &about).await;
            world.assert_sound(&about);
            let ready = world.lock().condition("Ready").map(|(status, _)| status);
            assert_eq!(
                ready.as_deref(),
                Some("True"),
                "{about}: all is well again, but\n{}",
                world.story()
            );
            format!("{about}: {told}")
        })
        .await
}

/// Ready, or a sentence that says what is missing.
fn assert_says_why(world: &World, about: &str) -> String {
    let ready = world.lock().condition("Ready");
    let (status, reason) = ready.unwrap_or_else(|| panic!("{about}: no word\n{}", world.story()));
    if status != "True" {
        let state = world.lock();
        let instance = state.mirror.get("sqledgeinstances", INSTANCE).expect("there");
        let waits = instance["status"]["waitingFor"].as_str().unwrap_or_default();
        assert!(
            !waits.is_empty() && !reason.is_empty(),
            "{about}: {status} {reason} {waits}"
        );
        return format!("{reason}: {waits}");
    }
    reason
}

/// People put right what they can see: machines run, and the storage lets those nodes write that Kubernetes believes it does.
async fn put_right(world: &World, operator: &mut Operator, chance: &mut Chance) {
    for number in 1..=3 {
        let node = world.node(number);
        if world.lock().physics.machine(&node) != Machine::WELL {
            world.change_machine(&node, Machine::WELL);
        }
        world
            .merge(
                &format!("/api/v1/nodes/{node}"),
                json!({"spec": {"unschedulable": null}}),
            )
            .await;
    }
    world.judge_nodes().await;
    settle(world, operator, chance, &mut Fair).await;
    {
        let mut state = world.lock();
        let attached = state
            .mirror
            .all("volumeattachments")
            .map(|a| crate::mirror::text(a, "/spec/nodeName").to_owned());
        state.physics.exports = attached.collect();
        state.happened("--- the storage is put right");
    }
    settle(world, operator, chance, &mut Fair).await;
}

fn lose(cases: Vec<Case>, goes_on: bool) {
    play(async {
        let control_plane = ControlPlane::start().await;
        let moments = Moments::new(cases.len());
        let conductor = async {
            moments.happens(async { control_plane.copy_etcd() }).await;
            moments
                .happens(async {
                    let reached = control_plane.revision().await;
                    control_plane.set_etcd_back().await;
                    if goes_on {
                        control_plane.pass_revision(reached).await;
                    }
                })
                .await;
        };
        let worlds = futures::future::join_all(
            cases
                .into_iter()
                .map(|case| live_through(case, &control_plane, &moments)),
        );
        let (told, ()) = futures::join!(worlds, conductor);
        for line in told {
            println!("{line}");
        }
    });
}

#[test]
fn a_past_that_is_lost_lets_nobody_at_the_volume_where_revisions_repeat() {
    lose(Case::some(0), false);
}

#[test]
fn a_past_that_is_lost_lets_nobody_at_the_volume_where_revisions_go_on() {
    lose(Case::some(3), true);
}

/// The version of a node's Lease.
fn lease(world: &World, number: usize) -> u64 {
    let state = world.lock();
    version(state.mirror.get("leases", &world.node(number)).expect("a Lease"))
}

/// Renews the Leases of these nodes.
async fn renew(world: &World, numbers: &[usize]) {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    for number in numbers {
        let beat = json!({"metadata": {"annotations": {"beat": world.number().to_string()}}});
        world.merge(&format!("{leases}/{}", world.node(*number)), beat).await;
    }
}

#[test]
fn a_node_is_not_called_silent_because_the_store_has_not_caught_up_with_its_lost_heartbeats() {
    play(async {
        let about = "n2 renews its Lease under versions that were seen before";
        let control_plane = ControlPlane::start().await;
        let mut chance = Chance::new(97);
        let make = Make {
            spec: json!({"storage": {"storageClassName": "disk", "accessModes": ["ReadWriteOnce"]}}),
            ..Make::default()
        };
        let world = World::at(control_plane.client(), &make).await;
        let mut operator = Operator::new(&world, &Setup::default(), Fault::None);
        world.create_instance(&make.spec).await;
        begin(&world, &mut operator, &mut chance).await;
        control_plane.copy_etcd();
        // what will be lost: the database moves to n2, which then renews its Lease again and again
        let node = format!("/api/v1/nodes/{}", world.node(1));
        world.merge(&node, json!({"spec": {"unschedulable": true}})).await;
        let old = world.lock().pods().remove(0);
        world.delete(&world.pod_path(name(&old)), None).await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        assert_eq!(
            world.lock().serving_pod().map(|pod| node_of(&pod).to_owned()),
            Some(world.node(2))
        );
        let seen = lease(&world, 1).max(lease(&world, 3));
        renew(&world, &[2; 80]).await;
        operator.look(&Lag::default());
        let ahead = lease(&world, 2);

        control_plane.set_etcd_back().await;
        world.is_set_back().await;
        let forgotten: Vec<String> = world.lock().physics.containers.keys().cloned().collect();
        world.lock().physics.slow_to_end.extend(forgotten);
        world.kubelet(&world.node(2)).await;
        while lease(&world, 1).min(lease(&world, 3)) <= seen {
            renew(&world, &[1, 3]).await;
        }
        world.delete(&world.pod_path(name(&old)), Some(0)).await;
        world.replicate().await;
        for _ in 0..6 {
            operator.age();
            renew(&world, &[1, 2, 3]).await;
            assert!(lease(&world, 2) < ahead, "n2 has caught up: renew it more often before");
            operator.look(&Lag::default());
            operator.pass().await;
            world.assert_sound(about);
            // the node of the record gives the volume back, step by step
            world.kubelet(&world.node(1)).await;
            world.detach(0).await;
        }
        assert_eq!(world.lock().mirror.all("volumeattachments").count(), 0, "{about}");
        assert!(world.lock().pods().iter().all(is_gated), "{about}\n{}", world.story());
        world.lock().physics.slow_to_end.clear();
        put_right(&world, &mut operator, &mut chance).await;
        world.assert_sound(about);
        let ready = world.lock().condition("Ready").map(|(status, _)| status);
        assert_eq!(ready.as_deref(), Some("True"), "{about}\n{}", world.story());
    });
}
