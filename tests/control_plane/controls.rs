//! Positive controls: a checker that finds nothing must be shown to find something.

use serde_json::json;

use crate::chance::Chance;
use crate::invariant;
use crate::mirror::{name, uid};
use crate::operator::{Operator, Setup};
use crate::physics::{Detach, Machine};
use crate::process;
use crate::server::play;
use crate::settle::{Fair, begin, settle, started};
use crate::wire::Fault;
use crate::world::{Make, World};
use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::rules::{Rule, Rules};

#[test]
fn a_gate_opened_by_hand_while_the_old_engine_lives_is_reported() {
    play(async {
        let make = Make {
            detach: Detach::Lies,
            // a guard would have ended the engine
            spec: json!({"failover": {"guard": "Disabled"}}),
            ..Make::default()
        };
        let setup = Setup {
            class: None,
            ..Setup::default()
        };
        let mut chance = Chance::new(41);
        let (world, mut operator) = started(&make, &setup, &mut chance).await;
        world.change_machine(&world.node(1), Machine::CUT);
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        let old = world.lock().pods().remove(0);
        world.delete(&world.pod_path(name(&old)), Some(0)).await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        world.assert_sound("the operator holds");
        let gated = world
            .lock()
            .pods()
            .into_iter()
            .find(invariant::is_gated)
            .expect("a pod that waits");
        let open = json!([{"op": "remove", "path": "/spec/schedulingGates"}]);
        world.json_patch(&world.pod_path(name(&gated)), open).await;
        let violations = world.lock().violations.clone();
        assert!(
            violations.iter().any(|what| what.contains("2 pods could write")),
            "{violations:?}\n{}",
            world.story()
        );
        world.end().await;
    });
}

#[test]
fn an_operator_that_is_told_that_a_lying_driver_revokes_is_reported() {
    play(async {
        let make = Make {
            detach: Detach::Lies,
            ..Make::default()
        };
        let setup = Setup {
            class: Some(DriverClass::Revoke),
            ..Setup::default()
        };
        let mut chance = Chance::new(42);
        let (world, mut operator) = started(&make, &setup, &mut chance).await;
        world.change_machine(&world.node(1), Machine::CUT);
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        let violations = world.lock().violations.clone();
        assert!(
            violations.iter().any(|what| what.contains("could write the volume")),
            "{violations:?}\n{}",
            world.story()
        );
        assert!(
            violations.iter().any(|what| what.contains("nothing proves")),
            "{violations:?}\n{}",
            world.story()
        );
        world.end().await;
    });
}

#[test]
fn an_attachment_deleted_before_its_pod_and_a_deleted_claim_are_reported() {
    play(async {
        let mut chance = Chance::new(43);
        let (world, operator) = started(&Make::default(), &Setup::default(), &mut chance).await;
        let client = operator.wire.client();
        let attachment = world
            .lock()
            .mirror
            .all("volumeattachments")
            .next()
            .map(|a| name(a).to_owned());
        let paths = [
            format!(
                "/apis/storage.k8s.io/v1/volumeattachments/{}",
                attachment.expect("attached")
            ),
            world.path("v1", "persistentvolumeclaims", "orders-data"),
        ];
        for path in paths {
            let request = http::Request::delete(path).body(Vec::new()).expect("a request");
            client.request::<serde_json::Value>(request).await.expect("deleted");
        }
        let violations = world.lock().violations.clone();
        assert!(violations[0].contains("is still there"), "{violations:?}");
        assert!(violations[1].contains("was taken from node"), "{violations:?}");
        assert!(violations[2].contains("with a volume was deleted"), "{violations:?}");
        world.end().await;
    });
}

/// A world whose guards lack a rule, after a node was lost for all but its engine and the API server.
async fn left_alone_without(rule: Rule) -> World {
    let world = World::new(&Make::default()).await;
    world.lock().guard_rules = Rules::all().without(rule);
    let mut chance = Chance::new(44);
    let mut operator = Operator::new(&world, &Setup::default(), Fault::None);
    world.create_instance(&json!({})).await;
    begin(&world, &mut operator, &mut chance).await;
    world.change_machine(&world.node(1), Machine::LEFT_ALONE);
    settle(&world, &mut operator, &mut chance, &mut Fair).await;
    world
}

#[test]
fn a_guard_that_lacks_a_rule_is_reported() {
    play(async {
        for (rule, says) in [
            (Rule::WinFirst, "was started by the Lease"),
            (Rule::ObeyTheLease, "has an engine although"),
        ] {
            let world = left_alone_without(rule).await;
            let violations = world.lock().violations.clone();
            assert!(
                violations.iter().any(|what| what.contains(says)),
                "{rule:?}: {violations:?}\n{}",
                world.story()
            );
            world.end().await;
        }
    });
}

#[test]
fn an_operator_that_passes_the_lease_by_is_reported() {
    play(async {
        let mut chance = Chance::new(45);
        let (world, operator) = started(&Make::default(), &Setup::default(), &mut chance).await;
        let path = world.path("coordination.k8s.io/v1", "leases", "orders-writer");
        let pod = uid(&world.lock().pods()[0]).to_owned();
        let spec = |holder: &str, epoch: i32| json!({"spec": {"holderIdentity": holder, "leaseTransitions": epoch}});
        for (change, says) in [
            (spec("sealed", 1), "the epoch fell"),
            (spec("for/another", 1), "in the same epoch"),
            (spec("for/another", 2), "and the record is of"),
            (spec(&format!("{pod}/a"), 3), "by somebody else than a guard"),
        ] {
            world.lock().violations.clear();
            process::merge(&operator.wire.client(), &path, &change).await;
            let violations = world.lock().violations.clone();
            assert!(
                violations.iter().any(|what| what.contains(says)),
                "{says}: {violations:?}"
            );
        }
        // the next pod, let in while the Lease is another's
        world.lock().violations.clear();
        let old = world.lock().pods().remove(0);
        world.delete(&world.pod_path(name(&old)), None).await;
        for _ in 0..3 {
            world.kubelet(&world.node(1)).await;
            world.guards(&world.node(1)).await;
        }
        world.replicate().await;
        let gated = world.lock().pods().remove(0);
        let open = json!([{"op": "remove", "path": "/spec/schedulingGates"}]);
        process::json_patch(&operator.wire.client(), &world.pod_path(name(&gated)), &open).await;
        let violations = world.lock().violations.clone();
        assert!(
            violations
                .iter()
                .any(|what| what.contains("was opened while the Lease is")),
            "{violations:?}"
        );
        world.end().await;
    });
}
