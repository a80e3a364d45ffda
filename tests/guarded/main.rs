//! The guard with real processes: what it starts, what it kills and when.
//!
//! Each test is a story of one container. Times are those of the boot clock that the guard itself writes in its log, and only
//! bounded from the side that matters, because this machine may be busy.

#[allow(dead_code)] // what its own tests share among each other
#[path = "../control_plane/server.rs"]
mod control_plane;
mod engine;
#[allow(dead_code)] // what its own tests need
#[path = "../control_plane/mirror.rs"]
mod mirror;
#[allow(dead_code)] // what its own tests need
#[path = "../control_plane/program.rs"]
mod program;
mod real;
mod server;
mod stage;

use std::time::Duration;

use rustix::process::Signal;
use sqledge_operator::guard::boot;

use server::Mood;
use stage::{POD, Stage, is_gone, is_possible, until};

/// Renewals each second, killed after three, taken over after six: the shortest that the guard accepts.
const SHORT: (&str, &str) = ("sqledge.io/renew", "1/3/6");
const STOP_AFTER: Duration = Duration::from_secs(3);
/// For stories in which nothing may be killed, however busy this machine is.
const LONG: (&str, &str) = ("sqledge.io/renew", "1/8/12");
const LONG_STOP_AFTER: Duration = Duration::from_secs(8);
/// How late a busy machine may be; the deadline itself is met to milliseconds on an idle one.
const LATE: Duration = Duration::from_secs(3);

/// A Lease that names the guard's pod.
fn named() -> String {
    format!("for/{POD}")
}

/// Not a test: the engine of all the others.
#[test]
#[ignore = "started by the other tests as their engine"]
fn the_engine() {
    engine::play();
}

fn holder(stage: &Stage) -> String {
    stage.server.lease()["spec"]["holderIdentity"]
        .as_str()
        .expect("a holder")
        .to_owned()
}

fn renewals(stage: &Stage) -> usize {
    stage
        .server
        .seen()
        .iter()
        .filter(|seen| seen.write && seen.status == 200)
        .count()
}

/// Waits until the Lease was renewed so many times more.
fn renewed(stage: &Stage, times: usize) {
    let before = renewals(stage);
    until("the Lease is renewed", || renewals(stage) >= before + times);
}

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
    let last = stage
        .server
        .seen()
        .into_iter()
        .rfind(|seen| seen.write)
        .expect("a renewal")
        .at;
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
fn an_engine_that_ends_is_started_again_inside() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("crash", &named(), &[]);
    let guard = stage.guard();
    guard.says("the engine answers");
    let first = holder(&stage);

    // an orderly end, as after T-SQL SHUTDOWN
    stage.order(engine::EXIT, "0");
    guard.says("the engine ended with exit code 0");
    stage.writing(2);
    // a crash of the process that does the work
    stage.order(engine::EXIT, "3");
    guard.says("the engine ended with exit code 3");
    stage.writing(3);
    // a crash of the other one: what is left of it must not live on beside the next
    let main = guard.engines()[0];
    rustix::process::kill_process(main, Signal::KILL).expect("killed");
    guard.says("the engine was ended by signal 9");
    stage.writing(4);
    stage.never_two_engines();
    assert_eq!(holder(&stage), first, "the Lease was let go");
}

#[test]
fn a_hung_engine_is_killed_and_started_again_inside() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("hang", &named(), &[LONG]);
    let guard = stage.guard();
    guard.says("the engine answers");
    stage.order(engine::HANG, "");
    until("the engine hangs", || !stage.at("engine").join(engine::HANG).exists());
    let hung = *stage.notes(engine::WRITES).last().expect("it wrote");
    let (killed, _) = guard.says("did not answer 3 times in a row");
    println!("killed {:?} after its last write", killed.saturating_sub(hung));
    assert!(
        killed <= hung + Duration::from_secs(10) + LATE,
        "{:?}",
        killed.saturating_sub(hung)
    );
    stage.writing(2);
    stage.never_two_engines();
    renewed(&stage, 2);
}

