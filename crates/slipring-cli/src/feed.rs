//! `slipring send --queue --lines`: puts each line of standard input into a work queue, as an item.
//!
//! - The item is the line with its newline. An empty line is an item, too.
//! - A line that is longer than the largest item is left out, and named on standard error. All other
//!   lines are sent; then the exit code is 1.
//! - A last line without a newline is sent at the end of the input, as it is.
//! - A signal sends no part of a line: part of an item would be another item. It also drops lines
//!   that were read and found no room. The first line that was not sent is named.
//!
//! `send` to a stream reads no more than there is room for. Here other feeders may take the room
//! meanwhile. So lines are read when there is room for one, and may then have to wait.

use rustix::io::Errno;
use slipring::{Error, Readiness};

use crate::exit::Failure;
use crate::progress::Progress;
use crate::queue::{Feeder, Queue};
use crate::role::Role;
use crate::send::Input;
use crate::shape::QueueSize;
use crate::signals::{Signals, TICK};

/// The most that one read asks for.
const READ: usize = 64 << 10;

/// Reads standard input to its end. `size` is what the user asked for.
pub(crate) fn run(
    name: &str,
    size: QueueSize,
    role: &Role,
    signals: &Signals,
) -> Result<(), Failure> {
    let queue = Queue::new(size);
    let feeder = role.take(signals, || Ok(queue.feeder(name)?))?;
    size.tell(name, &feeder.differences());
    let mut feed = Feed {
        lines: Lines::new(feeder.largest()),
        feeder,
        input: Input::stdin(),
        signals,
        told: false,
        left_out: false,
    };
    let bar = Progress::bytes("send", feed.input.total);
    let fed = feed.all(&bar);
    if let Err(failure) = fed {
        if matches!(failure, Failure::Signal(_)) {
            let line = feed.lines.number;
            bar.say(&format!(
                "line {line} of the input, and what follows it, was not sent"
            ));
        }
        feed.feeder.abort();
        return Err(failure);
    }
    // Dropping the feeder finishes the stream. What was left out is on standard error.
    if feed.left_out {
        return Err(Failure::Told(1));
    }
    Ok(())
}

struct Feed<'a> {
    feeder: Feeder,
    lines: Lines,
    input: Input,
    signals: &'a Signals,
    /// `true` once the user was told that nobody works on the queue.
    told: bool,
    /// `true` once a line was left out.
    left_out: bool,
}

impl Feed<'_> {
    fn all(&mut self, bar: &Progress) -> Result<(), Failure> {
        loop {
            let feeder = &self.feeder;
            let look_after = || Ok(feeder.look_after()?);
            self.input.wait(self.signals, look_after)?;
            self.room(bar)?;
            match rustix::io::read(rustix::stdio::stdin(), self.lines.space()) {
                Ok(0) => {
                    self.lines.end();
                    return self.push(bar);
                }
                Ok(count) => {
                    self.lines.grow(count);
                    self.push(bar)?;
                    bar.add(count as u64);
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(Failure::io("read standard input", errno)),
            }
        }
    }

    /// Waits until there is room for an item.
    fn room(&mut self, bar: &Progress) -> Result<(), Failure> {
        loop {
            match self.feeder.arm() {
                Ok(Readiness::Ready) => return Ok(()),
                Ok(Readiness::Armed) => {
                    let (room, ready) = (self.feeder.descriptor()?, rustix::event::PollFlags::IN);
                    if !self.signals.wait(room, ready, "room in the queue")? {
                        self.look_around(Error::TimedOut, bar)?;
                    }
                }
                Err(error) => self.look_around(error, bar)?,
            }
        }
    }

    /// Sends the whole lines that were read.
    fn push(&mut self, bar: &Progress) -> Result<(), Failure> {
        while let Some(line) = self.lines.first() {
            match line {
                Line::Item(item) => match self.feeder.push(item, TICK) {
                    Ok(()) => self.lines.pass(),
                    Err(error) => self.look_around(error, bar)?,
                },
                Line::TooLong(len, _) => {
                    let (number, max) = (self.lines.number, self.lines.max);
                    bar.say(&format!(
                        "line {number} of the input is an item of {len} bytes, and the queue takes at most {max}; \
                         it was left out"
                    ));
                    self.left_out = true;
                    self.lines.pass();
                }
            }
            self.signals.check()?;
        }
        Ok(())
    }

    /// Deals with a queue that was full: waits for workers if there are none. Fails if a signal has
    /// come, and for other errors.
    fn look_around(&mut self, error: Error, bar: &Progress) -> Result<(), Failure> {
        self.signals.check()?;
        match error {
            Error::TimedOut => {
                if !self.told && self.feeder.is_alone()? {
                    self.told = true;
                    bar.say("the queue is full, and nobody works on it yet; waiting for a worker");
                }
                Ok(())
            }
            Error::Disconnected(end) => {
                bar.say(&format!(
                    "the queue is full, and its last worker {end}; waiting for the next one"
                ));
                loop {
                    self.signals.check()?;
                    match self.feeder.wait_for_worker(TICK) {
                        Err(Error::TimedOut) => {}
                        came => return Ok(came?),
                    }
                }
            }
            error => Err(error.into()),
        }
    }
}

