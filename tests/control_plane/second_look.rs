//! The caches show what was, and exactly then an act is due: before it everything it rests on is read again, and what is then found wrong
//! is not done. The act's own compare-and-swap would not help here, because what has changed is another object than the one it changes.

use serde_json::{Value, json};
use sqledge_operator::settings::Switch;

use crate::chance::Chance;
use crate::invariant::{is_gated, node_of};
use crate::mirror::name;
use crate::operator::{Lag, Operator, Passed, Setup};
use crate::physics::Machine;
use crate::server::play;
use crate::settle::{Fair, settle, started};
use crate::wire::Fault;
use crate::world::{Make, World, writes};

/// Looks at caches that do not change any more, with time going by and nodes renewing their Leases, of which n1's is not heard: nothing may
/// be done.
async fn assert_nothing_is_done(world: &World, operator: &mut Operator, about: &str) {
    operator.wire.arm(Fault::None);
    for _ in 0..4 {
        world.heartbeat().await;
        operator.age();
        // with more than one node silent the operator would mistrust itself
        for number in 2..=3 {
            operator.hear(&world.node(number));
        }
        let passed = operator.pass().await;
        assert!(
            matches!(passed, Passed::Again(_)),
            "{about}: {passed:?}\n{}",
            world.story()
        );
        let acts = writes(&operator.wire.sent());
        let acts: Vec<_> = acts
            .iter()
            .filter(|write| !write.contains("sqledgeinstances") && !write.contains("/events"))
            .collect();
        assert!(acts.is_empty(), "{about}: {acts:#?}\n{}", world.story());
        world.assert_sound(about);
    }
}

/// A Ready instance on n1.
async fn ready(setup: &Setup, mode: &str) -> (World, Operator) {
    let make = Make {
        spec: json!({"storage": {"storageClassName": "disk", "accessModes": [mode]}}),
        ..Make::default()
    };
    started(&make, setup, &mut Chance::new(95)).await
}

async fn assert_ends_ready(world: World, mut operator: Operator, about: &str) {
    settle(&world, &mut operator, &mut Chance::new(96), &mut Fair).await;
    world.assert_sound(about);
    let ready = world.lock().condition("Ready").map(|(status, _)| status);
    assert_eq!(ready.as_deref(), Some("True"), "{about}\n{}", world.story());
    world.end().await;
}

#[test]
fn a_node_whose_heartbeat_the_watch_has_missed_keeps_its_database() {
    play(async {
        let about = "the watch of Leases is deaf, and the database does not answer the operator";
        let (world, mut operator) = ready(&Setup::default(), "ReadWriteOncePod").await;
        world.change_machine(&world.node(1), Machine::HIDDEN);
        operator.look(&Lag::default());
        assert_nothing_is_done(&world, &mut operator, about).await;
        world.change_machine(&world.node(1), Machine::WELL);
        assert_ends_ready(world, operator, about).await;
    });
}

#[test]
fn a_node_that_came_back_unnoticed_is_not_detached() {
    play(async {
        for fast_detach in [Switch::Enabled, Switch::Disabled] {
            let about = format!("the node of the detach is back, fast detach {fast_detach:?}");
            let setup = Setup {
                fast_detach,
                ..Setup::default()
            };
            let (world, mut operator) = ready(&setup, "ReadWriteOnce").await;
            let old = world.lock().pods().remove(0);
            world.change_machine(&world.node(1), Machine::CUT);
            until_gone(&world, &mut operator, name(&old)).await;
            world.replicate().await;
            operator.look(&Lag::default());
            world.change_machine(&world.node(1), Machine::WELL);
            assert_nothing_is_done(&world, &mut operator, &about).await;
            assert_ends_ready(world, operator, &about).await;
        }
    });
}

/// Time goes by until the operator has deleted a pod.
async fn until_gone(world: &World, operator: &mut Operator, pod: &str) {
    for _ in 0..20 {
        if world.lock().mirror.get("pods", pod).is_none() {
            return;
        }
        operator.age();
        // the others are well; two silent nodes at once would be the operator's own trouble
        world.heartbeat().await;
        operator.look(&Lag::default());
        operator.pass().await;
    }
    panic!("pod {pod} is still there:\n{}", world.story());
}

