//! The account of a queue's messages, by producer and number. Positions are no account there: any consumer takes any
//! message, and one may come again.
//!
//! Each producing worker has a *line*, and numbers its messages along it, also after it was killed and replaced. An entry
//! of the line says how far the latest message with that number, modulo [`ENTRIES`], has come:
//!
//! ```text
//! 63             24 23          8 7    3       2        1       0
//! | number         | deliveries  |     |released| pushed | begun |
//! ```
//!
//! | bit or field | stored by | when |
//! |---|---|---|
//! | `begun` | the producer | before it appends the message |
//! | `pushed` | the producer | after the call returned: from then on the message must not be lost |
//! | deliveries | a consumer | while it holds the message: the deliveries so far, as far as the queue tells them |
//! | `released` | a consumer | after the call that released the message: from then on it must not come again |
//!
//! A process may be killed between a call and its note. So a killed producer leaves messages that may come or not, and a
//! killed consumer a count that is not the noted one. An entry that such a kill left open is not used again.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::words::{add, get, put};

/// The number of lines, and of entries in each.
const LINES: usize = 8;
const ENTRIES: u64 = 1 << 14;

/// The bit at which the line begins in a message's number.
const LINE_SHIFT: u32 = 48;

const BEGUN: u64 = 1;
const PUSHED: u64 = 1 << 1;
const RELEASED: u64 = 1 << 2;
const DELIVERIES_SHIFT: u32 = 8;
const NUMBER_SHIFT: u32 = 24;

/// The whole account.
#[repr(C, align(128))]
pub(crate) struct Ledger {
    lines: [Line; LINES],
    /// The number of deliveries whose count differs from the noted one.
    pub(crate) strays: AtomicU64,
    /// The messages that a killed consumer dropped, of a queue that delivers at most once.
    pub(crate) dropped: AtomicU64,
}

/// The messages of one producing worker.
#[repr(C, align(128))]
pub(crate) struct Line {
    /// The next number.
    drawn: AtomicU64,
    /// The number after the last message that was delivered for the first time.
    first: AtomicU64,
    entries: [AtomicU64; ENTRIES as usize],
}

/// The numbers after the last first deliveries, of each line. First deliveries that begin later have higher numbers.
pub(crate) struct Floor([u64; LINES]);

/// Returns the number of a message, and its line.
fn parts(message: u64) -> (usize, u64) {
    (
        (message >> LINE_SHIFT) as usize,
        message & ((1 << LINE_SHIFT) - 1),
    )
}

impl Ledger {
    /// Draws the next `count` messages of this worker's line, and notes that they are begun.
    pub(crate) fn draw(&self, index: usize, count: u64) -> Range<u64> {
        let numbers = self.lines[index].draw(count);
        let message = |number| (index as u64) << LINE_SHIFT | number;
        message(numbers.start)..message(numbers.end)
    }

    /// Notes that the calls that append these messages have returned.
    pub(crate) fn pushed(&self, messages: Range<u64>) {
        for message in messages {
            let (line, number) = parts(message);
            let entry = self.lines[line].entry(number);
            entry.fetch_or(PUSHED, Ordering::AcqRel);
        }
    }

    /// Returns the floor for calls that begin now.
    pub(crate) fn floor(&self) -> Floor {
        Floor(std::array::from_fn(|line| get(&self.lines[line].first)))
    }

