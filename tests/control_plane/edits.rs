//! Changes of the resource: the end depends on what it says, not on how it came to say it.

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::mirror::text;
use crate::operator::{Operator, Setup};
use crate::outcome;
use crate::server::play;
use crate::settle::{Fair, assert_at_rest, settle, started};
use crate::story::at_once;
use crate::wire::Fault;
use crate::world::{Make, World, writes};

/// Parts of a spec that may change while the instance runs.
fn parts() -> Vec<(&'static str, Value)> {
    vec![
        ("image", json!("registry.example/engine:2")),
        ("edition", json!("Developer")),
        ("agent", json!("Enabled")),
        ("timeZone", json!("Europe/Berlin")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("deletionPolicy", json!("Delete")),
        (
            "env",
            json!([{"name": "MSSQL_TELEMETRY", "value": "0"}, {"name": "B", "value": "2"}]),
        ),
        (
            "resources",
            json!({"limits": {"memory": "2.5Gi", "cpu": "0.5"}, "requests": {"memory": "1Gi"}}),
        ),
        ("nodeSelector", json!({"kubernetes.io/arch": "amd64"})),
        ("tolerations", json!([{"key": "maintenance", "operator": "Exists"}])),
        ("imagePullSecrets", json!([{"name": "pull"}])),
        ("priorityClassName", json!("system-cluster-critical")),
        (
            "service",
            json!({"port": 1444, "annotations": {"example.com/pool": "a"}}),
        ),
        ("service", json!({"type": "NodePort"})),
        ("service", json!({"type": "ClusterIP"})),
        (
            "service",
            json!({"loadBalancerSourceRanges": ["192.0.2.0/24"], "externalTrafficPolicy": "Local"}),
        ),
        ("securityContext", json!({"readOnlyRootFilesystem": false})),
        ("podSecurityContext", json!({"runAsUser": 10001, "fsGroup": 10001})),
        (
            "affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
            [{"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "Exists"}]}]}}}),
        ),
    ]
}

/// A change of one to three parts.
fn some_parts(chance: &mut Chance) -> Value {
    let parts = parts();
    let mut spec = json!({});
    for _ in 0..=chance.below(3) {
        let (field, value) = chance.one_of(&parts);
        spec[field] = value.clone();
    }
    spec
}

/// The merge patch that takes a change back.
fn undo(change: &Value) -> Value {
    let before = crate::world::instance("", &json!({}))["spec"].clone();
    let mut spec = json!({});
    for field in change.as_object().expect("an object").keys() {
        spec[field] = before[field].clone();
    }
    json!({"spec": spec})
}

#[test]
fn there_and_back_again_ends_where_it_began_and_the_way_does_not_matter() {
    play(at_once((51..59).map(|seed| async move {
        let mut dice = Chance::new(seed);
        let change = some_parts(&mut dice);
        let about = format!("seed {seed}, {change}");
        println!("{about}");
        let (world, mut operator) = started(&Make::default(), &Setup::default(), &mut dice).await;
        settle(&world, &mut operator, &mut dice, &mut Fair).await;
        let before = outcome::of(&world.lock());
        world.edit_instance(json!({"spec": change})).await;
        settle(&world, &mut operator, &mut dice, &mut Fair).await;
        assert_at_rest(&world, &mut operator, &about).await;
        let changed = outcome::of(&world.lock());
        world.edit_instance(undo(&change)).await;
        settle(&world, &mut operator, &mut dice, &mut Fair).await;
        assert_at_rest(&world, &mut operator, &about).await;
        let after = outcome::of(&world.lock());
        let differences = outcome::differences(&before, &after);
        assert!(differences.is_empty(), "{about}, and back: {differences:#?}");
        world.assert_sound(&about);
        world.end().await;

        let make = Make {
            spec: change,
            ..Make::default()
        };
        let fresh = World::new(&make).await;
        let mut operator = Operator::new(&fresh, &Setup::default(), Fault::None);
        fresh.create_instance(&make.spec).await;
        settle(&fresh, &mut operator, &mut dice, &mut Fair).await;
        let at_once = outcome::of(&fresh.lock());
        let differences = outcome::differences(&changed, &at_once);
        assert!(
            differences.is_empty(),
            "{about}, made so and changed to it: {differences:#?}"
        );
        fresh.end().await;
    })));
}

#[test]
fn a_new_operator_image_writes_nothing_to_a_running_instance_until_its_spec_changes() {
    play(async {
        let mut chance = Chance::new(71);
        let (world, mut operator) = started(&Make::default(), &Setup::default(), &mut chance).await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        let before = world.lock().mirror.get("deployments", "orders").cloned();
        let newer = Setup {
            image: "registry.example/operator:2".into(),
            ..Setup::default()
        };
        operator.restart_as(&newer);
        operator.wire.arm(Fault::None);
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        let written = writes(&operator.wire.sent());
        assert!(written.is_empty(), "{written:#?}");
        assert_eq!(world.lock().mirror.get("deployments", "orders").cloned(), before);
        world
            .edit_instance(json!({"spec": {"image": "registry.example/engine:2"}}))
            .await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        let template = world.lock().mirror.get("deployments", "orders").expect("there")["spec"]["template"].to_string();
        assert!(
            template.contains("registry.example/operator:2") && template.contains("registry.example/engine:2"),
            "{template}"
        );
        world.assert_sound("a new operator");
        world.end().await;
    });
}

fn claim_of(world: &World) -> Value {
    let state = world.lock();
    let claim = state.mirror.get("persistentvolumeclaims", &state.claim);
    claim.cloned().expect("a claim")
}

fn requested(world: &World) -> String {
    let claim = claim_of(world);
    text(&claim, "/spec/resources/requests/storage").to_owned()
}

fn resizing(world: &World) -> (String, String) {
    world.lock().condition("VolumeResizing").expect("the condition")
}

#[test]
fn a_size_that_the_api_server_does_not_allow_is_told_and_holds_nothing_else_up() {
    play(async {
        let mut chance = Chance::new(75);
        let (world, mut operator) = started(&Make::default(), &Setup::default(), &mut chance).await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        assert_eq!(resizing(&world), ("False".into(), "SizeReached".into()));
        let larger = json!({"storage": {"size": "16Gi"}, "image": "registry.example/engine:2"});
        world.edit_instance(json!({"spec": larger})).await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        assert_eq!(
            resizing(&world),
            ("True".into(), "ExpansionRefused".into()),
            "{}",
            world.story()
        );
        assert_eq!(requested(&world), "8Gi");
        let template = world.lock().mirror.get("deployments", "orders").expect("there")["spec"]["template"].to_string();
        assert!(template.contains("registry.example/engine:2"), "{template}");
        let ready = world.lock().condition("Ready").expect("the condition").0;
        assert_eq!(ready, "True", "{}", world.story());
        assert_at_rest(&world, &mut operator, "an expansion that was refused").await;
        world.assert_sound("an expansion that was refused");
        world.end().await;
    });
}

#[test]
fn a_larger_size_reaches_the_claim_and_the_status_says_how_far_it_is() {
    play(async {
        let mut chance = Chance::new(76);
        let make = Make {
            spec: json!({"storage": {"storageClassName": "other-disk"}}),
            ..Make::default()
        };
        let (world, mut operator) = started(&make, &Setup::default(), &mut chance).await;
        world
            .edit_instance(json!({"spec": {"storage": {"size": "16Gi"}}}))
            .await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        assert_eq!(requested(&world), "16Gi");
        assert_eq!(
            resizing(&world),
            ("True".into(), "Resizing".into()),
            "{}",
            world.story()
        );
        assert_at_rest(&world, &mut operator, "an expansion under way").await;
        let path = world.path("v1", "persistentvolumeclaims", "orders-data/status");
        let pending = json!([{"type": "FileSystemResizePending", "status": "True"}]);
        for (status, said) in [
            (json!({"conditions": pending}), ("True", "FileSystemResizePending")),
            (
                json!({"conditions": null, "capacity": {"storage": "16Gi"}}),
                ("False", "SizeReached"),
            ),
        ] {
            world.merge(&path, json!({"status": status})).await;
            settle(&world, &mut operator, &mut chance, &mut Fair).await;
            let (found, reason) = resizing(&world);
            assert_eq!((found.as_str(), reason.as_str()), said, "{}", world.story());
        }
        world.assert_sound("an expansion");
        world.end().await;
    });
}

/// The template as an older version might have rendered it: other probes, another command, a variable less, a volume more.
fn rendered_differently(stored: &Value) -> Value {
    let mut former = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": stored["spec"],
        "metadata": {"name": stored["metadata"]["name"], "annotations": stored["metadata"]["annotations"],
            "labels": stored["metadata"]["labels"], "ownerReferences": stored["metadata"]["ownerReferences"]}});
    let pod = &mut former["spec"]["template"]["spec"];
    pod["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 1433}, "periodSeconds": 7});
    pod["containers"][0]["command"] = json!(["/opt/mssql/bin/launch_sqlservr.sh", "/opt/mssql/bin/sqlservr"]);
    pod["containers"][0]["env"].as_array_mut().expect("a list").pop();
    pod["volumes"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "scratch", "emptyDir": {}}));
    former
}

