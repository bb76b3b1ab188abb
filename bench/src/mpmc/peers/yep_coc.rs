//! yep-coc's `YCQueue`: slots that are reserved, written or read in place, and given back.
//!
//! Each thread has a view of its own on shared counters and a shared data region. The region is made
//! here, because the crate's own helper computes its size in 16 bits. A request for slots allocates a
//! vector of them.

use super::{About, Contender};
use crate::message::Job;
use crate::mpmc::crew::{Run, Tally};
use crate::until;
use std::alloc::{Layout, alloc_zeroed};
use std::mem::MaybeUninit;
use std::ops::Range;
use yep_coc::queue_alloc_helpers::YCQueueOwnedMeta;
use yep_coc::{YCQueue, YCQueueError, YCQueueSharedMeta};

pub const ABOUT: About = About {
    name: "yep-coc",
    package: Some("yep-coc"),
    streams: true,
    batches: true,
    aligned: true,
    how: "`get_produce_slot` + `mark_slot_produced` / `get_consume_slot` + `mark_slot_consumed`; in \
          batches the same of `slots`",
};

/// The alignment of the data region.
const ALIGN: usize = 4096;

/// Its queue.
pub struct Queue;

impl<J: Job> Contender<J> for Queue {
    type Tx = YCQueue<'static>;
    type Rx = YCQueue<'static>;

    fn ends(run: &Run) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (slots, size) = (run.capacity, size_of::<J::Msg>());
        // Never freed: the process ends with the run.
        let meta = Box::leak(Box::new(YCQueueOwnedMeta::new(
            u16::try_from(slots).expect("few slots"),
            u16::try_from(size).expect("a small message"),
        )));
        let layout = Layout::from_size_align(slots * size, ALIGN).expect("a small region");
        // SAFETY: the size is not zero.
        let region = unsafe { alloc_zeroed(layout) };
        assert!(!region.is_null());
        let view = || {
            // SAFETY: the region has this size and lives as long as the process. The views alias, as
            // the crate's own `YCQueueSharedData` has them: the queue lends a slot to one at a time.
            let data = unsafe { std::slice::from_raw_parts_mut(region, slots * size) };
            YCQueue::new(YCQueueSharedMeta::new(meta), data).expect("a queue")
        };
        (
            (0..run.crew.producers).map(|_| view()).collect(),
            (0..run.crew.consumers).map(|_| view()).collect(),
        )
    }

    #[inline(always)]
    fn push(queue: &mut Self::Tx, seq: u64) {
        let slot = until!(now(queue.get_produce_slot()));
        J::fill(place::<J>(slot.data), seq);
        queue.mark_slot_produced(slot).expect("its own slot");
    }

    #[inline(always)]
    fn pop(queue: &mut Self::Rx, tally: &mut Tally) -> bool {
        let Some(slot) = now(queue.get_consume_slot()) else {
            return false;
        };
        // SAFETY: the producer filled the slot before it marked it.
        tally.took::<J>(unsafe { place::<J>(slot.data).assume_init_ref() });
        queue.mark_slot_consumed(slot).expect("its own slot");
        true
    }

    #[inline(always)]
    fn push_batch(queue: &mut Self::Tx, batch: Range<u64>) {
        let count = (batch.end - batch.start) as u16;
        let mut slots = until!(now(queue.get_produce_slots(count, false)));
        for (slot, seq) in slots.iter_mut().zip(batch) {
            J::fill(place::<J>(slot.data), seq);
        }
        queue.mark_slots_produced(slots).expect("its own slots");
    }

    #[inline(always)]
    fn pop_batch(queue: &mut Self::Rx, max: usize, tally: &mut Tally) -> bool {
        // A request for more slots than are in flight fails, even if it asks for the best effort.
        let count = queue.in_flight_count().min(max as u16);
        if count == 0 {
            return false;
        }
        let Some(mut slots) = now(queue.get_consume_slots(count, true)) else {
            return false;
        };
        for slot in &mut slots {
            // SAFETY: the producer filled the slot before it marked it.
            tally.took::<J>(unsafe { place::<J>(slot.data).assume_init_ref() });
        }
        queue.mark_slots_consumed(slots).expect("its own slots");
        true
    }
}

/// Returns the message that lies in a slot.
#[inline(always)]
fn place<J: Job>(data: &mut [u8]) -> &mut MaybeUninit<J::Msg> {
    let start: *mut MaybeUninit<J::Msg> = data.as_mut_ptr().cast();
    // SAFETY: a slot is as long as a message and aligned, since the region is and a message's size is
    // a multiple of its alignment. It stays borrowed.
    unsafe { &mut *start }
}

/// Returns the result if there is one; the other answers mean *try again*.
#[inline(always)]
fn now<R>(tried: Result<R, YCQueueError>) -> Option<R> {
    match tried {
        Ok(got) => Some(got),
        Err(YCQueueError::OutOfSpace | YCQueueError::EmptyQueue | YCQueueError::SlotNotReady) => {
            None
        }
        Err(YCQueueError::InvalidArgs) => panic!("the queue refused a request"),
    }
}
