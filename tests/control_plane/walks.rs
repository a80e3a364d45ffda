//! Long walks through generated worlds: one thing after the other happens, at any moment, with an operator that now and then dies or sees
//! the world as it was. After every single write the invariants hold; when the machines are well again, the database is.
//!
//! `SQLEDGE_SEED` and `SQLEDGE_WALKS` choose the first seed and how many there are.

use serde_json::{Value, json};
use sqledge_operator::driver_class::DriverClass;
use sqledge_operator::lease;
use sqledge_operator::settings::Switch;

use crate::chance::Chance;
use crate::mirror::{name, text};
use crate::operator::{Lag, Operator, Passed, Setup};
use crate::physics::{Detach, Machine};
use crate::server::play;
use crate::settle::{Fair, assert_at_rest, settle};
use crate::story::at_once;
use crate::wire::{Ending, Fault};
use crate::world::{INSTANCE, Make, World};

/// A storage and what the settings say about it; never that it does more than it does.
fn storage(chance: &mut Chance) -> (Detach, Option<DriverClass>) {
    *chance.one_of(&[
        (Detach::Revokes, Some(DriverClass::Revoke)),
        (Detach::Revokes, Some(DriverClass::Quorum)),
        (Detach::Revokes, None),
        (Detach::Lies, None),
        (Detach::Lies, Some(DriverClass::NeedsFence)),
        (Detach::Refuses, Some(DriverClass::Busy)),
        (Detach::Refuses, None),
    ])
}

/// What the resource asks of a failover. Proof Lease is for those about whose storage nothing is known; elsewhere it adds nothing.
fn failover(chance: &mut Chance) -> Value {
    chance
        .one_of(&[
            json!({}),
            json!({}),
            json!({"guard": "Disabled"}),
            json!({"lease": "Always"}),
            json!({"proof": "Lease"}),
        ])
        .clone()
}

/// One thing happens.
async fn happen(world: &World, chance: &mut Chance) {
    let pods = world.lock().pods();
    let pod = (!pods.is_empty()).then(|| world.pod_path(name(chance.one_of(&pods))));
    let node = world.node(1 + chance.below(3));
    let all_well = (1..=3).all(|number| world.lock().physics.machine(&world.node(number)) == Machine::WELL);
    let lease = lease::name(INSTANCE);
    match chance.below(16) {
        0 | 1 => {
            if let Some(pod) = pod {
                world.delete(&pod, None).await;
            }
        }
        2 | 3 => {
            if let Some(pod) = pod {
                world.delete(&pod, Some(0)).await;
            }
        }
        4..=6 if all_well => {
            // the node that matters, more often than not
            let serving = world
                .lock()
                .serving_pod()
                .map(|pod| text(&pod, "/spec/nodeName").to_owned());
            let node = serving.filter(|_| chance.percent(80)).unwrap_or(node);
            let machine = *chance.one_of(&[Machine::OFF, Machine::CUT, Machine::DEAF, Machine::LEFT_ALONE]);
            world.change_machine(&node, machine);
        }
        4..=8 => recover(world),
        9 => {
            let cordoned = chance.percent(40);
            world
                .merge(
                    &format!("/api/v1/nodes/{node}"),
                    json!({"spec": {"unschedulable": cordoned}}),
                )
                .await;
        }
        10 if world.lock().mirror.get("deployments", INSTANCE).is_some() => {
            let replicas = chance.below(3);
            let path = world.path("apps/v1", "deployments", INSTANCE);
            world.merge(&path, json!({"spec": {"replicas": replicas}})).await;
        }
        11 => {
            let image = format!("registry.example/engine:{}", chance.below(3));
            world.edit_instance(json!({"spec": {"image": image}})).await;
        }
        12 if world.lock().mirror.get("services", INSTANCE).is_some() => {
            world.delete(&world.path("v1", "services", INSTANCE), None).await;
        }
        13 if world.lock().mirror.get("deployments", INSTANCE).is_some() => {
            // its pods stay: nobody collects garbage here, and the next one has other pods
            world
                .delete(&world.path("apps/v1", "deployments", INSTANCE), None)
                .await;
        }
        14 | 15 if world.lock().mirror.get("leases", &lease).is_some() => {
            let path = world.path("coordination.k8s.io/v1", "leases", &lease);
            if chance.percent(50) {
                world.delete(&path, None).await;
            } else {
                let touched = json!({"metadata": {"annotations": {"somebody.example/was": "here"}}});
                world.merge(&path, touched).await;
            }
        }
        _ => {}
    }
}

