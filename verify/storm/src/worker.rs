//! Runs a worker of a scenario. It tries until it gets its seat, and then passes messages until it
//! is killed. On anything unexpected it panics, and its referee sees that.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use slipring::inspect::{SeatStat, SeatState, Stat};
use slipring::{End, Error, Readiness, Role, SetupError};
use slipring_testkit::{Consumer, Delivery, Kind, Producer, inherited};
use slipring_tests::room::PATIENCE;

use crate::kinds::{self, Ends, HAND, Way};
use crate::queue;
use crate::topic;
use crate::words::{MOST, PartyWords, SeatWords, Words, add, get, now, put};

/// The name of a scenario's channel, if it has one.
pub(crate) const NAME: &str = "ticks";

/// The pause between two tries for a taken seat: nothing reports when the seat is free.
const PAUSE: Duration = Duration::from_millis(1);

/// One worker.
pub(crate) struct Worker {
    kind: &'static Kind,
    pub(crate) way: Way,
    pub(crate) words: &'static Words,
    pub(crate) index: usize,
    pub(crate) role: Role,
    /// Its number in the channel's seat table, producers first, once it has a seat.
    pub(crate) seat: usize,
    /// The number of seatings that it knows of.
    seatings: u64,
    /// The number that it knew of when it last learned of a death.
    told: u64,
}

/// The process that comes when all producers are gone.
pub(crate) const AUDITOR: &str = "auditor";

/// A process that reports which consumer holds the producer back, and leaves.
pub(crate) const ONLOOKER: &str = "onlooker";

/// The way in which a consumer accounts for the messages that it takes.
enum Account {
    /// Shared with its seat's other holders: it goes on where the last one released.
    Shared {
        seat: &'static SeatWords,
        fresh: bool,
    },
    /// Its own account: from this message on it misses none.
    Own { next: u64 },
}

impl Account {
    /// Begins the account of a consumer that has just taken its seat.
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
        // It begins at the oldest message. That is within a ring of the messages accepted when it
        // came, and no later than the messages that may be there by now.
        let oldest = before.saturating_sub(kinds::most(kind, way));
        let newest = get(&words.seat(0).done) + HAND;
        assert!(
            (oldest..=newest).contains(&next),
            "joined at {next}, not {oldest} to {newest}"
        );
        Account::Own { next }
    }

    /// Records that the consumer took this message.
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

    /// Records that `count` lost messages were reported to the consumer.
    fn lose(&mut self, count: u64) {
        match self {
            Account::Own { next } => *next += count,
            Account::Shared { .. } => panic!("{count} were lost of messages that are kept"),
        }
    }

    /// Returns the number up to which all messages are accounted for.
    fn next(&self) -> u64 {
        match self {
            Account::Shared { seat, .. } => get(&seat.done),
            Account::Own { next } => *next,
        }
    }

    /// Checks the account when the consumer learned of the last end: the auditor's.
    fn close(&self, committed: u64) {
        assert_eq!(self.next(), committed, "messages are missing");
    }
}

/// Runs as such a worker: KIND WAY WHO DESCRIPTORS. WHO is a number, the auditor or the onlooker.
/// The first descriptor is the scenario's memory. The others are the channel's, if it is passed.
pub(crate) fn run(arguments: &[String]) {
    let [kind, way, who, descriptors] = arguments else {
        panic!("a worker is told its kind, its way, who it is, and its descriptors");
    };
    let mut passed = inherited(descriptors);
    let memory = passed.remove(0);
    let kind = kinds::all().find(|known| known.name == kind);
    let way = Way::ALL.into_iter().find(|known| known.name() == way);
    let (kind, way) = (kind.unwrap(), way.unwrap());
    let words = Words::map(memory.as_fd());
    let worker = || {
        let index = who.parse::<usize>().unwrap();
        Worker {
            role: kinds::role(kind, index),
            kind,
            way,
            words,
            index,
            seat: 0,
            seatings: 0,
            told: 0,
        }
    };
    if let Some(terms) = kinds::queue(kind, way) {
        let queue = match passed.is_empty() {
            true => terms.named(NAME),
            false => terms.passed(passed).unwrap(),
        };
        if who == AUDITOR {
            return queue::audit(&terms, &*queue, words);
        }
        let mut worker = worker();
        let error = queue::work(&mut worker, &terms, &*queue);
        panic!("{:?} {who} in seat {}: {error}", worker.role, worker.seat);
    }
    let ends = &Ends::open(kind, way, NAME, passed);
    match who.as_str() {
        AUDITOR if kind.topic => return topic::audit(kind, ends, words),
        AUDITOR => return audit(kind, way, ends, words),
        ONLOOKER => return look_on(ends, words),
        _ => {}
    }
    let mut worker = worker();
    let worked = match worker.role {
        _ if kind.topic => topic::work(&mut worker, kind, ends),
        Role::Producer => Err(worker.produce(ends)),
        Role::Consumer => worker.consume(ends),
    };
    // An end is the auditor's: every message was there, and the worker is done.
    let Err(error) = worked else { return };
    panic!("{:?} {who} in seat {}: {error}", worker.role, worker.seat);
}

