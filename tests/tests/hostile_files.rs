//! A hostile process damages a channel's files, takes its locks, or rings its doorbells without
//! end, while honest processes use it. These get a typed error or work rightly, and no timed call
//! ends late. (For words set to anything see `verify/stepper --hostile`.)
//!
//! One thing cannot be helped: a process that touches memory that a truncated file no longer has
//! ends by SIGBUS. Memfds are sealed against that. For named channels these tests show which
//! process dies, and which does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rustix::fs::FallocateFlags;
use rustix::thread::futex;
use slipring_tests::place::overwrites;
use slipring_tests::{Peer, Place, eventually, kinds};

const PEER: &str = env!("CARGO_BIN_EXE_peer");
const KINDS: [&str; 4] = kinds!("wait=sleep patience=50");
/// Offsets in the control part, as FORMAT.md says: each side's wait cell, each seat's line.
const WAIT_CELLS: usize = 512;
const SEATS: usize = 1024;
const LINE: usize = 128;

fn is_bytes(place: &Place) -> bool {
    place.options.contains("bytes")
}

/// The results that an honest worker met.
#[derive(Debug)]
struct Toll {
    passed: u64,
    gaps: u64,
    torn: u64,
    lost: u64,
    errors: BTreeSet<String>,
}

/// Lets a worker finish, and returns the results that it met.
#[track_caller]
fn toll(peer: &mut Peer) -> Toll {
    let said = peer.ok("stop");
    let figure = |index: usize| said[index].parse().unwrap();
    Toll {
        passed: figure(0),
        gaps: figure(1),
        torn: figure(2),
        lost: figure(3),
        errors: said[4..].iter().cloned().collect(),
    }
}

/// Two workers that pass messages by calls of 20 ms at most, whatever they meet.
struct Honest {
    tx: Peer,
    rx: Peer,
}

impl Honest {
    fn at(place: &Place) -> Honest {
        Honest::with(place.seat("producer"), place.seat("consumer"))
    }

    fn with(mut tx: Peer, mut rx: Peer) -> Honest {
        // A new consumer may find messages again that the last one has had.
        rx.ok("drain");
        tx.ok("endure producer 20");
        rx.ok("endure consumer 20");
        Honest { tx, rx }
    }

    /// Waits until `more` further messages have passed.
    #[track_caller]
    fn go_on(&mut self, more: u64) {
        let before = self.rx.number("how");
        eventually("messages pass", || self.rx.number("how") >= before + more);
    }

    /// Lets them finish: returns the producer's results, the consumer's, and both workers, with
    /// their roles.
    #[track_caller]
    fn stop(mut self) -> (Toll, Toll, Peer, Peer) {
        let [tx, rx] = [&mut self.tx, &mut self.rx].map(toll);
        (tx, rx, self.tx, self.rx)
    }

    /// Lets them finish, and checks that every message arrived, whole and in order, or is known to
    /// be lost.
    #[track_caller]
    fn stop_whole(self, what: &str) -> (Peer, Peer) {
        let (sent, got, tx, rx) = self.stop();
        assert_eq!(
            (sent.passed, 0, 0),
            (got.passed + got.lost, got.gaps, got.torn),
            "{what}: {got:?}"
        );
        assert!(got.lost == 0 || overwrites(what), "{what}: {got:?}");
        for toll in [&sent, &got] {
            assert!(
                toll.errors.iter().all(|kind| kind == "TimedOut"),
                "{what}: {toll:?}"
            );
        }
        (tx, rx)
    }
}

fn writable(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn punch(path: &Path) {
    let file = writable(path);
    let len = file.metadata().unwrap().len();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 0, len).unwrap();
}

/// Checks that the next process finds an unusable channel, removes it, and makes another.
#[track_caller]
fn begin_anew(place: &Place) {
    let mut next = place.peer();
    next.ok("remove ticks");
    place.sit(&mut next, "producer", 0);
    next.ok("push 0 3");
    assert_eq!(place.seat("consumer").numbers("pop 3"), [0, 1, 2]);
}

