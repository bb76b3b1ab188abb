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
//! | ends of a queue that are killed with their hands full stop nobody (SEEDS 17) | `queue_kills.rs` |
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
//! | whoever writes into the data part of a queue breaks messages, and not the queue | `scribbled.rs` |
//! | the creator chooses who may come in | `rights.rs` |
//! | the receiver of a sealed channel reads and cannot write | `sealed.rs` |
//! | a full file system is `NoSpace`, never a signal | `full.rs` |
//! | of many creators one makes the channel | `races.rs` |
//! | huge pages, or the reason why there are none | `hugepages.rs` |
//! | a set sleeps for many channels: wakes, deaths, barriers, a thousand channels (SEEDS 1, 14) | `wait_set.rs` |
//! | speed never costs a message (SEEDS 2, 3, 4, 13) | `faults.rs` |
//! | publishers and subscribers of a topic race, die and stop, and nobody waits (SEEDS 14, 15, 16, 17) | `topic.rs` |
//! | every consumer of `broadcast` gets all, or knows what it lost, even if others are killed, stopped or refused (SEEDS 5, 9, 13, 17) | `broadcast.rs` |
//!
//! # The faults of SEEDS.md, each by the test that would find it
//!
//! | fault | test |
//! |---|---|
//! | 1 lost wake-up, and a readable idle one | `waiting.rs`, `descriptor::descriptors_report_exactly_what_comes` |
//! | 2 stale value | `faults::no_read_overtakes_its_write` |
//! | 3 commit that does not publish | `faults::a_lone_commit_is_visible_immediately` |
//! | 4 reserve that starves | `faults::an_empty_ring_lends_all_slots` |
//! | 5 torn or duplicated overwrite reads | `broadcast::three_overtaken_readers_know_their_losses`, `broadcast::a_stopped_reader_learns_its_loss` |
//! | 6 double free | compile-fail tests of the derive, in `crates/slipring/tests` |
//! | 7 wrong type, size or mode accepted | `refusals::a_mismatch_leaves_the_channel_untouched` |
//! | 8 second create unlinks the live queue | `refusals::a_second_create_changes_nothing` |
//! | 9 second consumer resets the first | `lifecycle::a_taken_role_is_refused`, `broadcast::a_refused_newcomer_disturbs_nobody` |
//! | 10 joining skips what was queued | `lifecycle::a_new_consumer_resumes` |
//! | 11 one slot lent to two | `no_slot_is_lent_twice` of `crates/slipring/tests/queue_faults.rs` |
//! | 12 best effort that fails, or spins past its timeout | `best_effort_does_what_it_can` and `timeouts_hold_while_others_keep_slots` there |
//! | 13 products and positions that overflow | `faults::large_slots_hold_what_was_written`, `faults::positions_pass_every_edge`, `broadcast::large_slots_hold_what_was_written`; of queues the tests of those names in `queue_faults.rs` |
//! | 14 one wake bit for all | `descriptor::a_message_wakes_only_its_channel`, `topic::a_write_wakes_only_its_watchers` |
//! | 15 length and data of two versions | `topic::racing_publishers_share_one_order` |
//! | 16 names | `refusals::names_must_follow_the_rule`, `refusals::domains_do_not_collide`, `topic::topics_have_names_of_their_own` |
//! | 17 a dead owner wedges everyone | `kill.rs`, `verify/storm`, `lifecycle::killed_peers_are_seen_as_died`, `broadcast::a_killed_reader_holds_nobody_back`, `queue_kills.rs`, `topic::killed_subscribers_free_their_pins`, `topic::dead_ends_leave_a_sound_topic` |
//! | 18 only one process is ever tested | all of this |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod barrier;
pub mod options;
pub mod peer;
pub mod place;
pub mod room;
pub mod sandbox;
pub mod stranger;

pub use barrier::{Barrier, counter};
pub use peer::{Answer, Peer, Refusal, from_fds};
pub use place::Place;
pub use room::{Contents, Room, eventually};
pub use slipring_testkit::message;

/// Returns `true` for root, who may make mount namespaces and other users' processes.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
