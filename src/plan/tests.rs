//! Which steps a world asks for: the guard's objects, and when a pod template may change.

mod beginning;
mod growth;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{Plan, Step, plan};
use crate::desired::{self, Rendering, VOLUME_FENCE};
use crate::driver_class::DriverClass;
use crate::lease::{Hold, OnApiLoss, Record};
use crate::scene::{Holder, Volume};
use crate::settings::Identity;
use crate::world::{EPOCH, GuardObjects, PasswordChange, SecretFacts, World, samples};

fn identity(image: &str) -> Identity {
    Identity {
        pod_name: "operator-0".into(),
        namespace: "operators".into(),
        image: image.into(),
    }
}

/// As the API server has it: with a UID and a version.
fn stored(metadata: &mut ObjectMeta) {
    metadata.uid = Some(format!("uid-of-{}", metadata.name.as_deref().unwrap_or_default()));
    metadata.resource_version = Some("7".into());
}

fn deployment(world: &World, image: &str) -> Deployment {
    let rendering = Rendering {
        operator_image: image,
        volume_id: "id-1",
        secret_key: desired::PASSWORD_KEY,
    };
    desired::deployment(&world.instance, &rendering)
}

/// A world in which every child is as it should be, on a volume of a class, made by an operator of this image.
fn settled(more: &Value, class: DriverClass, image: &str) -> World {
    let mut world = samples::world(more);
    let instance = world.instance.clone();
    world.claim = desired::claim(&instance, "id-1");
    world.service = Some(desired::service(&instance));
    world.deployment = Some(deployment(&world, image));
    world.scene.claim.exists = true;
    world.scene.volume = Some(Volume {
        name: "pv-1".into(),
        driver: Some("disk.example.com".into()),
        attachable: true,
        class,
        unique_name: None,
    });
    let guard = &mut world.guard;
    guard.account = desired::service_account(&instance);
    guard.role = desired::role(&instance);
    guard.binding = desired::role_binding(&instance);
    let orders = desired::orders(&instance.failover, class);
    guard.lease = desired::lease(&instance, &Record::anew(None, 0, orders));
    stored(&mut world.claim.as_mut().expect("a claim").metadata);
    stored(&mut world.service.as_mut().expect("a service").metadata);
    stored(&mut world.deployment.as_mut().expect("a deployment").metadata);
    for metadata in [
        guard.account.as_mut().map(|object| &mut object.metadata),
        guard.role.as_mut().map(|object| &mut object.metadata),
        guard.binding.as_mut().map(|object| &mut object.metadata),
        guard.lease.as_mut().map(|object| &mut object.metadata),
    ] {
        metadata.into_iter().for_each(stored);
    }
    world
}

fn usual() -> World {
    settled(&json!({}), DriverClass::Unknown, "operator:1")
}

fn made(world: &World) -> Plan {
    plan(world, &identity("operator:1"))
}

/// The kinds of the steps, in order.
fn kinds(plan: &Plan) -> Vec<&'static str> {
    plan.steps
        .iter()
        .map(|step| match step {
            Step::CreateSecret => "CreateSecret",
            Step::CreateClaim => "CreateClaim",
            Step::PatchClaim { .. } => "PatchClaim",
            Step::GrowClaim { .. } => "GrowClaim",
            Step::DeleteUnboundClaim { .. } => "DeleteUnboundClaim",
            Step::OwnSecret { .. } => "OwnSecret",
            Step::ChangePassword => "ChangePassword",
            Step::ApplyService(_) => "ApplyService",
            Step::ApplyServiceAccount(_) => "ApplyServiceAccount",
            Step::ApplyRole(_) => "ApplyRole",
            Step::ApplyRoleBinding(_) => "ApplyRoleBinding",
            Step::CreateLease(_) => "CreateLease",
            Step::PatchLease { .. } => "PatchLease",
            Step::ApplyDeployment(_) => "ApplyDeployment",
            Step::ScaleToOne { .. } => "ScaleToOne",
        })
        .collect()
}

