//! Checks the promises of a `WaitSet` within one process, in both of its ways to sleep. (For real
//! processes see `tests/tests/wait_set.rs`.) Unless a test says otherwise, only the wake ends a
//! sleep. So a lost wake is a test that does not end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod memory;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use slipring::set::{Key, Members};
use slipring::{End, Error, PushError, Wait, WaitSet, broadcast, bytes, inspect, spsc};

use memory::Memory;

/// A timeout so long that a lost wake is a test that does not end.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// The number of entries beyond which a set sleeps on pipes.
const DOORBELLS: usize = 127;

type Ends = (spsc::Producer<u64>, spsc::Consumer<u64>);

fn builder(capacity: usize) -> spsc::Builder<u64> {
    let wait = Wait::Sleep {
        spin_for: Duration::ZERO,
    };
    spsc::Builder::new(capacity)
        .wait(wait)
        .check_every(FOR_EVER)
}

fn heap(capacity: usize) -> Ends {
    builder(capacity).channel_pair().unwrap()
}

fn memfd(capacity: usize) -> Ends {
    let channel = builder(capacity).memfd().unwrap();
    (channel.producer().unwrap(), channel.consumer().unwrap())
}

/// A set, with channels in it that never have news.
struct Bed {
    set: WaitSet,
    idle: Vec<(Ends, Key)>,
}

impl Bed {
    fn new(idle: usize) -> Bed {
        allow_many_descriptors();
        let set = WaitSet::new().unwrap();
        let mut bed = Bed { set, idle: vec![] };
        bed.grow(idle);
        bed
    }

    /// Returns one set that sleeps on doorbells, and one on pipes.
    fn both() -> [Bed; 2] {
        [Bed::new(0), Bed::new(DOORBELLS + 1)]
    }

    fn grow(&mut self, to: usize) {
        while self.idle.len() < to {
            let ends = heap(1);
            let key = self.set.watch(&ends.1).unwrap();
            self.idle.push((ends, key));
        }
    }

    fn shrink(&mut self, to: usize) {
        for (_, key) in self.idle.drain(to..) {
            assert!(self.set.unwatch(key));
        }
    }

    /// Returns the keys that the next wait finds ready; it must find no other event.
    #[track_caller]
    fn ready(&mut self) -> Vec<Key> {
        let events = self.set.wait().unwrap();
        for event in &events {
            assert!(event.ready && event.ended.is_none() && !event.overdue);
        }
        events.iter().map(|event| event.key).collect()
    }

    #[track_caller]
    fn quiet(&mut self) {
        let found = self.set.wait_timeout(Duration::ZERO);
        assert!(matches!(found, Err(Error::TimedOut)), "{found:?}");
    }
}

fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// One set waits at once for messages, for records, and for room in channels of both kinds.
#[test]
fn one_set_waits_for_all_kinds() {
    for mut bed in Bed::both() {
        let (mut tx, mut rx) = memfd(4);
        let channel = bytes::Builder::new(64).check_every(FOR_EVER).memfd();
        let channel = channel.unwrap();
        let (mut log_tx, mut log) = (channel.producer().unwrap(), channel.consumer().unwrap());
        let (mut full, mut far) = heap(2);
        full.push(0).unwrap();
        full.push(1).unwrap();
        let (mut full_log, mut far_log) = bytes::channel(64).unwrap();
        full_log.push(&[1; 24]).unwrap();
        full_log.push(&[2; 24]).unwrap();
        let keys = [
            bed.set.watch(&rx).unwrap(),
            bed.set.watch(&log).unwrap(),
            bed.set.watch_room(&full, 2).unwrap(),
            bed.set.watch_room(&full_log, 24).unwrap(),
        ];
        bed.quiet();
        let (turn, turns) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                for number in turns {
                    match number {
                        0 => tx.push(77).unwrap(),
                        1 => log_tx.push(b"a record").unwrap(),
                        // Room for one is not the wanted room.
                        2 => assert_eq!((far.pop().unwrap(), far.pop().unwrap()), (0, 1)),
                        _ => drop(far_log.read().unwrap()),
                    }
                }
            });
            for (number, key) in keys.into_iter().enumerate() {
                turn.send(number).unwrap();
                assert_eq!(bed.ready(), [key]);
                match number {
                    0 => assert_eq!(rx.try_pop().unwrap(), 77),
                    1 => assert_eq!(&log.try_read().unwrap()[..], b"a record"),
                    2 => full.push_slice(&[2, 3]).unwrap(),
                    _ => full_log.push(&[3; 24]).unwrap(),
                }
                bed.quiet();
            }
            drop(turn);
            // The other ends leave: two writers, two readers. Each end is news once, and then
            // stands.
            let (mut news, mut ready) = (HashSet::new(), HashSet::new());
            while ready.len() < 4 {
                ready.clear();
                for event in bed.set.wait().unwrap() {
                    assert!(event.ready);
                    ready.insert(event.key);
                    if event.ended.is_some() {
                        assert_eq!(event.ended, Some(End::Finished));
                        assert!(news.insert(event.key), "told once");
                    }
                }
            }
            assert_eq!(news, HashSet::from(keys));
        });
    }
}

