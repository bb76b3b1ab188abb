//! crossbeam's `ArrayQueue`.

use super::{About, Contender};
use crate::message::Job;
use crate::mpmc::crew::{Backoff, Run, Tally};
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

pub const ARRAY_QUEUE: About = About {
    name: "ArrayQueue",
    package: Some("crossbeam-queue"),
    batches: false,
    aligned: false,
    how: "`push` / `pop`",
};

/// An `ArrayQueue`.
pub struct Array;

impl<J: Job> Contender<J> for Array {
    type Tx = Arc<ArrayQueue<J::Msg>>;
    type Rx = Arc<ArrayQueue<J::Msg>>;

    fn ends(run: &Run) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let queue = Arc::new(ArrayQueue::new(run.capacity));
        (
            vec![Arc::clone(&queue); run.crew.producers],
            vec![queue; run.crew.consumers],
        )
    }

    #[inline(always)]
    fn push(queue: &mut Self::Tx, seq: u64) {
        let (mut msg, mut wait) = (J::make(seq), Backoff::new());
        while let Err(back) = queue.push(msg) {
            msg = back;
            wait.pause();
        }
    }

    #[inline(always)]
    fn pop(queue: &mut Self::Rx, tally: &mut Tally) -> bool {
        let popped = queue.pop();
        if let Some(msg) = &popped {
            tally.took::<J>(msg);
        }
        popped.is_some()
    }
}