/// Who writes into a truncated data file dies, and who waits finds out about that death.
#[test]
fn truncated_data_kills_only_the_writer() {
    for options in KINDS {
        let place = Place::named(PEER, options);
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("push 0 3");
        assert_eq!(rx.numbers("pop 3"), [0, 1, 2]);
        rx.tell("pop 1");
        writable(&place.files()[1]).set_len(0).unwrap();
        tx.tell("push 3 1");
        assert_eq!(tx.ended_by(), Some(libc::SIGBUS));
        let told = rx.answer().unwrap_err();
        assert_eq!(told.debug, "Disconnected(Died)");
        // A newcomer's error says what is wrong.
        let line = format!("producer ticks {options}");
        place
            .peer()
            .refused(&line, "Truncated", &["data", "has 0 bytes", "remove it"]);
        rx.ok("leave consumer");
        begin_anew(&place);
    }
}

/// A truncated control file ends all processes that look at it, and the next ones begin anew.
#[test]
fn a_truncated_control_file_kills_users() {
    for options in KINDS {
        let place = Place::named(PEER, options);
        let mut honest = Honest::at(&place);
        honest.go_on(100);
        writable(&place.files()[0]).set_len(0).unwrap();
        for peer in [&mut honest.tx, &mut honest.rx] {
            assert_eq!(peer.ended_by(), Some(libc::SIGBUS));
        }
        let line = format!("consumer ticks {options}");
        place
            .peer()
            .refused(&line, "Truncated", &["control", "has 0 bytes", "remove it"]);
        begin_anew(&place);
    }
}

/// Messages in a punched data file are lost or corrupt, and no process dies.
#[test]
fn punched_messages_kill_nobody() {
    for place in Place::all(PEER, &KINDS) {
        let mut honest = Honest::at(&place);
        honest.go_on(100);
        for _ in 0..20 {
            punch(&place.files()[1]);
            // A record's length is lost with it, and so is the start of the next; a slot is where
            // it was.
            if is_bytes(&place) {
                honest.rx.number("how");
            } else {
                honest.go_on(100);
            }
        }
        let (sent, got, mut tx, mut rx) = honest.stop();
        let what = format!("{}: {sent:?}, {got:?}", place.shown());
        let corrupt = if is_bytes(&place) {
            "Corrupt"
        } else {
            "TimedOut"
        };
        assert!(sent.errors.iter().all(|kind| kind == "TimedOut"), "{what}");
        assert!(
            got.errors
                .iter()
                .all(|kind| [corrupt, "TimedOut"].contains(&&**kind)),
            "{what}"
        );
        if !is_bytes(&place) {
            assert_eq!(sent.passed, got.passed + got.torn + got.lost, "{what}");
        }
        // And they can leave.
        tx.ok("leave producer");
        rx.ok("leave consumer");
    }
}

/// A punched message reads as zeros or is corrupt, and is never another message.
#[test]
fn a_punched_message_imitates_no_other() {
    for place in Place::all(PEER, &KINDS) {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        tx.ok("push 0 3");
        punch(&place.files()[1]);
        tx.ok("push 3 2");
        rx.ok("endure consumer 20");
        let got = toll(&mut rx);
        let expected = if is_bytes(&place) { (0, 0) } else { (2, 3) };
        assert_eq!(
            (got.passed, got.torn),
            expected,
            "{}: {got:?}",
            place.shown()
        );
        if is_bytes(&place) {
            rx.refused("pop 1", "Corrupt", &["`record length`", "0x0"]);
        }
    }
}