/// Each wait reports an entry as long as it is ready, and a ready entry hides no other.
#[test]
fn ready_entries_are_reported_every_time() {
    for mut bed in Bed::both() {
        let ((mut a_tx, mut a), (mut b_tx, mut b)) = (memfd(4), heap(4));
        let keys = (bed.set.watch(&a).unwrap(), bed.set.watch(&b).unwrap());
        a_tx.push(1).unwrap();
        a_tx.push(2).unwrap();
        assert_eq!(bed.ready(), [keys.0]);
        assert_eq!(bed.ready(), [keys.0], "still so");
        assert_eq!(a.pop().unwrap(), 1);
        assert_eq!(bed.ready(), [keys.0], "one is left");
        b_tx.push(3).unwrap();
        let found: HashSet<_> = bed.ready().into_iter().collect();
        assert_eq!(found, HashSet::from([keys.0, keys.1]), "both, each once");
        assert_eq!((a.pop().unwrap(), b.pop().unwrap()), (2, 3));
        bed.quiet();
    }
}

/// A passive entry ends no wait: it is reported when another event, or the timeout, ends one.
#[test]
fn passive_entries_are_reported_with_others() {
    for mut bed in Bed::both() {
        let ((mut a_tx, mut a), (mut b_tx, mut b)) = (memfd(4), heap(4));
        let key = bed.set.watch(&a).unwrap();
        let passive = bed.set.watch_passive(&b).unwrap();
        bed.quiet();
        b_tx.push(1).unwrap();
        assert_eq!(b_tx.len().unwrap(), 1);
        let wakes = wakes_by_itself(&mut bed, || a_tx.push(2).unwrap());
        assert_eq!(wakes, [key, passive]);
        assert_eq!((a.pop().unwrap(), b.pop().unwrap()), (2, 1));
        b_tx.push(3).unwrap();
        // A timeout is an event that ends a wait.
        let found = bed.set.wait_timeout(Duration::ZERO).unwrap();
        assert!(found.len() == 1 && found[0].key == passive && found[0].ready);
        assert_eq!(b.pop().unwrap(), 3);
        drop(b_tx);
        for news in [Some(End::Finished), None] {
            let found = bed.set.wait_timeout(Duration::ZERO).unwrap();
            assert!(found.len() == 1 && found[0].key == passive && found[0].ready);
            assert_eq!(found[0].ended, news);
        }
    }
}

/// Returns the events of a wait that `act`, done while it sleeps, wakes.
fn wakes_by_itself(bed: &mut Bed, act: impl FnOnce()) -> Vec<Key> {
    let thread = AtomicU64::new(0);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            thread.store(this_thread(), Ordering::Release);
            bed.ready()
        });
        until_asleep(&thread);
        act();
        waiter.join().unwrap()
    })
}

fn this_thread() -> u64 {
    // SAFETY: a call without arguments.
    (unsafe { libc::gettid() }) as u64
}

/// Waits until this thread sleeps in the kernel, in the call that a set makes. Where the kernel
/// does not tell (no `syscall` file), it only waits until the thread began.
fn until_asleep(thread: &AtomicU64) {
    loop {
        let id = thread.load(Ordering::Acquire);
        let called = std::fs::read_to_string(format!("/proc/self/task/{id}/syscall"));
        let asleep = match called {
            Ok(called) => [
                libc::SYS_futex_waitv,
                libc::SYS_epoll_pwait,
                // The C library makes this call, under the sanitizers.
                libc::SYS_epoll_wait,
                libc::SYS_epoll_pwait2,
            ]
            .iter()
            .any(|number| called.starts_with(&format!("{number} "))),
            Err(_) => id != 0,
        };
        if id != 0 && asleep {
            return;
        }
        thread::yield_now();
    }
}

