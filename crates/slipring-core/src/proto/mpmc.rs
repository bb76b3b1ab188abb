//! A work queue: many producers, many consumers, and any one consumer takes each message; values of one type, or byte
//! strings in slots of one size. A kill at any instruction leaves each slot free, committed, or held by a seat that the
//! slot's word names.
//!
//! # Guarantees
//! - A committed message is taken by exactly one consumer, unless a consumer gives it back or dies with it. Then it is
//!   delivered again, and says how often it was before. (A consumer may ask for *at most once* instead, or that what was
//!   delivered too often be put aside: see [`DeadLetters`].)
//! - First deliveries come in the order of reservation.
//! - An end that is killed or stopped delays no other end, except by the slots that it has in its hands. A single message
//!   that is held for long takes up one slot, and the queue goes round past it.
//! - Whoever recovers a dead end's seat frees what it had reserved, and returns what it had taken.
//!
//! # Refuses
//! - Reading without taking: another consumer may take the message meanwhile.
//! - Overwriting.
//!
//! # The slot's word is the claim
//! There is one slot more than the capacity. Each has a word, apart from the payload:
//!
//! ```text
//! 63                                  9 8     3 2     0
//! | lap << k | count - 1               | owner | state |    k = log2(capacity)
//! ```
//!
//! Position `p` is slot `p % slots` in lap `p / slots`. The owner is a seat, counted within its side.
//!
//! | state | meaning | who leaves it, and how |
//! |---|---|---|
//! | 0 free | may be reserved as the position of this lap | any producer, by CAS |
//! | 1 reserved | the head of a run of `count` slots of that producer | the owner, by a store; a recoverer, by CAS |
//! | 2 committed | may be taken | any consumer, by CAS |
//! | 3 taken | the head of a run that is being copied out | as *reserved* |
//! | 4 held | the head of a run that is being read in place | as *reserved* |
//! | 5 returned | to be delivered again | any consumer, by CAS |
//! | 7 dead letter | put aside | any consumer, by CAS |
//!
//! The inner slots of a run (all but its head) belong to the head's owner, whatever their words say. Zero is *free* in
//! lap 0, so fresh memory is an empty queue.
//!
//! A producer that comes round to a slot that is held (as a run of one), returned, or a dead letter *carries* it: by CAS
//! into its own lap, with nothing else changed. So the owner of a held single finishes with it by CAS as well.
//!
//! Each slot also has a note: the length of a byte string, the number of deliveries, the time when it was taken. Only
//! whoever owns the slot writes it, and no claim depends on it.
//!
//! Other shared words are no claims: two hints, which shorten a walk, and `returns`, which announces returned messages.
//!
//! # Walking
//! An end keeps `at`, a lower bound of the first position that its side has not claimed. It passes over positions that
//! others have claimed: a run by its count, a later lap by one. It stops at a position of its lap that is free
//! (producer), or free, reserved or committed (consumer). A word of an earlier lap means *full*, or *empty*; a producer
//! carries what stays and goes on, if there is room to be had behind it. (A slot that is carried in vain would use up its
//! position.) A producer that needs several positions in a row gives up free ones that lie before a held slot, if enough
//! lie behind it.
//!
//! A look counts the claimable words behind `at` and keeps the end of that stretch as the cached limit. A claim is then
//! one CAS on the word at `at`, for one position or for several. A producer leaves one free slot behind those it claims;
//! slots that it could carry may lie between. So a walk that carries always ends at a free slot.
//!
//! # Why it is right
//! 1. *Positions are claimed in order, without gaps.* A CAS on position `p` succeeds only on the free (committed) word of
//!    `p`'s lap. An end stands at `p` only after it saw all positions before `p` claimed.
//! 2. *What a look found still holds when the CAS succeeds.* Others reach the positions behind `p` only by passing `p`, and
//!    `p` was free (committed) until the CAS. So the cached limit is exact for whoever wins the CAS, and worthless for
//!    all others; a loser forgets it.
//! 3. *No end stands inside a run whose head still stands.* An end passes the head by its count, or after the head has
//!    changed. The inner words are stored before the head's last store.
//! 4. *No instruction lies between a claim and its owner's name*: one CAS makes both.
//! 5. *Only the owner leaves `reserved`, `taken` and `held`*, or the recoverer after its death. So stores suffice there,
//!    except for a held single, whose lap a producer may change.
//! 6. *A word never returns to an earlier value*, except between `returned`, `dead letter` and `taken` or `held` of one lap. There every
//!    step is a CAS. A slow recoverer could take the message from its successor, so a recoverer holds the seat's locks.
//!
//! # Orderings
//! | store | load | why |
//! |---|---|---|
//! | the head of a committed run, release | a consumer's look, acquire | the payload comes before |
//! | the head of a released run, release | a producer's look, acquire | the consumer's reads come before |
//! | the head of a run that is split, and every word of one that is recovered, release | a walk or a look, acquire | the inner words, or the payload, come before |
//! | the CAS of a claim, release | the walk that passes the run, acquire | the claimant's look comes before |
//! | the words of a run, behind a release fence | an end that lags or jumps, and meets an inner word alone, acquire | its end has seen every claim before it |
//! | `returns`, release | a look, acquire | the words of the returned slots come before |
//!
//! A claim of several positions looked at the words of several ends, and its CAS replaces one of them. An end that passes
//! the run sees only that one. So the CAS releases what the look acquired: whoever passes has acquired it, too. The CAS that
//! carries a slot needs no order: as a read-modify-write it goes on with what the slot's last store released.
//!
//! # Recovery
//! [`recover`] settles each run whose head names the dead seat: the inner slots first, the head last. A recoverer may be
//! killed anywhere; the head still names the seat, and the next one does the rest.
//!
//! # Source
//! Ours. The lap in each slot's word is Vyukov's bounded queue (2010), where an index is claimed first and the slot
//! after it; a kill between the two belongs to nobody. YCQueue's slots show runs and out-of-order commits.