fn recover(world: &World) {
    for number in 1..=3 {
        let node = world.node(number);
        if world.lock().physics.machine(&node) != Machine::WELL {
            world.change_machine(&node, Machine::WELL);
        }
    }
}

fn weather(chance: &mut Chance) -> Lag {
    if chance.percent(60) {
        return Lag::default();
    }
    let mut behind = || if chance.percent(50) { chance.below(12) } else { 0 };
    Lag {
        instances: behind(),
        deployments: behind(),
        services: behind(),
        claims: behind(),
        pods: behind(),
        nodes: behind(),
        attachments: behind(),
        guards: behind(),
        leases: behind(),
    }
}

fn fault(chance: &mut Chance) -> Fault {
    let endings = [
        Ending::Refused(409),
        Ending::Refused(429),
        Ending::Refused(500),
        Ending::Lost,
        Ending::DoneButLost,
        Ending::DoneButFailed,
    ];
    match chance.below(6) {
        0 => Fault::CrashAfterWrite(1 + chance.below(3)),
        1 => Fault::Call(1 + chance.below(8), *chance.one_of(&endings)),
        _ => Fault::None,
    }
}

async fn walk(seed: u64) {
    let mut chance = Chance::new(seed);
    let (detach, class) = storage(&mut chance);
    let mode = *chance.one_of(&["ReadWriteOncePod", "ReadWriteOnce"]);
    let failover = failover(&mut chance);
    let make = Make {
        detach,
        spec: json!({"storage": {"storageClassName": "disk", "accessModes": [mode]}, "failover": failover}),
        ..Make::default()
    };
    let setup = Setup {
        class,
        fast_detach: *chance.one_of(&[Switch::Enabled, Switch::Disabled]),
        ..Setup::default()
    };
    let about = format!(
        "seed {seed}: {detach:?} called {class:?}, {mode}, failover {failover}, fast detach {:?}",
        setup.fast_detach
    );
    println!("{about}");
    let world = World::new(&make).await;
    let mut operator = Operator::new(&world, &setup, Fault::None);
    world.create_instance(&make.spec).await;
    for _ in 0..45 {
        if chance.percent(30) {
            happen(&world, &mut chance).await;
        }
        operator.wire.arm(fault(&mut chance));
        let lag = weather(&mut chance);
        if let Passed::Crashed = operator.turn(&lag, &mut chance).await {
            operator.restart();
        }
        let moved = world.round(&mut chance).await;
        if !moved || chance.percent(20) {
            world.heartbeat().await;
            operator.age();
        }
        if chance.percent(10) {
            world.judge_nodes().await;
        }
        world.assert_sound(&about);
    }
    recover(&world);
    for number in 1..=3 {
        let path = format!("/api/v1/nodes/{}", world.node(number));
        world.merge(&path, json!({"spec": {"unschedulable": null}})).await;
    }
    world.judge_nodes().await;
    operator.wire.arm(Fault::None);
    settle(&world, &mut operator, &mut chance, &mut Fair).await;
    world.assert_sound(&about);
    let ready = world.lock().condition("Ready").map(|(status, _)| status);
    assert_eq!(
        ready.as_deref(),
        Some("True"),
        "{about}: all machines are well, but\n{}",
        world.story()
    );
    assert_at_rest(&world, &mut operator, &about).await;
    world.end().await;
}

#[test]
fn whatever_happens_there_is_one_writer_and_in_the_end_a_database() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let first = number("SQLEDGE_SEED").unwrap_or(100);
    let seeds = first..first + number("SQLEDGE_WALKS").unwrap_or(12);
    play(at_once(seeds.map(walk)));
}
