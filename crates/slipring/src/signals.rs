//! Signals belong to the program: a thread of ours takes none.

use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Signals that a thread usually causes itself. If one of these is blocked, the kernel kills the
/// process without running any handler. Our thread can cause them: wakers are the program's code
/// and run on it, and a sandbox may answer system calls with `SIGSYS`.
const FAULTS: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// Runs `work` with all signals but faults blocked in this thread, and so in a thread that `work`
/// starts.
///
/// If the new thread blocked them itself, as its first act, it might be too late. A program may
/// rely on a signal being blocked in all of its threads, so that it stays pending until a thread
/// takes it.
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
    // SAFETY: a set, and room for one, which it fills. It cannot fail: the first argument is one of
    // three valid ones. Not `SIG_SETMASK`: signals that the program has blocked stay blocked.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, most.as_ptr(), before.as_mut_ptr()) };
    // SAFETY: filled above.
    unsafe { before.assume_init() }
}

/// Blocks these signals for this thread, and no others.
pub(crate) fn restore(before: &libc::sigset_t) {
    // SAFETY: a set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, null_mut()) };
}
