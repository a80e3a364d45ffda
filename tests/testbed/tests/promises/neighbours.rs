//! Several testbeds on one machine.

use std::time::Duration;

use testbed::Testbed;

use crate::support::{Bed, assert_no_trace, command, traces, within};

pub fn two_testbeds_with_the_same_addresses_do_not_see_each_other() {
    let small = ["--nodes", "1", "--no-storage", "--no-balancer"];
    let one = Bed::up("side-a", &small);
    let other = Bed::up("side-b", &small);
    one.kubectl(&["create", "namespace", "only-in-a"]).unwrap();
    assert!(other.kubectl(&["get", "namespace", "only-in-a"]).is_err());

    // whoever loses power, it is not the neighbour's node of the same name and address
    one.node("n1").unwrap().power_off().unwrap();
    assert!(!one.connects("client", "10.240.0.11", 10250));
    assert!(other.connects("client", "10.240.0.11", 10250));
    assert!(other.node("n1").unwrap().first_process().is_some());

    one.down();
    assert_no_trace("side-a");
    other.kubectl(&["get", "--raw", "/readyz"]).unwrap();
    other.down();
    assert_no_trace("side-b");
}

pub fn a_start_that_was_killed_half_way_is_cleaned_up_by_the_next() {
    let small = ["up", "--nodes", "1", "--no-storage", "--no-balancer"];
    let mut start = command("crashed").args(small).spawn().unwrap();
    within(60, "a first process on the node", || {
        Testbed::open("crashed").is_ok_and(|bed| bed.node("n1").unwrap().first_process().is_some())
    });
    start.kill().unwrap();
    start.wait().unwrap();
    // daemons that were about to start do so even now
    std::thread::sleep(Duration::from_secs(1));
    let left = traces("crashed");
    assert!(
        left.iter().any(|trace| trace.contains("process")),
        "nothing was left, so nothing is proven: {left:?}"
    );

    let again = Bed::up("crashed", &small[1..]);
    again
        .kubectl(&["wait", "--for=condition=Ready", "node/n1", "--timeout=10s"])
        .unwrap();
    again.down();
    assert_no_trace("crashed");
}
