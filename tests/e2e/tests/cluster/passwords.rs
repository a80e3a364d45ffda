//! The Secret with the password changes or goes while the database runs. What a pod starts with changes nothing: an engine keeps the password that
//! stands on its volume.

use e2e::{Result, error::ensure, harness::Stage, operator, until, wait::Seen};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::survival::Watched;

const KEY: &str = "MSSQL_SA_PASSWORD";

pub fn long_a_password_that_is_changed_or_lost_is_told_and_stops_neither_the_database_nor_its_next_start(
    stage: &Stage,
) -> Result<()> {
    let mut watched = Watched::create(stage, "rotated", "")?;
    let (container, engine) = (watched.container()?, watched.engine()?);
    let secret = watched.instance.child("secret", "rotated-sa")?;

    // this operator has logged in with the password that the engine has
    for (turn, wanted, lets_in) in [
        ("there", with_password(&secret, "An0ther!Passw0rd"), false),
        ("back", secret.clone(), true),
    ] {
        put(stage, &wanted)?;
        // with any change of the spec the Secret is read anew
        let turned = format!("service:\n  annotations:\n    example.com/turn: {turn}");
        watched.instance.apply(&turned)?;
        until(60, "the engine takes the password of the Secret", || {
            Ok(match watched.clients.run("SELECT 1") {
                Ok(()) if lets_in => Seen::There(()),
                Err(error) if !lets_in && error.to_string().contains("Login failed") => Seen::There(()),
                other => Seen::NotYet(format!("{other:?}")),
            })
        })?;
        watched
            .instance
            .await_condition("Reconciling", 60, |it| it.status == "False")?;
        watched.instance.await_ready(60)?;
    }
    watched.check_processes(&engine)?;
    watched.clients.await_rows_after(Timestamp::now(), 30)?;
    let began = Timestamp::now();

    // the next one has not
    put(stage, &with_password(&secret, "An0ther!Passw0rd"))?;
    told(stage, &watched, "PasswordDoesNotFit")?;
    watched.check_processes(&engine)?;
    watched.check_container(&container)?;
    let calm = watched.clients.outage(began, None)?.seconds;
    stage.note(&format!(
        "clients waited {calm:.1} s at most while the Secret was wrong"
    ));

    // its next pod starts with the wrong password in its environment
    let old = watched.instance.pod_name()?;
    stage
        .lab
        .kubectl(&["delete", "pod", &old, "--namespace", &stage.namespace])?;
    watched.clients.await_rows_after(Timestamp::now(), 60)?;
    ensure(watched.instance.pod_name()? != old, || "the same pod serves".to_owned())?;

    put(stage, &secret)?;
    watched.instance.await_ready(90)?;
    let (container, engine) = (watched.container()?, watched.engine()?);

    stage
        .lab
        .kubectl(&["delete", "secret", "rotated-sa", "--namespace", &stage.namespace])?;
    told(stage, &watched, "SecretMissing")?;
    put(stage, &secret)?;
    watched.instance.await_ready(90)?;
    watched.check_processes(&engine)?;
    watched.check_container(&container)?;
    watched.check()
}

/// What the status says once an operator that has never known the password has read the Secret; meanwhile clients write.
fn told(stage: &Stage, watched: &Watched, reason: &str) -> Result<()> {
    operator::kill_all(stage.lab)?;
    operator::await_rollout(stage.lab)?;
    let stalled = watched
        .instance
        .await_condition("Stalled", 60, |it| it.status == "True" && it.reason == reason)?;
    ensure(stalled.message.contains("rotated-sa"), || {
        format!("the message does not name the Secret: {}", stalled.message)
    })?;
    watched.clients.await_rows_after(Timestamp::now(), 30)
}

fn with_password(secret: &Value, password: &str) -> Value {
    let mut changed = secret.clone();
    changed["data"].as_object_mut().expect("a Secret has data").remove(KEY);
    changed["stringData"] = json!({ KEY: password });
    changed
}

/// Makes it what it says; through standard input, because arguments can be read by everybody.
fn put(stage: &Stage, secret: &Value) -> Result<()> {
    let mut secret = secret.clone();
    let metadata = secret["metadata"].as_object_mut().expect("an object has metadata");
    metadata.retain(|key, _| {
        matches!(
            key.as_str(),
            "name" | "namespace" | "labels" | "annotations" | "ownerReferences"
        )
    });
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=test",
        "--filename=-",
    ];
    stage.lab.bed().kubectl_with_input(&apply, &secret.to_string())?;
    Ok(())
}
