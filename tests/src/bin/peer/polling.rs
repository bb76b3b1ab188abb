//! Waiting by a handle's descriptor alone.
//!
//! | verb | does |
//! |---|---|
//! | `arm` ROLE | says `ready` or `armed` |
//! | `poll` ROLE, `glance` ROLE | polls, without end or without waiting; says `in`, `hup`, both or nothing |
//! | `rest` ROLE | sees that nothing is there, and that the descriptor does not say there were |
//! | `push-full` | pushes until there is no room; says the first number, and the one that found none |
//! | `poll-push` FIRST COUNT, `poll-pop` FIRST COUNT | all these messages; says how often it polled |
//! | `serve` COUNT, `return` COUNT | messages there and back, with both handles; says how often it polled (0: until a line comes; for ever) |
//! | `poll-end` | pops and polls to the end of its producer; says the numbers, and the error |
//! | `poke`, `stuff`, `steal` PATH | writes a byte into a FIFO, fills it, reads it empty |
//! | `publish-unrung` N | commits a message without a ring, as a producer does that is killed in between |
//! | `close-pipes` | closes every pipe that it has open, but for those by which it is told things |
//! | `trap-rings` (LINE) | from now on it is killed when it would write a pipe, or wake who sleeps on a doorbell; obeys that line, and ends if it is alive then |
//! | `arm-late` ROLE | as `arm`, but says `trapped` between the look and the asking, and waits for a line; once |
//! | `sigpipe` | would kill it, which a Rust program otherwise ignores |

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use slipring::{Error, Readiness};

use crate::ends::{Reader, Writer};
use crate::party::{Line, Party, Said, variant};
use crate::rounds;
use crate::waiting::{linger, pin};

/// What a poll says; within no time, or for as long as it takes.
fn look(fd: BorrowedFd<'_>, at_once: bool) -> PollFlags {
    let timeout = at_once.then(Timespec::default);
    loop {
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match poll(&mut polled, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            done => {
                done.unwrap();
                return polled[0].revents();
            }
        }
    }
}

/// A handle's descriptor, and what it is asked.
trait Polled {
    fn fd(&self) -> Result<BorrowedFd<'_>, Error>;
    fn arm(&mut self) -> Result<Readiness, Error>;
}

/// A producer that wants room for this message.
struct Room<'p>(&'p mut dyn Writer, u64);

impl Polled for Room<'_> {
    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.0.fd()
    }

    fn arm(&mut self) -> Result<Readiness, Error> {
        self.0.arm(self.1)
    }
}

struct Data<'c>(&'c mut dyn Reader);

impl Polled for Data<'_> {
    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.0.fd()
    }

    fn arm(&mut self) -> Result<Readiness, Error> {
        self.0.arm()
    }
}

/// Arms, polls, until it is ready. Counts the polls.
fn until_ready(mut end: impl Polled, polls: &mut u64) -> Result<(), Error> {
    while end.arm()? == Readiness::Armed {
        *polls += 1;
        look(end.fd()?, false);
    }
    Ok(())
}

fn push(tx: &mut dyn Writer, number: u64, polls: &mut u64) -> Result<(), Error> {
    loop {
        match tx.try_push(number) {
            Err(Error::Full) => until_ready(Room(tx, number), polls)?,
            done => return done,
        }
    }
}

pub(crate) fn pop(rx: &mut dyn Reader, polls: &mut u64) -> Result<u64, Error> {
    loop {
        match rx.try_pop() {
            Err(Error::Empty) => until_ready(Data(rx), polls)?,
            done => return done,
        }
    }
}

/// Asserts that nothing that does not happen makes the descriptor readable. What made it so before
/// may come late, once.
fn is_quiet(mut end: impl Polled) {
    for _ in 0..3 {
        match end.arm() {
            Ok(Readiness::Armed) | Err(Error::Disconnected(_)) => {}
            other => panic!("nothing was sent: {other:?}"),
        }
        if look(end.fd().unwrap(), true).is_empty() {
            return;
        }
    }
    panic!("an idle descriptor stays readable");
}