#[test]
fn an_engine_that_never_answers_and_ends_takes_its_container_with_it() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("settings", &named(), &[LONG]);
    let mut guard = stage.guard_with(&[("ENGINE_FAILS", "57")]);
    assert_eq!(guard.ends().code(), Some(57));
    let said = guard.said();
    assert!(said.contains("engine: the settings make no sense"), "{said}");
    assert_eq!(stage.notes(engine::STARTS).len(), 3);
    // nothing expires while the kubelet waits before it tries again
    let lease = stage.server.lease();
    assert_eq!(holder(&stage), format!("stopped/{POD}"));
    assert_eq!(lease["spec"].get("leaseDurationSeconds"), None, "{lease}");
    // and the next container of the same pod may have it
    let guard = stage.guard();
    guard.says("the engine answers");
}

#[test]
fn sigterm_stops_in_order_and_is_acknowledged() {
    if !is_possible() {
        return;
    }
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let stage = Stage::new(&format!("stop-{}", signal.as_raw()), &named(), &[LONG]);
        let mut guard = stage.guard();
        guard.says("the engine answers");
        guard.signal(signal);
        assert_eq!(guard.ends().code(), Some(0));
        let clean = *stage.notes(engine::CLEAN).last().expect("an orderly stop");
        let acknowledged = stage
            .server
            .seen()
            .into_iter()
            .rfind(|seen| seen.write)
            .expect("a write");
        assert_eq!((acknowledged.status, holder(&stage)), (200, format!("stopped/{POD}")));
        assert!(acknowledged.at >= clean, "acknowledged before the end");
    }
}

#[test]
fn a_stop_that_takes_longer_than_the_promise_is_waited_for() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("slow-stop", &named(), &[LONG]);
    let seconds = LONG_STOP_AFTER.as_secs() + 2;
    let mut guard = stage.guard_with(&[("ENGINE_STOP_SECONDS", &seconds.to_string())]);
    guard.says("the engine answers");
    guard.signal(Signal::TERM);
    assert_eq!(guard.ends().code(), Some(0));
    assert_eq!(stage.notes(engine::CLEAN).len(), 1);
    assert_eq!(holder(&stage), format!("stopped/{POD}"));
}

#[test]
fn a_stop_is_not_acknowledged_before_the_volume_is_written_out() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("unsynced", &named(), &[LONG]);
    let mut guard = stage.guard();
    guard.says("the engine answers");
    std::fs::remove_dir_all(stage.at("volume")).expect("the volume is gone");
    guard.signal(Signal::TERM);
    assert_eq!(guard.ends().code(), Some(1));
    assert_eq!(stage.notes(engine::CLEAN).len(), 1);
    assert!(guard.said().contains("the stop is not acknowledged"));
    assert!(holder(&stage).starts_with(&format!("{POD}/")));
}

#[test]
fn an_api_server_that_is_away_does_not_hold_up_an_orderly_stop() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("stop-away", &named(), &[]);
    let mut guard = stage.guard();
    guard.says("the engine answers");
    stage.server.mood(Mood::Silent);
    guard.signal(Signal::TERM);
    assert_eq!(guard.ends().code(), Some(0));
    assert_eq!(stage.notes(engine::CLEAN).len(), 1);
    assert!(holder(&stage).starts_with(&format!("{POD}/")));
}

#[test]
fn a_guard_that_waits_for_its_lease_stops_at_once() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("stop-waiting", "sealed", &[]);
    let mut guard = stage.guard();
    guard.says("waits for Lease");
    guard.signal(Signal::TERM);
    assert_eq!(guard.ends().code(), Some(0));
    assert_eq!(holder(&stage), "sealed");
}

#[test]
fn the_engine_dies_with_its_guard() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("killed", &named(), &[]);
    let mut guard = stage.guard();
    guard.says("the engine answers");
    let processes = guard.engines();
    assert_eq!(processes.len(), 2);
    guard.signal(Signal::KILL);
    guard.ends();
    assert!(
        processes.iter().all(|process| is_gone(*process)),
        "the engine outlived its guard"
    );
    // the next container of the same pod takes the Lease over from the one that is gone
    let guard = stage.guard();
    guard.says("the engine answers");
    stage.never_two_engines();
}

