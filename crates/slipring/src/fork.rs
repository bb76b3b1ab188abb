//! What a fork must not break: seats are not inherited, and handles in the child are inert.
//!
//! Three means. A *lease page* is a private page that the kernel wipes in a forked child (or, where it refuses,
//! a handler of ours, before `fork` returns there), so that the figure on it by which a handle may run unasked is zero there. And a mutex, taken by every
//! fork (through `pthread_atfork`) and by whoever takes a seat, so that no child is born between
//! the moment a descriptor holds a seat's lock and the moment it is closed. (Its holder takes no signals but faults: a
//! handler might fork.) And a list of the
//! descriptors whose last copy must go with their process, since somebody watches for their hang-up: the
//! child closes them before `fork` returns there.

use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use slipring_core::Lease;

use crate::error::Error;
use crate::signals;

struct ForkMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is made to be shared; it is only touched through the pthread calls below.
unsafe impl Sync for ForkMutex {}

static MUTEX: ForkMutex = ForkMutex(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

/// The signals that the mutex's holder had blocked before it took it.
struct Before(UnsafeCell<MaybeUninit<libc::sigset_t>>);

// SAFETY: touched only while `MUTEX` is held.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));

/// The descriptors that a forked child closes.
struct Kept(UnsafeCell<Vec<RawFd>>);

// SAFETY: touched only while `MUTEX` is held.
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept(UnsafeCell::new(Vec::new()));

/// The leases that the kernel would not wipe: a forked child's handler does.
struct Unwiped(UnsafeCell<Vec<NonNull<Lease>>>);

// SAFETY: touched only while `MUTEX` is held.
unsafe impl Sync for Unwiped {}

static UNWIPED: Unwiped = Unwiped(UnsafeCell::new(Vec::new()));
/// How many forks lie between this process and the program's start.
static FORKS: AtomicU64 = AtomicU64::new(0);
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Before `main`, and so before any thread: a fork under way would miss handlers registered later.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = register;

extern "C" fn register() {
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the three take or free one mutex, and close descriptors, which a fork handler may do.
        // Refused only without memory; then a concurrent fork may keep a seat held, no worse.
        unsafe { pthread_atfork(Some(lock), Some(unlock), Some(in_the_child)) };
    }
}

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> libc::c_int;
}

unsafe extern "C" fn lock() {
    // First: a signal handler that forks would wait for the mutex, and so for the thread that it interrupted.
    let before = signals::block();
    // SAFETY: a static, initialised mutex.
    unsafe { libc::pthread_mutex_lock(MUTEX.0.get()) };
    // SAFETY: under the mutex.
    unsafe { BEFORE.0.get().write(MaybeUninit::new(before)) };
}

unsafe extern "C" fn unlock() {
    // SAFETY: under the mutex.
    let before = unsafe { *BEFORE.0.get() };
    // SAFETY: called by the thread that holds the mutex: after `lock`, or after fork's prepare.
    unsafe { libc::pthread_mutex_unlock(MUTEX.0.get()) };
    // SAFETY: `lock` has written it.
    signals::restore(unsafe { before.assume_init_ref() });
}

unsafe extern "C" fn in_the_child() {
    // Relaxed: one thread, so far.
    FORKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: this thread, the child's only one, holds the mutex since `lock`.
    let kept = unsafe { &mut *KEPT.0.get() };
    for fd in kept.iter() {
        // SAFETY: the copy of a descriptor that an `Unforked` of the parent owns; its copy in this
        // process will not close it, see there.
        unsafe { libc::close(*fd) };
    }
    kept.clear();
    // SAFETY: under the mutex, as above.
    let unwiped = unsafe { &*UNWIPED.0.get() };
    for lease in unwiped {
        // SAFETY: this process's copy of a page that is taken off the list before it is unmapped. Zeros are a
        // valid Lease, and no other thread is here that could look at it.
        unsafe { lease.write_bytes(0, 1) };
    }
    // SAFETY: held since `lock`.
    unsafe { unlock() };
}

