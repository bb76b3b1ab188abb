//! A bare futex: the floor of any wake-up.
//!
//! The word counts the items. A worker that finds none sleeps on it; a push adds one and wakes one.
//! The futex is not private to the process, since a queue in shared memory cannot have a private one.

use super::About;
use crate::message::{Job, Line, Task};
use crate::mpmc::blocking::{Blocking, Ends};
use crate::mpmc::crew::Run;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

pub const ABOUT: About = About {
    name: "futex",
    package: None,
    streams: false,
    batches: false,
    aligned: true,
    how: "`FUTEX_WAKE` of one / `FUTEX_WAIT`",
};

/// The word, and the number of the only item on its way.
#[repr(C, align(256))]
pub struct Word {
    items: AtomicU32,
    number: AtomicU64,
}

/// A futex.
pub struct Futex;

impl Blocking for Futex {
    type Tx = Arc<Word>;
    type Rx = Arc<Word>;

    fn ends(run: &Run) -> Result<Ends<Self>, String> {
        let word = Arc::new(Word {
            items: AtomicU32::new(0),
            number: AtomicU64::new(0),
        });
        Ok((
            vec![Arc::clone(&word); run.crew.producers],
            vec![word; run.crew.consumers],
        ))
    }

    fn push(word: &mut Self::Tx, item: Line) {
        word.number.store(<Task<Line>>::number(&item), Relaxed);
        // Release: pairs with the exchange in `pop`, for the number.
        word.items.fetch_add(1, Release);
        // SAFETY: the word is alive; waking changes no memory.
        unsafe { libc::syscall(libc::SYS_futex, word.items.as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    fn pop(word: &mut Self::Rx) -> Line {
        loop {
            let items = word.items.load(Relaxed);
            if items > 0 {
                let taken = word
                    .items
                    .compare_exchange(items, items - 1, Acquire, Relaxed);
                if taken.is_ok() {
                    return <Task<Line>>::make(word.number.load(Relaxed));
                }
                continue;
            }
            let forever: *const libc::timespec = std::ptr::null();
            // SAFETY: the word is alive; the call sleeps while it is zero, and changes no memory.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    word.items.as_ptr(),
                    libc::FUTEX_WAIT,
                    0,
                    forever,
                )
            };
        }
    }
}