/// The set reports each deadline exactly once, also one that had passed before it was set.
#[test]
fn each_deadline_is_reported_once() {
    for mut bed in Bed::both() {
        let ((mut a_tx, mut a), (_b_tx, b)) = (memfd(4), heap(4));
        let (key, other) = (bed.set.watch(&a).unwrap(), bed.set.watch(&b).unwrap());
        let now = Instant::now();
        assert!(bed.set.set_deadline(key, Some(now)));
        let found = bed.set.wait().unwrap();
        assert!(found.len() == 1 && found[0].key == key && found[0].overdue && !found[0].ready);
        bed.quiet();
        // One deadline comes and is waited for; a later one is taken back.
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(bed.set.set_deadline(other, Some(soon)));
        assert!(
            bed.set
                .set_deadline(key, Some(soon + Duration::from_millis(1)))
        );
        assert!(bed.set.set_deadline(key, None));
        let found = bed.set.wait().unwrap();
        assert!(Instant::now() >= soon);
        assert!(found.len() == 1 && found[0].key == other && found[0].overdue);
        // An entry that is ready and overdue gives one event.
        a_tx.push(1).unwrap();
        assert!(bed.set.set_deadline(key, Some(now)));
        let found = bed.set.wait().unwrap();
        assert!(found.len() == 1 && found[0].ready && found[0].overdue);
        assert_eq!(bed.ready(), [key], "ready still, overdue no more");
        assert_eq!(a.pop().unwrap(), 1);
        // A passive entry's deadline is reported when another event ended a wait.
        bed.set.unwatch(key);
        assert!(!bed.set.set_deadline(key, Some(now)));
        let key = bed.set.watch_passive(&a).unwrap();
        assert!(bed.set.set_deadline(key, Some(now)));
        let found = bed.set.wait_timeout(Duration::ZERO).unwrap();
        assert!(found.len() == 1 && found[0].key == key && found[0].overdue);
        bed.quiet();
    }
}

/// Waits in a thread of its own, and hands over the events of each wait.
fn waits(
    mut set: WaitSet,
    found: mpsc::Sender<Vec<slipring::set::Event>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while let Ok(events) = set.wait() {
            let last = events.iter().any(|event| event.overdue);
            found.send(events).unwrap();
            if last {
                return;
            }
        }
    })
}

/// Another thread can add and remove entries while the set's owner waits.
#[test]
fn entries_change_while_the_owner_waits() {
    for bed in Bed::both() {
        let members: Members = bed.set.members();
        let (send, found) = mpsc::channel();
        let next = || found.recv_timeout(FOR_EVER).unwrap();
        let owner = waits(bed.set, send);
        for number in 0..200 {
            let (mut tx, mut rx) = if number % 2 == 0 { heap(1) } else { memfd(1) };
            let key = members.watch(&rx).unwrap();
            tx.push(number).unwrap();
            // The set reports the entry until it is taken out.
            while next()[0].key != key {
                assert!(number > 0, "only an earlier one, which was on its way");
            }
            assert!(members.unwatch(key));
            assert!(!members.unwatch(key), "once");
            while found.try_recv().is_ok() {}
            assert_eq!(rx.try_pop().unwrap(), number);
            // The entry is out of the set: the producer wakes nobody.
            tx.push(number).unwrap();
        }
        // A deadline that is set meanwhile is kept, also by a set that waits for nothing else.
        while found.try_recv().is_ok() {}
        let (_tx, rx) = heap(1);
        let key = members.watch(&rx).unwrap();
        assert!(members.set_deadline(key, Some(Instant::now())));
        let last = loop {
            let events = next();
            if events.iter().any(|event| event.overdue) {
                break events;
            }
        };
        assert!(last[0].key == key && !last[0].ready);
        // The owner drops the set then; nobody waits for entries that are added later.
        while found.recv().is_ok() {}
        owner.join().unwrap();
        let refused = loop {
            match members.watch(&heap(1).1) {
                Ok(_) => thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::NoSet));
    }
}

/// A handle can be in only one set at a time.
#[test]
fn a_handle_is_in_one_set() {
    let (a, b) = (WaitSet::new().unwrap(), WaitSet::new().unwrap());
    let (tx, rx) = heap(4);
    let key = a.watch(&rx).unwrap();
    assert!(matches!(a.watch(&rx), Err(Error::InSet)));
    assert!(matches!(b.watch_passive(&rx), Err(Error::InSet)));
    assert!(!b.unwatch(key) && a.unwatch(key));
    b.watch(&rx).unwrap();
    drop(b);
    a.watch(&rx).unwrap();
    let asked = a.watch_room(&tx, 5);
    assert!(matches!(asked, Err(Error::TooLarge { asked: 5, max: 4 })));
    let (tx, _rx) = bytes::channel(64).unwrap();
    let asked = a.watch_room(&tx, 25);
    assert!(matches!(asked, Err(Error::TooLarge { asked: 25, max: 24 })));
    assert_eq!(a.len(), 1);
}

/// No message is lost when a set changes between doorbells and pipes. Goes from 127 entries to 128,
/// to 1,000, and back to 127 and 63. At each size the set reports the messages pushed before and
/// after the change.
#[test]
fn a_resized_set_loses_no_message() {
    for in_flight in [true, false] {
        let mut bed = Bed::new(DOORBELLS - 1);
        let (mut tx, mut rx) = memfd(8);
        let key = bed.set.watch(&rx).unwrap();
        let sizes = [126, 127, 128, 999, 127, 64, 63, 62, 0, 999, 0];
        for (number, size) in (0..).zip(sizes) {
            // The entries are armed for the previous way of sleeping.
            bed.quiet();
            if in_flight {
                tx.push(number).unwrap();
            }
            bed.shrink(size.min(bed.idle.len()));
            bed.grow(size);
            let woken = if in_flight {
                bed.ready()
            } else {
                wakes_by_itself(&mut bed, || tx.push(number).unwrap())
            };
            assert_eq!(woken, [key], "{size}");
            assert_eq!(rx.try_pop().unwrap(), number);
        }
    }
}