fn lease_of(world: &mut World) -> &mut Lease {
    world.guard.lease.as_mut().expect("a Lease")
}

#[test]
fn a_settled_world_asks_for_nothing() {
    for class in [DriverClass::Unknown, DriverClass::Revoke, DriverClass::Local] {
        for more in [
            json!({}),
            json!({ "failover": { "guard": "Disabled" } }),
            json!({ "failover": { "lease": "Always" } }),
        ] {
            assert_eq!(made(&settled(&more, class, "operator:1")), Plan::default(), "{more}");
        }
    }
}

#[test]
fn a_password_is_changed_where_that_can_be_and_nothing_else_waits_for_it() {
    let mut world = usual();
    world.password_change = PasswordChange::Due;
    assert_eq!(kinds(&made(&world)), ["ChangePassword"]);
    world.password_change = PasswordChange::Refused("It is too short.".into());
    assert_eq!(made(&world), Plan::default());
    // there is nothing to change it to
    world.password_change = PasswordChange::Due;
    world.secret = SecretFacts::Missing;
    assert!(!kinds(&made(&world)).contains(&"ChangePassword"));
}

#[test]
fn what_the_guard_needs_is_made_before_the_pod_that_needs_it() {
    let mut world = usual();
    world.guard = GuardObjects::default();
    world.deployment = None;
    assert_eq!(
        kinds(&made(&world)),
        [
            "ApplyServiceAccount",
            "ApplyRole",
            "ApplyRoleBinding",
            "CreateLease",
            "ApplyDeployment"
        ]
    );
}

#[test]
fn without_a_guard_nothing_of_it_is_made_or_looked_at() {
    let mut world = settled(
        &json!({ "failover": { "guard": "Disabled" } }),
        DriverClass::Unknown,
        "operator:1",
    );
    assert_eq!(world.guard, GuardObjects::default());
    let mut foreign = Lease::default();
    foreign.metadata.name = Some(world.instance.lease_name());
    world.guard.lease = Some(foreign);
    assert_eq!(made(&world), Plan::default());
}

#[test]
fn what_others_change_about_the_guards_rights_is_put_right() {
    let mut world = usual();
    let role = world.guard.role.as_mut().expect("a role");
    role.rules.get_or_insert_default()[0].verbs.push("delete".into());
    assert_eq!(kinds(&made(&world)), ["ApplyRole"]);

    let mut world = usual();
    let role = world.guard.role.as_mut().expect("a role");
    role.rules.get_or_insert_default()[0].resource_names = None;
    assert_eq!(kinds(&made(&world)), ["ApplyRole"]);

    let mut world = usual();
    let binding = world.guard.binding.as_mut().expect("a binding");
    let mut another = binding.subjects.clone().expect("subjects")[0].clone();
    another.name = "default".into();
    binding.subjects.get_or_insert_default().push(another);
    assert_eq!(kinds(&made(&world)), ["ApplyRoleBinding"]);

    let mut world = usual();
    let account = world.guard.account.as_mut().expect("an account");
    account.automount_service_account_token = Some(true);
    assert_eq!(kinds(&made(&world)), ["ApplyServiceAccount"]);

    let mut world = usual();
    let account = world.guard.account.as_mut().expect("an account");
    account
        .metadata
        .labels
        .get_or_insert_default()
        .insert("team".into(), "shop".into());
    assert_eq!(
        made(&world),
        Plan::default(),
        "somebody's own label is none of our business"
    );
}