/// The input that was read and is not yet taken, line by line.
pub(crate) struct Lines {
    /// The most bytes that a line may have, with its newline.
    max: usize,
    /// The bytes that were read, from `begin` to `end`.
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    /// The number of the line that begins there, counted from 1.
    number: u64,
    /// The number of bytes of that line that are not kept, because it is too long.
    dropped: u64,
    /// `true` if no more will be read: the last line needs no newline.
    ended: bool,
}

/// A line of the input.
pub(crate) enum Line<'a> {
    /// The line, with its newline if it has one.
    Item(&'a [u8]),
    /// The number of bytes of a line that is too long, and `true` if its newline is one of them.
    TooLong(u64, bool),
}

impl Lines {
    pub(crate) fn new(max: usize) -> Lines {
        Lines {
            max,
            buffer: vec![0; max + READ],
            begin: 0,
            end: 0,
            number: 1,
            dropped: 0,
            ended: false,
        }
    }

    /// Returns space for the next read. All whole lines were passed.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        if self.end > self.max {
            self.dropped += self.end as u64;
            self.end = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// Notes that `count` bytes more were read.
    pub(crate) fn grow(&mut self, count: usize) {
        self.end += count;
    }

    /// Notes the end of the input.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Returns the first line, if all of it was read.
    pub(crate) fn first(&self) -> Option<Line<'_>> {
        let len = self.first_len()?;
        let whole = self.dropped + len as u64;
        let kept = &self.buffer[self.begin..self.begin + len];
        Some(match whole <= self.max as u64 {
            true => Line::Item(kept),
            false => Line::TooLong(whole, kept.ends_with(b"\n")),
        })
    }

    /// Returns the number of the first line, counted from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the length of what is kept of the first line, if all of it was read.
    fn first_len(&self) -> Option<usize> {
        let bytes = &self.buffer[self.begin..self.end];
        match memchr::memchr(b'\n', bytes) {
            Some(at) => Some(at + 1),
            None if self.ended && (!bytes.is_empty() || self.dropped > 0) => Some(bytes.len()),
            None => None,
        }
    }

    /// Goes on to the next line.
    pub(crate) fn pass(&mut self) {
        self.begin += self.first_len().unwrap_or(0);
        self.dropped = 0;
        self.number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the whole lines out; a line that is too long as its length in decimal.
    fn take(lines: &mut Lines, out: &mut Vec<String>) {
        while let Some(line) = lines.first() {
            out.push(match line {
                Line::Item(item) => String::from_utf8(item.to_vec()).unwrap_or_default(),
                Line::TooLong(len, _) => len.to_string(),
            });
            lines.pass();
        }
    }

    /// Returns the lines that come out if the input is read in pieces of `piece` bytes.
    fn cut(input: &str, piece: usize, max: usize) -> Vec<String> {
        let (mut lines, mut out) = (Lines::new(max), Vec::new());
        for bytes in input.as_bytes().chunks(piece) {
            lines.space()[..bytes.len()].copy_from_slice(bytes);
            lines.grow(bytes.len());
            take(&mut lines, &mut out);
        }
        lines.end();
        take(&mut lines, &mut out);
        out
    }

    /// However the input is cut by reads, the same lines come out.
    #[test]
    fn lines_do_not_depend_on_reads() {
        for piece in 1..20 {
            let lines = cut("a\n\nbcde\nbcdef\nxxxxxxxxxxxx\nlast", piece, 5);
            assert_eq!(lines, ["a\n", "\n", "bcde\n", "6", "13", "last"], "{piece}");
            assert_eq!(cut("a\nxxxxxx", piece, 5), ["a\n", "6"], "{piece}");
            assert!(cut("", piece, 5).is_empty());
        }
    }
}
