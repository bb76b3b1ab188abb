//! Forks and executes, while handles are open.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use slipring::{Error, spsc};
use slipring_testkit::Consumer;
use slipring_testkit::message::Message;
use slipring_tests::eventually;
use slipring_tests::room::PATIENCE;

use crate::say;
use crate::worker::{Line, Said, Worker, maker, spell, variant, verdict};

/// Forks, and returns the process id of the child, or 0 in the child.
pub(crate) fn split() -> i32 {
    // SAFETY: the child calls what a test calls, then `_exit`. Other threads there are only in
    // `storm`, whose children do nothing but system calls.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    pid
}

/// Ends a forked child, which has no destructors to run.
fn vanish() -> ! {
    // SAFETY: ends the process, nothing more.
    unsafe { libc::_exit(0) }
}

fn wait(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid);
    let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    let (_, status) = status.unwrap().unwrap();
    assert_eq!(
        status.exit_status(),
        Some(0),
        "a forked child failed: {status:?}"
    );
}

/// Makes the kernel refuse, from now on, to wipe pages in forked children, as an old one or a
/// sandbox may.
pub(crate) fn unwiped() -> Said {
    let refused = libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32;
    let wipe = libc::MADV_WIPEONFORK as u32;
    slipring_tests::sandbox::filter(libc::SYS_madvise, Some((2, wipe)), refused);
    Ok(vec![])
}

/// Obeys a line in a forked child, and returns its answer: `ok` or `err`, and the rest.
pub(crate) fn fork(worker: &mut Worker, line: &str) -> Said {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let pid = split();
    if pid == 0 {
        let said = spell(&worker.obey(line));
        writer.write_all(said.as_bytes()).unwrap();
        vanish();
    }
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    wait(pid);
    Ok(said.split('\t').map(str::to_owned).collect())
}

/// Runs `act` with a guard in hand: says the guard's numbers, and obeys the next line. With `fork
/// N` a child obeys so, in its copy of the guard, and ends.
pub(crate) fn holding(
    act: impl FnOnce(&mut dyn FnMut(&[u64]) -> usize) -> Result<(), Error>,
) -> Said {
    let mut child = false;
    act(&mut |numbers| {
        say(&spell(&Ok(numbers
            .iter()
            .map(ToString::to_string)
            .collect())));
        loop {
            let words = verdict();
            let number = words.get(1).map_or(0, |word| word.parse().unwrap());
            match words.first().map(String::as_str) {
                Some("commit") => return number,
                Some("release") | None => return 0,
                Some("fork") => match split() {
                    0 => {
                        child = true;
                        return number;
                    }
                    pid => wait(pid),
                },
                Some(verb) => panic!("`{verb}` while holding"),
            }
            say("ok");
        }
    })?;
    if child {
        vanish();
    }
    Ok(vec![])
}

/// Runs `act`, and forks inside the iterator that it goes through. Says the result of the child's
/// copy of the call, and then how many the parent appended.
pub(crate) fn iterating(act: impl FnOnce(&mut dyn FnMut()) -> Result<usize, Error>) -> Said {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let mut child = None;
    let done = act(&mut || {
        if child.is_none() {
            child = Some(split());
        }
    });
    if child == Some(0) {
        let said = done.map(|count| vec![count.to_string()]);
        let said = spell(&said.map_err(Into::into));
        writer.write_all(said.as_bytes()).unwrap();
        vanish();
    }
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    wait(child.unwrap());
    Ok(said
        .split('\t')
        .map(str::to_owned)
        .chain([done?.to_string()])
        .collect())
}

/// Forks a child that keeps all that it inherited until the room is gone.
pub(crate) fn fork_linger() -> Said {
    let room = room();
    match split() {
        0 => linger(&room),
        pid => Ok(vec![pid.to_string()]),
    }
}