/// The set changes the way it sleeps while its owner sleeps.
#[test]
fn a_sleeping_owner_is_carried_over() {
    let bed = Bed::new(0);
    let members = bed.set.members();
    let (mut tx, mut rx) = heap(1);
    let key = members.watch(&rx).unwrap();
    let (send, found) = mpsc::channel();
    let owner = waits(bed.set, send);
    for round in 0..20 {
        let idle: Vec<Ends> = (0..=DOORBELLS).map(|_| heap(1)).collect();
        let keys: Vec<Key> = idle.iter().map(|e| members.watch(&e.1).unwrap()).collect();
        for number in [2 * round, 2 * round + 1] {
            tx.push(number).unwrap();
            assert_eq!(found.recv().unwrap()[0].key, key);
            assert_eq!(rx.pop().unwrap(), number);
            // These are reports from the time when the entry was there.
            while found.try_recv().is_ok() {}
            if number % 2 == 0 {
                keys.iter().for_each(|key| assert!(members.unwatch(*key)));
            }
        }
    }
    members.set_deadline(key, Some(Instant::now()));
    owner.join().unwrap();
}

/// Reads the end and acknowledges it. After that it is not reported again, and the set waits for
/// the next producer.
#[track_caller]
fn take_note(rx: &mut spsc::Consumer<u64>) {
    assert!(matches!(rx.try_pop(), Err(Error::Disconnected(_))));
    let nobody = rx.wait_for_producer(Duration::ZERO);
    assert!(matches!(nobody, Err(Error::TimedOut)));
}

/// Checks the reports between each holder's end and the next holder.
#[test]
fn ends_stand_until_noted_or_succeeded() {
    for mut bed in Bed::both() {
        let channel = builder(4).memfd().unwrap();
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        let key = bed.set.watch(&rx).unwrap();
        bed.quiet();
        tx.push(1).unwrap();
        drop(tx);
        let found = bed.set.wait().unwrap();
        assert!(found[0].ready && found[0].ended == Some(End::Finished));
        assert_eq!(bed.ready(), [key], "what it committed is still there");
        assert_eq!(rx.try_pop().unwrap(), 1);
        for _ in 0..3 {
            assert_eq!(bed.ready(), [key], "and then the end");
            assert!(matches!(rx.try_pop(), Err(Error::Disconnected(_))));
        }
        take_note(&mut rx);
        // A pipe without a writer is hung up, and must not keep the set awake: it sleeps here.
        let mut tx = None;
        let woken = wakes_by_itself(&mut bed, || {
            let next = tx.insert(channel.producer().unwrap());
            next.push(2).unwrap();
        });
        assert_eq!(woken, [key]);
        assert_eq!(rx.try_pop().unwrap(), 2);
        bed.quiet();
        drop(tx);
        assert_eq!(bed.set.wait().unwrap()[0].ended, Some(End::Finished));
        assert_eq!(bed.ready(), [key]);
        // Its successor is there: no trace of that end is left, once the handle reported it.
        let mut tx = channel.producer().unwrap();
        assert_eq!(bed.ready(), [key]);
        let end = rx.try_pop();
        assert!(matches!(end, Err(Error::Disconnected(End::Finished))));
        bed.quiet();
        tx.push(3).unwrap();
        assert_eq!(bed.ready(), [key]);
        assert_eq!(rx.try_pop().unwrap(), 3);
        // An end whose successor came before anybody looked is reported too, and then its
        // successor's.
        drop(tx);
        channel.producer().unwrap().abort();
        let found = bed.set.wait().unwrap();
        assert_eq!(found[0].ended, Some(End::Finished));
        let found = bed.set.wait().unwrap();
        assert_eq!(found[0].ended, Some(End::Aborted));
        for end in [End::Finished, End::Aborted, End::Aborted] {
            assert_eq!(bed.ready(), [key]);
            assert!(matches!(rx.try_pop(), Err(Error::Disconnected(told)) if told == end));
        }
        take_note(&mut rx);
        bed.quiet();
    }
}

