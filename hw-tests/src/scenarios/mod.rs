//! The scenarios, in one table.

use crate::{Failure, Rig};

pub mod bytes;
pub mod catch_up;
pub mod cold;
pub mod copies;
pub mod crashes;
pub mod durable;
pub mod frozen;
pub mod hostile;
pub mod lives;
pub mod order;
pub mod poison;
pub mod pressure;
pub mod rdma;
pub mod rdma_greedy;
pub mod rdma_rewrite;
pub mod retention;
pub mod rewrite;
pub mod sessions;
pub mod superseded;
pub mod takeover;
pub mod token;
pub mod tools;

/// One promise of the whole system, told as a program.
pub struct Scenario {
    /// Its name: the sentence it shows to be true.
    pub name: &'static str,
    /// Runs it on a rig.
    pub run: fn(&Rig) -> Result<(), Failure>,
}

/// Calls a macro with every scenario, by module: the one list of them.
#[macro_export]
macro_rules! for_each_scenario {
    ($callback:path $(, $more:tt)*) => {
        $callback! {
            $($more)*
            bytes {
                random_payloads_keys_and_timestamps_come_back
                every_message_size_comes_back_and_one_past_the_bound_is_refused
                lanes_and_receipts_name_the_place
                any_position_and_time_can_be_started_from
            }
            order {
                none_delivers_everything
                broker_keeps_each_brokers_order
                total_is_one_order_for_all
                stream_keeps_each_stream
                strong_keeps_each_publisher
                batches_out_of_order_through_different_brokers
                token_is_one_order_for_all
            }
            token {
                reserved_in_turns_and_written_in_reverse
                batches_go_to_their_positions_from_anywhere
                a_dead_clients_positions_are_a_hole_for_everyone
                a_client_that_stalls_is_fenced_and_goes_on
                control_dies_between_reserving_and_writing
            }
            sessions {
                duplicates_are_told_and_not_delivered
                a_stream_takes_through_one_broker_what_another_never_had
                a_gap_outlives_its_lease_and_is_fenced
                a_later_epoch_fences_the_one_before
                a_forged_session_is_refused
                ten_thousand_sessions
                session_lines_run_out_and_come_back
                lines_come_back_whoever_was_killed
                lines_come_back_after_stops_in_good_order
            }
            superseded {
                a_publisher_that_was_taken_over_from_finds_out
            }
            pressure {
                batches_behind_a_gap_keep_no_slot_from_others
                a_full_pool_waits_and_recovers
                a_slow_subscriber_holds_nobody_up
            }
            retention {
                batches_that_do_not_fit_go_on_in_the_next_segment
                what_was_overtaken_is_counted
                what_is_gone_as_a_whole_is_counted
                bounds_of_bytes_and_time_are_kept
            }
            crashes {
                a_publisher_gone_in_mid_batch_leaves_nothing
                a_publisher_process_killed_leaves_a_whole_prefix
                a_broker_killed_and_started_again
                control_killed_and_started_again
                everything_killed_and_started_again
                what_lands_while_a_reader_of_the_latest_is_away_is_shown
            }
            lives {
                stops_in_good_order_leave_no_gap
                what_was_ordered_is_on_slow_disks_after_a_stop
                pools_that_are_lost_again_and_again_lose_nothing_durable
                damage_and_a_lost_pool_use_no_position_twice
                what_no_disk_has_is_never_called_durable
            }
            cold {
                what_was_durable_comes_back_without_the_pool
                a_subscriber_outlives_the_pool
                holes_come_back_as_holes_without_the_pool
            }
            takeover {
                a_stopped_control_is_deposed_and_harms_nothing
                a_standby_waits_and_takes_over
            }
            frozen {
                a_broker_that_is_frozen_is_left
                nobody_waits_long_for_the_only_broker_without_a_word
                a_hello_that_is_heard_late_ends_no_session
            }
            durable {
                durable_receipts_come_once_every_replica_has_the_batch
                with_a_window_a_receipt_says_replicated
                after_a_kill_nothing_durable_is_missing_on_the_disk
                a_stream_that_comes_back_hears_durable_and_nothing_less
                a_failed_sync_is_seen_and_never_called_durable
                three_copies_on_two_brokers
                replicas_that_cannot_be_are_refused
            }
            copies {
                a_copy_moves_and_its_keepers_have_everything_together
                a_broker_that_comes_back_catches_up_and_gets_its_copies
                a_keeper_that_is_stopped_is_replaced_and_wakes_up
            }
            catch_up {
                what_left_memory_is_read_from_disk
                holes_that_left_memory_are_told_of_from_disk
                a_hole_that_memory_begins_with_hides_nothing
                a_slow_subscriber_catches_up_from_disk
                who_begins_meanwhile_is_read_from_disk_too
                what_was_read_from_disk_is_not_read_again
                a_bound_on_disk_is_kept
                a_bit_that_turned_on_disk_is_never_shown
                a_broker_killed_while_it_reads_from_disk
            }
            poison {
                what_changed_in_memory_is_read_from_disk
                a_replica_takes_what_memory_lost_from_another
                a_pool_that_lost_its_end_is_gone_on_with
            }
            rewrite {
                what_its_publisher_rewrites_is_read_from_a_copy
                what_is_rewritten_and_has_no_copy_is_the_same_gap_for_all
                what_is_rewritten_before_it_is_ordered_is_lost_alone
            }
            hostile {
                malformed_frames_are_refused_and_nobody_is_disturbed
                spoiled_batches_are_refused_and_nobody_is_disturbed
                odd_topics_are_refused_with_a_sentence
                levels_that_cannot_be_reached_are_refused
                half_batches_hold_a_part_and_nobody_is_disturbed
            }
            tools {
                the_tool_says_what_is_wrong
                pools_that_cannot_be_used_are_named
                memory_is_for_the_same_user
            }
        }
    };
}