#[test]
fn a_template_that_an_older_operator_rendered_differently_stays_until_the_spec_changes() {
    play(async {
        let mut chance = Chance::new(73);
        let (world, mut operator) = started(&Make::default(), &Setup::default(), &mut chance).await;
        let stored = |world: &World| {
            world
                .lock()
                .mirror
                .get("deployments", "orders")
                .cloned()
                .expect("there")
        };
        let ours = stored(&world);
        let path = format!(
            "{}?fieldManager=sqledge-operator&force=true",
            world.path("apps/v1", "deployments", "orders")
        );
        world
            .send(
                "PATCH",
                &path,
                "application/apply-patch+yaml",
                rendered_differently(&ours),
            )
            .await;
        // its pod runs already
        world.adopt_pods().await;
        let former = stored(&world);
        assert_ne!(former["spec"]["template"], ours["spec"]["template"]);
        operator.restart_as(&Setup {
            image: "registry.example/operator:2".into(),
            ..Setup::default()
        });
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        assert_eq!(stored(&world), former, "{}", world.story());
        world
            .edit_instance(json!({"spec": {"image": "registry.example/engine:2"}}))
            .await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        let renewed = ours["spec"]["template"].to_string();
        let renewed = renewed
            .replace("engine:1", "engine:2")
            .replace("operator:1", "operator:2");
        assert_eq!(
            stored(&world)["spec"]["template"].to_string(),
            renewed,
            "{}",
            world.story()
        );
        world.end().await;
    });
}

