//! kanal's bounded channel: a lock around a deque.
//!
//! A failed `try_send` drops its message, so this uses `try_send_option`, which keeps it. Its
//! receivers can drain the whole channel at once. That is not a batch of 16, and its senders have no
//! batches.

use super::{About, Contender};
use crate::message::Job;
use crate::mpmc::crew::{Backoff, Run, Tally};
use kanal::{Receiver, Sender};

pub const ABOUT: About = About {
    name: "kanal",
    package: Some("kanal"),
    streams: true,
    batches: false,
    aligned: false,
    how: "`bounded`: `try_send_option` / `try_recv`",
};

/// A bounded channel.
pub struct Channel;

impl<J: Job> Contender<J> for Channel {
    type Tx = Sender<J::Msg>;
    type Rx = Receiver<J::Msg>;

    fn ends(run: &Run) -> (Vec<Self::Tx>, Vec<Self::Rx>) {
        let (tx, rx) = kanal::bounded(run.capacity);
        (vec![tx; run.crew.producers], vec![rx; run.crew.consumers])
    }

    #[inline(always)]
    fn push(tx: &mut Self::Tx, seq: u64) {
        let (mut msg, mut wait) = (Some(J::make(seq)), Backoff::new());
        while !tx.try_send_option(&mut msg).expect("receivers") {
            wait.pause();
        }
    }

    #[inline(always)]
    fn pop(rx: &mut Self::Rx, tally: &mut Tally) -> bool {
        let popped = rx.try_recv().expect("senders");
        if let Some(msg) = &popped {
            tally.took::<J>(msg);
        }
        popped.is_some()
    }
}