/// Starts another program that keeps all that it inherited until the room is gone.
#[expect(
    clippy::zombie_processes,
    reason = "it outlives this process: that is the test"
)]
pub(crate) fn exec_linger() -> Said {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("linger").arg(room());
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Ok(vec![child.id().to_string()])
}

fn room() -> PathBuf {
    slipring::directory().0
}

/// Stays until the room is gone.
pub(crate) fn linger(room: &PathBuf) -> ! {
    for fd in [0, 1] {
        // SAFETY: nothing of this process uses them any more.
        unsafe { libc::close(fd) };
    }
    while rustix::fs::stat(room).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    vanish();
}

/// Takes the consumer's seats of `ticks` and `tocks`. One thread is parked in a blocking pop,
/// another in a poll of its descriptor, while this one forks a child, `rounds` times. The child
/// tries its copies of the handles, says the results, and lingers. Then a message is to come to
/// each handle, which the parent's threads take.
pub(crate) fn parked(line: &Line<'_>, rounds: u64) -> Said {
    let maker = maker(line);
    let (mut sleeper, mut poller) = (maker.consumer("ticks")?, maker.consumer("tocks")?);
    // These are for the children. No other borrow matters there, because they have no other
    // threads.
    let copies: [*mut dyn Consumer; 2] = [&raw mut *sleeper, &raw mut *poller];
    let room = room();
    let parks = |name: &str| {
        let seats = slipring::inspect::stat(name).unwrap().seats;
        seats.iter().map(|seat| seat.parks).sum::<u64>()
    };
    for round in 0..rounds {
        let before = ["ticks", "tocks"].map(parks);
        let said = std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| sleeper.pop_timeout(PATIENCE));
            let poller = scope.spawn(|| crate::polling::pop(&mut *poller, &mut 0));
            eventually("both are parked", || {
                let now = ["ticks", "tocks"].map(parks);
                now[0] > before[0] && now[1] > before[1]
            });
            let (mut reader, mut writer) = std::io::pipe().unwrap();
            if split() == 0 {
                let mut said = String::new();
                for copy in copies {
                    // SAFETY: this process has one thread, which drops neither; the memory is its own.
                    let copy = unsafe { &mut *copy };
                    for tried in [copy.try_pop().map(|_| ()), copy.arm(0).map(|_| ())] {
                        said += &format!("{:?} ", tried.err().map(|error| variant(&error.into())));
                    }
                    // SAFETY: likewise, and nothing of the child uses it any more.
                    unsafe { std::ptr::drop_in_place(copy) };
                }
                writer.write_all(said.as_bytes()).unwrap();
                drop(writer);
                linger(&room);
            }
            drop(writer);
            let mut said = String::new();
            reader.read_to_string(&mut said).unwrap();
            say(&spell(&Ok(vec![said.trim().to_owned()])));
            [sleeper.join().unwrap(), poller.join().unwrap()]
        });
        for number in said {
            assert_eq!(number?, round);
        }
    }
    Ok(vec![])
}

/// Takes and leaves the producer's seat in one thread as fast as it can, while another forks
/// `children` children, which linger. Says how often the seat was taken.
pub(crate) fn storm(name: &str, children: u64) -> Said {
    let (stop, takes) = (AtomicBool::new(false), AtomicU64::new(0));
    let room = room();
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let channel = spsc::Builder::<Message>::new(64)
                .open_or_create(name)
                .unwrap();
            while !stop.load(Ordering::Relaxed) {
                // This is never `RoleTaken`: no child has the seat of the round before.
                drop(channel.producer().unwrap());
                takes.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..children {
            let before = takes.load(Ordering::Relaxed);
            while takes.load(Ordering::Relaxed) == before && !taker.is_finished() {
                std::hint::spin_loop();
            }
            if split() == 0 {
                linger(&room);
            }
        }
        stop.store(true, Ordering::Relaxed);
        taker.join().unwrap();
    });
    Ok(vec![takes.into_inner().to_string()])
}
