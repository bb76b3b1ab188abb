//! What a process of a scene does: wants its seat until it has it, and then passes messages until it is
//! killed. Whatever it does not expect is a panic, which its referee sees.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use slipring::{End, Error, Readiness, Role};
use slipring_tests::room::PATIENCE;

use crate::kinds::{self, Consumer, Ends, HAND, Place, Producer, Seat, Way};
use crate::words::{PartyWords, SeatWords, Words, add, get, now, put};

/// The name of a scene's channel, if it has one.
pub(crate) const NAME: &str = "ticks";

/// How long to leave a seat alone that is taken: nothing tells when it is free.
const PAUSE: Duration = Duration::from_millis(1);

/// One process.
pub(crate) struct Party {
    way: Way,
    words: &'static Words,
    index: usize,
    seat: Seat,
    /// How many sittings it knows of.
    seatings: u64,
    /// How many it knew of when it was last told of a death.
    told: u64,
}

/// The process that comes when all others are gone.
pub(crate) const AUDITOR: &str = "auditor";

/// Is such a process: KIND WAY WHO DESCRIPTORS. Who is a number, or the auditor. The first descriptor is the
/// scene's memory, the others are the channel's, if it is passed.
pub(crate) fn run(arguments: &[String]) {
    let [kind, way, who, descriptors @ ..] = arguments else {
        panic!("a party is told its kind, its way, and who it is");
    };
    let mut descriptors = descriptors.iter().map(|word| {
        let number = word.parse().unwrap();
        // SAFETY: a descriptor that this process inherited, and that nothing else of it uses.
        unsafe { OwnedFd::from_raw_fd(number) }
    });
    let memory = descriptors.next().unwrap();
    let passed = descriptors.collect::<Vec<_>>();
    let kind = kinds::all().into_iter().find(|known| known.name == kind);
    let way = Way::ALL.into_iter().find(|known| known.name() == way);
    let (kind, way) = (kind.unwrap(), way.unwrap());
    let place = match passed.len() {
        0 => Place::Named(NAME),
        _ => Place::Passed(passed),
    };
    let words = Words::map(memory.as_fd());
    let ends = (kind.open)(way, place);
    if who == AUDITOR {
        return audit(&*ends, words);
    }
    let index = who.parse::<usize>().unwrap();
    let mut party = Party {
        way,
        words,
        index,
        // Who sits where does not depend on how many there are.
        seat: (kind.seats)(index + 1)[index],
        seatings: 0,
        told: 0,
    };
    let error = match party.seat.role {
        Role::Producer => party.produce(&*ends),
        Role::Consumer => party.consume(&*ends),
    };
    panic!("{:?} {index}: {error}", party.seat);
}

/// Accounts for every message that was ever committed: what nobody has processed yet is there, in order,
/// and then the end, told once.
fn audit(ends: &dyn Ends, words: &Words) {
    let must = |done: Result<(), String>| done.unwrap_or_else(|what| panic!("{what}"));
    let tx = ends.producer().unwrap();
    must(words.seat(0).resume(tx.next()));
    let committed = tx.next();
    drop(tx);
    let (mut rx, account, mut fresh) = (ends.consumer().unwrap(), words.seat(1), true);
    let mut read = || {
        rx.read(HAND as usize, &mut |numbers| {
            let take = |number: &u64| must(account.take(*number, &mut fresh));
            numbers.iter().for_each(take);
        })
    };
    let end = loop {
        if let Err(error) = read() {
            break error;
        }
    };
    assert!(matches!(end, Error::Disconnected(End::Finished)), "{end}");
    assert_eq!(get(&account.done), committed, "messages are missing");
}

impl Party {
    fn produce(&mut self, ends: &dyn Ends) -> Error {
        let mut tx = self.sit_down(|| ends.producer());
        if let Err(end) = self.seat_words().resume(tx.next()) {
            panic!("{end}");
        }
        self.seated();
        loop {
            if let Err(error) = self.push(&mut *tx) {
                return error;
            }
            put(&self.seat_words().done, tx.next());
            self.look_round();
        }
    }

    fn push(&mut self, tx: &mut dyn Producer) -> Result<(), Error> {
        let number = tx.next();
        let polls = self.way.polls(number);
        let pushed = match (self.way, number % 8) {
            _ if polls => tx.try_push(number),
            (Way::Stream, 0) => tx.batch(number..number + 5),
            (Way::Stream, 1 | 2) => tx.place(number),
            _ => tx.push(number),
        };
        match pushed {
            Err(Error::Full) => match tx.arm(number) {
                Ok(Readiness::Ready) => Ok(()),
                Ok(Readiness::Armed) => look(tx.fd()?),
                Err(error) => {
                    self.told(error)?;
                    look(tx.fd()?)
                }
            },
            Err(error) => {
                self.told(error)?;
                if !polls {
                    return tx.wait_for_consumer(PATIENCE);
                }
                // Until somebody comes.
                match tx.arm(number) {
                    Ok(Readiness::Ready) => Ok(()),
                    Ok(Readiness::Armed) | Err(Error::Disconnected(End::Died)) => look(tx.fd()?),
                    Err(error) => Err(error),
                }
            }
            Ok(()) => Ok(()),
        }
    }