mod claimant;
mod consumer;
mod letters;
mod outside;
mod owned;
mod producer;
mod records;
mod recovery;
mod slip;
mod word;

use crate::crowd::Crowd;
use crate::guard;
use crate::layout::Role;
use crate::mem::Cells;
use crate::sync::AtomicU64;
use crate::wait::Notifier;

pub use consumer::Consumer;
pub use letters::{DeadLetters, Handling};
pub(super) use outside::OUTSIDE;
pub use outside::{Claim, Tally, claims};
pub use owned::{OwnedMessage, OwnedReservation};
pub use producer::Producer;
pub use recovery::{Delivery, recover};
pub use word::{Queue, State};

use word::Place;

/// Space that a producer has reserved.
pub type Reservation<'p, 'm, T> = guard::Reservation<'p, Producer<'m, Cells<'m, T>>>;

/// Messages that a consumer reads in place.
pub type Messages<'c, 'm, T> = guard::Messages<'c, Consumer<'m, Cells<'m, T>>>;

/// The words and slots of a queue, as one end uses them.
pub struct Ring<'m, C> {
    /// The words that all ends share.
    pub queue: Queue<'m>,
    /// The payloads: as many slots as words.
    pub cells: C,
    /// The end's seat, counted within its side.
    pub seat: u64,
    /// The number of messages that the holders of this seat have committed, or released.
    pub position: &'m AtomicU64,
    /// The number of guards that have left the end's hands.
    pub handed_out: &'m AtomicU64,
    /// The ends of the other side.
    pub peers: Crowd<'m>,
    /// Wakes the other side.
    pub notifier: Notifier<'m>,
    /// Wakes the end's own side.
    pub fellows: Notifier<'m>,
}

/// An end raises its side's hint once in this many messages.
const HINT_EVERY: u64 = 256;

impl Queue<'_> {
    /// Returns the place where a new end of this side begins.
    fn start(&self, side: Role) -> Place {
        let mut at = Place { index: 0, lap: 0 };
        self.follow_hint(&mut at, side);
        at
    }
}