/// A producer with one consumer: ends that earlier consumers left are no news to it.
#[test]
fn full_producers_are_told_ends() {
    for mut bed in Bed::both() {
        let channel = builder(1).memfd().unwrap();
        drop(channel.consumer().unwrap());
        let mut tx = channel.producer().unwrap();
        tx.push(1).unwrap();
        let key = bed.set.watch_room(&tx, 1).unwrap();
        bed.quiet();
        channel.consumer().unwrap().abort();
        let found = bed.set.wait().unwrap();
        assert!(found[0].ready && found[0].ended == Some(End::Aborted));
        for _ in 0..3 {
            assert_eq!(bed.ready(), [key]);
            let refused = tx.try_push(2);
            assert_eq!(refused, Err(PushError::Disconnected(2, End::Aborted)));
        }
        let nobody = tx.wait_for_consumer(Duration::ZERO);
        assert!(matches!(nobody, Err(Error::TimedOut)));
        bed.quiet();
        let mut rx = channel.consumer().unwrap();
        bed.quiet();
        let woken = wakes_by_itself(&mut bed, || assert_eq!(rx.pop().unwrap(), 1));
        assert_eq!(woken, [key]);
        tx.try_push(2).unwrap();
        bed.quiet();
    }
}

/// The handle reports the end twice before the set knows it: the set reports the end that the
/// handle would report again.
#[test]
fn ends_told_before_watching_stand() {
    fn stands(bed: &mut Bed, key: Key) {
        for news in [Some(End::Finished), None, None] {
            let found = bed.set.wait_timeout(Duration::ZERO);
            let found = found.expect("the end stands");
            assert!(found.len() == 1 && found[0].key == key && found[0].ready);
            assert_eq!(found[0].ended, news);
        }
        assert!(bed.set.unwatch(key));
    }
    let finished = |error: Error| matches!(error, Error::Disconnected(End::Finished));
    for mut bed in Bed::both() {
        let (tx, mut rx) = memfd(4);
        drop(tx);
        assert!(finished(rx.pop().unwrap_err()));
        assert!(finished(rx.try_pop().unwrap_err()));
        // Another handle, or the same one in another set, gets the same report as the first.
        for _ in 0..2 {
            let key = bed.set.watch(&rx).unwrap();
            stands(&mut bed, key);
            assert!(finished(rx.try_pop().unwrap_err()));
        }
        let (mut tx, rx) = heap(1);
        tx.push(1).unwrap();
        drop(rx);
        assert!(finished(tx.push(2).unwrap_err().error()));
        assert!(finished(tx.push(2).unwrap_err().error()));
        let key = bed.set.watch_room(&tx, 1).unwrap();
        stands(&mut bed, key);
        let (tx, mut rx) = bytes::channel(64).unwrap();
        drop(tx);
        assert!(finished(rx.read().unwrap_err()));
        assert!(finished(rx.try_read().unwrap_err()));
        let key = bed.set.watch(&rx).unwrap();
        stands(&mut bed, key);
        let (mut tx, rx) = bytes::channel(64).unwrap();
        while tx.try_push(&[0; 8]).is_ok() {}
        drop(rx);
        assert!(finished(tx.push(&[0; 8]).unwrap_err()));
        assert!(finished(tx.try_push(&[0; 8]).unwrap_err()));
        let key = bed.set.watch_room(&tx, 8).unwrap();
        stands(&mut bed, key);
        let (tx, mut rx) = broadcast::Builder::<u64>::new(4).channel_pair().unwrap();
        drop(tx);
        assert!(finished(rx.pop().unwrap_err()));
        assert!(finished(rx.try_pop().unwrap_err()));
        let key = bed.set.watch(&rx).unwrap();
        stands(&mut bed, key);
    }
}

/// The same as above, except that the handle reports the end after the set knew it, between two
/// waits.
#[test]
fn ends_told_between_waits_stand() {
    for mut bed in Bed::both() {
        let (tx, mut rx) = memfd(4);
        let key = bed.set.watch(&rx).unwrap();
        bed.quiet();
        drop(tx);
        for _ in 0..3 {
            assert!(matches!(rx.try_pop(), Err(Error::Disconnected(_))));
        }
        let found = bed.set.wait_timeout(Duration::ZERO).unwrap();
        assert!(found[0].ready && found[0].ended == Some(End::Finished));
        assert_eq!(bed.ready(), [key]);
    }
}

/// Producers with many consumers: consumers that leave are not an end.
#[test]
fn producers_of_many_have_no_end() {
    for mut bed in Bed::both() {
        let channel = broadcast::Builder::<u64>::new(2)
            .consumers(2)
            .check_every(FOR_EVER);
        let channel = channel.memfd().unwrap();
        let mut tx = channel.producer().unwrap();
        let (gone, mut slow) = (channel.consumer().unwrap(), channel.consumer().unwrap());
        let key = bed.set.watch_room(&tx, 1).unwrap();
        tx.push(1).unwrap();
        tx.push(2).unwrap();
        bed.quiet();
        drop(gone);
        bed.quiet();
        assert_eq!(tx.try_push(3), Err(PushError::Full(3)));
        bed.quiet();
        assert_eq!(slow.pop().unwrap(), 1);
        assert_eq!(bed.ready(), [key]);
    }
}

