//! The Lease: who may start an engine, and who has to kill it.

use std::time::Duration;

use crate::engine;
use crate::server::Mood;
use crate::stage::{POD, Stage, is_gone, is_possible, until};
use crate::{LATE, LONG, LONG_STOP_AFTER, SHORT, STOP_AFTER, holder, last_write, named, renewals, renewed};
use rustix::process::Signal;
use sqledge_operator::guard::boot;

#[test]
fn the_engine_is_started_only_after_the_lease_names_the_pod() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("first", "sealed", &[]);
    let guard = stage.guard();
    guard.says("waits for Lease shop/orders-writer");
    // long enough for several more looks
    until("the guard looks again", || stage.server.seen().len() >= 3);
    assert!(stage.notes(engine::STARTS).is_empty(), "started without the Lease");
    assert!(renewals(&stage) == 0, "wrote to a Lease that is not its own");

    stage
        .server
        .edit(|lease| lease["spec"]["holderIdentity"] = "for/another-pod".into());
    let seen = stage.server.seen().len();
    until("the guard looks again", || stage.server.seen().len() >= seen + 2);
    assert!(
        stage.notes(engine::STARTS).is_empty(),
        "started with the Lease of another pod"
    );

    let before = boot::now();
    stage
        .server
        .edit(|lease| lease["spec"]["holderIdentity"] = named().into());
    stage.writing(1);
    assert!(stage.notes(engine::STARTS)[0] + Duration::from_millis(1) > before);
    let lease = stage.server.lease();
    assert!(holder(&stage).starts_with(&format!("{POD}/")), "{lease}");
    assert_eq!(lease["spec"]["leaseTransitions"], 8);
    assert_eq!(
        lease["spec"]["leaseDurationSeconds"],
        serde_json::Value::Null,
        "a promise nobody asked for"
    );
    until("both processes run", || guard.engines().len() == 2);
    for process in guard.engines() {
        let environment = std::fs::read_to_string(format!("/proc/{}/environ", process.as_raw_nonzero())).expect("read");
        assert!(environment.contains("ENGINE_FOLDER="), "{environment}");
        assert!(!environment.contains("SQLEDGE_"), "{environment}");
    }
}

#[test]
fn an_api_server_that_is_away_at_the_start_is_waited_for() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("away", &named(), &[]);
    stage.server.mood(Mood::Status(401));
    let guard = stage.guard();
    let (_, line) = guard.says("no word about Lease");
    assert!(line.contains("401"), "{line}");
    stage.server.mood(Mood::Refusing);
    guard.says_again("no word about Lease", 2);
    assert!(stage.notes(engine::STARTS).is_empty(), "started without the Lease");
    std::fs::write(stage.at("credentials/token"), "second").expect("a new token");
    stage.server.mood(Mood::Well);
    stage.writing(1);
    let last = stage.server.seen().pop().expect("a request");
    assert_eq!((last.token.as_str(), last.status), ("second", 200));
    assert!(!guard.said().contains("second"), "the token is in the log");
}

#[test]
fn a_renewing_guard_kills_in_time_although_its_requests_hang() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("silent", &named(), &[SHORT]);
    let mut guard = stage.guard();
    stage.writing(1);
    renewed(&stage, 3);
    let lease = stage.server.lease();
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 6);
    assert_eq!(lease["metadata"]["annotations"]["sqledge.io/stops-after"], "3");
    let processes = guard.engines();
    assert_eq!(processes.len(), 2);

    stage.server.mood(Mood::Silent);
    let (killed, line) = guard.says("killed the engine");
    assert!(line.contains("could not be renewed for"), "{line}");
    let last = last_write(&stage).at;
    assert!(
        killed <= last + STOP_AFTER + LATE,
        "killed {:?} after the last renewal arrived",
        killed.saturating_sub(last)
    );
    assert_eq!(guard.ends().code(), Some(1));
    assert!(
        processes.iter().all(|process| is_gone(*process)),
        "a process of the engine is left"
    );
    let write = *stage.notes(engine::WRITES).last().expect("it wrote");
    assert!(
        write <= killed + Duration::from_millis(100),
        "it wrote {:?} after its death",
        write.saturating_sub(killed)
    );
    assert!(
        stage.notes(engine::CLEAN).is_empty(),
        "a killed engine does not stop in order"
    );
}

#[test]
fn a_renewal_keeps_the_engine_alive_for_longer_than_one_promise() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("alive", &named(), &[LONG]);
    let guard = stage.guard();
    stage.writing(1);
    let begin = boot::now();
    until("the promise has passed", || {
        boot::now() > begin + LONG_STOP_AFTER * 3 / 2
    });
    assert!(!guard.said().contains("killed the engine"));
    assert_eq!(stage.notes(engine::STARTS).len(), 1);
    // a connection that serves is kept
    let connections: std::collections::BTreeSet<_> = stage.server.seen().iter().map(|seen| seen.connection).collect();
    assert!(connections.len() <= renewals(&stage) / 2, "{connections:?}");
    let (resident, own) = guard.memory();
    println!("resident: {resident} bytes, of which {own} are its own");
    println!(
        "processor: {:?} in {:?}",
        guard.processor(),
        boot::now().saturating_sub(begin)
    );
    assert!(resident < 10_000_000, "{resident} bytes resident");
    assert!(stage.alive().status.success());
}

