//! Helpers for a test that runs futures by itself, without a runtime.
#![allow(dead_code)] // Each test file uses a part of it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use slipring::spsc;

/// Returns a channel on the heap, and one in memfds.
pub(crate) fn channels(capacity: usize) -> [(spsc::Producer<u64>, spsc::Consumer<u64>); 2] {
    let memfd = spsc::Builder::new(capacity).memfd().unwrap();
    let passed = (memfd.producer().unwrap(), memfd.consumer().unwrap());
    [spsc::channel(capacity).unwrap(), passed]
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, which sleeps in between.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Polls a future once, and drops it; its waker does nothing.
pub(crate) fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A waker that counts its wakes.
struct Counted(AtomicU64, Waker);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.wake_by_ref();
    }
}

/// Returns how often `idle`, which is never ready, asks to be polled again until `other` is done.
pub(crate) async fn polls_until(idle: impl Future, other: impl Future) -> u64 {
    let (mut idle, mut other) = (pin!(idle), pin!(other));
    let mut idle_waker: Option<Arc<Counted>> = None;
    let mut polls = 0;
    poll_fn(|cx| {
        let counted =
            idle_waker.get_or_insert_with(|| Arc::new(Counted(1.into(), cx.waker().clone())));
        if counted.0.load(Ordering::SeqCst) > polls {
            polls += 1;
            let waker = Waker::from(counted.clone());
            assert!(
                idle.as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        other.as_mut().poll(cx).map(|_| ())
    })
    .await;
    polls
}

/// Returns all outputs, in order. Polls all futures that are not done whenever one of them is
/// woken.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(done) = future.as_mut().poll(cx)
            {
                *output = Some(done);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Forks a child that does `work`, and leaves no trace of the test that it is a copy of. The child
/// is killed if it hangs.
pub(crate) fn fork(work: impl FnOnce()) -> rustix::process::Pid {
    // SAFETY: the child uses what is made in it, and memory, which the C library keeps usable.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "cannot fork");
    if pid > 0 {
        return rustix::process::Pid::from_raw(pid).unwrap();
    }
    // SAFETY: no memory is involved.
    unsafe { libc::alarm(60) };
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    // SAFETY: as above.
    unsafe { libc::_exit(i32::from(done.is_err())) }
}

/// Returns `true` if the child did its work, and `false` if it failed or was killed.
pub(crate) fn succeeded(child: rustix::process::Pid) -> bool {
    let options = rustix::process::WaitOptions::empty();
    let (_, status) = rustix::process::waitpid(Some(child), options)
        .unwrap()
        .unwrap();
    status.exit_status() == Some(0)
}