#[test]
fn a_deployment_that_somebody_changed_is_put_right() {
    play(async {
        let mut chance = Chance::new(72);
        let (world, mut operator) = started(&Make::default(), &Setup::default(), &mut chance).await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        let before = outcome::of(&world.lock());
        let path = world.path("apps/v1", "deployments", "orders");
        for meddling in [json!({"spec": {"replicas": 2}}), json!({"spec": {"replicas": 0}})] {
            world.merge(&path, meddling).await;
            settle(&world, &mut operator, &mut chance, &mut Fair).await;
            let differences = outcome::differences(&before, &outcome::of(&world.lock()));
            assert!(differences.is_empty(), "{differences:#?}");
        }
        world.assert_sound("meddling");
        world.end().await;
    });
}

#[test]
fn an_empty_string_that_the_api_server_drops_is_no_difference_for_ever() {
    play(async {
        let make = Make {
            spec: json!({
                "tolerations": [{"key": "", "operator": "Exists", "value": "", "effect": ""}],
                "env": [{"name": "A", "value": ""}],
                "podSecurityContext": {"seLinuxOptions": {"user": "", "role": "", "type": "", "level": "s0"}},
            }),
            ..Make::default()
        };
        let mut chance = Chance::new(74);
        let (world, mut operator) = started(&make, &Setup::default(), &mut chance).await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        assert_at_rest(&world, &mut operator, "empty strings").await;
        world.assert_sound("empty strings");
        world.end().await;
    });
}