/// Accounts for every message that was ever committed. The messages that nobody has processed are
/// there, in order, and then comes the end, once. Live consumers learn of that end, too.
fn audit(kind: &Kind, way: Way, ends: &Ends, words: &'static Words) {
    let must = |done: Result<(), String>| done.unwrap_or_else(|what| panic!("{what}"));
    let mut tx = ends.producer().unwrap();
    must(words.seat(0).resume(tx.next()));
    // A consumer that learned of a death waits for a producer to come, and every other one for a
    // message.
    let seating = add(&words.seatings, 1);
    if kind.delivery != Delivery::One {
        tx.push(tx.next()).unwrap();
    }
    let committed = tx.next();
    put(&words.seat(0).done, committed);
    let knows = |worker: &PartyWords| !worker.is_seated() || get(&worker.noticed) >= seating;
    while !(0..MOST).all(|index| knows(words.worker(index))) {
        std::thread::sleep(PAUSE);
    }
    drop(tx);
    let mut rx = patiently(|| ends.consumer(), || {});
    // Where all consumers share an account, its seat is the second.
    let mut account = Account::begin(kind, way, words, 1, rx.next(), committed);
    let end = loop {
        let read = kinds::read(kind, &mut *rx, HAND as usize, &mut |numbers| {
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
    drop(rx);
    let stat = ends.stat().unwrap();
    if let Some(growth) = stat.growth {
        assert_eq!(growth.rings, Some(1), "old rings are left");
        let class = stat.geometry.class_of(growth.capacity).unwrap();
        let area = stat.geometry.area_of(class).unwrap();
        let backed = growth.backed.unwrap();
        assert_eq!(backed, area.end - area.start, "memory is left");
        put(&words.resizes, growth.resizes);
    }
}

/// Tells the referee which consumer holds the producer back, as `stat` would tell a person.
fn look_on(ends: &Ends, words: &Words) {
    let stat = ends.stat().unwrap();
    let (seat, pid) = match stat.holds_back() {
        Some(seat) => (1 + seat.index as u64, seat.pid),
        None => (0, 0),
    };
    put(&words.slowest_pid, pid);
    put(&words.slowest, seat);
}

/// Tries until it has a seat.
pub(crate) fn patiently<T>(take: impl Fn() -> Result<T, SetupError>, refused: impl Fn()) -> T {
    loop {
        match take() {
            Ok(handle) => return handle,
            // `Recovering`: another process was stopped in the middle of taking the seat.
            Err(SetupError::RoleTaken { .. } | SetupError::Recovering { .. }) => {
                refused();
                std::thread::sleep(PAUSE);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Worker {
    fn produce(&mut self, ends: &Ends) -> Error {
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
            // A producer that never waits yields the processor now and then: so readers sometimes
            // keep up, and sometimes do not.
            if self.kind.delivery == Delivery::Overwriting && (tx.next() / 512).is_multiple_of(2) {
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
            Err(Error::Full) => match tx.arm(tx.room_for(number)) {
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
                    return tx.wait_for_peer(PATIENCE);
                }
                // This waits until somebody comes.
                match tx.arm(tx.room_for(number)) {
                    Ok(Readiness::Ready) => Ok(()),
                    Ok(Readiness::Armed) | Err(Error::Disconnected(End::Died)) => look(tx.fd()?),
                    Err(error) => Err(error),
                }
            }
            Ok(()) => Ok(()),
        }
    }

    fn consume(&mut self, ends: &Ends) -> Result<(), Error> {
        let accepted = || get(&self.words.seat(0).done);
        let (mut rx, before) = self.sit_down(|| {
            let before = accepted();
            Ok((ends.consumer()?, before))
        });
        self.seat = match self.kind.consumers {
            1 => 1,
            _ => own_seat(|| ends.stat()),
        };
        let mut account = Account::begin(
            self.kind,
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
                Err(Error::Lagged(count)) if self.kind.delivery == Delivery::Overwriting => {
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
            match rx.arm(0) {
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
        let read = kinds::read(self.kind, rx, max as usize, &mut |numbers| {
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
                rx.wait_for_peer(PATIENCE)
            }
        }
    }

    /// Tries until it has a seat.
    pub(crate) fn sit_down<T>(&self, take: impl Fn() -> Result<T, SetupError>) -> T {
        patiently(take, || {
            add(&self.party_words().tries, 1);
        })
    }

    /// Records that the worker has its seat, and has found the expected state there.
    pub(crate) fn seated(&mut self) {
        put(&self.seat_words().seated_at, now());
        // The worker's later observations of others come after this.
        self.seatings = add(&self.words.seatings, 1);
        put(&self.party_words().noticed, self.seatings);
        put(&self.party_words().seat, self.seat as u64);
        put(&self.party_words().seated, 1);
    }

    /// Records that the worker learned of an end. It must be a death, for nobody ends otherwise.
    pub(crate) fn told(&mut self, error: Error) -> Result<(), Error> {
        let Error::Disconnected(End::Died) = error else {
            return Err(error);
        };
        // A worker that asks again learns of the same death again, as long as nobody has come.
        if self.told != self.seatings {
            self.told = self.seatings;
            put(&self.party_words().told_at, now());
            add(&self.party_words().told, 1);
        }
        Ok(())
    }

    /// Records, after a call returned, whether others took seats since the previous call.
    pub(crate) fn look_round(&mut self) {
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
        self.words.worker(self.index)
    }
}

impl SeatWords {
    /// Checks the number at which a producer goes on: all accepted messages are there, and at most
    /// those in hand besides.
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

    /// Checks a message that a consumer took: the next one, or, as its first, one that its
    /// predecessor had in hand.
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

/// Returns the seat that this process holds: a channel with several for a role gives the first that
/// is free.
pub(crate) fn own_seat(stat: impl Fn() -> Result<Stat, SetupError>) -> usize {
    let us = u64::from(std::process::id());
    let seats = stat().unwrap().seats;
    let ours = |seat: &SeatStat| seat.pid == us && seat.state == SeatState::Held;
    seats.iter().position(ours).expect("no seat is ours")
}

/// Polls until there is news.
pub(crate) fn look(fd: BorrowedFd<'_>) -> Result<(), Error> {
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
