//! Models producers that come round, and carry what stays in its slot into their own lap.

use super::*;
use slipring_core::proto::mpmc::DeadLetters;

/// The fate of the message that is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Released,
    GivenBack,
    /// Its holder dies, and somebody recovers the seat.
    Recovered(Delivery),
}

/// Fills the ring once, so that the next position is that of the held message in the first slot.
fn come_round(shop: &Shop, capacity: usize) {
    for value in 2..=capacity as u64 + 1 {
        if shop.push_some(0, &[value]).is_empty() {
            return;
        }
        assert_eq!(shop.pop_some(1, 1), [value]);
    }
}

/// A message is held in the first slot while a producer comes round, another consumer takes what it finds, and the holder
/// is done: no message is lost, and none comes twice.
fn held_while_carried(capacity: usize, fate: Fate, pops: usize, preemptions: usize) {
    model_within(preemptions, move || {
        let shop = Shop::new(capacity, [1, 2]);
        shop.push_all(0, &[1]);
        let (writer, reader) = (shop.clone(), shop.clone());
        let (mut got, mut accepted) = (Vec::new(), Vec::new());
        shop.consumer(0, |mut rx| {
            let held = rx.try_read_batch(1).unwrap();
            come_round(&shop, capacity);
            let writer = thread::spawn(move || writer.push_some(0, &[11, 12]));
            let reader = (pops > 0).then(|| thread::spawn(move || reader.pop_some(1, pops)));
            assert_eq!(held.iter().copied().collect::<Vec<_>>(), [1]);
            match fate {
                Fate::Released => held.release(1),
                Fate::GivenBack => held.keep(),
                Fate::Recovered(delivery) => {
                    std::mem::forget(held);
                    // SAFETY: the dead end was forgotten, and its handle is not used any more.
                    unsafe { recover(&shop.queue(), Role::Consumer, 0, delivery) }.unwrap();
                }
            }
            accepted.extend(writer.join().unwrap());
            reader.map(|reader| got.extend(reader.join().unwrap()));
        });
        got.extend(shop.pop_some(1, capacity + 1));
        if !matches!(fate, Fate::Released | Fate::Recovered(Delivery::AtMostOnce)) {
            accepted.push(1);
        }
        assert_eq!(sorted(got), sorted(accepted));
        // Nothing is left behind, and each note is clear.
        let values: Vec<_> = (21..21 + capacity as u64).collect();
        shop.push_all(0, &values);
        assert_eq!(shop.pop_all(1, capacity), values);
        let again = |note: &Note| note.again.load(Ordering::Relaxed);
        assert!(shop.notes.iter().all(|note| again(note) == 0));
    });
}

#[test]
fn release_meets_a_producer_at_one() {
    held_while_carried(1, Fate::Released, 2, 2);
}

#[test]
fn release_meets_a_carrying_producer() {
    held_while_carried(2, Fate::Released, 0, 3);
}

#[test]
fn requeue_meets_a_producer_at_one() {
    held_while_carried(1, Fate::GivenBack, 2, 2);
}

#[test]
fn requeue_meets_carrying_and_retaking() {
    held_while_carried(2, Fate::GivenBack, 2, 1);
}

#[test]
fn recovery_meets_a_carrying_producer() {
    held_while_carried(2, Fate::Recovered(Delivery::AtLeastOnce), 2, 1);
}

#[test]
fn dropping_recovery_meets_carrying() {
    held_while_carried(2, Fate::Recovered(Delivery::AtMostOnce), 0, 2);
}

/// Two recoverers, one after the other, of whom the first was killed: as if there were one. A producer carries meanwhile.
#[test]
fn second_recoverer_meets_a_later_holder() {
    model_within(1, || {
        let shop = Shop::new(2, [1, 2]);
        shop.push_all(0, &[1]);
        shop.consumer(0, |mut rx| std::mem::forget(rx.try_read_batch(1)));
        come_round(&shop, 2);
        let (writer, reader) = (shop.clone(), shop.clone());
        let writer = thread::spawn(move || writer.push_some(0, &[11]));
        let reader = thread::spawn(move || reader.pop_some(1, 2));
        for _ in 0..2 {
            // SAFETY: the dead end was forgotten, and its handle is gone.
            unsafe { recover(&shop.queue(), Role::Consumer, 0, Delivery::AtLeastOnce) }.unwrap();
        }
        let mut accepted = writer.join().unwrap();
        accepted.push(1);
        let mut got = reader.join().unwrap();
        got.extend(shop.pop_some(1, 3));
        assert_eq!(sorted(got), sorted(accepted));
    });
}