/// A punched control part ends in errors such as `Corrupt`, and no process dies.
#[test]
fn a_punched_control_part_kills_nobody() {
    for place in Place::all(PEER, &KINDS) {
        let mut honest = Honest::at(&place);
        honest.go_on(100);
        for _ in 0..20 {
            punch(&place.files()[0]);
            honest.rx.number("how");
            honest.tx.number("how");
        }
        let (sent, got, mut tx, mut rx) = honest.stop();
        let what = format!("{}: {sent:?}, {got:?}", place.shown());
        let typed = ["TimedOut", "Corrupt", "Disconnected"];
        for toll in [&sent, &got] {
            assert!(
                toll.errors.iter().all(|kind| typed.contains(&&**kind)),
                "{what}"
            );
        }
        tx.ok("leave producer");
        rx.ok("leave consumer");
        // The file holds only their stores since then: no header.
        let mut next = place.peer();
        let refused = place.try_sit(&mut next, "producer", 0).unwrap_err();
        refused.is("NotAChannel", &["SLIPRING"]);
    }
}

/// Puts a hostile process's copy in the place of a file that others have open.
fn replace(path: &Path) {
    let aside = path.with_extension("new");
    if fs::metadata(path).unwrap().is_file() {
        fs::copy(path, &aside).unwrap();
    } else {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &aside, mode).unwrap();
    }
    fs::rename(&aside, path).unwrap();
}

/// Replaced files change nothing for the processes that have the old ones open.
#[test]
fn replaced_files_disturb_no_current_user() {
    for options in KINDS {
        for part in 0..4 {
            let place = Place::named(PEER, options);
            let mut honest = Honest::at(&place);
            honest.go_on(100);
            replace(&place.files()[part]);
            honest.go_on(1000);
            let what = format!("part {part}, {options}");
            let (mut tx, mut rx) = honest.stop_whole(&what);
            // An end and a death are reported as ever.
            let next = tx.number("next");
            tx.ok("leave producer");
            assert_eq!(
                rx.refused("pop 1", "Disconnected", &[]).debug,
                "Disconnected(Finished)"
            );
            if part > 1 {
                // A newcomer has the new pipe: a call that sleeps on the old one checks by itself.
                let mut tx = place.seat("producer");
                rx.refused("pop 1 timeout=1200", "TimedOut", &[]);
                rx.tell("pop 1");
                tx.ok(&format!("push {next} 1"));
                assert_eq!(rx.answer().unwrap(), [next.to_string()], "{what}");
                tx.kill();
                assert_eq!(
                    rx.refused("pop 1", "Disconnected", &[]).debug,
                    "Disconnected(Died)"
                );
            }
            rx.ok("leave consumer");
            begin_anew(&place);
        }
    }
}

/// Who opened a channel whose control file was then replaced gets no role in it. The seats' locks
/// are those of the control file that was opened, whatever file its name leads to by now. Otherwise
/// there would be two producers in one memory.
#[test]
fn replaced_control_file_gives_no_role() {
    for options in KINDS {
        let place = Place::named(PEER, options);
        let mut honest = Honest::at(&place);
        let mut late = place.opened();
        for role in ["producer", "consumer"] {
            late.refused(role, "RoleTaken", &[role]);
        }
        replace(&place.files()[0]);
        for role in ["producer", "consumer"] {
            late.refused(role, "NotFound", &["ticks"]);
        }
        honest.go_on(1000);
        honest.stop_whole(options);
    }
}

#[test]
fn a_replaced_directory_is_another_channel() {
    for options in KINDS {
        let place = Place::named(PEER, options);
        let mut honest = Honest::at(&place);
        let mut late = place.opened();
        let aside = place.room.path().join("aside");
        fs::rename(place.room.path().join("ticks"), &aside).unwrap();
        late.refused("producer", "NotFound", &["ticks"]);
        let mut others = Honest::at(&place);
        late.refused("producer", "NotFound", &["ticks"]);
        honest.go_on(1000);
        others.go_on(1000);
        fs::remove_dir_all(&aside).unwrap();
        honest.go_on(1000);
        for pair in [honest, others] {
            let (mut tx, mut rx) = pair.stop_whole(options);
            tx.kill();
            assert_eq!(
                rx.refused("pop 1", "Disconnected", &[]).debug,
                "Disconnected(Died)"
            );
        }
    }
}

/// Returns the byte of a seat's lock, or of its repair.
fn lock_byte(seat: usize, repair: bool) -> usize {
    SEATS + seat * LINE + usize::from(repair)
}