    fn consume(&mut self, ends: &dyn Ends) -> Error {
        let mut rx = self.sit_down(|| ends.consumer());
        self.seated();
        let mut fresh = true;
        let mut turn = 0;
        loop {
            turn += 1;
            if let Err(error) = self.read(&mut *rx, turn, &mut fresh) {
                return error;
            }
            self.look_round();
        }
    }

    fn read(&mut self, rx: &mut dyn Consumer, turn: u64, fresh: &mut bool) -> Result<(), Error> {
        if self.way.polls(turn) {
            match rx.arm() {
                Ok(Readiness::Ready) => {}
                Ok(Readiness::Armed) => return look(rx.fd()?),
                Err(error) => {
                    self.told(error)?;
                    return look(rx.fd()?);
                }
            }
        }
        let max = if self.way == Way::Stream { HAND } else { 2 };
        let words = self.words;
        let account = self.seat_words();
        let read = rx.read(max as usize, &mut |numbers| {
            for number in numbers {
                if let Err(what) = account.take(*number, fresh) {
                    panic!("{what}");
                }
            }
            add(&words.messages, numbers.len() as u64);
        });
        match read {
            Ok(()) => Ok(()),
            Err(error) => {
                self.told(error)?;
                rx.wait_for_producer(PATIENCE)
            }
        }
    }

    /// Tries until it has the seat.
    fn sit_down<T>(&self, take: impl Fn() -> Result<T, Error>) -> T {
        loop {
            match take() {
                Ok(handle) => return handle,
                // `Recovering`: somebody was stopped just as he tried.
                Err(Error::RoleTaken { .. } | Error::Recovering { .. }) => {
                    add(&self.party_words().tries, 1);
                    std::thread::sleep(PAUSE);
                }
                Err(error) => panic!("{:?} {}: {error}", self.seat, self.index),
            }
        }
    }

    /// It has its seat, and has found there what must be there.
    fn seated(&mut self) {
        put(&self.seat_words().seated_at, now());
        // What it sees of others from here on comes after this.
        self.seatings = add(&self.words.seatings, 1);
        put(&self.party_words().noticed, self.seatings);
        put(&self.party_words().seated, 1);
    }

    /// It was told of an end: a death, for nobody ends otherwise.
    fn told(&mut self, error: Error) -> Result<(), Error> {
        let Error::Disconnected(End::Died) = error else {
            return Err(error);
        };
        // Whoever asks again is told again, as long as nobody has come.
        if self.told != self.seatings {
            self.told = self.seatings;
            put(&self.party_words().told_at, now());
            add(&self.party_words().told, 1);
        }
        Ok(())
    }

    /// A call has returned: who has sat down since the last one did?
    fn look_round(&mut self) {
        let seatings = get(&self.words.seatings);
        if seatings != self.seatings {
            self.seatings = seatings;
            put(&self.party_words().noticed_at, now());
            put(&self.party_words().noticed, seatings);
        }
    }

    fn seat_words(&self) -> &'static SeatWords {
        self.words.seat(self.seat.number)
    }

    fn party_words(&self) -> &'static PartyWords {
        self.words.party(self.index)
    }
}

impl SeatWords {
    /// A producer goes on at this number: all that was accepted is there, and at most what was in hand.
    pub(crate) fn resume(&self, next: u64) -> Result<(), String> {
        let accepted = get(&self.done);
        if !(accepted..=accepted + HAND).contains(&next) {
            return Err(format!(
                "the next message is {next}, after {accepted} were accepted"
            ));
        }
        put(&self.done, next);
        Ok(())
    }

    /// A consumer took this message: the next one, or, as its first, one that its predecessor had in hand.
    pub(crate) fn take(&self, number: u64, fresh: &mut bool) -> Result<(), String> {
        let expected = get(&self.done);
        let again = expected.wrapping_sub(number);
        if again > if *fresh { HAND } else { 0 } {
            return Err(format!("message {number} came after all before {expected}"));
        }
        *fresh = false;
        add(&self.again, again);
        put(&self.done, number + 1);
        Ok(())
    }
}

/// Polls until there is news.
fn look(fd: BorrowedFd<'_>) -> Result<(), Error> {
    loop {
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match poll(&mut polled, None) {
            Err(Errno::INTR) => {}
            done => {
                done.unwrap();
                return Ok(());
            }
        }
    }
}
