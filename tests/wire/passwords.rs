//! The password of the Secret, and the one that the engine has.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sqledge_operator::context::Context;

use crate::canned::Canned;
use crate::passes::{Engine, Meeting, operator, pass};
use crate::shop::{INSTANCE, cluster, pod};

const SECRET: &str = "/api/v1/namespaces/shop/secrets/orders-sa";
/// Of the shop's Secret.
const FIRST: &str = "Correct-Horse-7";

/// A database that serves, whose engine has this password.
fn serving(engine: &Arc<Mutex<String>>) -> (Canned, Meeting) {
    let canned =
        cluster(&json!({"sqledge.io/holder-pod": "uid-orders-1-a", "sqledge.io/holder-node": "n1"})).that_obeys();
    pod(&canned, "orders-1-a", false);
    let meeting = Meeting {
        engine: Engine::Knows(engine.clone()),
        ..Meeting::default()
    };
    (canned, meeting)
}

fn put(canned: &Canned, password: &str) {
    let mut secret = canned.get(SECRET);
    let bytes = k8s_openapi::ByteString(password.as_bytes().to_vec());
    secret["data"]["MSSQL_SA_PASSWORD"] = serde_json::to_value(bytes).expect("JSON");
    canned.put(SECRET, secret);
}

/// Passes until all that the Secret says has come to rest; the status then.
async fn settled(canned: &Canned, context: &Arc<Context>, meeting: &Meeting) -> Value {
    context.memory.age(Duration::from_secs(600));
    for _ in 0..4 {
        pass(context, meeting).await;
    }
    canned.get(INSTANCE)["status"].clone()
}

fn condition(status: &Value, type_: &str) -> (String, String) {
    let conditions = status["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|it| it["type"] == type_).expect(type_);
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

#[tokio::test]
async fn an_engine_whose_password_is_known_gets_the_one_that_was_put_into_the_secret() {
    let engine = Arc::new(Mutex::new(FIRST.to_owned()));
    let (canned, meeting) = serving(&engine);
    let (context, _publisher) = operator(&canned, &meeting);
    let status = settled(&canned, &context, &meeting).await;
    assert_eq!(condition(&status, "Ready").0, "True", "{status:#}");
    put(&canned, "Another-Horse-8");
    let status = settled(&canned, &context, &meeting).await;
    assert_eq!(*engine.lock().expect("no panic inside"), "Another-Horse-8");
    assert_eq!(condition(&status, "Ready").0, "True", "{status:#}");
}

#[tokio::test]
async fn an_engine_that_refuses_a_password_keeps_the_former_one_and_is_not_asked_again() {
    let engine = Arc::new(Mutex::new(FIRST.to_owned()));
    let (canned, meeting) = serving(&engine);
    let (context, _publisher) = operator(&canned, &meeting);
    settled(&canned, &context, &meeting).await;
    put(&canned, "Another Horse 8");
    let status = settled(&canned, &context, &meeting).await;
    assert_eq!(*engine.lock().expect("no panic inside"), FIRST);
    let stalled = ("True".to_owned(), "PasswordRefused".to_owned());
    assert_eq!(condition(&status, "Stalled"), stalled, "{status:#}");
    let told = status.to_string();
    assert!(
        told.contains("Password validation failed.") && !told.contains("Another Horse"),
        "{told}"
    );
    put(&canned, FIRST);
    let status = settled(&canned, &context, &meeting).await;
    assert_eq!(condition(&status, "Ready").0, "True", "{status:#}");
}

#[tokio::test]
async fn a_password_that_the_engine_cannot_take_now_is_tried_again_and_needs_nobody() {
    let engine = Arc::new(Mutex::new(FIRST.to_owned()));
    let (canned, meeting) = serving(&engine);
    let (context, _publisher) = operator(&canned, &meeting);
    settled(&canned, &context, &meeting).await;
    put(&canned, "later-Horse-8");
    let status = settled(&canned, &context, &meeting).await;
    let changing = ("True".to_owned(), "PasswordChanging".to_owned());
    assert_eq!(condition(&status, "Reconciling"), changing, "{status:#}");
    assert_eq!(condition(&status, "Stalled").0, "False", "{status:#}");
    put(&canned, "Another-Horse-8");
    settled(&canned, &context, &meeting).await;
    assert_eq!(*engine.lock().expect("no panic inside"), "Another-Horse-8");
}

#[tokio::test]
async fn an_operator_that_never_knew_the_password_changes_none_and_says_so() {
    let engine = Arc::new(Mutex::new("Set-By-Hand-9".to_owned()));
    let (canned, meeting) = serving(&engine);
    let (context, _publisher) = operator(&canned, &meeting);
    let status = settled(&canned, &context, &meeting).await;
    assert_eq!(*engine.lock().expect("no panic inside"), "Set-By-Hand-9");
    let stalled = ("True".to_owned(), "PasswordDoesNotFit".to_owned());
    assert_eq!(condition(&status, "Stalled"), stalled, "{status:#}");
}
