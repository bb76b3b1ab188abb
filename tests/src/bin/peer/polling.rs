//! Waiting by a handle's descriptor alone.
//!
//! | verb | does |
//! |---|---|
//! | `arm` ROLE | says `ready` or `armed` |
//! | `poll` ROLE, `glance` ROLE | polls, without end or without waiting; says `in`, `hup`, both or neither |
//! | `rest` ROLE | checks that there is no news, and that the descriptor reports none |
//! | `push-full` | pushes until there is no room; says the first number, and the one that found none |
//! | `poll-push` FIRST COUNT, `poll-pop` FIRST COUNT | passes all these messages; says how often it polled |
//! | `serve` COUNT, `return` COUNT | passes messages there and back, with both handles; says how often it polled (0: until a line comes; for ever) |
//! | `poll-end` | pops and polls to the end of its producer; says the numbers, and the error |
//! | `poke`, `stuff`, `steal` PATH | writes a byte into a FIFO, fills it, reads it empty |
//! | `publish-unrung` N | commits a message without notifying, as a producer does that is killed in between |
//! | `close-pipes` | closes every pipe that it has open, except those that carry its lines |
//! | `trap-rings` (LINE) | kills the process, from now on, when it would write a pipe or wake a waiter on a doorbell; obeys LINE, and ends if it is alive then |
//! | `arm-late` ROLE | as `arm`, but says `trapped` between the look and the request for a wake, and waits for a line; once |
//! | `sigpipe` | lets SIGPIPE kill it, which a Rust program otherwise ignores |

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use slipring::{Error, Readiness};
use slipring_testkit::{Consumer, Handle, Producer};

use crate::rounds;
use crate::waiting::{linger, pin};
use crate::worker::{Line, Said, Worker, variant};

/// Returns the result of a poll: within no time, or for as long as it takes.
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

/// Arms and polls until there is a message, or this room. Counts the polls.
fn until_ready(end: &mut dyn Handle, room: usize, polls: &mut u64) -> Result<(), Error> {
    while end.arm(room)? == Readiness::Armed {
        *polls += 1;
        look(end.fd()?, false);
    }
    Ok(())
}

fn push(tx: &mut dyn Producer, number: u64, polls: &mut u64) -> Result<(), Error> {
    loop {
        match tx.try_push(number) {
            Err(Error::Full) => {
                let room = tx.room_for(number);
                until_ready(tx, room, polls)?;
            }
            done => return done,
        }
    }
}

pub(crate) fn pop(rx: &mut dyn Consumer, polls: &mut u64) -> Result<u64, Error> {
    loop {
        match rx.try_pop() {
            Err(Error::Empty) => until_ready(rx, 0, polls)?,
            done => return done,
        }
    }
}

/// Asserts that the descriptor does not become readable without news. A byte for earlier news may
/// come late, once.
fn is_quiet(end: &mut dyn Handle, room: usize) {
    for _ in 0..3 {
        match end.arm(room) {
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

pub(crate) fn obey(worker: &mut Worker, line: &Line<'_>) -> Said {
    let mut polls = 0;
    match line.word(0) {
        "arm" => arm(worker, line.word(1)),
        "arm-late" => {
            trap_drains();
            arm(worker, line.word(1))
        }
        verb @ ("poll" | "glance") => {
            let said = look(worker.end(line.word(1)).fd()?, verb == "glance");
            let names = [(PollFlags::IN, "in"), (PollFlags::HUP, "hup")];
            assert!(
                PollFlags::from_iter(names.map(|name| name.0)).contains(said),
                "{said:?}"
            );
            let said = names.iter().filter(|(flag, _)| said.contains(*flag));
            Ok(said.map(|(_, name)| (*name).to_owned()).collect())
        }
        "rest" => {
            let (end, room) = worker.end_and_room(line.word(1));
            is_quiet(end, room);
            Ok(vec![])
        }
        "push-full" => {
            let first = worker.tx().next();
            let mut next = first;
            while worker.tx().try_push(next).is_ok() {
                next += 1;
            }
            Ok([first, next].map(|number| number.to_string()).to_vec())
        }
        "poll-push" => {
            let first = line.number(1);
            for number in first..first + line.number(2) {
                push(worker.tx(), number, &mut polls)?;
            }
            counted(polls)
        }
        "poll-pop" => {
            let first = line.number(1);
            for number in first..first + line.number(2) {
                assert_eq!(pop(worker.rx(), &mut polls)?, number);
            }
            counted(polls)
        }
        "poll-end" => {
            let mut numbers = Vec::new();
            loop {
                match pop(worker.rx(), &mut polls) {
                    Ok(number) => numbers.push(number.to_string()),
                    Err(error) => return Ok([numbers, vec![variant(&error.into())]].concat()),
                }
            }
        }
        "serve" => {
            pin(0);
            for number in rounds(line.number(1)) {
                linger(number);
                push(worker.tx(), number, &mut polls)?;
                assert_eq!(pop(worker.rx(), &mut polls)?, number);
                // No message is in flight now: the other side waits for us.
                is_quiet(worker.rx(), 0);
            }
            counted(polls)
        }
        "return" => {
            pin(1);
            let count = line.number(1);
            for number in 0..if count == 0 { u64::MAX } else { count } {
                assert_eq!(pop(worker.rx(), &mut polls)?, number);
                linger(number ^ 0x5555);
                push(worker.tx(), number, &mut polls)?;
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
            publish_unrung(worker, line.number(1));
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
            // A write of one byte notifies a waiter; answers are longer.
            let kill = libc::SECCOMP_RET_KILL_PROCESS;
            slipring_tests::sandbox::filter(libc::SYS_write, Some((2, 1)), kill);
            // Exactly this operation: one that is private to a process is the standard library's.
            let wake = libc::FUTEX_WAKE as u32;
            slipring_tests::sandbox::filter(libc::SYS_futex, Some((1, wake)), kill);
            match line.words.len() {
                1 => Ok(vec![]),
                _ => {
                    let done = worker.obey(&line.words[1..].join(" "));
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
        _ => crate::system::obey(worker, line),
    }
}

fn arm(worker: &mut Worker, role: &str) -> Said {
    let (end, room) = worker.end_and_room(role);
    Ok(vec![format!("{:?}", end.arm(room)?).to_lowercase()])
}

/// Traps the next read that empties a pipe, which this process does before it asks for a wake. It
/// then says `trapped` and waits for a line. (The pipe is not emptied then, nor later.)
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
    // The library reads a pipe this many bytes at a time, and no other code here does.
    slipring_tests::sandbox::filter(libc::SYS_read, Some((2, 1024)), libc::SECCOMP_RET_TRAP);
}

fn fifo(path: &str) -> std::os::fd::OwnedFd {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

/// Commits a message while the consumer's bit is away (word 640 of the control part, as FORMAT.md
/// says), and puts the bit back. So a producer's store is seen, but the producer does not notify.
fn publish_unrung(worker: &mut Worker, number: u64) {
    let file = match &worker.channel {
        // For a passed channel, the first descriptor is the control part.
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
    worker.tx().try_push(number).unwrap();
    waiters.store(before, Ordering::SeqCst);
}
