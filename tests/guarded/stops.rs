//! Orderly stops, and what they acknowledge.

use crate::engine;
use crate::server::Mood;
use crate::stage::{POD, Stage, is_possible, until};
use crate::{LONG, LONG_STOP_AFTER, holder, last_write, named};
use rustix::process::Signal;
use sqledge_operator::guard::boot;

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
        let acknowledged = last_write(&stage);
        assert_eq!((acknowledged.status, holder(&stage)), (200, format!("stopped/{POD}")));
        assert!(acknowledged.at >= clean, "acknowledged before the end");
    }
}

#[test]
fn what_was_started_beside_the_engine_has_ended_before_the_stop_is_acknowledged() {
    if !is_possible() {
        return;
    }
    let stage = Stage::new("exec", &named(), &[LONG]);
    let mut guard = stage.guard();
    guard.says("the engine answers");
    let mut beside = stage.intrude(&guard);
    until("it writes", || !stage.notes(engine::INTRUSIONS).is_empty());
    guard.signal(Signal::TERM);
    assert_eq!(guard.ends().code(), Some(0));
    assert_eq!(stage.notes(engine::CLEAN).len(), 1);
    let acknowledged = last_write(&stage);
    assert_eq!((acknowledged.status, holder(&stage)), (200, format!("stopped/{POD}")));
    let last = *stage.notes(engine::INTRUSIONS).last().expect("it wrote");
    assert!(last <= acknowledged.at, "it wrote after the acknowledgement");
    assert!(!beside.wait().expect("waited").success());
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
    // in one step: the engine goes on writing to it
    std::fs::rename(stage.at("volume"), stage.at("elsewhere")).expect("the volume is gone");
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
