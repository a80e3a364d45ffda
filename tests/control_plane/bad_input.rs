//! What a user can get wrong: each mistake gives the condition that names it, nothing loops hot, nothing of others is touched, and putting it
//! right is enough.

use std::time::Duration;

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::operator::{Lag, Operator, Passed, Setup};
use crate::server::play;
use crate::settle::{Fair, settle};
use crate::story::at_once;
use crate::wire::Fault;
use crate::world::{INSTANCE, Make, World, instance};

/// Passes at rest that are counted, and what they may cost: a look at what is missing, no more.
const PASSES: usize = 10;
const CALLS_A_PASS: usize = 6;

/// A mistake.
struct Mistake {
    /// What is there before the instance.
    there: Vec<(&'static str, &'static str, Value)>,
    /// `spec`, beside what is required.
    spec: Value,
    /// Condition that must be so, with this reason.
    condition: &'static str,
    reason: &'static str,
    /// A part of the sentence.
    says: &'static str,
    /// How it is put right.
    cure: Cure,
}

enum Cure {
    Edit(Value),
    Create(&'static str, &'static str, Value),
    Delete(&'static str, &'static str, &'static str),
    Replace(&'static str, &'static str, &'static str, Value),
}

fn secret(data: &Value) -> Value {
    json!({"metadata": {"name": "credentials"}, "stringData": data})
}

fn foreign(name: &str, more: &Value) -> Value {
    let mut object = json!({"metadata": {"name": name, "labels": {"app": "somebody-else"}}});
    for (key, value) in more.as_object().expect("an object") {
        object[key] = value.clone();
    }
    object
}

fn foreign_pod() -> Value {
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "old-data"}}]);
    let containers = json!([{"name": "a", "image": "registry.example/other:1"}]);
    foreign(
        "intruder",
        &json!({"spec": {"containers": containers, "volumes": volumes}}),
    )
}

fn claim(name: &str) -> Value {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "disk", "resources": {"requests": {"storage": "1Gi"}}});
    foreign(name, &json!({"spec": spec}))
}

fn workload() -> Value {
    let labels = json!({"app": "somebody-else"});
    let containers = json!([{"name": "a", "image": "registry.example/other:1"}]);
    json!({"spec": {"replicas": 0, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}})
}

fn secrets() -> Vec<Mistake> {
    let reference = json!({"saPasswordSecretRef": {"name": "credentials"}});
    let strong = json!({"MSSQL_SA_PASSWORD": "Correct-Horse-7"});
    vec![
        Mistake {
            there: vec![],
            spec: reference.clone(),
            condition: "Stalled",
            reason: "SecretMissing",
            says: "credentials",
            cure: Cure::Create("v1", "secrets", secret(&strong)),
        },
        Mistake {
            there: vec![("v1", "secrets", secret(&json!({"other": "Correct-Horse-7"})))],
            spec: reference.clone(),
            condition: "Stalled",
            reason: "SecretKeyMissing",
            says: "MSSQL_SA_PASSWORD or SA_PASSWORD",
            cure: Cure::Edit(json!({"spec": {"saPasswordSecretRef": {"key": "other"}}})),
        },
        Mistake {
            there: vec![("v1", "secrets", secret(&json!({"SA_PASSWORD": "weak"})))],
            spec: reference,
            condition: "Stalled",
            reason: "PasswordTooWeak",
            says: "credentials",
            cure: Cure::Replace("v1", "secrets", "credentials", secret(&strong)),
        },
    ]
}

fn storage() -> Vec<Mistake> {
    vec![
        Mistake {
            there: vec![],
            spec: json!({"storage": {"storageClassName": "no-such-class"}}),
            condition: "Stalled",
            reason: "StorageClassMissing",
            says: "no-such-class",
            cure: Cure::Edit(json!({"spec": {"storage": {"storageClassName": "other-disk"}}})),
        },
        Mistake {
            there: vec![],
            spec: json!({"storage": {"existingClaim": "old-data"}}),
            condition: "Stalled",
            reason: "ClaimMissing",
            says: "old-data",
            cure: Cure::Create("v1", "persistentvolumeclaims", claim("old-data")),
        },
        Mistake {
            there: vec![
                ("v1", "persistentvolumeclaims", claim("old-data")),
                ("v1", "pods", foreign_pod()),
            ],
            spec: json!({"storage": {"existingClaim": "old-data"}}),
            condition: "Ready",
            reason: "ClaimInUse",
            says: "intruder",
            cure: Cure::Delete("v1", "pods", "intruder"),
        },
    ]
}

