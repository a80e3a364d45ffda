//! When a claim is to grow, and that nothing about the database or its node stands in the way.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::*;
use crate::scene::Login;
use crate::space::{Space, Told};
use crate::world::SecretFacts;

/// A settled world whose claim is bound and requests so much.
fn with_request(more: &Value, requested: &str) -> World {
    let mut world = settled(more, DriverClass::Revoke, "operator:1");
    let claim = world.claim.as_mut().expect("a claim");
    let mut object = json!(claim);
    object["spec"]["volumeName"] = "pv-1".into();
    object["spec"]["resources"] = json!({"requests": {"storage": requested}});
    object["status"] = json!({"phase": "Bound", "capacity": {"storage": requested}});
    *claim = serde_json::from_value(object).expect("a claim");
    world
}

fn growth(world: &World) -> Option<String> {
    made(world).steps.into_iter().find_map(|step| match step {
        Step::GrowClaim { size, .. } => Some(size.0),
        _ => None,
    })
}

#[test]
fn a_claim_grows_to_the_size_of_the_resource_and_never_shrinks() {
    let table = [
        // size of the resource, size that the claim requests, what is asked for
        (json!({}), "8Gi", None),
        (json!({}), "4Gi", Some("8Gi")),
        (json!({"storage": {"size": "16Gi"}}), "8Gi", Some("16Gi")),
        (json!({"storage": {"size": "8193Mi"}}), "8Gi", Some("8193Mi")),
        (json!({"storage": {"size": "8192Mi"}}), "8Gi", None),
        (json!({"storage": {"size": "4Gi"}}), "8Gi", None),
        (json!({"storage": {"existingClaim": "orders-data"}}), "1Gi", None),
    ];
    for (more, requested, expected) in table {
        let mut world = settled(&json!({}), DriverClass::Revoke, "operator:1");
        let claim = with_request(&json!({}), requested).claim;
        world.instance = samples::world(&more).instance;
        world.claim = claim;
        assert_eq!(growth(&world).as_deref(), expected, "{more}, {requested}");
    }
}

#[test]
fn neither_a_database_that_is_down_nor_a_full_volume_nor_a_missing_secret_keeps_the_claim_from_growing() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 8] = [
        ("it serves", |world| world.scene.login = Login::Succeeded),
        ("it does not answer", |world| {
            world.scene.login = Login::Failed("no answer within 2 s".into());
        }),
        ("it recovers", |world| {
            world.scene.login = Login::NotYet("recovering".into());
        }),
        ("it refuses the password", |world| {
            world.scene.login = Login::WrongPassword;
        }),
        ("nothing runs", |world| world.pods.clear()),
        ("its volume is full", |world| {
            let (total, available) = (8 << 30, 0);
            world.space = Told::Space(Space { total, available });
        }),
        ("a database is broken", |world| {
            world.broken_databases = vec!["shop is SUSPECT".into()];
        }),
        ("its Secret is gone", |world| world.secret = SecretFacts::Missing),
    ];
    for (what, change) in changes {
        let mut world = with_request(&json!({"storage": {"size": "16Gi"}}), "8Gi");
        change(&mut world);
        assert_eq!(growth(&world).as_deref(), Some("16Gi"), "{what}");
    }
}

#[test]
fn what_the_api_server_refused_is_not_asked_again_for_a_while_and_holds_nothing_up() {
    let mut world = with_request(&json!({"storage": {"size": "16Gi"}}), "8Gi");
    world.expansion_refused = Some("exceeded quota".into());
    world.service = None;
    assert_eq!(kinds(&made(&world)), ["ApplyService"]);
}

#[test]
fn a_claim_is_adopted_before_it_grows_and_grows_in_a_step_of_its_own() {
    let mut world = with_request(&json!({"storage": {"size": "16Gi"}}), "8Gi");
    assert_eq!(kinds(&made(&world)), ["GrowClaim"]);
    let claim = world.claim.as_mut().expect("a claim");
    claim.metadata.annotations = None;
    assert_eq!(kinds(&made(&world)), ["PatchClaim"]);
}

#[test]
fn a_size_is_written_as_the_resource_has_it() {
    let world = with_request(&json!({"storage": {"size": "1536Mi"}}), "1Gi");
    let plan = made(&world);
    let Some(Step::GrowClaim { claim, size }) = plan.steps.first() else {
        panic!("{plan:?}");
    };
    assert_eq!((claim.name.as_str(), size), ("orders-data", &Quantity("1536Mi".into())));
}