/// A handle that is dropped leaves its set, also while the set's owner sleeps.
#[test]
fn a_dropped_handle_leaves_the_set() {
    for mut bed in Bed::both() {
        let before = bed.set.len();
        let channel = builder(1).memfd().unwrap();
        let mut tx = channel.producer().unwrap();
        let rx = channel.consumer().unwrap();
        let first = bed.set.watch(&rx).unwrap();
        bed.quiet();
        drop(rx);
        assert_eq!(bed.set.len(), before);
        assert!(!bed.set.unwatch(first));
        // The bit of a seat that another consumer has now asks for no wake.
        let mut rx = channel.consumer().unwrap();
        tx.push(1).unwrap();
        assert_eq!(rx.pop().unwrap(), 1);
        bed.quiet();
        let stat = channel.stat().unwrap();
        assert!(stat.seats.iter().all(|seat| seat.wakes == 0), "{stat:?}");
        bed.set.watch(&rx).unwrap();
        // The same holds while the set's owner sleeps: the last entry's drop does not wake it,
        // another channel does.
        let (mut other, kept) = heap(1);
        let key = bed.set.watch(&kept).unwrap();
        let woken = wakes_by_itself(&mut bed, || {
            drop(rx);
            other.push(2).unwrap();
        });
        assert_eq!(woken, [key]);
    }
}

/// A handle in a set may sleep by itself, between the set's waits and during them. The handle's own
/// sleep uses the same bit, and clears it when it ends.
#[test]
fn a_watched_handle_can_also_sleep() {
    for mut bed in Bed::both() {
        let (mut tx, mut rx) = memfd(4);
        let key = bed.set.watch(&rx).unwrap();
        for number in 0..500 {
            bed.quiet();
            let timed_out = rx.pop_timeout(Duration::from_micros(100));
            assert!(matches!(timed_out, Err(Error::TimedOut)));
            let woken = match number % 3 {
                0 => wakes_by_itself(&mut bed, || tx.push(number).unwrap()),
                1 => {
                    tx.push(number).unwrap();
                    bed.ready()
                }
                _ => {
                    // Only the set polls for a handle that is in it.
                    assert!(matches!(rx.arm(), Err(Error::InSet)));
                    wakes_by_itself(&mut bed, || tx.push(number).unwrap())
                }
            };
            assert_eq!(woken, [key]);
            assert_eq!(rx.try_pop().unwrap(), number);
        }
        // In another thread, while the set sleeps, a handle's sleep that ends leaves the bit to the
        // set.
        for number in 0..200 {
            thread::scope(|scope| {
                let sleeper = scope.spawn(|| match rx.pop_timeout(Duration::from_micros(200)) {
                    Err(Error::TimedOut) => None,
                    popped => Some(popped.unwrap()),
                });
                let waiter = scope.spawn(|| bed.set.wait().unwrap());
                let popped = sleeper.join().unwrap();
                assert_eq!(popped, None);
                tx.push(number).unwrap();
                let events = waiter.join().unwrap();
                assert!(events[0].key == key && events[0].ready);
            });
            assert_eq!(rx.try_pop().unwrap(), number);
        }
    }
}

/// The set does not take the bit of a handle that sleeps: nobody would wake that handle.
#[test]
fn a_sleeping_handle_keeps_its_wake() {
    for bed in Bed::both() {
        let (mut tx, mut rx) = memfd(1);
        let members = bed.set.members();
        let key = members.watch(&rx).unwrap();
        let (send, _found) = mpsc::channel();
        waits(bed.set, send);
        thread::scope(|scope| {
            let (turn, turns) = mpsc::channel();
            scope.spawn(move || turns.iter().for_each(|number| tx.push(number).unwrap()));
            for number in 0..3000 {
                // The end of the handle's sleep makes the set ask anew, just when the next sleep
                // begins.
                let timed_out = rx.pop_timeout(Duration::from_micros(1));
                assert!(matches!(timed_out, Err(Error::TimedOut)));
                turn.send(number).unwrap();
                assert_eq!(rx.pop().unwrap(), number);
            }
        });
        assert!(members.set_deadline(key, Some(Instant::now())) || members.is_empty());
    }
}

/// A set that waits without news uses next to no processor time. No descriptor stays readable: not
/// a pipe that was written, nor one that was hung up.
#[test]
fn an_idle_set_uses_little_cpu() {
    let cpu = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let mut bed = Bed::new(1000);
    let ends: Vec<Ends> = (0..4).map(|_| memfd(4)).collect();
    let (mut tx, mut rx): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    for rx in &rx {
        bed.set.watch(rx).unwrap();
    }
    bed.quiet();
    for (tx, rx) in tx.iter_mut().zip(&mut rx) {
        tx.push(1).unwrap();
        bed.ready();
        assert_eq!(rx.pop().unwrap(), 1);
    }
    // Two producers are gone, two are there.
    tx.truncate(2);
    rx[2..].iter_mut().for_each(take_note);
    bed.quiet();
    let before = cpu();
    let found = bed.set.wait_timeout(Duration::from_millis(500));
    assert!(matches!(found, Err(Error::TimedOut)));
    let used = cpu() - before;
    // A loop that never rests would use fifty times as much.
    assert!(used < Duration::from_millis(10), "{used:?} of 500 ms");
}