/// A role that a stranger locks is taken, and a repair that it locks goes on for as long as it
/// likes.
#[test]
fn a_foreign_lock_blocks_a_role() {
    for place in Place::all(PEER, &KINDS) {
        let mut tx = place.seat("producer");
        let mut squatter = place.peer();
        let control = place.files()[0].display().to_string();
        // A shared lock keeps others away as well, and needs only the right to read.
        for how in ["", " shared"] {
            let mut rx = place.opened();
            for (repair, refusal) in [(false, "RoleTaken"), (true, "Recovering")] {
                squatter.ok(&format!("lock {control} {}{how}", lock_byte(1, repair)));
                rx.refused("consumer", refusal, &["consumer"]);
                squatter.ok("unlock");
            }
            // Under a holder it changes nothing.
            rx.ok("consumer");
            squatter.ok(&format!("lock {control} {}{how}", lock_byte(0, true)));
            squatter.ok(&format!("lock {control} {}{how}", lock_byte(1, true)));
            let mut honest = Honest::with(tx, rx);
            honest.go_on(1000);
            let rx;
            (tx, rx) = honest.stop_whole(&place.shown());
            drop(rx);
            squatter.ok("unlock");
        }
    }
}

/// A death is hidden by whoever locks the dead one's role, until they let go. Only a lock tells of
/// life. A hostile process that holds a dead producer's lock hides its death, and no call waits
/// longer for that than its timeout.
#[test]
fn a_foreign_lock_hides_a_death() {
    for place in Place::all(PEER, &KINDS) {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        let mut squatter = place.peer();
        let control = place.files()[0].display().to_string();
        tx.ok("push 0 1");
        assert_eq!(rx.ok("pop 1"), ["0"]);
        rx.freeze();
        tx.kill();
        squatter.ok(&format!("lock {control} {}", lock_byte(0, false)));
        rx.thaw();
        for timeout in [0, 30, 1200] {
            rx.refused(&format!("pop 1 timeout={timeout}"), "TimedOut", &[]);
        }
        assert_eq!(rx.ok("arm consumer"), ["armed"]);
        rx.ok("glance consumer");
        squatter.kill();
        let told = rx.refused("pop 1", "Disconnected", &[]);
        assert_eq!(told.debug, "Disconnected(Died)", "{}", place.shown());
        // The next producer goes on where the dead one stopped.
        let mut tx = place.seat("producer");
        tx.ok("push 1 1");
        assert_eq!(rx.ok("pop 1"), ["1"]);
    }
}

/// A channel's memory and pipes, in the hands of a hostile process.
struct Grip {
    control: *mut u8,
    pipes: Vec<File>,
}

// SAFETY: an address that stays mapped; it is used for atomics alone.
unsafe impl Sync for Grip {}

impl Grip {
    fn on(place: &Place) -> Grip {
        use std::os::unix::fs::OpenOptionsExt;
        let [control, _, pipes @ ..] = place.files();
        let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let (nowhere, shared) = (std::ptr::null_mut(), rustix::mm::MapFlags::SHARED);
        let file = writable(&control);
        // SAFETY: a fresh mapping at an address of the kernel's choice, never unmapped.
        let page = unsafe { rustix::mm::mmap(nowhere, 4096, access, shared, &file, 0) };
        let open = |path| {
            let mut options = File::options();
            options
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK);
            options.open(path).unwrap()
        };
        Grip {
            control: page.unwrap().cast(),
            pipes: pipes.map(open).into(),
        }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < 4096);
        // SAFETY: in the page that `on` mapped.
        let word = unsafe { self.control.add(offset) };
        // SAFETY: mapped for ever, aligned, and everybody uses it as this atomic.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    fn waiters(&self, side: usize) -> &AtomicU64 {
        self.word(WAIT_CELLS + side * LINE)
    }

    fn doorbell(&self, side: usize) -> &AtomicU32 {
        // SAFETY: the lower half of a word of the page, which is used as this atomic by everybody.
        unsafe { AtomicU32::from_ptr(self.word(WAIT_CELLS + side * LINE + 16).as_ptr().cast()) }
    }
}

