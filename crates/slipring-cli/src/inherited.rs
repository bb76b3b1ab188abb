//! Detects two things that this process inherits from its starter: closed descriptors and ignored
//! signals.
//!
//! Rust's runtime opens /dev/null in place of closed descriptors 0 to 2 before `main`. A `recv` would then
//! throw its messages away and report success. So a function in `.init_array` looks before the runtime does.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

use crate::exit::Failure;

/// Bit `n` is set if descriptor `n` was closed when the process began.
static CLOSED: AtomicU8 = AtomicU8::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = look;

/// Runs before `main` and before any other thread. It calls nothing of Rust's runtime.
extern "C" fn look() {
    for fd in 0..3 {
        // SAFETY: F_GETFD takes no pointer, changes nothing, and answers EBADF for a closed descriptor.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

/// Fails if one of these descriptors (0, 1 or 2) was closed when the process began.
pub(crate) fn check_descriptors(used: &[usize]) -> Result<(), Failure> {
    let closed = CLOSED.load(Ordering::Relaxed);
    let names = ["standard input", "standard output", "standard error"];
    for (fd, name) in names.iter().enumerate() {
        if used.contains(&fd) && closed & (1 << fd) != 0 {
            return Err(Failure::Words(format!(
                "{name} (descriptor {fd}) is closed; open it, or redirect it to /dev/null"
            )));
        }
    }
    Ok(())
}

/// Returns `true` if the starter ignored this signal, as nohup does with SIGHUP.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut old = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the old one, into memory of the right type.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), old.as_mut_ptr()) };
    // SAFETY: all bytes of it are zero or were written by the kernel; both are values of this C struct.
    let old = unsafe { old.assume_init() };
    asked == 0 && old.sa_sigaction == libc::SIG_IGN
}
