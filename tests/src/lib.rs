//! Checks slipring's promises with real processes.
//!
//! A test is a story in which the workers are processes. Each one is the program `peer`
//! (`bin/peer`), which obeys lines on its standard input and answers each with a line: [`Peer`]. A
//! test works in a [`Room`], a directory of its own that is the workers' `SLIPRING_DIR`. Nobody
//! sleeps to let something happen. An answered line *has* happened. Where there is no answer, the
//! test checks again until the condition is true ([`eventually`]).
//!
//! Every message holds its number and can be checked in full ([`message`]). So a test asserts on
//! the messages that arrived, not on their number.
//!
//! # The file of each promise
//!
//! | promise | file |
//! |---|---|
//! | a killed side loses nothing, at any point of its work (SEEDS 17, 18) | `kill.rs` |
//! | either side first, second takers, reports of an end, rejoin (SEEDS 9, 10) | `lifecycle.rs` |
//! | a fork, or an exec, inherits no seat | `fork.rs` |
//! | however a thread or a process ends, the other side learns of it | `processes.rs` |
//! | a passed channel is a channel | `memfd.rs` |
//! | a channel goes over a Unix socket, and nothing else is taken for one | `handover.rs` |
//! | no wake is lost, with any barriers (SEEDS 1) | `waiting.rs` |
//! | a descriptor is readable when there is news, and only then (SEEDS 1, 14) | `descriptor.rs` |
//! | a channel that cannot be made, or is not the wanted one, is refused (SEEDS 7, 8, 16) | `refusals.rs` |
//! | a damaged channel is refused, and can be removed | `damaged.rs` |
//! | damaged or replaced files, squatted locks, endless rings on doorbells, while others work: errors, no harm | `hostile_files.rs` |
//! | a channel that comes in wrong parts does no harm either | `hostile_handover.rs` |
//! | the creator chooses who may come in | `rights.rs` |
//! | the receiver of a sealed channel reads and cannot write | `sealed.rs` |
//! | a full file system is `NoSpace`, never a signal | `full.rs` |
//! | of many creators one makes the channel | `races.rs` |
//! | huge pages, or the reason why there are none | `hugepages.rs` |
//! | a set sleeps for many channels: wakes, deaths, barriers, a thousand channels (SEEDS 1, 14) | `wait_set.rs` |
//! | speed never costs a message (SEEDS 2, 3, 4, 13) | `faults.rs` |
//! | every consumer of `broadcast` gets all, or knows what it lost, even if others are killed, stopped or refused (SEEDS 5, 9, 13, 17) | `broadcast.rs` |
//!
//! # The faults of SEEDS.md, each by the test that would find it
//!
//! | fault | test |
//! |---|---|
//! | 1 lost wake-up, and a readable idle one | `waiting.rs`, `descriptor::one_message_in_flight_leaves_no_silent_descriptor_and_no_readable_one` |
//! | 2 stale value | `faults::no_value_is_read_before_it_is_written` |
//! | 3 commit that does not publish | `faults::one_message_committed_on_a_big_ring_is_visible_at_once` |
//! | 4 reserve that starves | `faults::an_empty_ring_lends_its_whole_capacity` |
//! | 5 torn or duplicated overwrite reads | `broadcast::each_of_three_overtaken_processes_knows_what_it_lost`, `broadcast::a_stopped_reader_of_a_writer_that_overwrites_is_told_exactly_what_it_missed` |
//! | 6 double free | compile-fail tests of the derive, in `crates/slipring/tests` |
//! | 7 wrong type, size or mode accepted | `refusals::another_type_size_or_kind_is_refused_and_the_live_channel_untouched` |
//! | 8 second create unlinks the live queue | `refusals::a_second_create_leaves_the_live_channel_alone` |
//! | 9 second consumer resets the first | `lifecycle::a_second_taker_is_refused_and_the_first_undisturbed`, `broadcast::who_finds_no_seat_is_refused_and_the_others_are_undisturbed` |
//! | 10 joining skips what was queued | `lifecycle::a_new_consumer_resumes_where_the_last_one_released` |
//! | 13 products and positions that overflow | `faults::slots_of_1264_bytes_and_of_128_kib_hold_what_was_written`, `faults::positions_pass_every_edge`, `broadcast::slots_of_1264_bytes_hold_what_was_written` |
//! | 14 one wake bit for all | `descriptor::a_message_makes_its_own_channels_descriptor_readable_and_no_other` |
//! | 16 names | `refusals::names_that_break_the_rule_are_refused`, `refusals::domains_do_not_collide` |
//! | 17 a dead owner wedges everyone | `kill.rs`, `verify/storm`, `lifecycle::a_killed_producer_died_and_a_killed_consumer_too`, `broadcast::a_killed_reader_stops_holding_the_writer_back` |
//! | 18 only one process is ever tested | all of this |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod barrier;
pub mod message;
pub mod peer;
pub mod place;
pub mod room;
pub mod sandbox;
pub mod stranger;

pub use barrier::{Barrier, counter};
pub use peer::{Answer, Peer, Refusal, from_fds};
pub use place::Place;
pub use room::{Contents, Room, eventually};

/// Returns `true` for root, who may make mount namespaces and other users' processes.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
