//! A waker belongs to the program, and runs on the helper thread. The faults that it causes go to
//! the program's handlers, as on any other thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;
use std::pin::pin;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;

use slipring::spsc;

/// A page that a handler makes writable at the first access.
struct Touches {
    page: AtomicUsize,
    touched: AtomicBool,
}

impl Wake for Touches {
    fn wake(self: Arc<Self>) {
        let page = self.page.load(Ordering::SeqCst) as *mut u8;
        // SAFETY: a page of ours, which the handler makes writable.
        unsafe { page.write_volatile(1) };
        self.touched.store(true, Ordering::SeqCst);
    }
}

extern "C" fn open(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's, for as long as the handler runs.
    let info = unsafe { &*info };
    // SAFETY: a fault has an address.
    let page = unsafe { info.si_addr() } as usize & !4095;
    // SAFETY: of the page that was touched.
    unsafe { libc::mprotect(page as *mut _, 4096, libc::PROT_READ | libc::PROT_WRITE) };
}

#[test]
fn a_waker_may_fault() {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = open as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: a handler that makes one system call.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, null_mut()) };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let page = unsafe { libc::mmap(null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
    let (mut tx, mut rx) = spsc::channel::<u64>(4).unwrap();
    let touches = Arc::new(Touches {
        page: AtomicUsize::new(page as usize),
        touched: AtomicBool::new(false),
    });
    let waker = Waker::from(touches.clone());
    {
        let next = pin!(rx.pop_async());
        assert!(next.poll(&mut Context::from_waker(&waker)).is_pending());
    }
    tx.push(1).unwrap();
    while !touches.touched.load(Ordering::SeqCst) {
        thread::yield_now();
    }
}