macro_rules! table {
    ($($module:ident { $($name:ident)* })*) => {
        /// Every scenario.
        pub static SCENARIOS: &[Scenario] = &[
            $($(Scenario { name: stringify!($name), run: $module::$name },)*)*
        ];
    };
}

for_each_scenario!(table);

/// Calls a macro with every scenario that only RDMA has.
#[macro_export]
macro_rules! for_each_rdma_scenario {
    ($callback:path $(, $more:tt)*) => {
        $callback! {
            $($more)*
            rdma {
                a_write_after_its_window_was_invalidated
                a_write_outside_its_window
                a_write_with_another_clients_key
                a_write_with_an_old_key
                a_read_of_a_window_for_writing
                forged_handshakes
                a_replayed_token
                a_wrong_epoch
                a_fenced_publishers_late_write
                a_publisher_that_dies_in_mid_write
                a_publisher_that_never_sends_the_completion
                lies_are_refused
                a_pull_from_memory_that_is_not_there
                reading_by_oneself_costs_the_broker_nothing
            }
            rdma_greedy {
                announcements_without_end_are_held_back
                batches_that_are_pulled_out_of_turn_have_a_bound
                extents_that_nothing_is_put_into_are_taken_back
            }
            rdma_rewrite {
                what_a_nic_rewrites_is_the_same_gap_for_all
                a_session_fenced_with_a_gap_in_flight_writes_nothing_more
            }
        }
    };
}

macro_rules! rdma_table {
    ($($module:ident { $($name:ident)* })*) => {
        /// Every scenario that only RDMA has.
        pub static RDMA_SCENARIOS: &[Scenario] = &[
            $($(Scenario { name: stringify!($name), run: $module::$name },)*)*
        ];
    };
}

for_each_rdma_scenario!(rdma_table);

/// The scenario of that name.
pub fn find(name: &str) -> &'static Scenario {
    SCENARIOS
        .iter()
        .chain(RDMA_SCENARIOS)
        .find(|scenario| scenario.name == name)
        .unwrap_or_else(|| panic!("there is no scenario {name}"))
}
