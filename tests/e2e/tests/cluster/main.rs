//! The operator on a real cluster, fault by fault; the list is that of docs and issue. `make test-e2e` runs them.

mod children;
mod controls;
mod deletion;
mod delivery;
mod full;
mod guard;
mod inputs;
mod lost;
mod nodes;
mod passwords;
mod pods;
mod rights;
mod silence;
mod storage;
mod survival;

use std::process::ExitCode;

use e2e::harness::{Test, main as run};

macro_rules! tests {
    ($together:literal: $($module:ident :: $name:ident),* $(,)?) => {
        [$(Test { name: stringify!($name), run: $module::$name, together: $together }),*]
    };
}

/// These leave nodes, storage and the operator alone. The longest come first.
const TOGETHER: [Test; 17] = tests![true:
    inputs::each_bad_input_is_told_with_its_field_and_recovers_when_it_is_put_right,
    full::a_full_volume_costs_no_row_and_no_restart_and_a_larger_size_gets_it_out,
    guard::a_guard_that_hangs_is_ended_by_the_kubelet_with_its_engine,
    guard::a_lease_that_is_annotated_or_deleted_kills_nothing_and_comes_back,
    pods::a_hung_engine_is_restarted_in_place,
    children::a_resource_becomes_a_database_behind_an_address,
    pods::a_deleted_pod_is_replaced_after_a_clean_stop,
    pods::a_force_deleted_pod_never_makes_two_writers,
    pods::a_deployment_scaled_to_two_is_put_right_and_nothing_is_killed,
    pods::a_rollout_restart_keeps_one_writer,
    pods::a_killed_engine_is_restarted_in_place,
    pods::an_engine_that_is_shut_down_by_a_client_comes_back,
    guard::a_killed_guard_takes_its_engine_along_and_the_kubelet_starts_both_anew,
    guard::the_engines_account_may_read_and_write_one_lease_and_nothing_else,
    full::an_expansion_that_the_storage_class_does_not_allow_is_told_and_costs_nothing,
    deletion::a_deleted_resource_leaves_its_data_and_a_new_one_adopts_it,
    deletion::with_policy_delete_the_data_goes_too,
];

/// In this order: what judges the audit log of all of them comes last.
const ALONE: [Test; 27] = tests![false:
    pods::a_drained_node_gives_its_database_away,
    nodes::a_node_that_loses_power_costs_no_row_and_comes_back_without_a_fight,
    nodes::a_dead_node_is_given_up_on_the_word_of_the_databases_lease,
    silence::a_node_cut_from_the_api_server_keeps_its_database_unless_its_lease_is_renewed,
    silence::a_node_cut_from_everybody_loses_its_databases_and_writes_nothing_when_it_is_back,
    silence::a_node_asleep_beyond_every_timeout_writes_nothing_when_it_wakes,
    silence::an_api_server_away_for_a_minute_stops_only_a_database_that_promised_to_stop,
    silence::two_of_three_nodes_silent_at_once_freeze_everything_until_one_is_back,
    storage::kubelet_and_container_runtime_restarted_after_a_forced_delete_leave_one_writer,
    nodes::an_unknown_driver_holds_until_a_human_confirms,
    nodes::a_detach_that_fails_and_then_takes_its_time_keeps_the_gate_shut,
    nodes::an_operator_killed_in_the_middle_goes_on_without_the_attachers_leader,
    nodes::a_node_object_that_is_removed_frees_the_volume,
    delivery::an_upgrade_restarts_no_database_and_an_uninstall_leaves_it_running,
    controls::storage_that_lies_is_caught_by_the_oracle,
    controls::plain_read_write_once_and_a_forced_delete_make_two_writers,
    rights::every_right_is_used_and_none_is_missing,
    storage::long_a_node_cut_from_its_storage_keeps_its_database_and_the_status_says_what_is_broken,
    silence::long_a_node_without_its_kubelet_its_container_runtime_or_both_keeps_its_databases,
    silence::long_an_api_server_away_for_ten_minutes_stops_only_a_database_that_promised_to_stop,
    nodes::long_a_node_that_was_lost_may_have_its_database_again,
    nodes::long_a_node_that_was_cut_off_may_have_its_database_again_without_starting_again,
    nodes::long_a_node_tainted_out_of_service_is_left_on_any_storage_and_may_come_back_with_the_taint,
    nodes::long_a_dead_node_that_answered_for_the_address_and_ran_the_balancers_controller_costs_only_time,
    nodes::long_each_node_may_lose_power_in_turn_and_the_last_failover_is_as_fast_as_the_first,
    passwords::long_a_password_that_is_changed_or_lost_is_told_and_stops_neither_the_database_nor_its_next_start,
    nodes::long_a_detach_held_back_for_three_minutes_keeps_the_gate_shut,
];

fn main() -> ExitCode {
    let all: Vec<Test> = TOGETHER.into_iter().chain(ALONE).collect();
    run("e2e", &all)
}