#[test]
fn an_object_of_our_name_that_is_not_ours_is_left_alone_and_nothing_is_started_on_it() {
    let metadata: [fn(&mut World) -> &mut ObjectMeta; 4] = [
        |world| &mut world.guard.account.as_mut().expect("an account").metadata,
        |world| &mut world.guard.role.as_mut().expect("a role").metadata,
        |world| &mut world.guard.binding.as_mut().expect("a binding").metadata,
        |world| &mut world.guard.lease.as_mut().expect("a Lease").metadata,
    ];
    for of in metadata {
        let mut world = usual();
        world.deployment = None;
        let metadata = of(&mut world);
        metadata.owner_references = None;
        metadata.labels = None;
        let name = metadata.name.clone().expect("a name");
        let plan = made(&world);
        assert_eq!(kinds(&plan), [""; 0], "{name}");
        let problem = plan.problem.expect("a problem");
        assert_eq!(problem.reason, "NameConflict");
        assert!(problem.message.contains(&name), "{}", problem.message);

        let mut world = usual();
        let owners = of(&mut world).owner_references.get_or_insert_default();
        owners[0].uid = "that of an earlier resource".into();
        let plan = made(&world);
        assert_eq!(kinds(&plan), [""; 0], "{name}");
        assert_eq!(plan.problem.expect("a problem").reason, "PredecessorTerminating");
    }
}

#[test]
fn orders_that_changed_are_written_and_who_holds_the_lease_is_not_touched() {
    let mut world = usual();
    let lease = lease_of(&mut world);
    lease
        .metadata
        .annotations
        .get_or_insert_default()
        .insert("team".into(), "shop".into());
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some("pod-1/123".into());
    spec.lease_duration_seconds = Some(15);
    assert_eq!(made(&world), Plan::default());

    world.scene.volume.as_mut().expect("a volume").class = DriverClass::Revoke;
    let plan = made(&world);
    let [Step::PatchLease { lease, operations }] = &plan.steps[..] else {
        panic!("{plan:?}");
    };
    assert_eq!(
        (lease.uid.as_str(), lease.resource_version.as_str()),
        ("uid-of-orders-writer", "7")
    );
    assert_eq!(
        operations,
        &[json!({"op": "add", "path": "/metadata/annotations",
            "value": {"sqledge.io/on-api-loss": "Continue", "team": "shop"}})]
    );
}

#[test]
fn while_the_class_is_not_known_orders_stay_as_they_are() {
    let mut world = usual();
    world.scene.volume = None;
    assert_eq!(made(&world), Plan::default());
    world.guard.lease = None;
    let plan = made(&world);
    let [Step::CreateLease(lease)] = &plan.steps[..] else {
        panic!("{plan:?}");
    };
    let record = Record::of(lease);
    assert_eq!(
        (record.orders.renewal, record.orders.on_api_loss),
        (None, OnApiLoss::Stop)
    );
}

#[test]
fn a_label_that_was_taken_off_the_lease_is_put_back() {
    let mut world = usual();
    let labels = lease_of(&mut world).metadata.labels.get_or_insert_default();
    labels.clear();
    labels.insert("team".into(), "shop".into());
    let plan = made(&world);
    let [Step::PatchLease { operations, .. }] = &plan.steps[..] else {
        panic!("{plan:?}");
    };
    let mut labels = world.instance.labels();
    labels.insert("team".into(), "shop".into());
    assert_eq!(
        operations,
        &[json!({"op": "add", "path": "/metadata/labels", "value": labels})]
    );
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Shut,
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    None,
    Deleting,
    Finished,
}

fn pod(uid: &str, gate: Gate, end: End) -> Pod {
    let gates: Vec<Value> = match gate {
        Gate::Shut => vec![json!({"name": VOLUME_FENCE})],
        Gate::Open => Vec::new(),
    };
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": uid, "uid": uid}, "spec": {"containers": [], "schedulingGates": gates},
    }))
    .expect("a pod");
    match end {
        End::None => {}
        End::Deleting => {
            pod.metadata.deletion_timestamp =
                Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time"));
        }
        End::Finished => pod.status.get_or_insert_default().phase = Some("Failed".into()),
    }
    pod
}

fn holder(pod: &str) -> Holder {
    Holder {
        pod: pod.into(),
        node: None,
    }
}

