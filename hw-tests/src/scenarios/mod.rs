//! The scenarios, in one table.

use crate::{Failure, Rig};

pub mod bytes;
pub mod crashes;
pub mod hostile;
pub mod order;
pub mod pressure;
pub mod rdma;
pub mod retention;
pub mod sessions;
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
                token_is_refused_with_a_sentence
            }
            sessions {
                duplicates_are_told_and_not_delivered
                a_gap_outlives_its_lease_and_is_fenced
                a_later_epoch_fences_the_one_before
                a_forged_session_is_refused
                ten_thousand_sessions
                session_lines_run_out_and_come_back
            }
            pressure {
                a_ring_full_behind_a_gap_waits_and_goes_on
                a_full_pool_waits_and_recovers
                a_slow_subscriber_holds_nobody_up
            }
            retention {
                batches_that_do_not_fit_go_on_in_the_next_segment
                what_was_overtaken_is_counted
                bounds_of_bytes_and_time_are_kept
            }
            crashes {
                a_publisher_gone_in_mid_batch_leaves_nothing
                a_publisher_process_killed_leaves_a_whole_prefix
                a_broker_killed_and_started_again
                control_killed_and_started_again
                everything_killed_and_started_again
            }
            hostile {
                malformed_frames_are_refused_and_nobody_is_disturbed
                spoiled_batches_are_refused_and_nobody_is_disturbed
                odd_topics_are_refused_with_a_sentence
                levels_that_cannot_be_reached_are_refused
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
