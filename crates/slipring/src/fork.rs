//! Keeps forks from breaking channels: seats are not inherited, and handles in the child are inert.
//!
//! Three means achieve this:
//! * A *limit page* is a private page that holds a handle's cached limit. The kernel wipes it in a
//!   forked child. If the kernel refuses, a handler of ours wipes it before `fork` returns there.
//!   So the cached limit is zero in the child.
//! * A mutex that every fork takes (through `pthread_atfork`), and that every thread takes while it
//!   takes a seat. So no child is born between the moment a descriptor holds a seat's lock and the
//!   moment it is closed.
//! * A list of the descriptors whose last copy must go with their process, because a peer watches
//!   for their hang-up. The child closes them before `fork` returns there.

use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use slipring_core::CachedLimit;

use crate::error::{self, Error};
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

/// The cached limits that the kernel would not wipe: a forked child's handler wipes them.
struct Unwiped(UnsafeCell<Vec<NonNull<CachedLimit>>>);

// SAFETY: touched only while `MUTEX` is held.
unsafe impl Sync for Unwiped {}

static UNWIPED: Unwiped = Unwiped(UnsafeCell::new(Vec::new()));
/// The number of forks between the program's start and this process.
static FORKS: AtomicU64 = AtomicU64::new(0);
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Runs before `main`, and so before any thread: a fork in progress would miss handlers registered
/// later.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = register;

extern "C" fn register() {
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the three take or free one mutex, and close descriptors, which a fork handler may
        // do. The call fails only without memory; then a concurrent fork may keep a seat held, but
        // no worse.
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
    // Relaxed: there is only one thread so far.
    FORKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: this thread, the child's only one, holds the mutex since `lock`.
    let kept = unsafe { &mut *KEPT.0.get() };
    for fd in kept.iter() {
        // SAFETY: the copy of a descriptor that an `Unforked` of the parent owns. That `Unforked`'s
        // copy in this process does not close it: see its `drop`.
        unsafe { libc::close(*fd) };
    }
    kept.clear();
    // SAFETY: under the mutex, as above.
    let unwiped = unsafe { &*UNWIPED.0.get() };
    for cached_limit in unwiped {
        // SAFETY: this process's copy of a page that is taken off the list before it is unmapped.
        // Zeros are a valid `CachedLimit`, and this process has no other thread that could look at
        // it.
        unsafe { cached_limit.write_bytes(0, 1) };
    }
    // SAFETY: held since `lock`.
    unsafe { unlock() };
}

/// Returns the number of forks between the program's start and this process.
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// A descriptor that no forked child keeps.
pub(crate) struct Unforked {
    fd: ManuallyDrop<OwnedFd>,
    /// `FORKS` when it was opened. If `FORKS` differs now, `in_the_child` closed the descriptor.
    forks: u64,
}

impl Unforked {
    /// Returns the descriptor that `open` opens. Do not call it, nor drop the result, while a
    /// `NoFork` of this thread lives.
    pub(crate) fn open<E>(open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Unforked, E> {
        Unforked::open_within(&NoFork::begin(), open)
    }

    /// Like [`open`](Self::open), for a caller that holds a `NoFork` already. Drop the result after
    /// that `NoFork`.
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

    /// Returns the descriptor in the process that opened it, and `None` elsewhere.
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

/// While this lives, no thread can `fork`; a raw `clone` is outside the promise.
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

/// The offset of the cached limit on its page. It differs from the offset of a position on its role
/// page. A processor compares the twelve low address bits of a load with those of earlier stores.
/// If they agree, it takes the load for a reader of that store, and waits until the store is done.
const LIMIT: usize = 1984;

/// A page of this process alone with one cached limit on it. A forked child finds it full of zeros.
pub(crate) struct LimitPage {
    cached_limit: NonNull<CachedLimit>,
    /// `true` if the kernel wipes the page; if not, the page is on the list that `in_the_child`
    /// wipes.
    wiped: bool,
}

// SAFETY: the page belongs to one handle; the cached limit's words are atomics.
unsafe impl Send for LimitPage {}
// SAFETY: as above.
unsafe impl Sync for LimitPage {}

impl LimitPage {
    /// Maps a new page. Do not call it, nor drop the result, while a `NoFork` of this thread lives.
    pub(crate) fn new() -> Result<LimitPage, Error> {
        let len = rustix::param::page_size();
        let fail = |errno| error::os("map a cached_limit page", errno);
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
        // SAFETY: the mapping just made, whole. In the child it will read as zeros: a valid
        // `CachedLimit`.
        let wiped = unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) }.is_ok();
        // SAFETY: `LIMIT` lies in the page.
        let cached_limit = unsafe { page.byte_add(LIMIT) };
        let cached_limit =
            NonNull::new(cached_limit.cast::<CachedLimit>()).unwrap_or(NonNull::dangling());
        // SAFETY: mapped writable, 64-byte aligned, and no other code knows it yet.
        unsafe { cached_limit.write(CachedLimit::new()) };
        if !wiped {
            let _no_fork = NoFork::begin();
            // SAFETY: under the mutex.
            let unwiped = unsafe { &mut *UNWIPED.0.get() };
            unwiped.push(cached_limit);
        }
        Ok(LimitPage {
            cached_limit,
            wiped,
        })
    }

    /// Returns the cached limit, for the handle that this page was made for.
    ///
    /// # Safety
    /// Call this once, and do not use the result after the page is dropped.
    pub(crate) unsafe fn cached_limit(&self) -> &'static mut CachedLimit {
        let mut cached_limit = self.cached_limit;
        // SAFETY: zeros, 64-byte aligned, are a valid `CachedLimit`; the caller promises the rest.
        unsafe { cached_limit.as_mut() }
    }

    /// Returns `true` in the process that made the handle, and `false` in a forked child.
    pub(crate) fn alive(&self) -> bool {
        // SAFETY: mapped until drop, and made of atomics, so a shared reference is always fine.
        unsafe { self.cached_limit.as_ref() }.alive()
    }
}

impl Drop for LimitPage {
    fn drop(&mut self) {
        if !self.wiped {
            let _no_fork = NoFork::begin();
            // SAFETY: under the mutex.
            let unwiped = unsafe { &mut *UNWIPED.0.get() };
            unwiped.retain(|cached_limit| *cached_limit != self.cached_limit);
        }
        // SAFETY: the cached limit lies `LIMIT` bytes behind the start of the page that `new`
        // mapped.
        let page = unsafe { self.cached_limit.byte_sub(LIMIT) };
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

    /// Returns, for each of the two user signals, whether this thread blocks it.
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
