//! Models looks that find little, and what ends the last messages.

use super::*;

/// There is a message for each of two consumers: neither finds the queue empty.
#[test]
fn two_consumers_find_two_of_three() {
    model_within(2, || {
        let shop = Shop::new(8, [1, 2]);
        shop.push_all(0, &[1, 2, 3]);
        let other = shop.clone();
        let other = thread::spawn(move || other.pop_some(1, 1).len());
        assert_eq!(shop.pop_some(0, 1).len(), 1);
        assert_eq!(other.join().unwrap(), 1);
    });
}

/// There is room for each of two producers: neither finds the queue full.
#[test]
fn two_producers_find_two_of_three() {
    model_within(2, || {
        let shop = Shop::new(8, [2, 1]);
        for value in 0..5 {
            shop.push_all(0, &[value]);
            assert_eq!(shop.pop_some(0, 1), [value]);
        }
        shop.push_all(0, &[1, 2, 3, 4, 5]);
        let other = shop.clone();
        let other = thread::spawn(move || other.push_some(1, &[6]).len());
        assert_eq!(shop.push_some(0, &[7]).len(), 1);
        assert_eq!(other.join().unwrap(), 1);
    });
}

/// A message that has left its consumer's hands is given back on another thread, after the last producer has left. The
/// consumer is told no end before it has taken the message again.
#[test]
fn message_given_back_elsewhere_comes_before_the_end() {
    model_within(2, || {
        let shop = Shop::new(1, [1, 1]);
        shop.push_all(0, &[7]);
        shop.lines[0].leave(1, End::Finished);
        shop.consumer(0, |mut rx| {
            rx.hold(1).unwrap();
            // SAFETY: held just now; the thread below is joined before the end, and the memory, are gone.
            let message = unsafe { rx.detach_held(0) };
            // SAFETY: as above.
            let message = unsafe {
                std::mem::transmute::<_, OwnedMessage<'static, Cells<'static, u64>>>(message)
            };
            let giver = thread::spawn(move || message.keep());
            assert_eq!(until(|| rx.try_pop()), Ok(7));
            giver.join().unwrap();
            assert_eq!(rx.deliveries(), 1);
        });
    });
}

/// A consumer that is told the end sees what another one did before it released the last message.
#[test]
fn end_comes_after_the_work_of_others() {
    model_within(3, || {
        let shop = Shop::new(1, [1, 2]);
        shop.push_all(0, &[7]);
        shop.lines[0].leave(1, End::Finished);
        let done = Arc::new(AtomicU64::new(0));
        let (other, work) = (shop.clone(), done.clone());
        let worker = thread::spawn(move || {
            other.consumer(1, |mut rx| {
                if let Ok(batch) = rx.try_read_batch(1) {
                    // Relaxed: the release of the message orders it.
                    work.store(1, Ordering::Relaxed);
                    batch.release(1);
                }
            });
        });
        shop.consumer(0, |mut rx| match until(|| rx.try_pop()) {
            Ok(value) => assert_eq!(value, 7),
            // Relaxed: the look that found the end orders it.
            Err(_) => assert_eq!(done.load(Ordering::Relaxed), 1),
        });
        worker.join().unwrap();
    });
}

/// The slot of a letter that was dropped is written after the letter was read.
#[test]
fn slot_of_a_dropped_letter_is_written_after_its_reader() {
    model_within(2, || {
        let shop = Shop::new(1, [1, 1]);
        shop.push_all(0, &[1]);
        let dropped = Arc::new(AtomicU64::new(0));
        let (other, told) = (shop.clone(), dropped.clone());
        let reader = thread::spawn(move || {
            other.consumer(0, |mut rx| {
                rx.set_dead_letters(Some(DeadLetters { after: 9, keep: 0 }));
                let message = rx.try_read().unwrap();
                assert_eq!(*message, 1);
                message.put_aside();
                // Relaxed: it only picks the moment.
                told.store(1, Ordering::Relaxed);
            });
        });
        if dropped.load(Ordering::Relaxed) == 1 {
            shop.producer(0, |mut tx| {
                // The free slot goes by, and the next one is the letter's.
                drop(tx.try_reserve(1));
                let _ = tx.try_push(2);
            });
        }
        reader.join().unwrap();
    });
}

/// A consumer passes two runs of another one and takes what lies behind them: it reads what that message's producer wrote.
#[test]
fn passer_of_two_runs_reads_behind_them() {
    model_within(2, || {
        let shop = Shop::new(4, [2, 2]);
        shop.push_all(0, &[1]);
        let (writer, holder) = (shop.clone(), shop.clone());
        let writer = thread::spawn(move || {
            writer.producer(1, |mut tx| tx.try_push_slice(&[2, 3]).unwrap());
        });
        let holder = thread::spawn(move || {
            holder.consumer(0, |mut rx| {
                let _ = rx.hold(1);
                let _ = rx.hold(1);
            });
        });
        let _ = shop.pop_some(1, 1);
        writer.join().unwrap();
        holder.join().unwrap();
    });
}