fn foreign_objects() -> Vec<Mistake> {
    let conflict = |version, plural, name: &'static str, object: Value| Mistake {
        there: vec![(version, plural, object)],
        spec: json!({}),
        condition: "NameConflict",
        reason: "NameConflict",
        says: name,
        cure: Cure::Delete(version, plural, name),
    };
    let port = json!({"spec": {"ports": [{"port": 80}]}});
    vec![
        conflict(
            "v1",
            "secrets",
            "orders-sa",
            foreign("orders-sa", &json!({"stringData": {"a": "b"}})),
        ),
        conflict("v1", "services", INSTANCE, foreign(INSTANCE, &port)),
        conflict("apps/v1", "deployments", INSTANCE, foreign(INSTANCE, &workload())),
        conflict("v1", "persistentvolumeclaims", "orders-data", claim("orders-data")),
    ]
}

async fn make_and_cure(number: usize, mistake: Mistake) {
    let about = mistake.reason;
    let make = Make {
        spec: mistake.spec.clone(),
        ..Make::default()
    };
    let world = World::new(&make).await;
    let mut chance = Chance::new(u64::try_from(number).expect("small"));
    let mut operator = Operator::new(&world, &Setup::default(), Fault::None);
    for (version, plural, object) in &mistake.there {
        world.post(&world.path(version, plural, ""), object.clone()).await;
    }
    world.create_instance(&mistake.spec).await;
    settle(&world, &mut operator, &mut chance, &mut Fair).await;
    assert_said(&world, &mistake);
    assert_cool(&world, &mut operator, about).await;
    for (_, plural, object) in mistake.there.iter().filter(|_| mistake.reason == "NameConflict") {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let stored = world.lock().mirror.get(plural, name).cloned().expect("still there");
        assert_eq!(
            stored["metadata"]["labels"],
            json!({"app": "somebody-else"}),
            "{about}: {plural}"
        );
        let managers = stored["metadata"]["managedFields"].to_string();
        assert!(!managers.contains("sqledge-operator"), "{about}: {plural}: {managers}");
    }
    match mistake.cure {
        Cure::Edit(patch) => world.edit_instance(patch).await,
        Cure::Create(version, plural, object) => {
            world.post(&world.path(version, plural, ""), object).await;
        }
        Cure::Delete(version, plural, name) => world.delete(&world.path(version, plural, name), Some(0)).await,
        Cure::Replace(version, plural, name, object) => {
            world.merge(&world.path(version, plural, name), object).await;
        }
    }
    settle(&world, &mut operator, &mut chance, &mut Fair).await;
    let ready = world.lock().condition("Ready").map(|(status, _)| status);
    assert_eq!(ready.as_deref(), Some("True"), "{about}, put right:\n{}", world.story());
    let conflict = world.lock().condition("NameConflict");
    assert!(
        conflict.is_none_or(|(status, _)| status == "False"),
        "{about}: {}",
        world.story()
    );
    world.assert_sound(about);
    world.end().await;
}

fn assert_said(world: &World, mistake: &Mistake) {
    let about = mistake.reason;
    let state = world.lock();
    let status = state.mirror.get("sqledgeinstances", INSTANCE).expect("there")["status"].clone();
    drop(state);
    let found = status["conditions"].as_array().into_iter().flatten();
    let condition = found
        .into_iter()
        .find(|c| c["type"] == mistake.condition)
        .cloned()
        .unwrap_or_default();
    assert_eq!(condition["reason"], mistake.reason, "{}", world.story());
    let message = condition["message"].as_str().unwrap_or_default();
    assert!(message.contains(mistake.says), "{about}: {message}");
    let ready = world.lock().condition("Ready").map(|(status, _)| status);
    assert_eq!(ready.as_deref(), Some("False"), "{about}: {}", world.story());
    assert_eq!(status["waitingFor"].as_str(), Some(message), "{about}");
}

