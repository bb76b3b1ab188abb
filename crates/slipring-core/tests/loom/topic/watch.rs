//! Models a watcher: what it copies is whole, and lost messages are counted.

use slipring_core::proto::topic::{Source, Watcher};

use super::*;

/// Copies slots as the kernel does. In place of a payload, which the model cannot load while it is written, it copies a
/// word of the header that the producer stores with it, once more.
struct Slots<'m>(&'m Board);

impl Source for Slots<'_> {
    fn copy(&self, at: u64, out: &mut [u8]) -> Result<(), Error> {
        let stride = self.0.geometry.stride();
        let header = &self.0.headers[(at / stride) as usize];
        let words = match at % stride {
            0 => [
                &header.sequence,
                &header.length,
                &header.time,
                &header.publisher,
            ],
            _ => [&header.sequence; 4],
        };
        for (part, word) in out.chunks_mut(8).zip(words) {
            part.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        Ok(())
    }
}

/// Watches until `messages` are copied or lost.
fn watch(board: &Board, messages: u64) {
    let entries = Entries {
        head: &board.head,
        words: &board.entries,
    };
    let topic = Topic::new(entries).unwrap();
    let mut watcher = Watcher::new(topic, &board.geometry, Slots(board), Seek::Oldest).unwrap();
    let mut next = watcher.position();
    while next < messages {
        let mut bytes = [0; 8];
        match watcher.try_next(&mut bytes) {
            Ok((origin, len)) => {
                assert_eq!((origin.sequence, len), (next, 8));
                assert_eq!(u64::from_le_bytes(bytes), next + 1, "torn");
                next += 1;
            }
            Err(Error::Lagged(lost)) => next += lost,
            Err(Error::Empty) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(watcher.position(), next);
    }
}

/// A watcher that is slower than the producer gets whole messages, and counts the others.
#[test]
fn watchers_get_whole_messages() {
    model_within(2, || {
        let board = Board::new(1, 1, 1, 1);
        let other = board.clone();
        let watcher = thread::spawn(move || watch(&other, 3));
        board.publish(0, 0..3);
        watcher.join().unwrap();
    });
}

/// The successor of a producer writes slots of its predecessor, which it has only found to be displaced.
#[test]
fn watchers_beside_successors_get_whole_messages() {
    model_within(2, || {
        let board = Board::new(1, 1, 1, 1);
        board.publish(0, 0..1);
        let other = board.clone();
        let watcher = thread::spawn(move || watch(&other, 3));
        board.publish(0, 1..2);
        board.publish(0, 2..3);
        watcher.join().unwrap();
    });
}
