//! Seeds that once found a fault, named after it.

use spotkeeper::sim::run;

#[track_caller]
fn holds(seed: u64) {
    let report = run(seed);
    assert!(report.findings.is_empty(), "{}", report.told());
}

#[test]
fn a_restart_does_not_write_an_earlier_phase_over_the_record() {
    [10, 37, 41, 44].into_iter().for_each(holds);
}

#[test]
fn a_deleted_record_does_not_make_the_core_wake_for_ever() {
    [48, 60].into_iter().for_each(holds);
}

#[test]
fn a_heartbeat_without_a_drain_does_not_make_the_core_wake_for_ever() {
    [21, 46].into_iter().for_each(holds);
}

#[test]
fn cordon_only_before_a_scheduled_event_does_not_make_the_core_wake_for_ever() {
    holds(104);
}

#[test]
fn an_undoing_whose_answer_was_lost_does_not_make_the_core_wake_for_ever() {
    [329, 1593, 1701, 1781].into_iter().for_each(holds);
}

#[test]
fn a_time_that_slid_while_the_agent_was_down_does_not_move_the_deadline() {
    [43, 45, 54].into_iter().for_each(holds);
}

#[test]
fn an_event_that_was_moved_while_the_agent_was_down_begins_the_next_episode() {
    [210, 296, 659].into_iter().for_each(holds);
}

#[test]
fn an_event_that_was_withdrawn_while_the_agent_was_down_is_withdrawn_at_its_start() {
    [948, 11_372].into_iter().for_each(holds);
}

#[test]
fn an_ask_on_its_way_is_known_to_the_next_episode() {
    holds(1_000);
}

#[test]
fn a_hibernation_heard_twice_keeps_its_first_moment() {
    [1_904, 3_515].into_iter().for_each(holds);
}

#[test]
fn what_an_earlier_run_confirmed_is_not_refuted_because_a_redelivery_came_before_the_record() {
    [14_084, 27_576].into_iter().for_each(holds);
}

#[test]
fn the_announcement_of_an_earlier_boot_does_not_replace_the_one_of_this_boot() {
    [19_002, 26_840].into_iter().for_each(holds);
}
