//! crossbeam: `ArrayQueue`, and the bounded channel of `crossbeam-channel`.
//!
//! The channel is the queue's algorithm with waiting lists around it, so that calls can block.

use super::{About, Contender};
use crate::message::Job;
use crate::mpmc::crew::{Backoff, Run, Tally};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

pub const ARRAY_QUEUE: About = About {
    name: "ArrayQueue",
    package: Some("crossbeam-queue"),
    streams: true,
    batches: false,
    aligned: false,
    how: "`push` / `pop`",
};

pub const CHANNEL: About = About {
    name: "crossbeam-channel",
    package: Some("crossbeam-channel"),
    how: "`bounded`: `try_send` / `try_recv`",
    ..ARRAY_QUEUE
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

/// A bounded channel.
pub struct Channel;

impl<J: Job> Contender<J> for Channel {
    type Tx = Sender<J::Msg>;
    type Rx = Receiver<J::Msg>;

    fn ends(run: &Run) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (tx, rx) = crossbeam_channel::bounded(run.capacity);
        (vec![tx; run.crew.producers], vec![rx; run.crew.consumers])
    }

    #[inline(always)]
    fn push(tx: &mut Self::Tx, seq: u64) {
        let (mut msg, mut wait) = (J::make(seq), Backoff::new());
        while let Err(failed) = tx.try_send(msg) {
            let TrySendError::Full(back) = failed else {
                panic!("all receivers left");
            };
            msg = back;
            wait.pause();
        }
    }

    #[inline(always)]
    fn pop(rx: &mut Self::Rx, tally: &mut Tally) -> bool {
        let popped = rx.try_recv();
        if let Ok(msg) = &popped {
            tally.took::<J>(msg);
        }
        popped.is_ok()
    }
}
