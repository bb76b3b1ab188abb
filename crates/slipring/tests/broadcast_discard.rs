//! A discarded reservation's writes never become a message, and the messages that they overwrote
//! are gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring::broadcast::{Builder, Seek};

/// Whoever joins does not get what a discarded reservation wrote. The write limit outlives the
/// producer: it alone shows that slots behind the tail were written.
#[test]
fn joiners_miss_discarded_writes() {
    let channel = Builder::<u64>::new(8)
        .consumers(1)
        .join(Seek::Oldest)
        .heap()
        .unwrap();
    let mut tx = channel.producer().unwrap();
    (0..8).for_each(|number| tx.push(number).unwrap());
    let mut slots = tx.try_reserve(4).unwrap();
    (0..4).for_each(|i| slots.write(i, u64::MAX));
    slots.discard();
    drop(tx);
    let mut tx = channel.producer().unwrap();
    tx.push(8).unwrap();
    let mut rx = channel.consumer().unwrap();
    for number in rx.position()..9 {
        assert_eq!(rx.try_pop().unwrap(), number);
    }
}