/// An attack on a side, repeated over and over.
type Storm = (&'static str, fn(&Grip, usize));

const STORMS: [Storm; 5] = [
    ("rings for nothing", |grip, side| {
        grip.doorbell(side).fetch_add(1, Ordering::Relaxed);
        let _ = futex::wake(grip.doorbell(side), futex::Flags::empty(), u32::MAX >> 1);
    }),
    ("asks for wakes that nobody wants", |grip, side| {
        grip.waiters(side).store(u64::MAX, Ordering::Relaxed);
    }),
    ("takes the sleepers' bits", |grip, side| {
        grip.waiters(side).store(0, Ordering::Relaxed);
    }),
    ("stuffs the pipes", |grip, side| {
        let _ = rustix::io::write(&grip.pipes[side], &[7; 4096]);
    }),
    ("empties the pipes", |grip, side| {
        let _ = rustix::io::read(&grip.pipes[side], &mut [0; 4096]);
    }),
];

/// Does that to both sides until the story is over.
fn amid<R>(grip: &Grip, storms: &[Storm], story: impl FnOnce() -> R) -> R {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // This also stops it if the story ends badly.
        let end = Over(&over);
        for (_, storm) in storms {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    storm(grip, 0);
                    storm(grip, 1);
                }
            });
        }
        let told = story();
        drop(end);
        told
    })
}

struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Storms on the bells and pipes cost time, but no message and no deadline.
#[test]
fn storms_lose_no_message_or_deadline() {
    for place in Place::all(PEER, &KINDS) {
        let mut honest = Honest::at(&place);
        let grip = Grip::on(&place);
        for storm in STORMS {
            eprintln!("{} {}", storm.0, place.shown());
            amid(&grip, &[storm], || honest.go_on(500));
        }
        let (mut tx, mut rx) = honest.stop_whole(&place.shown());
        amid(&grip, &STORMS, || {
            // The last is so long that the call goes over to its pipe.
            for timeout in [0, 30, 1200] {
                rx.refused(&format!("pop 1 timeout={timeout}"), "TimedOut", &[]);
            }
            if overwrites(place.options) {
                // The channel is never full.
                return;
            }
            let [first, next] = tx.numbers("push-full")[..] else {
                panic!()
            };
            tx.refused(&format!("push {next} 1 timeout=1200"), "TimedOut", &[]);
            assert_eq!(rx.number("pop 1"), first);
        });
    }
}

/// A seat that never settles delays nobody past a deadline. A seat whose word changes hands all the
/// time, with a pipe that hung up: each new holder might be dying just then.
#[test]
fn an_unsettled_role_breaks_no_deadline() {
    const LIFE: usize = SEATS;
    for place in Place::all(PEER, &KINDS) {
        let (mut tx, mut rx) = (place.seat("producer"), place.seat("consumer"));
        let mut grip = Grip::on(&place);
        // The pipes would keep it from hanging up.
        grip.pipes.clear();
        tx.kill();
        let flips: Storm = ("flips", |grip, _| {
            // This is the next generation, which holds the seat.
            grip.word(LIFE).fetch_add(1 << 8, Ordering::Relaxed);
        });
        amid(&grip, &[flips], || {
            let before = grip.word(LIFE).load(Ordering::Relaxed);
            eventually("it begins", || {
                grip.word(LIFE).load(Ordering::Relaxed) != before
            });
            let pop = ["pop 1 timeout=0", "pop 1 timeout=1200"];
            let arm = ["arm consumer"; 20];
            for line in arm.iter().chain(&pop).chain(&arm) {
                match rx.ask(line) {
                    Ok(said) => assert_eq!(said, ["armed"], "{line}"),
                    Err(refusal) => {
                        let typed = ["TimedOut", "Disconnected", "Corrupt"];
                        assert!(typed.contains(&&*refusal.kind), "{line}: {refusal:?}");
                    }
                }
            }
        });
    }
}