fn counted(polls: u64) -> Said {
    Ok(vec![polls.to_string()])
}

pub(crate) fn obey(party: &mut Party, line: &Line<'_>) -> Said {
    let mut polls = 0;
    match line.word(0) {
        "arm" => arm(party, line.word(1)),
        "arm-late" => {
            trap_drains();
            arm(party, line.word(1))
        }
        verb @ ("poll" | "glance") => {
            let fd = match line.word(1) {
                "producer" => party.tx().fd()?,
                _ => party.rx().fd()?,
            };
            let said = look(fd, verb == "glance");
            let names = [(PollFlags::IN, "in"), (PollFlags::HUP, "hup")];
            assert!(
                PollFlags::from_iter(names.map(|name| name.0)).contains(said),
                "{said:?}"
            );
            let said = names.iter().filter(|(flag, _)| said.contains(*flag));
            Ok(said.map(|(_, name)| (*name).to_owned()).collect())
        }
        "rest" => {
            match line.word(1) {
                "producer" => {
                    let next = party.tx().next();
                    is_quiet(Room(party.tx(), next));
                }
                _ => is_quiet(Data(party.rx())),
            }
            Ok(vec![])
        }
        "push-full" => {
            let first = party.tx().next();
            let mut next = first;
            while party.tx().try_push(next).is_ok() {
                next += 1;
            }
            Ok([first, next].map(|number| number.to_string()).to_vec())
        }
        "poll-push" => {
            let first = line.number(1);
            for number in first..first + line.number(2) {
                push(party.tx(), number, &mut polls)?;
            }
            counted(polls)
        }
        "poll-pop" => {
            let first = line.number(1);
            for number in first..first + line.number(2) {
                assert_eq!(pop(party.rx(), &mut polls)?, number);
            }
            counted(polls)
        }
        "poll-end" => {
            let mut numbers = Vec::new();
            loop {
                match pop(party.rx(), &mut polls) {
                    Ok(number) => numbers.push(number.to_string()),
                    Err(error) => return Ok([numbers, vec![variant(&error)]].concat()),
                }
            }
        }
        "serve" => {
            pin(0);
            for number in rounds(line.number(1)) {
                linger(number);
                push(party.tx(), number, &mut polls)?;
                assert_eq!(pop(party.rx(), &mut polls)?, number);
                // Nothing is in flight now: the other side waits for us.
                is_quiet(Data(party.rx()));
            }
            counted(polls)
        }
        "return" => {
            pin(1);
            let count = line.number(1);
            for number in 0..if count == 0 { u64::MAX } else { count } {
                assert_eq!(pop(party.rx(), &mut polls)?, number);
                linger(number ^ 0x5555);
                push(party.tx(), number, &mut polls)?;
            }
            counted(polls)
        }
        "poke" => {
            let fifo = fifo(line.word(1));
            assert_eq!(rustix::io::write(fifo, &[7]), Ok(1));
            Ok(vec![])
        }
        "steal" => {
            let mut bytes = [0; 4096];
            let count = rustix::io::read(fifo(line.word(1)), &mut bytes).unwrap();
            Ok(vec![count.to_string()])
        }
        "stuff" => {
            let (fifo, mut count) = (fifo(line.word(1)), 0);
            while let Ok(written) = rustix::io::write(&fifo, &[7; 4096]) {
                count += written;
            }
            Ok(vec![count.to_string()])
        }
        "publish-unrung" => {
            publish_unrung(party, line.number(1));
            Ok(vec![])
        }
        "close-pipes" => {
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            let open: Vec<_> = open.map(|entry| entry.unwrap().path()).collect();
            for path in open {
                use std::os::unix::fs::FileTypeExt;
                let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
                let is_pipe = |meta: std::fs::Metadata| meta.file_type().is_fifo();
                if number > 2 && std::fs::metadata(&path).is_ok_and(is_pipe) {
                    // SAFETY: this process is killed before anybody misses it.
                    assert_eq!(unsafe { libc::close(number) }, 0);
                }
            }
            Ok(vec![])
        }
        "trap-rings" => {
            // A write of one byte is a ring; answers are longer.
            let kill = libc::SECCOMP_RET_KILL_PROCESS;
            slipring_tests::sandbox::filter(libc::SYS_write, Some((2, 1)), kill);
            // Exactly this operation: one that is private to a process is the standard library's.
            let wake = libc::FUTEX_WAKE as u32;
            slipring_tests::sandbox::filter(libc::SYS_futex, Some((1, wake)), kill);
            match line.words.len() {
                1 => Ok(vec![]),
                _ => {
                    let done = party.obey(&line.words[1..].join(" "));
                    eprintln!("it rang for nobody: {done:?}");
                    std::process::abort()
                }
            }
        }
        "sigpipe" => {
            // SAFETY: the default action, of a process with one thread.
            let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            assert_eq!(before, libc::SIG_IGN);
            Ok(vec![])
        }
        _ => crate::system::obey(party, line),
    }
}

