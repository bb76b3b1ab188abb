//! shaq 4.0.0: `mpmc`, on its own heap region (`mpmc::pair`).
//!
//! Reservations become visible in the order in which they were made: a thread that lost its core
//! between the two steps holds up all others of its side.

use super::{About, Contender};
use crate::message::Job;
use crate::mpmc::crew::{Backoff, Run, Tally};
use crate::until;
use shaq::mpmc::{Consumer, Producer, pair};
use std::num::NonZeroUsize;
use std::ops::Range;

pub const ABOUT: About = About {
    name: "shaq",
    package: Some("shaq"),
    streams: true,
    batches: true,
    aligned: true,
    how: "`mpmc`: `try_write` / `try_read`; in batches `try_reserve_write_batch` / \
          `try_reserve_read_batch`",
};

/// Its many-to-many queue.
pub struct Queue;

impl<J: Job> Contender<J> for Queue {
    type Tx = Producer<J::Msg>;
    type Rx = Consumer<J::Msg>;

    fn ends(run: &Run) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (tx, rx) = pair(run.capacity).expect("a heap queue");
        (vec![tx; run.crew.producers], vec![rx; run.crew.consumers])
    }

    #[inline(always)]
    fn push(tx: &mut Self::Tx, seq: u64) {
        let (mut msg, mut wait) = (J::make(seq), Backoff::new());
        while let Err(back) = tx.try_write(msg) {
            msg = back;
            wait.pause();
        }
    }

    #[inline(always)]
    fn pop(rx: &mut Self::Rx, tally: &mut Tally) -> bool {
        let popped = rx.try_read();
        if let Some(msg) = &popped {
            tally.took::<J>(msg);
        }
        popped.is_some()
    }

    #[inline(always)]
    fn push_batch(tx: &mut Self::Tx, batch: Range<u64>) {
        let count = NonZeroUsize::new((batch.end - batch.start) as usize).expect("a batch");
        // SAFETY: all slots are filled below, before the batch is dropped.
        let mut slots = until!(unsafe { tx.try_reserve_write_batch(count) });
        for (i, seq) in batch.enumerate() {
            // SAFETY: `i` is below the number of slots that were reserved.
            let slot = unsafe { slots.as_mut(i) };
            J::fill(slot, seq);
        }
    }

    #[inline(always)]
    fn pop_batch(rx: &mut Self::Rx, max: usize, tally: &mut Tally) -> bool {
        let max = NonZeroUsize::new(max).expect("a batch");
        let Some(batch) = rx.try_reserve_read_batch(max) else {
            return false;
        };
        let (front, back) = batch.as_slices();
        for msg in front.iter().chain(back) {
            tally.took::<J>(msg);
        }
        true
    }
}
