//! The waiting side of the protocol. See the head of `wait.rs`.

use super::{Asked, FENCED, Os, Reach, SEEN_WITHIN, WakeMode};
use crate::layout::{Counters, MOST_SEATS, Side, WaitCell};
use crate::seat::State;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Sleeps on behalf of one handle, until the other side wakes it.
pub struct Waiter<'m> {
    wait_cell: &'m WaitCell,
    /// The handle's bit in `waiters`.
    bit: u64,
    /// This handle's own words.
    mine: &'m Counters,
    /// The seats whose holders wake this one.
    publishers: Side<'m>,
    /// `true` if no other waiter uses this wait cell.
    alone: bool,
    /// The epoch that publishers must acknowledge, once this waiter knows that it has no barrier; 0
    /// before.
    ///
    /// An atomic, since a wait set may arm on behalf of the handle.
    epoch: AtomicU64,
    os: &'m dyn Os,
}

impl<'m> Waiter<'m> {
    /// Makes a waiter on `wait_cell`, in seat `seat` of its side, with the words `mine`.
    ///
    /// One of `publishers` wakes it. `alone` says that the side has no other seat.
    ///
    /// # Panics
    /// If `seat` is not below [`MOST_SEATS`].
    pub fn new(
        wait_cell: &'m WaitCell,
        seat: usize,
        mine: &'m Counters,
        publishers: Side<'m>,
        alone: bool,
        os: &'m dyn Os,
    ) -> Self {
        assert!(seat < MOST_SEATS, "a side has at most {MOST_SEATS} seats");
        Waiter {
            wait_cell,
            bit: 1 << seat,
            mine,
            publishers,
            alone,
            epoch: AtomicU64::new(0),
            os,
        }
    }

    /// Returns the futex on which the handle sleeps.
    #[inline]
    pub fn doorbell(&self) -> &'m AtomicU32 {
        self.wait_cell
            .doorbell_of(self.bit.trailing_zeros() as usize)
    }

    /// Asks to be woken by `wake_mode`.
    ///
    /// The caller must look once more afterwards, before [`sleep`](Self::sleep). An earlier publish
    /// may have missed the bit.
    pub fn arm(&self, wake_mode: WakeMode) -> Asked {
        // Acquire: pairs with the bump in `Notifier::tell`, and comes before the set.
        let seen = self.doorbell().load(Ordering::Acquire);
        // Relaxed: the set's release keeps this before the set.
        self.mine
            .wake_mode
            .store(wake_mode as u64, Ordering::Relaxed);
        // Relaxed, all of `epoch`: a handle and the wait set that it is in do not arm at once. If
        // they do, one more epoch begins.
        if self.epoch.load(Ordering::Relaxed) == 0 {
            // Release: pairs with the acquire in `Notifier::tell`. Before the barrier.
            self.wait_cell.waiters.fetch_or(self.bit, Ordering::Release);
            let reach = self.os.barrier();
            if reach != Reach::Nobody {
                let overlooked = reach == Reach::Known;
                return Asked { seen, overlooked };
            }
            // Release: pairs with the acquire in `Notifier::wake_for`; our seat was repaired before it.
            let before = self.wait_cell.epoch.fetch_add(1, Ordering::Release);
            self.epoch.store(before.wrapping_add(1), Ordering::Relaxed);
        }
        // Release: as above. Before the fence.
        self.wait_cell
            .waiters
            .fetch_or(self.bit | FENCED, Ordering::Release);
        // SeqCst: pairs with the fence in `Notifier::wake_for`.
        fence(Ordering::SeqCst);
        Asked {
            seen,
            overlooked: false,
        }
    }

    /// Sleeps until a notifier wakes it, for at most `at_most` nanoseconds. May return at any time.
    pub fn sleep(&self, seen: u32, at_most: u64) {
        let at_most = if self.heard() {
            at_most
        } else {
            at_most.min(SEEN_WITHIN)
        };
        self.os.sleep(self.doorbell(), seen, self.bit, at_most);
    }

    /// Returns `true` if a publish under way may have overlooked the bit that `arm` set.
    ///
    /// A caller that cannot bound its sleep must then look once more, [`SEEN_WITHIN`] after that
    /// `arm`.
    pub fn unsure(&self, asked: Asked) -> bool {
        asked.overlooked || !self.heard()
    }

    /// Returns `true` if all publishers have acknowledged that they fence, if they must (*mixed*).
    pub fn heard(&self) -> bool {
        let epoch = self.epoch.load(Ordering::Relaxed);
        if epoch == 0 {
            return true;
        }
        // A publisher that sits down acknowledges by its arrival, and one that left publishes
        // nothing. An epoch later than ours belongs to another waiter, for which `FENCED` stands as
        // well. `ALWAYS` is later than any epoch.
        self.publishers.seats().iter().all(|publisher| {
            let held = publisher
                .line
                .life()
                .is_ok_and(|life| life.state == State::Held);
            // Relaxed: nothing is read that this orders.
            !held || publisher.counters.fence_ack.load(Ordering::Relaxed) >= epoch
        })
    }

    /// Returns `true` if the bit that `arm` set still stands: no notifier took it since.
    pub fn armed(&self) -> bool {
        // Relaxed: our own bit, which others only clear.
        self.wait_cell.waiters.load(Ordering::Relaxed) & self.bit != 0
    }

    /// Returns `true` if it is time to look, and to arm again.
    ///
    /// Either a notifier bumped the doorbell since `arm` returned `seen`, or one cleared the bit
    /// and was killed before its bump. In the second case no wake would come.
    pub fn rung(&self, seen: u32) -> bool {
        // Relaxed, both: a hint; the fence of the next `arm` comes before its look.
        self.doorbell().load(Ordering::Relaxed) != seen || !self.armed()
    }

    /// Returns `true` if `arm` asked for a byte in the pipe, and the request still stands.
    pub fn polls(&self) -> bool {
        // Relaxed: a hint.
        self.mine.wake_mode.load(Ordering::Relaxed) == WakeMode::Pipe as u64 && self.armed()
    }

    /// Returns the doorbell's value, to sleep on, if the bit that `arm` set still stands. A notifier may have rung for
    /// others since `arm`.
    pub fn asks_still(&self) -> Option<u32> {
        // Acquire: pairs with the bump in `Notifier::tell`. If this sees the bump of a notifier that took our bit, the next
        // load sees that the bit is gone. If not, the kernel finds the doorbell changed.
        let seen = self.doorbell().load(Ordering::Acquire);
        self.armed().then_some(seen)
    }

    /// Takes back the request that `arm` made. Returns `false` if a notifier had taken it.
    pub fn disarm(&self) -> bool {
        // Relaxed: this asks for nothing.
        let clear = || {
            self.wait_cell
                .waiters
                .fetch_and(!self.bit, Ordering::Relaxed)
        };
        self.armed() && clear() & self.bit != 0
    }

    /// Clears the requests of a holder of this seat that leaves or died.
    ///
    /// Clears `FENCED` only if no other waiter may have set it.
    pub fn repair(&self) {
        let fenced = if self.alone { FENCED } else { 0 };
        // Relaxed: the next holder's bump of `epoch`, which is a release, comes after this.
        self.wait_cell
            .waiters
            .fetch_and(!(self.bit | fenced), Ordering::Relaxed);
    }
}