/// A template of an operator of another version, and the pods that there are: is it made anew?
#[test]
fn a_newer_operators_template_waits_until_the_pod_is_replaced_anyway() {
    use Gate::{Open, Shut};
    let cases: [(&str, Option<&str>, Vec<Pod>, bool); 14] = [
        ("nothing there yet", None, vec![], true),
        ("runs", Some("a"), vec![pod("a", Open, End::None)], false),
        (
            "past its gate, and not recorded yet",
            None,
            vec![pod("a", Open, End::None)],
            false,
        ),
        (
            "runs beside a surplus one",
            Some("a"),
            vec![pod("a", Open, End::None), pod("b", Shut, End::None)],
            false,
        ),
        (
            "first start, before the record",
            None,
            vec![pod("a", Shut, End::None)],
            true,
        ),
        (
            "first start, recorded",
            Some("a"),
            vec![pod("a", Shut, End::None)],
            false,
        ),
        ("stopping", Some("a"), vec![pod("a", Open, End::Deleting)], true),
        (
            "stopping, its successor waits",
            Some("a"),
            vec![pod("a", Open, End::Deleting), pod("b", Shut, End::None)],
            true,
        ),
        (
            "gone, its successor waits",
            Some("a"),
            vec![pod("b", Shut, End::None)],
            true,
        ),
        (
            "gone, its successor is recorded",
            Some("b"),
            vec![pod("b", Shut, End::None)],
            false,
        ),
        (
            "gone, its successor is let in",
            Some("b"),
            vec![pod("b", Open, End::None)],
            false,
        ),
        (
            "evicted by its node, its successor waits",
            Some("a"),
            vec![pod("a", Open, End::Finished), pod("b", Shut, End::None)],
            true,
        ),
        (
            "stopping, its successor recorded already",
            Some("b"),
            vec![pod("a", Open, End::Deleting), pod("b", Shut, End::None)],
            false,
        ),
        (
            "one stops, another runs",
            Some("b"),
            vec![pod("a", Open, End::Deleting), pod("b", Open, End::None)],
            false,
        ),
    ];
    for (about, record, pods, anew) in cases {
        let mut world = settled(&json!({}), DriverClass::Unknown, "operator:0");
        world.scene.claim.holder = record.map(holder);
        world.pods = pods;
        let expected: &[&str] = if anew { &["ApplyDeployment"] } else { &[] };
        assert_eq!(kinds(&made(&world)), expected, "{about}");

        // and then it is done: the operator that made it has nothing to add
        world.deployment = Some(deployment(&world, "operator:1"));
        stored(&mut world.deployment.as_mut().expect("a deployment").metadata);
        assert_eq!(kinds(&made(&world)), [""; 0], "{about}, again");
    }
}

#[test]
fn a_template_that_is_left_alone_still_has_one_replica() {
    let mut world = settled(&json!({}), DriverClass::Unknown, "operator:0");
    world.scene.claim.holder = Some(holder("a"));
    world.pods = vec![pod("a", Gate::Open, End::None)];
    let scaled = |world: &mut World, replicas| {
        let spec = world
            .deployment
            .as_mut()
            .and_then(|deployment| deployment.spec.as_mut());
        spec.expect("a spec").replicas = Some(replicas);
    };
    scaled(&mut world, 2);
    assert_eq!(kinds(&made(&world)), ["ScaleToOne"]);
    // with nothing to lose, the whole of it
    scaled(&mut world, 0);
    world.pods.clear();
    assert_eq!(kinds(&made(&world)), ["ApplyDeployment"]);
}

#[test]
fn a_changed_resource_does_not_wait_for_its_pod() {
    let mut world = settled(&json!({}), DriverClass::Unknown, "operator:0");
    world.instance.image = "registry.example/engine:2".into();
    world.scene.claim.holder = Some(holder("a"));
    world.pods = vec![pod("a", Gate::Open, End::None)];
    assert_eq!(kinds(&made(&world)), ["ApplyDeployment"]);
}