    /// Notes that a consumer holds a message, which had been delivered `deliveries` times before, as the queue tells.
    /// Returns `true` if it was noted before.
    pub(crate) fn take(
        &self,
        message: u64,
        deliveries: u32,
        floor: &mut Floor,
    ) -> Result<bool, String> {
        let (index, number) = parts(message);
        let line = self.lines.get(index).ok_or("a message of no line")?;
        let (entry, told) = (line.entry(number), u64::from(deliveries));
        let (found, noted) = loop {
            let found = get(entry);
            let noted = found >> DELIVERIES_SHIFT & 0xffff;
            let what = if found >> NUMBER_SHIFT != number || found & BEGUN == 0 {
                "was released long ago, or never begun"
            } else if found & RELEASED != 0 {
                "was released before"
            } else if noted > 0 && told == 0 {
                "comes again, and is not marked"
            } else if told == 0 && number < floor.0[index] {
                "comes after a later one"
            } else {
                ""
            };
            if !what.is_empty() {
                return Err(format!(
                    "message {number} of line {index} {what}: entry {found:#x}, delivered {told} times before"
                ));
            }
            let next = found & !(0xffff << DELIVERIES_SHIFT) | (told + 1) << DELIVERIES_SHIFT;
            // Its producer may note meanwhile that it is pushed. Another consumer notes nothing, unless it has the
            // message as well: then the second of the two finds that out.
            let noted_now =
                entry.compare_exchange(found, next, Ordering::AcqRel, Ordering::Acquire);
            if noted_now.is_ok() {
                break (found, noted);
            }
        };
        if told != noted {
            add(&self.strays, 1);
        }
        if told == 0 {
            floor.0[index] = number + 1;
            line.first.fetch_max(number + 1, Ordering::AcqRel);
        }
        Ok(found >> DELIVERIES_SHIFT & 0xffff > 0)
    }

    /// Notes that the call that released a message has returned.
    pub(crate) fn released(&self, message: u64) {
        let (line, number) = parts(message);
        let entry = self.lines[line].entry(number);
        entry.fetch_or(RELEASED, Ordering::AcqRel);
    }

    /// Returns the number of messages that were pushed and never taken: once nobody is left, and the queue is empty.
    pub(crate) fn missing(&self) -> u64 {
        let entries = self.lines.iter().flat_map(|line| &line.entries);
        let missing = entries.filter(|entry| {
            let found = get(entry);
            found & PUSHED != 0 && found >> DELIVERIES_SHIFT & 0xffff == 0
        });
        missing.count() as u64
    }
}

impl Line {
    fn entry(&self, number: u64) -> &AtomicU64 {
        &self.entries[(number % ENTRIES) as usize]
    }

    /// Draws `count` numbers in a row whose entries are free. It passes over entries that are still open.
    fn draw(&self, count: u64) -> Range<u64> {
        let drawn = get(&self.drawn);
        let (mut first, mut next) = (drawn, drawn);
        while next < first + count {
            let found = get(self.entry(next));
            next += 1;
            if found != 0 && found & RELEASED == 0 {
                first = next;
            }
            assert!(next - drawn < ENTRIES, "all messages are still open");
        }
        put(&self.drawn, next);
        for number in first..next {
            put(self.entry(number), number << NUMBER_SHIFT | BEGUN);
        }
        first..next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Words;

    /// Repeats are marked, with the right count; releases are for good; first deliveries come in order.
    #[test]
    fn account_finds_each_fault() {
        let ledger = &Words::create().0.ledger;
        let messages = ledger.draw(3, 4);
        ledger.pushed(messages.clone());
        let first = messages.start;
        let take = |message, deliveries| ledger.take(message, deliveries, &mut ledger.floor());
        assert_eq!(take(first, 0), Ok(false));
        assert!(take(first, 0).unwrap_err().contains("not marked"));
        assert_eq!((take(first, 1), get(&ledger.strays)), (Ok(true), 0));
        assert_eq!((take(first, 3), get(&ledger.strays)), (Ok(true), 1));
        ledger.released(first);
        assert!(take(first, 4).unwrap_err().contains("released before"));
        assert_eq!(take(first + 2, 0), Ok(false));
        let late = take(first + 1, 0).unwrap_err();
        assert!(late.contains("after a later one"), "{late}");
        assert!(take(first + 4, 0).unwrap_err().contains("never begun"));
        assert_eq!(ledger.missing(), 2);
    }

    /// Numbers go on round the entries, and pass over a message that is still held.
    #[test]
    fn open_entries_are_passed_over() {
        let ledger = &Words::create().0.ledger;
        let held = ledger.draw(0, 1).start;
        for _ in 1..ENTRIES {
            ledger.released(ledger.draw(0, 1).start);
        }
        assert_eq!(ledger.draw(0, 1).start, held + ENTRIES + 1);
    }
}
