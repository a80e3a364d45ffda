//! A Lease that is renewed (`failover.lease: Always`): a holder that does not renew loses it, and one that does keeps it, also at the last
//! moment.

use serde_json::json;
use sqledge_operator::lease::{After, Hold, Seal};

use crate::chance::Chance;
use crate::invariant::node_of;
use crate::mirror::{name, uid};
use crate::operator::{Lag, Operator, Setup};
use crate::physics::Machine;
use crate::server::play;
use crate::settle::{Fair, assert_at_rest, settle, started};
use crate::wire::{Fault, Sent};
use crate::world::{Make, World, writes};

/// A Ready instance on n1 whose guard renews its Lease.
async fn renewing() -> (World, Operator) {
    let make = Make {
        spec: json!({"failover": {"lease": "Always"}}),
        ..Make::default()
    };
    let (world, mut operator) = started(&make, &Setup::default(), &mut Chance::new(93)).await;
    // the first renewal takes the promise with it
    world.heartbeat().await;
    operator.look(&Lag::default());
    let lease = world.lock().lease().expect("a Lease");
    assert!(lease.promise.is_some(), "{lease:?}");
    (world, operator)
}

fn hold(world: &World) -> Hold {
    world.lock().lease().expect("a Lease").hold
}

async fn look(operator: &mut Operator) {
    operator.look(&Lag::default());
    operator.pass().await;
}

/// A write of the operator that changes who may have the volume.
fn step(sent: &Sent) -> Option<String> {
    let holder = sent.body["spec"]["holderIdentity"].as_str();
    let holder = holder.map(|holder| holder.split('/').next().unwrap_or_default());
    let patched = sent.body.as_array().map(|operations| operations[0]["path"].to_string());
    match (sent.method.as_str(), sent.path.rsplit('/').nth(1)?) {
        ("PUT", "leases") => Some(format!("Lease: {}", holder?)),
        ("DELETE", kind) => Some(format!("{kind} deleted")),
        ("PATCH", "pods") => Some("gate".to_owned()),
        ("PATCH", "persistentvolumeclaims") => Some("record".to_owned()),
        ("PATCH", "status") => None,
        ("PATCH", _) if patched.is_some_and(|path| path.contains("volumesInUse")) => Some("in use".to_owned()),
        _ => None,
    }
}

#[test]
fn a_holder_that_stops_renewing_is_sealed_evicted_and_detached_and_the_next_is_named() {
    play(async {
        let about = "the database answers, but cannot renew";
        let (world, mut operator) = renewing().await;
        let old = world.lock().pods().remove(0);
        operator.wire.arm(Fault::None);
        world.change_machine(&world.node(1), Machine::DEAF);
        for _ in 0..3 {
            look(&mut operator).await;
        }
        let early = writes(&operator.wire.sent());
        let acts: Vec<_> = early.iter().filter(|write| !write.contains("/status ")).collect();
        assert!(acts.is_empty(), "{about}, and its time is not over: {acts:#?}");
        settle(&world, &mut operator, &mut Chance::new(94), &mut Fair).await;
        let steps: Vec<_> = operator.wire.sent().iter().filter_map(step).collect();
        // the first record is that the node was lost, the second who follows
        let order = [
            "Lease: sealed",
            "pods deleted",
            "record",
            "record",
            "Lease: for",
            "gate",
        ];
        let of_order = steps.iter().filter(|step| order.contains(&step.as_str()));
        let mut of_order: Vec<_> = of_order.map(String::as_str).collect();
        // where the next pod was placed is written down, too
        assert_eq!(of_order.pop(), Some("record"), "{steps:?}");
        assert_eq!(of_order, order, "{steps:?}\n{}", world.story());
        let serving = world.lock().serving_pod().expect("a database");
        assert_eq!(node_of(&serving), world.node(2), "{}", world.story());
        assert!(matches!(hold(&world), Hold::Taken { pod, .. } if pod == uid(&serving) && pod != uid(&old)));
        assert_at_rest(&world, &mut operator, about).await;
        world.assert_sound(about);
        world.end().await;
    });
}

#[test]
fn a_renewal_at_the_last_moment_makes_the_judged_lease_stale_and_the_seal_is_refused() {
    play(async {
        let about = "the holder hangs, and goes on just before it is sealed";
        let (world, mut operator) = renewing().await;
        let pod = world.lock().pods().remove(0);
        let held = hold(&world);
        world.lock().physics.slow_to_end.insert(uid(&pod).to_owned());
        world.heartbeat().await;
        operator.age();
        operator.look(&Lag::default());
        operator.wire.arm(Fault::HoldJudged(1));
        let renews = async {
            operator.wire.held.notified().await;
            world.lock().physics.slow_to_end.clear();
            world.heartbeat().await;
            operator.wire.release.notify_one();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = operator.pass() => {}
            () = renews => {}
        }
        let seal = operator.wire.holding().expect("it was about to be sealed");
        assert_eq!(step(&seal).as_deref(), Some("Lease: sealed"), "{}", world.story());
        let sent = operator.wire.sent();
        let answers: Vec<_> = sent
            .iter()
            .filter(|sent| sent.method == "PUT")
            .map(|sent| sent.status)
            .collect();
        assert_eq!(answers, [409], "{}", world.story());
        assert_eq!(hold(&world), held, "{}", world.story());
        operator.wire.arm(Fault::None);
        settle(&world, &mut operator, &mut Chance::new(95), &mut Fair).await;
        let steps: Vec<_> = operator.wire.sent().iter().filter_map(step).collect();
        assert!(steps.is_empty(), "{about}: {steps:?}\n{}", world.story());
        assert_eq!(hold(&world), held, "{}", world.story());
        let serving = world.lock().serving_pod();
        assert_eq!(serving.as_ref().map(name), Some(name(&pod)), "{}", world.story());
        world.assert_sound(about);
        world.end().await;
    });
}

#[test]
fn a_holder_that_hangs_on_a_node_that_is_well_is_sealed_and_its_successor_waits_for_the_node() {
    play(async {
        let about = "the holder hangs until its kubelet has killed it";
        let (world, mut operator) = renewing().await;
        let old = world.lock().pods().remove(0);
        let pod = uid(&old).to_owned();
        world.lock().physics.slow_to_end.insert(pod.clone());
        settle(&world, &mut operator, &mut Chance::new(96), &mut Fair).await;
        let sealed = Seal {
            pod: pod.clone(),
            after: After::Nothing,
        };
        assert_eq!(hold(&world), Hold::Sealed(Some(sealed)), "{}", world.story());
        assert!(
            world.lock().mirror.get("pods", name(&old)).is_none(),
            "{}",
            world.story()
        );
        let writing: Vec<_> = world.lock().physics.writing().map(|(pod, _)| pod.clone()).collect();
        assert_eq!(writing, [pod], "{}", world.story());
        world.assert_sound(about);
        world.lock().physics.slow_to_end.clear();
        settle(&world, &mut operator, &mut Chance::new(97), &mut Fair).await;
        let ready = world.lock().condition("Ready").map(|(status, _)| status);
        assert_eq!(ready.as_deref(), Some("True"), "{}", world.story());
        assert_at_rest(&world, &mut operator, about).await;
        world.assert_sound(about);
        world.end().await;
    });
}