#[test]
fn a_short_absence_of_the_api_server_kills_nothing() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("short", &named(), &[LONG]);
    let guard = stage.guard();
    stage.writing(1);
    renewed(&stage, 2);
    let before = stage.server.seen().last().expect("a request").connection;
    // one attempt fails, whatever it needs for that, and the next is made on a connection of its own
    stage.server.mood(Mood::Refusing);
    guard.says("no word about Lease");
    stage.server.mood(Mood::Well);
    renewed(&stage, 2);
    guard.says("is in order");
    assert!(stage.server.seen().last().expect("a request").connection > before);
    assert!(!guard.said().contains("killed the engine"));
}

#[test]
fn without_a_promise_silence_kills_nothing() {
    if !is_possible() {
        return;
    }
    for (name, orders) in [
        ("none", &[][..]),
        ("continue", &[SHORT, ("sqledge.io/on-api-loss", "Continue")][..]),
    ] {
        let stage = Stage::new(name, &named(), orders);
        let guard = stage.guard();
        stage.writing(1);
        if !orders.is_empty() {
            renewed(&stage, 2);
            assert_eq!(
                stage.server.lease()["metadata"]["annotations"].get("sqledge.io/stops-after"),
                None
            );
        }
        stage.server.mood(Mood::Silent);
        let begin = boot::now();
        until("two promises have passed", || boot::now() >= begin + STOP_AFTER * 2);
        assert!(!guard.said().contains("killed the engine"));
        let write = *stage.notes(engine::WRITES).last().expect("it writes");
        assert!(write > begin, "{name}: the engine stopped writing");
    }
}

#[test]
fn an_edit_by_somebody_else_kills_nothing_and_survives() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("edit", &named(), &[LONG]);
    let guard = stage.guard();
    stage.writing(1);
    renewed(&stage, 2);
    for note in ["one", "two"] {
        stage
            .server
            .edit(|lease| lease["metadata"]["annotations"]["somebody/else"] = note.into());
        renewed(&stage, 2);
    }
    assert!(
        stage.server.seen().iter().any(|seen| seen.status == 409),
        "no conflict was met"
    );
    assert_eq!(stage.server.lease()["metadata"]["annotations"]["somebody/else"], "two");
    assert!(!guard.said().contains("killed the engine"));

    // orders that change are followed without a restart
    stage
        .server
        .edit(|lease| lease["metadata"]["annotations"]["sqledge.io/on-api-loss"] = "Continue".into());
    until("the promise is taken back", || {
        stage.server.lease()["metadata"]["annotations"]
            .get("sqledge.io/stops-after")
            .is_none()
    });
    assert_eq!(stage.notes(engine::STARTS).len(), 1);
}

#[test]
fn a_newer_epoch_kills_at_once() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("epoch", &named(), &[LONG]);
    let mut guard = stage.guard();
    stage.writing(1);
    renewed(&stage, 2);
    stage.server.edit(|lease| {
        lease["spec"]["holderIdentity"] = format!("sealed/taken/{POD}").into();
        lease["spec"]["leaseTransitions"] = 9.into();
    });
    let (_, line) = guard.says("killed the engine");
    assert!(line.contains("is another's now (sealed/taken/"), "{line}");
    assert_eq!(guard.ends().code(), Some(1));
    let holder = holder(&stage);
    assert!(holder.starts_with("sealed/"), "{holder}: it wrote over the seal");

    // and no container of this pod starts it again
    let guard = stage.guard();
    guard.says("waits for Lease");
    assert_eq!(stage.notes(engine::STARTS).len(), 1);
}

#[test]
fn a_lease_that_was_made_anew_is_taken_again_without_a_restart() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("anew", &named(), &[LONG, ("sqledge.io/on-api-loss", "Continue")]);
    let guard = stage.guard();
    stage.writing(1);
    renewed(&stage, 1);
    let mut lease = stage.server.lease();
    stage.server.set(None);
    guard.says("there is no Lease");
    lease["metadata"]["uid"] = "lease-2".into();
    lease["spec"]["holderIdentity"] = named().into();
    lease["spec"]["leaseTransitions"] = 20.into();
    stage.server.set(Some(lease));
    until("it is taken again", || holder(&stage).starts_with(&format!("{POD}/")));
    assert_eq!(stage.server.lease()["spec"]["leaseTransitions"], 21);
    assert_eq!(stage.notes(engine::STARTS).len(), 1);
    assert!(!guard.said().contains("killed the engine"));
}

#[test]
fn a_renewing_guard_that_was_paused_too_long_kills_before_anything_else() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("woken", &named(), &[SHORT]);
    let mut guard = stage.guard();
    stage.writing(1);
    renewed(&stage, 2);
    guard.signal(Signal::STOP);
    let begin = boot::now();
    until("its promise has passed", || boot::now() > begin + STOP_AFTER);
    // whoever asks would be told that all is well
    guard.signal(Signal::CONT);
    let (_, line) = guard.says("killed the engine");
    assert!(line.contains("could not be renewed"), "{line}");
    assert_eq!(guard.ends().code(), Some(1));
    let late = stage
        .server
        .seen()
        .into_iter()
        .filter(|seen| seen.write && seen.at > begin + STOP_AFTER)
        .count();
    assert_eq!(late, 0, "renewed after its time");
}
