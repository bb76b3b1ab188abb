//! What a process of a scene does: wants its seat until it has it, and then passes messages until it is
//! killed. Whatever it does not expect is a panic, which its referee sees.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use slipring::inspect::{SeatStat, SeatState};
use slipring::{End, Error, Readiness, Role};
use slipring_tests::room::PATIENCE;

use crate::kinds::{self, Consumer, Delivery, Ends, HAND, Kind, Place, Producer, Way};
use crate::words::{MOST, PartyWords, SeatWords, Words, add, get, now, put};

/// The name of a scene's channel, if it has one.
pub(crate) const NAME: &str = "ticks";

/// How long to leave a seat alone that is taken: nothing tells when it is free.
const PAUSE: Duration = Duration::from_millis(1);

/// One process.
pub(crate) struct Party {
    kind: Kind,
    way: Way,
    words: &'static Words,
    index: usize,
    role: Role,
    /// Its number in the channel's seat table, producers first; once it sits.
    seat: usize,
    /// How many sittings it knows of.
    seatings: u64,
    /// How many it knew of when it was last told of a death.
    told: u64,
}

/// The process that comes when all producers are gone.
pub(crate) const AUDITOR: &str = "auditor";

/// A process that looks who holds the producer back, and goes.
pub(crate) const ONLOOKER: &str = "onlooker";

/// How a consumer accounts for the messages that it takes.
enum Account {
    /// With its seat's other holders: it goes on where the last one released.
    Shared {
        seat: &'static SeatWords,
        fresh: bool,
    },
    /// By itself: from this one on it misses none.
    Own { next: u64 },
}

impl Account {
    /// Of a consumer that has just sat down.
    fn begin(
        kind: &Kind,
        way: Way,
        words: &'static Words,
        seat: usize,
        next: u64,
        before: u64,
    ) -> Account {
        if kind.delivery == Delivery::One {
            let (seat, fresh) = (words.seat(seat), true);
            return Account::Shared { seat, fresh };
        }
        // At the oldest that is there: within a ring of what was accepted as it came, and no later than
        // what may be there by now.
        let oldest = before.saturating_sub((kind.capacity)(way));
        let newest = get(&words.seat(0).done) + HAND;
        assert!(
            (oldest..=newest).contains(&next),
            "joined at {next}, not {oldest} to {newest}"
        );
        Account::Own { next }
    }

    /// It took this message.
    fn take(&mut self, number: u64) -> Result<(), String> {
        match self {
            Account::Shared { seat, fresh } => seat.take(number, fresh),
            Account::Own { next } if *next == number => {
                *next += 1;
                Ok(())
            }
            Account::Own { next } => Err(format!("message {number} came after all before {next}")),
        }
    }

    /// It was told that it lost so many.
    fn lose(&mut self, count: u64) {
        match self {
            Account::Own { next } => *next += count,
            Account::Shared { .. } => panic!("{count} were lost of messages that are kept"),
        }
    }

    /// All before this one is accounted for.
    fn next(&self) -> u64 {
        match self {
            Account::Shared { seat, .. } => get(&seat.done),
            Account::Own { next } => *next,
        }
    }

    /// It was told of the last end there is: the auditor's.
    fn close(&self, committed: u64) {
        assert_eq!(self.next(), committed, "messages are missing");
    }
}

/// Is such a process: KIND WAY WHO DESCRIPTORS. Who is a number, the auditor or the onlooker. The first descriptor is the
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
    match who.as_str() {
        AUDITOR => return audit(&kind, way, &*ends, words),
        ONLOOKER => return look_on(&*ends, words),
        _ => {}
    }
    let index = who.parse::<usize>().unwrap();
    let mut party = Party {
        role: kind.role(index),
        kind,
        way,
        words,
        index,
        seat: 0,
        seatings: 0,
        told: 0,
    };
    let error = match party.role {
        Role::Producer => party.produce(&*ends),
        Role::Consumer => match party.consume(&*ends) {
            // The auditor's: there was everything, and there is nothing left to do.
            Ok(()) => return,
            Err(error) => error,
        },
    };
    panic!("{:?} {index} in seat {}: {error}", party.role, party.seat);
}