/// Runs two threads with a set each: one message in flight, in both directions, over channels
/// chosen at random.
fn ping_pong(idle: usize, channels: usize, make: fn(usize) -> Ends) {
    const MESSAGES: u64 = 100_000;
    let (mut ours, mut theirs) = (Bed::new(idle), Bed::new(idle));
    let (mut there_tx, mut there): (Vec<_>, Vec<_>) = (0..channels).map(|_| make(1)).unzip();
    let (mut back_tx, mut back): (Vec<_>, Vec<_>) = (0..channels).map(|_| make(1)).unzip();
    let watch = |bed: &Bed, ends: &[spsc::Consumer<u64>]| -> Vec<Key> {
        ends.iter().map(|rx| bed.set.watch(rx).unwrap()).collect()
    };
    let (their_keys, our_keys) = (watch(&theirs, &there), watch(&ours, &back));
    let channel =
        |number: u64| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize % channels;
    thread::scope(|scope| {
        let _kept = scope.spawn(move || {
            for number in (0..MESSAGES).step_by(2) {
                assert_eq!(theirs.ready(), [their_keys[channel(number)]]);
                assert_eq!(there[channel(number)].try_pop().unwrap(), number);
                back_tx[channel(number + 1)].try_push(number + 1).unwrap();
            }
            // These are kept to the end: their ends would be reported.
            back_tx
        });
        for number in (0..MESSAGES).step_by(2) {
            there_tx[channel(number)].try_push(number).unwrap();
            assert_eq!(ours.ready(), [our_keys[channel(number + 1)]]);
            assert_eq!(back[channel(number + 1)].try_pop().unwrap(), number + 1);
        }
    });
}

/// Sets that sleep on doorbells never lose the one message that is in flight.
#[test]
fn doorbells_lose_no_message_in_flight() {
    ping_pong(0, 5, heap);
}

/// Sets that sleep on pipes never lose the one message that is in flight.
#[test]
fn pipes_lose_no_message_in_flight() {
    ping_pong(DOORBELLS, 5, memfd);
}

/// Fault 14: a write wakes only those that watch its channel.
#[test]
fn an_unwatched_write_wakes_nobody() {
    for mut bed in Bed::both() {
        let ((mut watched, mut rx), (mut other, mut unwatched)) = (memfd(1), memfd(1024));
        let key = bed.set.watch(&rx).unwrap();
        let gone = bed.set.watch(&unwatched).unwrap();
        bed.quiet();
        bed.set.unwatch(gone);
        let (slept, woken) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                slept.store(this_thread(), Ordering::Release);
                let before = sleeps();
                let found = bed.ready();
                woken.store(sleeps() - before, Ordering::Release);
                found
            });
            until_asleep(&slept);
            for number in 0..1000 {
                other.push(number).unwrap();
                // On one processor the other thread would not run otherwise.
                thread::yield_now();
            }
            watched.push(7).unwrap();
            assert_eq!(waiter.join().unwrap(), [key]);
        });
        // It wakes once, and sometimes for locks that the program takes, but not for each write.
        assert!(woken.load(Ordering::Acquire) < 10, "{woken:?}");
        assert_eq!(rx.try_pop().unwrap(), 7);
        (0..1000).for_each(|number| assert_eq!(unwatched.try_pop().unwrap(), number));
    }
    // And the writer makes no call for it.
    let room = Memory::of(&builder(4));
    let channel = room.format(&builder(4)).unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let mut set = WaitSet::new().unwrap();
    let key = set.watch(&rx).unwrap();
    assert!(set.wait_timeout(Duration::ZERO).is_err());
    set.unwatch(key);
    tx.push(1).unwrap();
    assert_eq!(rx.pop().unwrap(), 1);
    let wakes = |stat: inspect::Stat| stat.seats.iter().map(|seat| seat.wakes).sum::<u64>();
    assert_eq!(wakes(channel.stat().unwrap()), 0);
}

/// Returns how often this thread has slept.
fn sleeps() -> u64 {
    // SAFETY: a structure of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a call on a structure of ours.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nvcsw as u64
}