/// Of a held run one message is released and the other given back, while a producer comes round.
#[test]
fn split_run_meets_a_producer() {
    model_within(1, || {
        let shop = Shop::new(2, [1, 2]);
        shop.push_all(0, &[1, 2]);
        let (writer, reader) = (shop.clone(), shop.clone());
        let (mut got, mut accepted) = (Vec::new(), vec![2]);
        shop.consumer(0, |mut rx| {
            let held = rx.try_read_batch(2).unwrap();
            assert_eq!(held.len(), 2);
            let writer = thread::spawn(move || writer.push_some(0, &[11]));
            let reader = thread::spawn(move || reader.pop_some(1, 1));
            held.release(1);
            accepted.extend(writer.join().unwrap());
            got.extend(reader.join().unwrap());
        });
        got.extend(shop.pop_some(1, 3));
        assert_eq!(sorted(got), sorted(accepted));
    });
}

/// A returned message is put aside, or dropped at once, while a producer carries its slot.
fn letter_meets_a_producer(keep: u64, rival: bool) {
    model_within(1, move || {
        let shop = Shop::new(2, [1, 2]);
        shop.push_all(0, &[1]);
        let held = |mut rx: Receiver<'_>| {
            let held = rx.try_read_batch(1).unwrap();
            come_round(&shop, 2);
            held.keep();
        };
        shop.consumer(0, held);
        let rule = Some(DeadLetters { after: 1, keep });
        let (writer, reader) = (shop.clone(), shop.clone());
        let writer = thread::spawn(move || writer.push_some(0, &[11, 12]));
        let reader = thread::spawn(move || {
            reader.consumer(1, |mut rx| {
                rx.set_dead_letters(rule);
                rx.try_pop().ok()
            })
        });
        let mut got = shop.consumer(0, |mut rx| {
            rx.set_dead_letters(rule);
            let taken = rival.then(|| rx.try_pop().ok()).flatten();
            taken.into_iter().collect::<Vec<_>>()
        });
        let accepted = writer.join().unwrap();
        got.extend(reader.join().unwrap());
        shop.consumer(0, |mut rx| {
            rx.set_dead_letters(rule);
            got.extend(std::iter::from_fn(|| rx.try_pop().ok()));
            let letter = rx.try_read_letter().map(|letter| *letter);
            assert_eq!(letter, if keep > 0 { Ok(1) } else { Err(Error::Empty) });
        });
        assert_eq!(sorted(got), accepted);
        shop.push_all(0, &[21, 22]);
        assert_eq!(shop.pop_all(1, 2), [21, 22]);
    });
}

#[test]
fn putting_aside_meets_carrying() {
    letter_meets_a_producer(1, true);
}

#[test]
fn dropping_a_letter_meets_carrying() {
    letter_meets_a_producer(0, false);
}

/// Two producers come round to the same held slot: both get behind it, and its holder releases it meanwhile.
#[test]
fn two_producers_carry_one_slot() {
    model_within(2, || {
        let shop = Shop::new(4, [2, 2]);
        shop.push_all(0, &[1]);
        let writers = [0, 1].map(|seat| (seat, shop.clone()));
        let mut accepted = Vec::new();
        shop.consumer(0, |mut rx| {
            let held = rx.try_read_batch(1).unwrap();
            come_round(&shop, 4);
            let writers = writers.map(|(seat, shop)| {
                thread::spawn(move || shop.push_some(seat, &[11 + seat as u64]))
            });
            held.release(1);
            accepted.extend(writers.map(|writer| writer.join().unwrap()).concat());
        });
        assert_eq!(accepted, [11, 12]);
        assert_eq!(sorted(shop.pop_some(1, 3)), accepted);
    });
}
