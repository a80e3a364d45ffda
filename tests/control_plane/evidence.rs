//! One step at a time: what is missing keeps the gate shut, and as soon as it is there the gate opens.

use serde_json::json;
use sqledge_operator::lease::Hold;

use crate::chance::Chance;
use crate::invariant::{self, node_of};
use crate::mirror::{name, text};
use crate::operator::{Lag, Operator, Setup};
use crate::server::play;
use crate::settle::{Fair, settle, started};
use crate::wire::Fault;
use crate::world::{Make, World};

/// A Ready instance whose pod was just force-deleted: its engine still runs on n1, its successor waits.
async fn force_deleted(mode: &str, guard: &str) -> (World, Operator) {
    let make = Make {
        spec: json!({"storage": {"storageClassName": "disk", "accessModes": [mode]}, "failover": {"guard": guard}}),
        ..Make::default()
    };
    let (world, operator) = started(&make, &Setup::default(), &mut Chance::new(91)).await;
    let pod = world.lock().pods().remove(0);
    world.delete(&world.pod_path(name(&pod)), Some(0)).await;
    world.replicate().await;
    assert_eq!(world.lock().physics.containers.len(), 1, "the engine still runs");
    (world, operator)
}

/// The operator looks as often as it likes; the node the open gate points to, or nothing if the gate is shut.
async fn opens(world: &World, operator: &mut Operator) -> Option<String> {
    for _ in 0..6 {
        operator.look(&Lag::default());
        operator.pass().await;
    }
    world.assert_sound("one step at a time");
    let pod = world.lock().pods().remove(0);
    (!invariant::is_gated(&pod)).then(|| text(&pod, "/spec/nodeSelector/kubernetes.io~1hostname").to_owned())
}

#[test]
fn with_read_write_once_pod_the_successor_may_go_back_to_the_node_at_once() {
    play(async {
        let (world, mut operator) = force_deleted("ReadWriteOncePod", "Enabled").await;
        assert_eq!(
            opens(&world, &mut operator).await,
            Some(world.node(1)),
            "{}",
            world.story()
        );
        world.end().await;
    });
}

#[test]
fn with_read_write_once_the_successor_of_a_pod_without_guard_waits_for_every_part_of_the_nodes_release() {
    play(async {
        let (world, mut operator) = force_deleted("ReadWriteOnce", "Disabled").await;
        let shut = async |operator: &mut Operator, why: &str| {
            let opened = opens(&world, operator).await;
            assert_eq!(opened, None, "{why}: {}", world.story());
        };
        shut(&mut operator, "the old engine runs, and the node says so").await;
        world.heartbeat().await;
        shut(&mut operator, "a heartbeat alone says nothing").await;
        // the attach-detach controller has not heard yet that the volume is in use
        world.detach(usize::MAX).await;
        assert_eq!(
            world.lock().mirror.all("volumeattachments").count(),
            0,
            "{}",
            world.story()
        );
        shut(&mut operator, "detached, but the node says that it uses the volume").await;
        // a new operator knows of no heartbeat after the release
        operator.restart();
        world.kubelet(&world.node(1)).await;
        assert!(
            world.lock().physics.containers.is_empty(),
            "the kubelet has stopped the engine"
        );
        shut(
            &mut operator,
            "no heartbeat since this operator knows that the pod is gone",
        )
        .await;
        world.heartbeat().await;
        assert_eq!(
            opens(&world, &mut operator).await,
            Some(String::new()),
            "{}",
            world.story()
        );
        world.end().await;
    });
}

#[test]
fn with_read_write_once_the_successor_waits_for_the_guards_word_and_the_detach_and_nothing_else() {
    play(async {
        let (world, mut operator) = force_deleted("ReadWriteOnce", "Enabled").await;
        let node = world.node(1);
        let lease = || world.lock().lease().map(|lease| lease.hold);
        assert_eq!(opens(&world, &mut operator).await, None, "{}", world.story());
        world.kubelet(&node).await;
        assert_eq!(
            world.lock().physics.writing().count(),
            0,
            "the kubelet has stopped the engine"
        );
        assert_eq!(
            opens(&world, &mut operator).await,
            None,
            "not acknowledged: {}",
            world.story()
        );
        assert!(world.guards(&node).await || world.lock().physics.containers.is_empty());
        assert!(matches!(lease(), Some(Hold::Stopped(_))), "{}", world.story());
        assert_eq!(
            opens(&world, &mut operator).await,
            None,
            "not detached: {}",
            world.story()
        );
        assert!(
            matches!(lease(), Some(Hold::Stopped(_))),
            "the gate is shut, and nothing was sealed"
        );
        world.kubelet(&node).await;
        world.detach(0).await;
        assert_eq!(
            opens(&world, &mut operator).await,
            Some(String::new()),
            "{}",
            world.story()
        );
        assert!(matches!(lease(), Some(Hold::Named(_))), "{}", world.story());
        world.end().await;
    });
}

#[test]
fn a_pinned_pod_whose_node_is_cordoned_meanwhile_is_followed_by_one_that_goes_elsewhere() {
    play(async {
        for crash in 0..=4 {
            let (world, mut operator) = force_deleted("ReadWriteOncePod", "Enabled").await;
            assert_eq!(opens(&world, &mut operator).await, Some(world.node(1)));
            let pinned = world.lock().pods().remove(0);
            let node = format!("/api/v1/nodes/{}", world.node(1));
            world.merge(&node, json!({"spec": {"unschedulable": true}})).await;
            operator.wire.arm(Fault::CrashAfterWrite(crash));
            settle(&world, &mut operator, &mut Chance::new(92), &mut Fair).await;
            let about = format!("a crash after write {crash}");
            world.assert_sound(&about);
            let serving = world.lock().serving_pod().map(|pod| node_of(&pod).to_owned());
            assert_eq!(serving, Some(world.node(2)), "{about}: {}", world.story());
            assert!(world.lock().mirror.get("pods", name(&pinned)).is_none(), "{about}");
            world.end().await;
        }
    });
}