#[test]
fn a_pinned_pod_whose_nodes_heartbeat_the_watch_has_missed_stays() {
    play(async {
        let about = "the pinned pod waits for the scheduler";
        let (world, mut operator) = ready(&Setup::default(), "ReadWriteOncePod").await;
        let old = world.lock().pods().remove(0);
        world.delete(&world.pod_path(name(&old)), Some(0)).await;
        world.replicate().await;
        until_open(&world, &mut operator).await;
        let pod = world.lock().pods().remove(0);
        assert_eq!(
            pod["spec"]["nodeSelector"]["kubernetes.io/hostname"],
            world.node(1),
            "pinned"
        );
        assert_eq!(node_of(&pod), "", "and not placed yet");
        operator.look(&Lag::default());
        assert_nothing_is_done(&world, &mut operator, about).await;
        assert_ends_ready(world, operator, about).await;
    });
}

async fn until_open(world: &World, operator: &mut Operator) {
    for _ in 0..20 {
        if world.lock().pods().iter().any(|pod| !is_gated(pod)) {
            return;
        }
        operator.look(&Lag::default());
        operator.pass().await;
    }
    panic!("no gate was opened:\n{}", world.story());
}

/// An instance on a claim of the user's own; its pod waits behind its gate, and nobody was ever let at the volume.
async fn first_start() -> (World, Operator) {
    let spec = json!({"storage": {"existingClaim": "old-data"}});
    let make = Make {
        spec: spec.clone(),
        ..Make::default()
    };
    let world = World::new(&make).await;
    let mut operator = Operator::new(&world, &Setup::default(), Fault::None);
    let claim = json!({"metadata": {"name": "old-data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "disk",
        "resources": {"requests": {"storage": "1Gi"}}}});
    world.post(&world.path("v1", "persistentvolumeclaims", ""), claim).await;
    world.bind_claim().await;
    world.create_instance(&spec).await;
    for _ in 0..4 {
        operator.look(&Lag::default());
        operator.pass().await;
    }
    world.replicate().await;
    let gated = world.lock().pods().iter().all(is_gated);
    assert!(gated, "{}", world.story());
    (world, operator)
}

/// A pod that is not ours, and that the operator's caches never show, gets the volume.
async fn intrude(world: &World) -> Value {
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "old-data"}}]);
    let containers = json!([{"name": "a", "image": "registry.example/other:1"}]);
    let intruder = json!({"metadata": {"name": "intruder"}, "spec": {"containers": containers, "volumes": volumes}});
    let intruder = world.post(&world.pod_path(""), intruder).await;
    world.schedule().await;
    world.attach().await;
    let node = world.node(1);
    world.kubelet(&node).await;
    world.kubelet(&node).await;
    assert_eq!(world.lock().physics.containers.len(), 1, "{}", world.story());
    intruder
}

async fn assert_intruder_goes_first(world: World, operator: Operator, intruder: &Value, about: &str) {
    assert!(world.lock().pods().iter().all(is_gated), "{about}\n{}", world.story());
    world.delete(&world.pod_path(name(intruder)), None).await;
    assert_ends_ready(world, operator, about).await;
}

#[test]
fn an_intruder_that_came_before_the_first_record_keeps_the_gate_shut() {
    play(async {
        let about = "somebody else took the claim just before the first record";
        let (world, mut operator) = first_start().await;
        operator.look(&Lag::default());
        let intruder = intrude(&world).await;
        assert_nothing_is_done(&world, &mut operator, about).await;
        assert_intruder_goes_first(world, operator, &intruder, about).await;
    });
}

#[test]
fn an_intruder_that_came_between_record_and_opening_keeps_the_gate_shut() {
    play(async {
        let about = "somebody else took the claim just before the gate was to open";
        let (world, mut operator) = first_start().await;
        operator.look(&Lag::default());
        operator.wire.arm(Fault::CrashAfterWrite(1));
        let passed = operator.pass().await;
        assert!(matches!(passed, Passed::Crashed), "{passed:?}");
        operator.restart();
        let recorded = {
            let state = world.lock();
            let claim = state.mirror.get("persistentvolumeclaims", "old-data").cloned();
            claim.expect("there")["metadata"]["annotations"]["sqledge.io/holder-pod"].clone()
        };
        assert!(recorded.is_string(), "{}", world.story());
        operator.look(&Lag::default());
        let intruder = intrude(&world).await;
        assert_nothing_is_done(&world, &mut operator, about).await;
        assert_intruder_goes_first(world, operator, &intruder, about).await;
    });
}