fn arm(party: &mut Party, role: &str) -> Said {
    let readiness = match role {
        "producer" => {
            let next = party.tx().next();
            party.tx().arm(next)
        }
        _ => party.rx().arm(),
    };
    Ok(vec![format!("{:?}", readiness?).to_lowercase()])
}

/// When this process next empties a pipe, which it does before it asks to be woken, it says `trapped` and
/// waits for a line. (The pipe is not emptied then, nor later.)
fn trap_drains() {
    extern "C" fn trapped(_signal: libc::c_int) {
        static ONCE: AtomicBool = AtomicBool::new(false);
        if ONCE.swap(true, Ordering::Relaxed) {
            return;
        }
        let said = b"ok\ttrapped\n";
        // SAFETY: bytes that live during the call.
        unsafe { libc::write(1, said.as_ptr().cast(), said.len()) };
        let mut byte = 0_u8;
        while byte != b'\n' {
            // SAFETY: room for one byte.
            unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
        }
    }
    let handler = trapped as extern "C" fn(libc::c_int);
    // SAFETY: it makes system calls only.
    let before = unsafe { libc::signal(libc::SIGSYS, handler as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
    // The library reads a pipe so many bytes at a time, and nothing else here does.
    slipring_tests::sandbox::filter(libc::SYS_read, Some((2, 1024)), libc::SECCOMP_RET_TRAP);
}

fn fifo(path: &str) -> std::os::fd::OwnedFd {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

/// Commits a message while the consumer's bit is away (word 640 of the control part, as FORMAT.md says),
/// and puts it back: as it is when a producer's store was seen, and its ring was not to be.
fn publish_unrung(party: &mut Party, number: u64) {
    let file = match &party.channel {
        // A passed channel: its first descriptor is the control part.
        Some(channel) => channel.descriptors()[0].try_clone_to_owned().unwrap(),
        None => {
            let path = slipring::directory().0.join("ticks/control");
            let file = std::fs::File::options().read(true).write(true).open(path);
            file.unwrap().into()
        }
    };
    let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    let (nowhere, shared) = (std::ptr::null_mut(), rustix::mm::MapFlags::SHARED);
    // SAFETY: a fresh mapping at an address of the kernel's choice, never unmapped.
    let page = unsafe { rustix::mm::mmap(nowhere, 4096, access, shared, &file, 0) }.unwrap();
    // SAFETY: in that page.
    let word = unsafe { page.byte_add(640) };
    // SAFETY: mapped for ever, aligned, and everybody uses it as this atomic.
    let waiters = unsafe { AtomicU64::from_ptr(word.cast()) };
    let before = waiters.swap(0, Ordering::SeqCst);
    assert_eq!(before & 1, 1, "nobody waits");
    party.tx().try_push(number).unwrap();
    waiters.store(before, Ordering::SeqCst);
}
