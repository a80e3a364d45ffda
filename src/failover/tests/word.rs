//! What a human may decide, and what not.

use super::*;

#[test]
fn the_word_of_a_human_overrides_class_and_brake_but_not_a_living_node_or_database() {
    let confirmed = |mut scene: Scene| {
        scene.confirmed_dead = Some("uid-old".into());
        scene
    };
    let unknown = dead_node().with(running("old", "n1")).class(DriverClass::Unknown);
    assert_eq!(act(&confirmed(unknown.clone())), Act::Evict { pod: judged("old") });
    assert_eq!(
        act(&confirmed(unknown.clone().silent("n2"))),
        Act::Evict { pod: judged("old") }
    );
    assert_no_act(
        &confirmed(unknown.clone().login(Login::Succeeded)),
        State::Suspect,
        "NodeSilentDatabaseAnswers",
    );
    let alive = scene()
        .with(running("old", "n1"))
        .held_by("old", Some("n1"))
        .login(Login::Failed("x".into()));
    assert_no_act(&confirmed(alive), State::Running, "PodRunning");
    let mut other = unknown;
    other.confirmed_dead = Some("uid-of-an-earlier-pod".into());
    assert_no_act(&other, State::Blocked, "DriverClassUnknown");
}

#[test]
fn the_out_of_service_taint_is_the_word_of_a_human_too() {
    let tainted = dead_node()
        .with(running("old", "n1"))
        .class(DriverClass::Unknown)
        .node("n1", |n| n.out_of_service = true);
    assert_eq!(act(&tainted), Act::Evict { pod: judged("old") });
}

// one word about one pod counts for every silent node, also for those that the human was not told of
#[test]
fn a_human_who_is_asked_about_an_unseen_pod_is_told_of_every_silent_node() {
    let unseen = scene()
        .held_by("old", None)
        .with(gated("new"))
        .class(DriverClass::Unknown)
        .node("n2", |n| n.renewed_since_release = true)
        .silent("n1")
        .silent("n3");
    let message = decide(&unseen).message;
    let mut confirmed = unseen;
    confirmed.confirmed_dead = Some("uid-old".into());
    assert!(
        decide(&confirmed).act.is_none() || (message.contains("n1") && message.contains("n3")),
        "{message}"
    );
}
