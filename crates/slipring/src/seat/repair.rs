//! Gives back what a holder had in its hands: when it leaves, when a successor takes its seat, and when whoever waits finds
//! it dead.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use slipring_core::End;
use slipring_core::layout::{LINE, Role, SEATS};
use slipring_core::proto::broadcast;
use slipring_core::proto::mpmc::{self, Delivery, Queue};
use slipring_core::proto::topic;
use slipring_core::seat::State;
use slipring_core::wait::{ALWAYS, Notifier};

use super::{Kernels, bit};
use crate::fork::NoFork;
use crate::lock;
use crate::setup_error::SetupError;
use crate::shm::{Files, Region};

/// Gives back what the present or former holder of this seat has in its hands: its place in the gating set, or the slots
/// that it has claimed. The caller is that holder, or holds the locks of the seat.
pub(super) fn give_back(region: &Region, number: usize) -> Result<(), SetupError> {
    let (control, geometry) = (region.control(), region.geometry());
    let (role, spec) = (geometry.role_of(number), geometry.kind.spec());
    if spec.each_sees_all && role == Role::Consumer {
        let (gating_set, bit) = (control.gating_set(), bit(region, number));
        match control.seat_words(geometry, number).pins {
            Some(pins) => topic::let_go(pins, gating_set, bit),
            None => broadcast::leave(gating_set, bit),
        }
    }
    let claims = control.claims(geometry);
    if let Some(queue) = claims.and_then(|claims| Queue::new(geometry, claims)) {
        let counters = &control.role(geometry, number).counters;
        // Relaxed: the holder's own word; the seat's lock orders it.
        let delivery = match counters.at_most_once.load(Ordering::Relaxed) {
            0 => Delivery::AtLeastOnce,
            _ => Delivery::AtMostOnce,
        };
        let seat = number - geometry.seats_of(role).start;
        // SAFETY: the caller's promise: the seat's holder is gone, or leaves and does not use it any more.
        unsafe { mpmc::recover(&queue, role, seat as u64, delivery) }?;
    }
    Ok(())
}

/// Returns `true` if others may wait for what the former holder of this seat has in its hands.
fn is_waited_for(region: &Region, number: usize) -> bool {
    let (control, geometry) = (region.control(), region.geometry());
    let spec = geometry.kind.spec();
    if spec.is_crowded() {
        let life = control.seat(number).life();
        return life.is_ok_and(|life| life.state == State::Held);
    }
    // Relaxed: the locks order everything that depends on it.
    spec.each_sees_all
        && geometry.role_of(number) == Role::Consumer
        && control.gating_set().load(Ordering::Relaxed) & bit(region, number) != 0
}

/// Gives back what dead holders had in their hands, so that nobody waits for them any more. It takes the seat of each,
/// as its next holder would. A holder whose lock is held, or just being taken, is alive. `number` is the seat of the
/// handle that looks.
pub(crate) fn repair_dead(
    region: &Region,
    number: usize,
    kernels: &Kernels,
) -> Result<(), SetupError> {
    let Some(files) = &region.files else {
        return Ok(());
    };
    let geometry = region.geometry();
    for other in 0..geometry.seats() {
        let waited_for = || other != number && is_waited_for(region, other);
        if !waited_for() || region.held(other)? != Some(false) {
            continue;
        }
        if give_back_under_locks(region, files, number, other)? && geometry.kind.spec().is_crowded()
        {
            // After the locks: this may open pipes, which holds forks off, too.
            wake_both_sides(region, number, kernels);
        }
    }
    Ok(())
}

/// Gives back what the dead holder of seat `other` had in its hands, if that is still so once its locks are ours.
fn give_back_under_locks(
    region: &Region,
    files: &Files,
    number: usize,
    other: usize,
) -> Result<bool, SetupError> {
    let (control, geometry) = (region.control(), region.geometry());
    // A child forked in between would hold the locks.
    let _no_fork = NoFork::begin();
    let held = SEATS + other * LINE;
    let (repairing, holding) = (files.fresh()?, files.fresh()?);
    // In the order of takers. Check once more: a successor may have come.
    let ours = lock::try_lock(repairing.as_fd(), held + 1)?
        && lock::try_lock(holding.as_fd(), held)?
        && is_waited_for(region, other);
    if !ours {
        return Ok(false);
    }
    give_back(region, other)?;
    // A dead holder need not learn that a waiter sleeps without a barrier. Its successor begins anew.
    let dead = control.role(geometry, other);
    dead.counters.fence_ack.store(ALWAYS, Ordering::Relaxed);
    if geometry.kind.spec().is_crowded() {
        let line = control.seat(other);
        line.leave(line.life()?.generation, End::Died);
    }
    let recovered = &control.role(geometry, number).counters.recovered;
    // One writer: a load and a store, no read-modify-write.
    let count = recovered.load(Ordering::Relaxed).wrapping_add(1);
    recovered.store(count, Ordering::Relaxed);
    Ok(true)
}

/// Wakes both sides, for the holder of seat `number`, which has given back what a dead end held. A thread that waits on
/// behalf of the handle may call this.
fn wake_both_sides(region: &Region, number: usize, kernels: &Kernels) {
    let (control, geometry) = (region.control(), region.geometry());
    let role = geometry.role_of(number);
    let counters = &control.role(geometry, number).counters;
    let opposite = Some((role.other(), &kernels.opposite));
    let fellows = kernels.fellows.as_ref().map(|os| (role, os));
    for (side, os) in opposite.into_iter().chain(fellows) {
        let wait_cell = control.wait_cell(side == Role::Consumer);
        let notifier = Notifier::new(wait_cell, region.side(side), counters, os.fenced(), &**os);
        // The handle that looks needs no wake: it looks.
        let except = if side == role { bit(region, number) } else { 0 };
        notifier.of_fellows(except).wake();
    }
}
