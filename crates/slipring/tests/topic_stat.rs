//! Checks what an outside reader is told of a topic: what was published, who keeps how many messages, and its memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use slipring::inspect::TopicStat;
use slipring::topic::records::{Builder, Channel};
use slipring::{Role, mpmc};

fn of(channel: &Channel) -> TopicStat {
    channel.stat().unwrap().topic.unwrap()
}

/// Returns who keeps how many messages.
fn pins(channel: &Channel) -> Vec<(usize, u64)> {
    let pins = of(channel).pins.into_iter();
    pins.map(|pins| (pins.index, pins.count)).collect()
}

#[test]
fn pins_are_told_by_seat() {
    let channel = Builder::new(4, 64).heap().unwrap();
    let mut tx = channel.producer().unwrap();
    let (mut rx, mut rx2) = (channel.consumer().unwrap(), channel.consumer().unwrap());
    for number in 0..10u8 {
        tx.push(&[number]).unwrap();
    }
    assert_eq!((of(&channel).published, pins(&channel)), (Some(10), vec![]));
    let latest = rx.latest().unwrap();
    assert_eq!(pins(&channel), [(0, 1)]);
    drop(latest);
    let held: Vec<_> = (0..4)
        .map(|back| rx2.nth_latest_owned(back).unwrap())
        .collect();
    let record = rx2.latest().unwrap();
    assert_eq!(pins(&channel), [(1, 5)], "as many as it may keep");
    assert_eq!((of(&channel).pins_of(1), of(&channel).pins_of(0)), (5, 0));
    drop((held, record));
    assert_eq!(pins(&channel), []);
    // On the heap nobody counts the memory; other kinds have no such figures.
    assert_eq!(of(&channel).backed, None);
    let queue = mpmc::Builder::<u64>::new(4).heap().unwrap();
    assert_eq!(queue.stat().unwrap().topic, None);
}

#[test]
fn lags_count_from_the_newest() {
    let channel = Builder::new(4, 64).heap().unwrap();
    let (mut tx, mut tx2) = (channel.producer().unwrap(), channel.producer().unwrap());
    let mut rx = channel.consumer().unwrap();
    tx.push(b"1").unwrap();
    for _ in 0..6 {
        tx2.push(b"more").unwrap();
    }
    let stat = channel.stat().unwrap();
    let reader = stat.seats.iter().find(|seat| seat.role == Role::Consumer);
    assert_eq!(stat.lag(reader.unwrap()), 7);
    // It is full and somebody reads, but publishers wait for nobody.
    let _record = rx.latest().unwrap();
    assert_eq!(channel.stat().unwrap().holds_back(), None);
    assert_eq!(channel.stat().unwrap().len, 4);
}

/// Memory comes with the messages, and goes when it is given back.
#[test]
fn backed_memory_is_counted() {
    let channel = Builder::new(2, 1 << 20).memfd().unwrap();
    let mut tx = channel.producer().unwrap();
    assert_eq!(of(&channel).backed, Some(0));
    tx.push(&vec![1; 1 << 20]).unwrap();
    let backed = of(&channel).backed.unwrap();
    assert!((1 << 20..2 << 20).contains(&backed), "{backed}");
    assert!(backed < channel.stat().unwrap().geometry.data_len());
}

/// A publisher tells who holds slots of its own, by seat and process.
#[test]
fn publishers_tell_who_holds_their_slots() {
    let channel = Builder::new(2, 64).pool(4).heap().unwrap();
    let (mut tx, mut tx2) = (channel.producer().unwrap(), channel.producer().unwrap());
    let (mut rx, mut rx2) = (channel.consumer().unwrap(), channel.consumer().unwrap());
    tx.push(b"1").unwrap();
    tx2.push(b"2").unwrap();
    let (first, second) = (
        rx2.nth_latest_owned(1).unwrap(),
        rx2.latest_owned().unwrap(),
    );
    let again = rx2.nth_latest_owned(1).unwrap();
    let us = u64::from(std::process::id());
    let told = |tx: &slipring::topic::records::Publisher| -> Vec<_> {
        let pins = tx.pins().into_iter();
        pins.map(|pins| (pins.index, pins.pid, pins.count))
            .collect()
    };
    assert_eq!(told(&tx), [(1, us, 2)]);
    assert_eq!(told(&tx2), [(1, us, 1)]);
    let latest = rx.latest().unwrap();
    assert_eq!(told(&tx2), [(0, us, 1), (1, us, 1)]);
    assert_eq!(pins(&channel), [(0, 1), (1, 3)]);
    drop((first, second, again, latest));
    assert_eq!((told(&tx), told(&tx2)), (vec![], vec![]));
}
