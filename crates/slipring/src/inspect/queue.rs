//! Inspects a work queue: who has which messages and slots in hand, since when, and what is out of the ordinary.

use std::time::Duration;

use slipring_core::layout::{Header, Role};
use slipring_core::outside::View;
use slipring_core::proto::mpmc::{self, State};

use crate::clock;

/// The use that an end makes of the slots of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimState {
    /// A producer has reserved them, and not committed them yet. Consumers wait behind them.
    Reserved,
    /// A consumer copies the messages out.
    Taken,
    /// A consumer reads the messages in place.
    Held,
}

impl ClaimState {
    /// Returns the state in one word.
    pub fn name(self) -> &'static str {
        match self {
            ClaimState::Reserved => "reserved",
            ClaimState::Taken => "taken",
            ClaimState::Held => "held",
        }
    }
}

/// Slots of a work queue that an end has in its hands: one, or several in a row. All fields are hints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// The role of the end.
    pub role: Role,
    /// The number of the end's seat in its role, counted from zero: [`SeatStat::index`](super::SeatStat::index).
    pub index: usize,
    /// The use that the end makes of the slots.
    pub state: ClaimState,
    /// The position of the first slot, in slots. Each time that the queue goes round a held message, its position grows by
    /// a lap.
    pub position: u64,
    /// The number of slots.
    pub count: u64,
    /// The time since the messages were taken, a few milliseconds inexact. Only [`Held`](ClaimState::Held) messages have
    /// one.
    ///
    /// It does not count while the machine sleeps. `None` after a reboot, and for a time that cannot be right. Just after
    /// a message was taken, and if its holder died just then, it may be that of an earlier holder of the slot.
    pub held_for: Option<Duration>,
    /// The number of times that the messages had been delivered before, to consumers that gave them back or died with
    /// them.
    pub deliveries: u32,
}

/// The visible contents of a work queue that are neither free nor waiting for their first delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStat {
    /// The slots that the ends have claimed, in the order of the slots. A claim that changed meanwhile may be missed, or be
    /// listed twice.
    pub claims: Vec<Claim>,
    /// The number of dead letters: see [`dead_letters`](crate::mpmc::Builder::dead_letters).
    pub dead_letters: u64,
    /// The number of messages that wait to be delivered again.
    pub returned: u64,
    /// The number of slots whose words are impossible.
    pub corrupt: u64,
}

/// Returns the contents of a queue; `None` for another kind.
pub(super) fn look(view: &View<'_>, header: &Header) -> Option<QueueStat> {
    let mut found = Vec::new();
    let tally = mpmc::claims(view, |claim| found.push(claim))?;
    // After the look: whatever a holder wrote on this machine is earlier.
    let now = clock::since_boot_awake();
    let boot = clock::boot_id();
    let same_boot = boot != 0 && header.identity.boot == boot;
    let claims = found.into_iter().map(|claim| Claim {
        role: claim.role,
        index: claim.seat as usize,
        state: match claim.state {
            State::Reserved => ClaimState::Reserved,
            State::Held => ClaimState::Held,
            _ => ClaimState::Taken,
        },
        position: claim.position,
        count: claim.count,
        held_for: claim
            .since
            .filter(|_| same_boot)
            .and_then(|since| age(since, now)),
        deliveries: claim.deliveries,
    });
    Some(QueueStat {
        claims: claims.collect(),
        dead_letters: tally.dead_letters,
        returned: tally.returned,
        corrupt: tally.corrupt,
    })
}

/// Returns how long ago `since` was; `None` if it is yet to come.
fn age(since: u64, now: u64) -> Option<Duration> {
    now.checked_sub(since).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time that is yet to come was written by a stranger, or on another machine.
    #[test]
    fn later_times_are_no_ages() {
        assert_eq!(age(1, 3), Some(Duration::from_nanos(2)));
        assert_eq!(age(3, 3), Some(Duration::ZERO));
        assert_eq!(age(u64::MAX, 3), None);
    }
}
