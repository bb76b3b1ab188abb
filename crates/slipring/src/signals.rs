//! Signals are the program's: a thread of ours takes none.

use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Does `work` with all signals blocked for this thread: so they are for one that it starts.
///
/// A thread that did so itself, as its first act, might be too late: a program may count on a signal being blocked
/// in all of its threads, so that it waits for whoever asks for it.
pub(crate) fn blocked<R>(work: impl FnOnce() -> R) -> R {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: room for a set, which it fills.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: a full set, and room for one, which it fills. It cannot fail: the first argument is one of three.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let done = work();
    // SAFETY: filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut()) };
    done
}
