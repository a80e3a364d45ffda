//! The engine inside the container, and the guard itself as a process.

use std::time::Duration;

use crate::engine;
use crate::server::Mood;
use crate::stage::{POD, Stage, is_gone, is_possible, until};
use crate::{LATE, LONG, SHORT, holder, named, renewed};
use rustix::process::Signal;

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
