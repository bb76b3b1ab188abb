//! The handles of `broadcast`, whose consumers come and go, and may be overtaken.
//!
//! | verb | does |
//! |---|---|
//! | `follow` | takes or loses messages, whoever sends them, until one has finished; says the number after the last, how many it took, and how many it was told that it lost |
//! | `die-in-batch` FIRST COUNT AT | is killed in a batch, when so many were written |
//! | `table` | says a line of words for each seat of the channel that it has |
//! | `holds-back` | says the seat and the process that hold the producer back, if any do |

use std::os::fd::BorrowedFd;
use std::time::Duration;

use slipring::{End, Error, Readiness, broadcast};
use slipring_tests::message::Numbered;
use slipring_tests::room::PATIENCE;

use crate::ends::{Reader, Writer, checked};
use crate::handing;
use crate::party::{Line, Party, Said};

impl<T: Numbered> Writer for broadcast::Producer<T> {
    fn push(&mut self, number: u64) -> Result<(), Error> {
        Ok(broadcast::Producer::push(self, T::numbered(number))?)
    }

    fn push_timeout(&mut self, number: u64, timeout: Duration) -> Result<(), Error> {
        let message = T::numbered(number);
        Ok(broadcast::Producer::push_timeout(self, message, timeout)?)
    }

    fn try_push(&mut self, number: u64) -> Result<(), Error> {
        broadcast::Producer::try_push(self, T::numbered(number)).map_err(|failed| {
            let back = checked(failed.value.check());
            assert_eq!(back, number, "the value comes back");
            failed.error
        })
    }

    fn place(&mut self, number: u64) -> Result<(), Error> {
        let mut slots = self.reserve(1)?;
        slots.write(0, T::numbered(number));
        slots.commit(1);
        Ok(())
    }

    fn batch(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Error> {
        let values = numbers.map(T::numbered).collect::<Vec<_>>();
        self.push_slice(&values).map_err(|(_, error)| error)
    }

    fn iterate(
        &mut self,
        numbers: std::ops::Range<u64>,
        between: &mut dyn FnMut(),
    ) -> Result<usize, Error> {
        self.try_push_iter(numbers.map(|number| {
            between();
            T::numbered(number)
        }))
    }

    fn hold(
        &mut self,
        first: u64,
        count: usize,
        decide: &mut dyn FnMut(&[u64]) -> usize,
    ) -> Result<(), Error> {
        let mut slots = self.try_reserve(count)?;
        let numbers = (first..first + count as u64).collect::<Vec<_>>();
        for (i, number) in numbers.iter().enumerate() {
            slots.write(i, T::numbered(*number));
        }
        slots.commit(decide(&numbers));
        Ok(())
    }

    fn next(&self) -> u64 {
        broadcast::Producer::position(self)
    }

    fn position(&self) -> u64 {
        broadcast::Producer::position(self)
    }

    fn len(&self) -> Result<usize, Error> {
        panic!("each consumer has its own");
    }

    fn is_disconnected(&mut self) -> Result<bool, Error> {
        broadcast::Producer::is_disconnected(self)
    }

    fn wait_for_consumer(&mut self, timeout: Duration) -> Result<(), Error> {
        broadcast::Producer::wait_for_consumer(self, timeout)
    }

    fn heartbeat(&self) {
        broadcast::Producer::heartbeat(self);
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }

    fn arm(&mut self, _number: u64) -> Result<Readiness, Error> {
        broadcast::Producer::arm(self, 1)
    }

    fn abort(self: Box<Self>) {
        broadcast::Producer::abort(*self);
    }
}

impl<T: Numbered> Reader for broadcast::Consumer<T> {
    fn pop_timeout(&mut self, timeout: Duration) -> Result<u64, Error> {
        let message = broadcast::Consumer::pop_timeout(self, timeout)?;
        Ok(checked(message.check()))
    }

    fn pop_any(&mut self, timeout: Duration) -> Result<Option<u64>, Error> {
        let message = broadcast::Consumer::pop_timeout(self, timeout)?;
        Ok(message.check().ok())
    }

    fn try_pop(&mut self) -> Result<u64, Error> {
        Ok(checked(broadcast::Consumer::try_pop(self)?.check()))
    }

    fn read(&mut self, max: usize, seen: &mut dyn FnMut(&[u64])) -> Result<(), Error> {
        let messages = broadcast::Consumer::read(self, max)?;
        let numbers = messages.iter().map(|message| checked(message.check()));
        seen(&numbers.collect::<Vec<_>>());
        Ok(())
    }

    fn position(&self) -> u64 {
        broadcast::Consumer::position(self)
    }

    fn len(&self) -> Result<usize, Error> {
        broadcast::Consumer::len(self)
    }

    fn is_disconnected(&mut self) -> Result<bool, Error> {
        broadcast::Consumer::is_disconnected(self)
    }

    fn wait_for_producer(&mut self, timeout: Duration) -> Result<(), Error> {
        broadcast::Consumer::wait_for_producer(self, timeout)
    }

    fn heartbeat(&self) {
        broadcast::Consumer::heartbeat(self);
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.as_fd()
    }

    fn arm(&mut self) -> Result<Readiness, Error> {
        broadcast::Consumer::arm(self)
    }

    /// One of many has nobody to tell: it leaves.
    fn abort(self: Box<Self>) {}
}

pub(crate) fn obey(party: &mut Party, line: &Line<'_>) -> Said {
    match line.word(0) {
        "follow" => follow(party.rx()),
        "die-in-batch" => {
            let (first, count, at) = (line.number(1), line.number(2), line.number(3));
            let mut written = 0;
            let mut between = || {
                if written == at {
                    let us = rustix::process::getpid();
                    rustix::process::kill_process(us, rustix::process::Signal::KILL).unwrap();
                }
                written += 1;
            };
            let done = party.tx().iterate(first..first + count, &mut between);
            panic!("it lives: {done:?}");
        }
        "table" => {
            let seats = party.memory().stat()?.seats;
            let words = seats.iter().map(|seat| {
                let (state, member) = (seat.state.name(), u64::from(seat.member));
                format!(
                    "{state} {member} {} {} {} {} {}",
                    seat.pid, seat.position, seat.waits, seat.lagged, seat.recovered
                )
            });
            Ok(words.collect())
        }
        "holds-back" => {
            let stat = party.memory().stat()?;
            let words = stat.holds_back().map(|seat| [seat.index as u64, seat.pid]);
            let words = words.iter().flatten();
            Ok(words.map(ToString::to_string).collect())
        }
        _ => handing::obey(party, line),
    }
}

/// Until somebody finishes: others may die, and be followed.
fn follow(rx: &mut dyn Reader) -> Said {
    let mut next = rx.position();
    let (mut taken, mut lost) = (0_u64, 0_u64);
    loop {
        match rx.pop_timeout(PATIENCE) {
            Ok(number) => {
                assert_eq!(number, next, "missing, reused, or out of order");
                (next, taken) = (next + 1, taken + 1);
            }
            Err(Error::Lagged(more)) => (next, lost) = (next + more, lost + more),
            Err(Error::Disconnected(End::Finished)) => break,
            Err(Error::Disconnected(_)) => rx.wait_for_producer(PATIENCE)?,
            Err(error) => return Err(error),
        }
        assert_eq!(rx.position(), next);
    }
    Ok([next, taken, lost]
        .map(|figure| figure.to_string())
        .to_vec())
}
