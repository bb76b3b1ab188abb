//! Checks that users can print everything that they hold, and unwrap each result either way; no
//! payload shows.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Debug;
use std::time::Duration;

use slipring::{Error, Payload, PushError, SetupError, WaitSet, broadcast, bytes, inspect, spsc};

/// A payload that cannot be printed.
#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Mute(u64);

const SHORT: Duration = Duration::from_millis(1);

fn is_debug<T: Debug>() {}

#[test]
fn every_handle_and_guard_prints() {
    is_debug::<spsc::Spsc<Mute>>();
    is_debug::<spsc::Builder<Mute>>();
    is_debug::<spsc::Channel<Mute>>();
    is_debug::<spsc::Producer<Mute>>();
    is_debug::<spsc::Consumer<Mute>>();
    is_debug::<spsc::Reservation<'_, Mute>>();
    is_debug::<spsc::Messages<'_, Mute>>();
    is_debug::<spsc::Message<'_, Mute>>();
    is_debug::<bytes::Bytes>();
    is_debug::<bytes::Builder>();
    is_debug::<bytes::Channel>();
    is_debug::<bytes::Producer>();
    is_debug::<bytes::Consumer>();
    is_debug::<bytes::Reservation<'_>>();
    is_debug::<bytes::Record<'_>>();
    is_debug::<bytes::Records<'_>>();
    is_debug::<broadcast::Broadcast<Mute>>();
    is_debug::<broadcast::Builder<Mute>>();
    is_debug::<broadcast::Channel<Mute>>();
    is_debug::<broadcast::Producer<Mute>>();
    is_debug::<broadcast::Consumer<Mute>>();
    is_debug::<broadcast::Reservation<'_, Mute>>();
    is_debug::<broadcast::Messages<'_, Mute>>();
    is_debug::<broadcast::Message<'_, Mute>>();
    is_debug::<broadcast::Builder<Mute, broadcast::Overwriting>>();
    is_debug::<broadcast::Producer<Mute, broadcast::Overwriting>>();
    is_debug::<broadcast::Consumer<Mute, broadcast::Overwriting>>();
    is_debug::<broadcast::Waiting>();
    is_debug::<broadcast::Overwriting>();
    is_debug::<PushError<Mute>>();
    is_debug::<inspect::Watch>();
    is_debug::<WaitSet>();
    is_debug::<slipring::set::Members>();
}

#[test]
fn results_of_spsc_unwrap_either_way() {
    let (mut tx, mut rx) = spsc::channel::<Mute>(2).unwrap();
    assert!(matches!(rx.try_pop().map(drop).unwrap_err(), Error::Empty));
    assert_eq!(rx.try_read().unwrap_err(), Error::Empty);
    assert_eq!(rx.try_read_batch(1).unwrap_err(), Error::Empty);
    let waited = rx.read_timeout(SHORT);
    assert_eq!(waited.unwrap_err(), Error::TimedOut);
    let waited = rx.read_batch_timeout(1, SHORT);
    assert_eq!(waited.unwrap_err(), Error::TimedOut);
    tx.push_slice(&[Mute(1), Mute(2)]).unwrap();
    assert!(matches!(tx.try_reserve(1).unwrap_err(), Error::Full));
    assert!(matches!(tx.reserve(3).unwrap_err(), Error::TooLarge { .. }));
    let waited = tx.reserve_timeout(1, SHORT);
    assert!(matches!(waited.unwrap_err(), Error::TimedOut));
    let channel = spsc::Builder::<Mute>::new(2).heap().unwrap();
    let _tx = channel.producer().unwrap();
    let taken = channel.producer().unwrap_err();
    assert!(matches!(taken, SetupError::RoleTaken { .. }));
    let refused = spsc::channel::<Mute>(3).unwrap_err();
    assert!(matches!(refused, SetupError::Capacity { .. }));
}

#[test]
fn results_of_bytes_unwrap_either_way() {
    let (mut tx, mut rx) = bytes::channel(4096).unwrap();
    assert!(matches!(rx.try_read().unwrap_err(), Error::Empty));
    assert!(matches!(rx.try_read_batch(1).unwrap_err(), Error::Empty));
    let waited = rx.read_timeout(SHORT);
    assert!(matches!(waited.unwrap_err(), Error::TimedOut));
    while tx.try_push(&[b'x'; 24]).is_ok() {}
    assert!(matches!(tx.try_reserve(24).unwrap_err(), Error::Full));
    let more = tx.max_record() + 1;
    let large = tx.reserve(more);
    assert!(matches!(large.unwrap_err(), Error::TooLarge { .. }));
    let waited = tx.reserve_timeout(24, SHORT);
    assert!(matches!(waited.unwrap_err(), Error::TimedOut));
    // A guard shows the length of its content, but not the content.
    let shown = format!("{:?}", rx.read().unwrap());
    assert!(shown.contains("len: 24"), "{shown}");
    assert!(!shown.contains("120") && !shown.contains('x'), "{shown}");
}

fn pair(capacity: usize) -> (broadcast::Producer<Mute>, broadcast::Consumer<Mute>) {
    let channel = broadcast::Builder::new(capacity).heap().unwrap();
    (channel.producer().unwrap(), channel.consumer().unwrap())
}

#[test]
fn results_of_broadcast_unwrap_either_way() {
    let (mut tx, mut rx) = pair(2);
    assert_eq!(rx.try_read().unwrap_err(), Error::Empty);
    assert_eq!(rx.try_read_batch(1).unwrap_err(), Error::Empty);
    let waited = rx.read_timeout(SHORT);
    assert_eq!(waited.unwrap_err(), Error::TimedOut);
    let waited = rx.read_batch_timeout(1, SHORT);
    assert_eq!(waited.unwrap_err(), Error::TimedOut);
    tx.push_slice(&[Mute(1), Mute(2)]).unwrap();
    assert!(matches!(tx.try_reserve(1).unwrap_err(), Error::Full));
    let waited = tx.reserve_timeout(1, SHORT);
    assert!(matches!(waited.unwrap_err(), Error::TimedOut));
}

#[test]
fn guards_say_their_lengths_and_positions() {
    let (mut tx, mut rx) = spsc::channel::<u64>(8).unwrap();
    tx.push_slice(&[98765, 98765]).unwrap();
    let shown = format!("{:?}", tx.reserve(3).unwrap());
    assert_eq!(shown, "Reservation { len: 3, position: 2, .. }");
    let message = rx.read().unwrap();
    assert_eq!(format!("{message:?}"), "Message { position: 0, .. }");
    message.keep();
    let shown = format!("{:?}", rx.read_batch(8).unwrap());
    assert_eq!(shown, "Messages { len: 2, position: 0, .. }");
    let shown = format!("{tx:?} {rx:?}");
    assert!(!shown.contains("98765"), "{shown}");
}
