//! flume's bounded channel: a mutex around a deque, and a list of waiting receivers.
//!
//! Its receivers can drain the whole channel at once. That is not a batch of 16, and its senders have
//! no batches.

use super::{About, Contender};
use crate::message::Job;
use crate::mpmc::crew::{Backoff, Run, Tally};
use flume::{Receiver, Sender, TrySendError};

pub const ABOUT: About = About {
    name: "flume",
    package: Some("flume"),
    streams: true,
    batches: false,
    aligned: false,
    how: "`bounded`: `try_send` / `try_recv`",
};

/// A bounded channel.
pub struct Channel;

impl<J: Job> Contender<J> for Channel {
    type Tx = Sender<J::Msg>;
    type Rx = Receiver<J::Msg>;

    fn ends(run: &Run) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (tx, rx) = flume::bounded(run.capacity);
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
