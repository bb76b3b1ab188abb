//! slipring's promises, each kept before real processes.
//!
//! A test is a story in which the parties are processes. Each is the program `peer` (`bin/peer`), told
//! over its standard input what to do, a line at a time, and answering a line each: [`Peer`]. A test
//! works in a [`Room`], a directory of its own that is the parties' `SLIPRING_DIR`. Nobody sleeps to
//! let something happen: a line that was answered *has* happened, and what has no answer is asked
//! again until it is so ([`eventually`]).
//!
//! Every message says its number and can be checked in full ([`message`]), so a test asserts on what
//! arrived, not on how many.
//!
//! # Where the promises are kept
//!
//! | promise | file |
//! |---|---|
//! | a killed side loses nothing, whatever it was doing (SEEDS 17, 18) | `kill.rs` |
//! | either side first, second takers, how an end is told, rejoin (SEEDS 9, 10) | `lifecycle.rs` |
//! | a fork, or an exec, inherits no seat | `fork.rs` |
//! | however a thread or a process goes, the other side is told | `processes.rs` |
//! | a passed channel is a channel | `memfd.rs` |
//! | it goes over a Unix socket, and nothing else is taken for one | `handover.rs` |
//! | no wake is lost, whatever barriers there are (SEEDS 1) | `waiting.rs` |
//! | a descriptor is readable when there is news, and only then (SEEDS 1, 14) | `descriptor.rs` |
//! | what cannot be made, or is not what was asked for, is refused (SEEDS 7, 8, 16) | `refusals.rs` |
//! | a damaged channel is refused, and can be removed | `damaged.rs` |
//! | files damaged or replaced, locks squatted, bells rung without end, while others work: errors, no harm | `hostile_files.rs` |
//! | nor does a channel that comes in wrong parts do any | `hostile_handover.rs` |
//! | who may come in is the creator's choice | `rights.rs` |
//! | who was handed a sealed channel reads and cannot write | `sealed.rs` |
//! | a full file system is `NoSpace`, never a signal | `full.rs` |
//! | of many creators one makes the channel | `races.rs` |
//! | huge pages, or why not | `hugepages.rs` |
//! | a set sleeps for many channels: wakes, deaths, barriers, a thousand channels (SEEDS 1, 14) | `wait_set.rs` |
//! | speed never costs a message (SEEDS 2, 3, 4, 13) | `faults.rs` |
//! | every consumer of `broadcast` sees all, or knows what it lost, whoever is killed, stopped or refused (SEEDS 5, 9, 13, 17) | `broadcast.rs` |
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

/// Whether this is root, who may make mount namespaces and other users' processes.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