/// How many forks lie between this process and the program's start.
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// A descriptor that no forked child keeps.
pub(crate) struct Unforked {
    fd: ManuallyDrop<OwnedFd>,
    /// `FORKS` when it was opened: another one now means that it was closed in `in_the_child`.
    forks: u64,
}

impl Unforked {
    /// What `open` opens. Not to be called (nor dropped) while a `NoFork` of this thread lives.
    pub(crate) fn open<E>(open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Unforked, E> {
        Unforked::open_within(&NoFork::begin(), open)
    }

    /// As [`open`](Self::open), for a caller that keeps forks off by itself. (Dropped after that is over.)
    pub(crate) fn open_within<E>(
        _no_fork: &NoFork,
        open: impl FnOnce() -> Result<OwnedFd, E>,
    ) -> Result<Unforked, E> {
        let fd = open()?;
        // SAFETY: under the mutex.
        let kept = unsafe { &mut *KEPT.0.get() };
        kept.push(fd.as_raw_fd());
        Ok(Unforked {
            fd: ManuallyDrop::new(fd),
            forks: FORKS.load(Ordering::Relaxed),
        })
    }

    /// The descriptor, in the process that opened it.
    pub(crate) fn get(&self) -> Option<BorrowedFd<'_>> {
        (self.forks == FORKS.load(Ordering::Relaxed)).then(|| self.fd.as_fd())
    }
}

impl Drop for Unforked {
    fn drop(&mut self) {
        let _no_fork = NoFork::begin();
        if self.forks != FORKS.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: under the mutex.
        let kept = unsafe { &mut *KEPT.0.get() };
        let ours = self.fd.as_raw_fd();
        kept.retain(|fd| *fd != ours);
        // SAFETY: dropped once, here, in the process that opened it.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
    }
}

/// While this lives, nobody forks (with `fork`; a raw `clone` is outside the promise), and signals wait.
pub(crate) struct NoFork(());

impl NoFork {
    pub(crate) fn begin() -> NoFork {
        register();
        // SAFETY: unlocked by `drop`, on this thread (`NoFork` is not sent: it lives in one call).
        unsafe { lock() };
        NoFork(())
    }
}

impl Drop for NoFork {
    fn drop(&mut self) {
        // SAFETY: `begin` locked it on this thread.
        unsafe { unlock() };
    }
}

/// Where on its page the lease lies: not where a role page has its position, since a processor takes
/// a load for the reader of an earlier store that agrees with it in its address's twelve low bits,
/// and waits until that store is done.
const LEASE: usize = 1984;

/// A page of this process alone that a forked child finds full of zeros, with one lease on it.
pub(crate) struct LeasePage {
    lease: NonNull<Lease>,
    /// Whether the kernel wipes it; if not, it is on the list of those that `in_the_child` does.
    wiped: bool,
}

// SAFETY: the page belongs to one handle; the lease's words are atomics.
unsafe impl Send for LeasePage {}
// SAFETY: as above.
unsafe impl Sync for LeasePage {}

impl LeasePage {
    /// Not to be called (nor dropped) while a `NoFork` of this thread lives.
    pub(crate) fn new() -> Result<LeasePage, Error> {
        let len = rustix::param::page_size();
        let fail = |errno| Error::space("map a lease page", len as u64, errno);
        let flags = MapFlags::PRIVATE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let page = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        }
        .map_err(fail)?;
        // SAFETY: the mapping just made, whole. In the child it will read as zeros: a valid Lease.
        let wiped = unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) }.is_ok();
        // SAFETY: LEASE lies in the page.
        let lease = unsafe { page.byte_add(LEASE) };
        let lease = NonNull::new(lease.cast::<Lease>()).unwrap_or(NonNull::dangling());
        // SAFETY: mapped writable, 64-byte aligned, and nobody else knows it yet.
        unsafe { lease.write(Lease::new()) };
        if !wiped {
            let _no_fork = NoFork::begin();
            // SAFETY: under the mutex.
            let unwiped = unsafe { &mut *UNWIPED.0.get() };
            unwiped.push(lease);
        }
        Ok(LeasePage { lease, wiped })
    }

    /// The lease, for the handle that this page was made for.
    ///
    /// # Safety
    /// Called once, and what it returns is not used after the page is dropped.
    pub(crate) unsafe fn lease(&self) -> &'static mut Lease {
        let mut lease = self.lease;
        // SAFETY: zeros, 64-byte aligned, are a valid Lease; the caller promises the rest.
        unsafe { lease.as_mut() }
    }

    /// Whether this is the process that made the handle, not a forked child.
    pub(crate) fn alive(&self) -> bool {
        // SAFETY: mapped until drop, and made of atomics, so a shared look is always fine.
        unsafe { self.lease.as_ref() }.alive()
    }
}