/// At rest a pass writes nothing, reads little, and the next one is at least a second away.
async fn assert_cool(world: &World, operator: &mut Operator, about: &str) {
    operator.wire.arm(Fault::None);
    for _ in 0..PASSES {
        operator.look(&Lag::default());
        match operator.pass().await {
            Passed::Again(after) => assert!(
                after.is_none_or(|after| after >= Duration::from_secs(1)),
                "{about}: looks again after {after:?}"
            ),
            other => panic!("{about}: {other:?}\n{}", world.story()),
        }
    }
    let (calls, writes) = operator.wire.counts();
    let sent: Vec<String> = operator
        .wire
        .sent()
        .iter()
        .map(|s| format!("{} {}", s.method, s.path))
        .collect();
    assert_eq!(writes, 0, "{about}: {sent:#?}");
    assert!(
        calls <= PASSES * CALLS_A_PASS,
        "{about}: {calls} calls in {PASSES} passes: {sent:#?}"
    );
}

#[test]
fn every_mistake_is_named_costs_little_and_can_be_put_right() {
    let mistakes = secrets().into_iter().chain(storage()).chain(foreign_objects());
    play(at_once(
        mistakes
            .enumerate()
            .map(|(number, mistake)| make_and_cure(number, mistake)),
    ));
}

#[test]
fn a_second_instance_on_the_same_claim_is_refused_until_the_first_is_gone() {
    play(async {
        let spec = json!({"storage": {"existingClaim": "old-data"}});
        let make = Make {
            spec: spec.clone(),
            ..Make::default()
        };
        let world = World::new(&make).await;
        let mut chance = Chance::new(81);
        let mut operator = Operator::new(&world, &Setup::default(), Fault::None);
        world
            .post(&world.path("v1", "persistentvolumeclaims", ""), claim("old-data"))
            .await;
        // the first one holds the claim, and its operator has adopted it
        let mut first = instance(&world.namespace, &json!({"storage": {"existingClaim": "old-data"}}));
        first["spec"]["storage"] = spec["storage"].clone();
        first["metadata"]["name"] = "first".into();
        let instances = world.path("sqledge.io/v1alpha1", "sqledgeinstances", "");
        world.post(&instances, first).await;
        let labels = json!({"app.kubernetes.io/name": "sqledge", "app.kubernetes.io/instance": "first",
            "app.kubernetes.io/component": "database", "app.kubernetes.io/managed-by": "sqledge-operator"});
        let path = world.path("v1", "persistentvolumeclaims", "old-data");
        world.merge(&path, json!({"metadata": {"labels": labels}})).await;
        let mut second = instance(&world.namespace, &json!({}));
        second["spec"]["storage"] = spec["storage"].clone();
        world.post(&instances, second).await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        let stalled = world.lock().condition("Stalled");
        assert_eq!(stalled, Some(("True".into(), "ClaimInUse".into())), "{}", world.story());
        assert_cool(&world, &mut operator, "claim of another instance").await;
        world.delete(&format!("{instances}/first"), None).await;
        settle(&world, &mut operator, &mut chance, &mut Fair).await;
        let ready = world.lock().condition("Ready").map(|(status, _)| status);
        assert_eq!(ready.as_deref(), Some("True"), "{}", world.story());
        world.assert_sound("two instances");
        world.end().await;
    });
}

#[test]
fn the_api_server_refuses_what_the_schema_forbids_in_a_sentence_that_names_the_field() {
    play(async {
        let world = World::new(&Make::default()).await;
        let path = world.path("sqledge.io/v1alpha1", "sqledgeinstances", "");
        let mistakes = [
            (json!({"acceptEula": false}), "acceptEula"),
            (json!({"image": ""}), "spec.image"),
            (json!({"storage": {"size": "8GB"}}), "spec.storage.size"),
            (
                json!({"storage": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}}),
                "spec.storage.accessModes",
            ),
            (json!({"env": [{"name": "SA_PASSWORD", "value": "x"}]}), "spec.env"),
        ];
        for (spec, field) in mistakes {
            let body = instance(&world.namespace, &spec);
            let refused = world
                .try_send("POST", &path, "application/json", body)
                .await
                .expect_err(field);
            let kube::Error::Api(status) = refused else {
                panic!("{field}: {refused}")
            };
            assert!(
                status.is_invalid() && status.message.contains(field),
                "{field}: {}",
                status.message
            );
        }
        let mut body = instance(&world.namespace, &json!({}));
        body["spec"].as_object_mut().expect("an object").remove("acceptEula");
        let refused = world
            .try_send("POST", &path, "application/json", body)
            .await
            .expect_err("required");
        assert!(refused.to_string().contains("spec.acceptEula"), "{refused}");
        world.end().await;
    });
}
