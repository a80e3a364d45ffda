//! The guard with real processes: what it starts, what it kills and when.
//!
//! Each test is a story of one container. Times are those of the boot clock that the guard itself writes in its log, and only
//! bounded from the side that matters, because this machine may be busy.

#[allow(dead_code)] // what its own tests share among each other
#[path = "../control_plane/server.rs"]
mod control_plane;
mod engine;
mod engines;
mod lease;
#[allow(dead_code)] // what its own tests need
#[path = "../control_plane/mirror.rs"]
mod mirror;
#[allow(dead_code)] // what its own tests need
#[path = "../control_plane/program.rs"]
mod program;
mod real;
mod server;
mod stage;
mod stops;

use std::time::Duration;

use server::Seen;
use stage::{POD, Stage, until};

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

/// The last attempt to change the Lease.
fn last_write(stage: &Stage) -> Seen {
    let mut seen = stage.server.seen().into_iter();
    seen.rfind(|seen| seen.write).expect("a write")
}

/// Waits until the Lease was renewed so many times more.
fn renewed(stage: &Stage, times: usize) {
    let before = renewals(stage);
    until("the Lease is renewed", || renewals(stage) >= before + times);
}
