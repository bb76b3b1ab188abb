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
    let before = block();
    let done = work();
    restore(&before);
    done
}

/// Blocks all signals but faults for this thread, and returns those that were blocked before. A signal handler may
/// call it.
pub(crate) fn block() -> libc::sigset_t {
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
    // SAFETY: filled above.
    unsafe { before.assume_init() }
}

/// Blocks these signals for this thread, and no others.
pub(crate) fn restore(before: &libc::sigset_t) {
    // SAFETY: a set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, null_mut()) };
}