impl Drop for LeasePage {
    fn drop(&mut self) {
        if !self.wiped {
            let _no_fork = NoFork::begin();
            // SAFETY: under the mutex.
            let unwiped = unsafe { &mut *UNWIPED.0.get() };
            unwiped.retain(|lease| *lease != self.lease);
        }
        // SAFETY: the lease lies so far behind the start of the page that `new` mapped.
        let page = unsafe { self.lease.byte_sub(LEASE) };
        // SAFETY: that page; a forked child has its own copy of the mapping.
        let _ = unsafe { rustix::mm::munmap(page.as_ptr().cast(), rustix::param::page_size()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    static TAKEN: AtomicU32 = AtomicU32::new(0);

    extern "C" fn take(_: libc::c_int) {
        TAKEN.fetch_add(1, Ordering::Relaxed);
    }

    fn taken_after_raise() -> u32 {
        // SAFETY: to this thread, and there is a handler.
        unsafe { libc::raise(libc::SIGUSR1) };
        TAKEN.load(Ordering::Relaxed)
    }

    /// Whether this thread blocks the two user signals.
    fn blocked() -> [bool; 2] {
        let mut set = MaybeUninit::uninit();
        // SAFETY: room for a set, which it fills; it changes nothing.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr()) };
        [libc::SIGUSR1, libc::SIGUSR2].map(|signal| {
            // SAFETY: filled above.
            unsafe { libc::sigismember(set.as_ptr(), signal) == 1 }
        })
    }

    /// A handler might fork, and would then wait for the thread that it interrupted.
    #[test]
    fn signals_wait_while_forks_do() {
        // SAFETY: a handler that does no more than one may.
        unsafe { libc::signal(libc::SIGUSR1, take as *const () as libc::sighandler_t) };
        let no_fork = NoFork::begin();
        assert_eq!(taken_after_raise(), 0);
        drop(no_fork);
        assert_eq!(TAKEN.load(Ordering::Relaxed), 1);
        // As `fork` calls the two.
        // SAFETY: unlocked below, on this thread.
        unsafe { lock() };
        assert_eq!(taken_after_raise(), 1);
        // SAFETY: locked above.
        unsafe { unlock() };
        assert_eq!(TAKEN.load(Ordering::Relaxed), 2);
    }

    /// After a fork, parent and child block what the parent did, and no more.
    #[test]
    fn forks_leave_signals_as_they_were() {
        let before = signals::block();
        let mut second = before;
        // SAFETY: a set.
        unsafe { libc::sigaddset(&raw mut second, libc::SIGUSR2) };
        signals::restore(&second);
        // SAFETY: the child does nothing that needs another thread.
        let child = unsafe { libc::fork() };
        let as_before = blocked() == [false, true];
        if child == 0 {
            // SAFETY: ends the child, past all that the parent's has to do at its end.
            unsafe { libc::_exit(i32::from(!as_before)) };
        }
        let mut status = -1;
        // SAFETY: our child, and room for its status.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        signals::restore(&before);
        assert!(as_before);
        assert_eq!(status, 0);
    }
}
