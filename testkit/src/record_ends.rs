//! The calls that the ends of every kind of records share.

use std::ops::Range;
use std::time::Duration;

use slipring::{BatchKind, Consumer, Error, OfRecords, Producer, RecordKind};

use crate::message::{self, LARGEST, record};
use crate::{Came, whole};

/// Room for a record whose length is torn, as far as a program's channels allow any.
const LONGEST: usize = 512;

/// Implements [`Producer::place`](crate::Producer::place).
pub(crate) fn place<R>(tx: &mut Producer<OfRecords<R>>, number: u64) -> Result<(), Error>
where
    OfRecords<R>: RecordKind,
{
    let mut space = tx.reserve(LARGEST)?;
    let length = message::length(number);
    message::write(number, &mut space[..length]);
    space.commit(length);
    Ok(())
}

/// Implements [`Producer::hold`](crate::Producer::hold): these kinds reserve one record.
pub(crate) fn hold<R>(
    tx: &mut Producer<OfRecords<R>>,
    numbers: Range<u64>,
    decide: &mut dyn FnMut(Range<u64>) -> Option<usize>,
) -> Result<(), Error>
where
    OfRecords<R>: RecordKind,
{
    let mut space = tx.try_reserve(LARGEST)?;
    let length = message::length(numbers.start);
    message::write(numbers.start, &mut space[..length]);
    match decide(numbers.start..numbers.start + 1) {
        Some(1..) => space.commit(length),
        Some(0) | None => space.discard(),
    }
    Ok(())
}

/// Implements [`Producer::iterate`](crate::Producer::iterate) for kinds without batches: appends the messages one by one.
pub(crate) fn iterate_singly<R>(
    tx: &mut Producer<OfRecords<R>>,
    numbers: Range<u64>,
    between: &mut dyn FnMut(),
) -> Result<usize, Error>
where
    OfRecords<R>: RecordKind,
{
    let mut count = 0;
    for number in numbers {
        between();
        match tx.try_push(&record(number)) {
            Ok(()) => count += 1,
            Err(error) if count == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(count)
}

/// Implements [`Producer::iterate`](crate::Producer::iterate) for kinds with batches.
pub(crate) fn iterate<R>(
    tx: &mut Producer<OfRecords<R>>,
    numbers: Range<u64>,
    between: &mut dyn FnMut(),
) -> Result<usize, Error>
where
    OfRecords<R>: BatchKind,
{
    let records = numbers.map(record).collect::<Vec<_>>();
    let records = records.iter().map(Vec::as_slice);
    tx.try_push_iter(&mut records.inspect(|_| between()).peekable())
}

/// Implements [`Consumer::try_read_batch`](crate::Consumer::try_read_batch).
pub(crate) fn try_read_batch<R>(
    rx: &mut Consumer<OfRecords<R>>,
    max: usize,
    release: bool,
    seen: &mut dyn FnMut(Came),
) -> Result<(), Error>
where
    OfRecords<R>: BatchKind,
{
    let mut records = rx.try_read_batch(max)?;
    while let Some(record) = records.next()? {
        seen(message::check(record));
    }
    if !release {
        records.keep();
    }
    Ok(())
}

/// Implements [`Consumer::read`](crate::Consumer::read).
pub(crate) fn read<R>(
    rx: &mut Consumer<OfRecords<R>>,
    max: usize,
    seen: &mut dyn FnMut(&[u64]),
) -> Result<(), Error>
where
    OfRecords<R>: BatchKind,
{
    let mut records = rx.read_batch(max)?;
    let mut numbers = Vec::new();
    while let Some(record) = records.next()? {
        numbers.push(whole(message::check(record)));
    }
    seen(&numbers);
    Ok(())
}

/// Copies the oldest record, waiting for at most `timeout` if there is one.
pub(crate) fn pop_any<R>(
    rx: &mut Consumer<OfRecords<R>>,
    timeout: Option<Duration>,
) -> Result<Came, Error>
where
    OfRecords<R>: RecordKind,
{
    let mut record = [0; LONGEST];
    let length = match timeout {
        Some(timeout) => rx.pop_timeout(&mut record, timeout)?,
        None => rx.try_pop(&mut record)?,
    };
    Ok(message::check(&record[..length]))
}