/// A set finds a message whose publisher was killed before it could notify.
#[test]
fn a_killed_publishers_message_is_found() {
    let quick = builder(4).check_every(Duration::from_millis(4));
    let memory = Memory::of(&quick);
    let channel = memory.format(&quick).unwrap();
    let (_tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let mut bed = Bed::new(0);
    // It sleeps for ever, until an entry comes that needs checks.
    let members = bed.set.members();
    let mut key = None;
    let woken = wakes_by_itself(&mut bed, || {
        key = Some(members.watch(&rx).unwrap());
        while memory.control(640).load(Ordering::Relaxed) & 1 == 0 {
            thread::yield_now();
        }
        // The publisher's store is seen, but it does not notify: slot 0, then the tail.
        memory.set_data(0, 77);
        let tail = memory.position(&channel.geometry(), 0);
        tail.store(1, Ordering::Release);
    });
    assert_eq!(woken, [key.unwrap()]);
    assert_eq!(rx.try_pop().unwrap(), 77);
}

/// Where barriers do not reach the publisher, sleeps are short at first. A publisher may not see
/// the bit, and has not yet said that it fences: before that no sleep is long.
#[test]
fn unfenced_publishers_make_sleeps_short() {
    let builder = builder(4);
    let memory = Memory::of(&builder);
    drop(memory.format(&builder).unwrap());
    // The publisher runs under another kernel, which barriers do not reach.
    memory.control(112).store(1, Ordering::Relaxed);
    memory.reseal();
    let channel = memory.attach(&builder).unwrap();
    let (_tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let geometry = channel.geometry();
    // A producer that does not fence: its `fence_ack` says so.
    memory
        .control(geometry.role_offset(0) + 160)
        .store(0, Ordering::Relaxed);
    let mut bed = Bed::new(0);
    let key = bed.set.watch(&rx).unwrap();
    let woken = wakes_by_itself(&mut bed, || {
        // This acts as a store that passed the load of the bit: nobody is notified.
        memory.set_data(0, 77);
        memory.position(&geometry, 0).store(1, Ordering::Release);
    });
    assert_eq!(woken, [key]);
    assert_eq!(rx.try_pop().unwrap(), 77);
}

/// A set reports an entry with impossible words as ready, and its handle then reports `Corrupt`.
#[test]
fn impossible_words_make_entries_ready() {
    let memory = Memory::of(&builder(4));
    let channel = memory.format(&builder(4)).unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let mut bed = Bed::new(0);
    let keys = (
        bed.set.watch(&rx).unwrap(),
        bed.set.watch_room(&tx, 4).unwrap(),
    );
    let geometry = channel.geometry();
    let (tail, head) = (memory.position(&geometry, 0), memory.position(&geometry, 1));
    assert_eq!(bed.ready(), [keys.1], "all of it is free");
    for (word, found) in [(tail, u64::MAX), (tail, 5), (head, 9), (head, u64::MAX)] {
        word.store(found, Ordering::Relaxed);
        // Nobody notified the set: it finds the message only once it looks at everything.
        let events = bed.set.wait_timeout(Duration::ZERO).unwrap();
        let ready: HashSet<_> = events.iter().map(|event| event.key).collect();
        assert_eq!(ready, HashSet::from([keys.0, keys.1]), "{found}");
        word.store(0, Ordering::Relaxed);
    }
    // The seat lines: `life` is their first word.
    for (seat, key) in [(0, keys.0), (1, keys.1)] {
        let before = memory.seat(seat, 0).swap(0xff, Ordering::Relaxed);
        let events = bed.set.wait_timeout(Duration::ZERO).unwrap();
        assert!(events.iter().any(|event| event.key == key && event.ready));
        memory.seat(seat, 0).store(before, Ordering::Relaxed);
    }
    let life = memory.seat(0, 0).swap(0xff, Ordering::Relaxed);
    assert!(matches!(rx.try_pop(), Err(Error::Corrupt(_))));
    memory.seat(0, 0).store(life, Ordering::Relaxed);
    tx.push(1).unwrap();
    assert_eq!(rx.try_pop().unwrap(), 1);
    drop((tx, rx));
    assert!(bed.set.is_empty());
}

/// A set with more entries than doorbells allow cannot wait for borrowed memory. Borrowed memory
/// has no pipes: the set stays as it was.
#[test]
fn borrowed_memory_cannot_use_pipes() {
    let memory = Memory::of(&builder(4));
    let channel = memory.format(&builder(4)).unwrap();
    let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
    let mut bed = Bed::new(DOORBELLS - 1);
    let key = bed.set.watch(&rx).unwrap();
    let one_more = heap(1);
    for _ in 0..2 {
        let refused = bed.set.watch(&one_more.1);
        assert!(matches!(refused, Err(Error::NoPipes)), "{refused:?}");
        assert_eq!(bed.set.len(), DOORBELLS);
        bed.quiet();
        tx.push(1).unwrap();
        assert_eq!(bed.ready(), [key]);
        assert_eq!(rx.pop().unwrap(), 1);
    }
    bed.set.unwatch(key);
    bed.set.watch(&one_more.1).unwrap();
    bed.grow(DOORBELLS);
    assert!(matches!(bed.set.watch(&rx), Err(Error::NoPipes)));
    // A passive entry needs no pipe.
    let key = bed.set.watch_passive(&rx).unwrap();
    tx.push(2).unwrap();
    let found = bed.set.wait_timeout(Duration::ZERO).unwrap();
    assert!(found.len() == 1 && found[0].key == key);
    drop((tx, rx));
}