#[test]
fn a_stopped_guard_is_found_by_the_liveness_probe() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("paused", &named(), &[]);
    let guard = stage.guard();
    guard.says("the engine answers");
    assert!(stage.alive().status.success());
    guard.signal(Signal::STOP);
    until("the probe fails", || !stage.alive().status.success());
    let said = String::from_utf8_lossy(&stage.alive().stderr).into_owned();
    assert!(said.contains("stopped or stuck"), "{said}");
    // the engine, meanwhile, serves on
    let write = stage.notes(engine::WRITES).len();
    until("the engine writes on", || stage.notes(engine::WRITES).len() > write);
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

#[test]
fn the_first_answer_is_noted_on_the_volume() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("record", &named(), &[]);
    let _guard = stage.guard();
    let marker = stage.at("volume/.sqledge-volume-id");
    until("the marker says so", || {
        std::fs::read_to_string(&marker).expect("a marker") == "id-1\ndata\n"
    });
}

#[test]
fn a_log_that_nobody_reads_does_not_save_an_engine_that_must_die() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("log", &named(), &[SHORT]);
    let mut guard = stage.guard();
    guard.says("the engine answers");
    renewed(&stage, 1);
    let processes = guard.engines();
    guard.stop_reading();
    stage.order(engine::FLOOD, "");
    until("the pipe is full", || stage.at("engine").join(engine::FLOODED).exists());
    stage.server.mood(Mood::Silent);
    guard.ends();
    assert!(
        processes.iter().all(|process| is_gone(*process)),
        "a process of the engine is left"
    );
}

#[test]
fn in_a_shared_namespace_it_refuses_to_guard() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("shared", &named(), &[]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sqledge-guard"))
        .args(["run", "--namespace", "shop", "--lease", "orders-writer", "--port", "1"])
        .args(["--volume", &stage.at("volume").display().to_string()])
        .args([
            "--heartbeat",
            &stage.at("beat/heart").display().to_string(),
            "--",
            "true",
        ])
        .env("SQLEDGE_POD_UID", POD)
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", "1")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("shareProcessNamespace") && said.trim_end().lines().count() == 1,
        "{said}"
    );
    assert!(!stage.at("beat/heart").exists());
}

#[test]
fn after_an_orderly_stop_it_stays_for_its_successor_and_goes_at_once_where_none_will_come() {
    if !is_possible() {
        return;
    }
    // nothing happens; the successor is named; the Lease is sealed; with the pod's object its token has gone
    let table: [(&str, Option<&str>, u16); 4] = [
        ("alone", None, 200),
        ("named", Some("for/the-successor"), 200),
        ("sealed", Some("sealed/stopped/the-pod"), 200),
        ("token", None, 401),
    ];
    let lasted = table.map(|(name, holder, status)| {
        let stage = Stage::new(&format!("linger-{name}"), &named(), &[LONG]);
        let mut guard = stage.guard();
        guard.says("the engine answers");
        guard.signal(Signal::TERM);
        guard.says("stopped");
        let from = boot::now();
        if let Some(holder) = holder {
            stage
                .server
                .edit(|lease| lease["spec"]["holderIdentity"] = holder.into());
        }
        if status != 200 {
            stage.server.mood(Mood::Status(status));
        }
        assert_eq!(guard.ends().code(), Some(0), "{name}");
        boot::now().saturating_sub(from).as_secs_f64()
    });
    let [alone, named, sealed, token] = lasted;
    assert!(alone >= 2.9, "{lasted:?}");
    assert!(named >= 0.9 && token >= 0.9, "{lasted:?}");
    // one look apart: bounded by each other, since this machine may be busy
    assert!(sealed < alone && named < alone && token < alone, "{lasted:?}");
}