/// Accounts for every message that was ever committed: what nobody has processed yet is there, in order,
/// and then the end, told once. Those who live are told of that end, too.
fn audit(kind: &Kind, way: Way, ends: &dyn Ends, words: &'static Words) {
    let must = |done: Result<(), String>| done.unwrap_or_else(|what| panic!("{what}"));
    let mut tx = ends.producer().unwrap();
    must(words.seat(0).resume(tx.next()));
    // Who was told of a death waits for somebody to come, and everybody else for a message.
    let seating = add(&words.seatings, 1);
    if kind.delivery != Delivery::One {
        tx.push(tx.next()).unwrap();
    }
    let committed = tx.next();
    put(&words.seat(0).done, committed);
    let knows = |party: &PartyWords| !party.is_seated() || get(&party.noticed) >= seating;
    while !(0..MOST).all(|index| knows(words.party(index))) {
        std::thread::sleep(PAUSE);
    }
    drop(tx);
    let mut rx = patiently(|| ends.consumer(), || {});
    // Where all consumers share an account, its seat is the second.
    let mut account = Account::begin(kind, way, words, 1, rx.next(), committed);
    let end = loop {
        let read = rx.read(HAND as usize, &mut |numbers| {
            numbers
                .iter()
                .for_each(|number| must(account.take(*number)));
        });
        match read {
            Ok(()) => {}
            Err(Error::Lagged(count)) => account.lose(count),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, Error::Disconnected(End::Finished)), "{end}");
    account.close(committed);
}

/// Tells the referee who holds the producer back, as `stat` would tell a person.
fn look_on(ends: &dyn Ends, words: &Words) {
    let stat = ends.stat().unwrap();
    let (seat, pid) = match stat.holds_back() {
        Some(seat) => (1 + seat.index as u64, seat.pid),
        None => (0, 0),
    };
    put(&words.slowest_pid, pid);
    put(&words.slowest, seat);
}

/// Tries until it has a seat.
fn patiently<T>(take: impl Fn() -> Result<T, Error>, refused: impl Fn()) -> T {
    loop {
        match take() {
            Ok(handle) => return handle,
            // `Recovering`: somebody was stopped just as he tried.
            Err(
                Error::RoleTaken { .. } | Error::TooManyReaders { .. } | Error::Recovering { .. },
            ) => {
                refused();
                std::thread::sleep(PAUSE);
            }
            Err(error) => panic!("{error}"),
        }
    }
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
            // Who waits for nobody lets others have the processor now and then: so readers now keep up, and now
            // do not.
            if self.kind.delivery == Delivery::Quick && (tx.next() / 512).is_multiple_of(2) {
                std::thread::yield_now();
            }
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

    fn consume(&mut self, ends: &dyn Ends) -> Result<(), Error> {
        let accepted = || get(&self.words.seat(0).done);
        let (mut rx, before) = self.sit_down(|| {
            let before = accepted();
            Ok((ends.consumer()?, before))
        });
        self.seat = match self.kind.consumers {
            1 => 1,
            _ => own_seat(ends),
        };
        let mut account = Account::begin(
            &self.kind,
            self.way,
            self.words,
            self.seat,
            rx.next(),
            before,
        );
        self.seated();
        let mut turn = 0;
        loop {
            turn += 1;
            match self.read(&mut *rx, turn, &mut account) {
                Ok(()) => self.look_round(),
                Err(Error::Lagged(count)) if self.kind.delivery == Delivery::Quick => {
                    account.lose(count);
                    assert_eq!(account.next(), rx.next(), "{count} are not what was lost");
                    add(&self.party_words().lost, count);
                    self.look_round();
                }
                Err(Error::Disconnected(End::Finished)) => {
                    account.close(accepted());
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read(
        &mut self,
        rx: &mut dyn Consumer,
        turn: u64,
        account: &mut Account,
    ) -> Result<(), Error> {
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
        let read = rx.read(max as usize, &mut |numbers| {
            for number in numbers {
                if let Err(what) = account.take(*number) {
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

    /// Tries until it has a seat.
    fn sit_down<T>(&self, take: impl Fn() -> Result<T, Error>) -> T {
        patiently(take, || {
            add(&self.party_words().tries, 1);
        })
    }

    /// It has its seat, and has found there what must be there.
    fn seated(&mut self) {
        put(&self.seat_words().seated_at, now());
        // What it sees of others from here on comes after this.
        self.seatings = add(&self.words.seatings, 1);
        put(&self.party_words().noticed, self.seatings);
        put(&self.party_words().seat, self.seat as u64);
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
        self.words.seat(self.seat)
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

/// The seat that this process holds: a channel with several for a role gives the first that is free.
fn own_seat(ends: &dyn Ends) -> usize {
    let us = u64::from(std::process::id());
    let seats = ends.stat().unwrap().seats;
    let ours = |seat: &SeatStat| seat.pid == us && seat.state == SeatState::Held;
    seats.iter().position(ours).expect("no seat is ours")
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
