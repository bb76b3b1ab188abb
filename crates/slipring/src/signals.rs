//! Signals are the program's: a thread of ours takes none.

use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// What a thread brings upon itself, as a rule: while one of these is blocked, the kernel kills the process past any
/// handler. (Wakers are the program's, and run on our thread; a sandbox may answer system calls by `SIGSYS`.)
const FAULTS: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// Does `work` with all signals but faults blocked for this thread: so they are for one that it starts.
///
/// A thread that did so itself, as its first act, might be too late: a program may count on a signal being blocked
/// in all of its threads, so that it waits for whoever asks for it.
pub(crate) fn blocked<R>(work: impl FnOnce() -> R) -> R {
    let (mut most, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: room for a set, which it fills.
    unsafe { libc::sigfillset(most.as_mut_ptr()) };
    for fault in FAULTS {
        // SAFETY: filled above.
        unsafe { libc::sigdelset(most.as_mut_ptr(), fault) };
    }
    // SAFETY: a set, and room for one, which it fills. It cannot fail: the first argument is one of three. (Not
    // `SIG_SETMASK`: what the program has blocked stays so.)
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, most.as_ptr(), before.as_mut_ptr()) };
    let done = work();
    // SAFETY: filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut()) };
    done
}
