//! What a testbed promises, tried on a real one. Needs root and two to ten minutes:
//! `cargo test -p testbed --test promises -- --ignored --test-threads=1`

mod neighbours;
mod outages;
mod support;
mod workloads;

use support::{Bed, assert_no_trace, await_end_of, loop_devices, traces};

#[test]
#[ignore = "puts up a whole cluster: needs root and some minutes"]
fn a_testbed_keeps_its_promises_and_leaves_nothing_behind() {
    let bed = Bed::up("promises", &[]);
    let seconds: f32 = std::fs::read_to_string(bed.state_dir().join("up"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    println!("up took {seconds} s");
    assert!(seconds < 60.0, "a start takes {seconds} s once everything is built");

    workloads::pods_run_on_every_node_and_kubectl_reaches_into_them(&bed);
    workloads::a_service_address_answers_the_clients_namespace(&bed);
    workloads::every_pod_reaches_the_api_server_by_its_service(&bed);
    workloads::nothing_can_leave_the_testbed(&bed);
    workloads::writes_stand_in_the_audit_log_with_their_bodies(&bed);
    workloads::a_volume_keeps_what_was_synced(&bed);
    outages::a_partition_cuts_exactly_what_was_named(&bed);
    outages::a_stopped_kubelet_leaves_its_pods_alone(&bed);
    outages::without_api_server_pods_go_on(&bed);
    outages::a_paused_node_does_nothing_and_then_goes_on_where_it_was(&bed);
    outages::the_balancer_moves_an_address_when_its_announcer_loses_power(&bed);
    outages::a_node_without_power_is_silent_and_comes_back_as_a_new_boot(&bed);
    outages::a_volume_does_not_outlive_the_power_of_its_node(&bed);
    outages::power_can_be_taken_from_a_paused_node(&bed);

    assert!(
        !traces("promises").is_empty(),
        "the search for traces finds nothing even now"
    );
    let devices = loop_devices(&bed);
    assert!(
        !devices.is_empty(),
        "no volume is mounted, so nothing is proven about its end"
    );
    bed.down();
    assert_no_trace("promises");
    await_end_of(&devices);
}

#[test]
#[ignore = "puts up two clusters: needs root and some minutes"]
fn testbeds_stand_side_by_side_and_survive_each_others_crashes() {
    neighbours::two_testbeds_with_the_same_addresses_do_not_see_each_other();
    neighbours::a_start_that_was_killed_half_way_is_cleaned_up_by_the_next();
}
