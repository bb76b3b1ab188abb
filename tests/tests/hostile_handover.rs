//! A channel comes over a socket in the wrong parts: in each other's place, from two channels, or
//! changed since they were made. A visible fault is refused. With an invisible one the channel's
//! messages may be wrong, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, memfd_create};
use slipring_tests::place::{memfd, overwrites};
use slipring_tests::stranger::{GREETING, listener, sends};
use slipring_tests::{Answer, Peer, Refusal, Room, from_fds, kinds};

const KINDS: [&str; 4] = kinds!("wait=sleep");

/// An honest producer that has a channel, and an honest process that receives parts.
struct Scenario {
    options: &'static str,
    tx: Peer,
    to: (Peer, PathBuf),
    _room: Room,
}

impl Scenario {
    fn of(options: &'static str, channel: &[OwnedFd]) -> Scenario {
        let room = Room::new(env!("CARGO_BIN_EXE_peer"));
        let passed: Vec<_> = channel.iter().map(AsFd::as_fd).collect();
        let mut tx = room.peer_with(&passed);
        tx.ok(&format!("{} {options}", from_fds(&passed)));
        tx.ok("producer");
        let to = listener(&room, "stream");
        Scenario {
            options,
            tx,
            to,
            _room: room,
        }
    }

    fn give(&mut self, passed: [&OwnedFd; 4]) -> Result<Answer, Refusal> {
        self.to.0.tell(&format!("take-over {}", self.options));
        let passed = passed.map(AsFd::as_fd).to_vec();
        sends(&mut self.to, "stream", &vec![(&GREETING[..], passed)]);
        self.to.0.answer()
    }

    /// Returns the process that got the parts, as the consumer of their content.
    fn rx(&mut self) -> &mut Peer {
        self.to.0.ok("consumer");
        &mut self.to.0
    }
}

/// Returns a memfd with the content of `part`, of length `len`, with these seals as well.
fn copy_of(part: &OwnedFd, len: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("copy", flags).unwrap();
    let mut bytes = vec![0; rustix::fs::fstat(part).unwrap().st_size as usize];
    let read = rustix::io::pread(part, &mut bytes, 0).unwrap();
    assert_eq!(rustix::io::pwrite(&file, &bytes, 0), Ok(read));
    rustix::fs::ftruncate(&file, len).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | seals).unwrap();
    file
}

fn len(part: &OwnedFd) -> u64 {
    rustix::fs::fstat(part).unwrap().st_size as u64
}

/// Parts that are passed in each other's place are refused, and the channel goes on.
#[test]
fn swapped_parts_are_refused() {
    for options in KINDS {
        let own = memfd(options);
        let mut scenario = Scenario::of(options, &own);
        scenario.tx.ok("push 0 3");
        for passed in [
            [&own[1], &own[0], &own[2], &own[3]],
            [&own[2], &own[3], &own[0], &own[1]],
            [&own[0], &own[2], &own[1], &own[3]],
            [&own[1], &own[1], &own[2], &own[3]],
        ] {
            let refusal = scenario.give(passed).unwrap_err();
            let known = ["NotAChannel", "BadDescriptor"];
            assert!(known.contains(&&*refusal.kind), "{refusal:?}");
        }
        // The processes were not disturbed.
        scenario.give([&own[0], &own[1], &own[2], &own[3]]).unwrap();
        assert_eq!(scenario.rx().numbers("pop 3"), [0, 1, 2]);
    }
}

/// With the data part of another channel the messages are wrong, and nothing worse happens.
#[test]
fn foreign_messages_are_merely_wrong() {
    for options in KINDS {
        let (own, other) = (memfd(options), memfd(options));
        let mut scenario = Scenario::of(options, &own);
        scenario
            .give([&own[0], &other[1], &own[2], &own[3]])
            .unwrap();
        scenario.tx.ok("push 0 3");
        let rx = scenario.rx();
        if options.contains("bytes") {
            rx.refused("pop 1", "Corrupt", &["`record length`", "0x0"]);
        } else {
            rx.ok("endure consumer 20");
            assert_eq!(rx.ok("stop")[..3], ["0", "0", "3"], "three torn ones");
        }
    }
}

/// The pipes' reports are lost or come unasked. Calls that sleep find their messages all the same,
/// and end in time.
#[test]
fn swapped_pipes_lose_no_message() {
    for options in KINDS {
        for pipes in [[3, 2], [2, 2], [3, 3]] {
            let own = memfd(options);
            let mut scenario = Scenario::of(options, &own);
            scenario
                .give([&own[0], &own[1], &own[pipes[0]], &own[pipes[1]]])
                .unwrap();
            scenario.rx();
            let Scenario {
                mut tx,
                to: (mut rx, _),
                ..
            } = scenario;
            // This is so long that the call goes over to its pipe.
            rx.refused("pop 1 timeout=1200", "TimedOut", &[]);
            rx.tell("pop 1");
            tx.ok("push 0 1");
            assert_eq!(rx.answer().unwrap(), ["0"]);
            // This is more than there is room for; or as many as are not overwritten in any case.
            let count = if overwrites(options) { 40 } else { 500 };
            rx.tell(&format!("pop {count}"));
            tx.ok(&format!("push 1 {count}"));
            let numbers = rx.answer().unwrap();
            assert!(
                numbers
                    .into_iter()
                    .eq((1..=count).map(|number: u64| number.to_string()))
            );
            tx.kill();
            let told = rx.refused("pop 1", "Disconnected", &[]);
            assert_eq!(told.debug, "Disconnected(Died)", "{pipes:?}");
        }
    }
}

/// Memfds that are longer than they need be are mapped only as far as they need be.
#[test]
fn oversized_memfds_are_mapped_in_part() {
    for options in KINDS {
        let own = memfd(options);
        let mut scenario = Scenario::of(options, &own);
        let long = [0, 1].map(|part| copy_of(&own[part], 1 << 40, SealFlags::empty()));
        scenario
            .give([&long[0], &long[1], &own[2], &own[3]])
            .unwrap();
        let before = scenario.to.0.number("memory");
        scenario.rx();
        // In KiB: this is far less than the offered size.
        assert!(before < 1 << 20, "{before}");
    }
}

/// A control part that nobody may write is refused.
#[test]
fn a_readonly_control_part_is_refused() {
    for options in KINDS {
        for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
            let own = memfd(options);
            let mut scenario = Scenario::of(options, &own);
            let sealed = copy_of(&own[0], len(&own[0]), seal);
            let refusal = scenario
                .give([&sealed, &own[1], &own[2], &own[3]])
                .unwrap_err();
            refusal.is("Permission", &["control"]);
        }
    }
}

/// A leased part is refused and not waited for. A file lease makes every opener of the file wait
/// for its holder, 45 seconds by default.
#[test]
fn a_leased_part_is_refused_promptly() {
    for options in KINDS {
        for part in [0, 1] {
            let own = memfd(options);
            let mut scenario = Scenario::of(options, &own);
            let copy = copy_of(&own[part], len(&own[part]), SealFlags::empty());
            // One description reads it and none writes it: only then it may be leased.
            let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
            let leased = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap();
            drop(copy);
            let lease = libc::c_int::from(libc::F_RDLCK as libc::c_short);
            // SAFETY: one system call on a descriptor of ours.
            let set = unsafe { libc::fcntl(leased.as_raw_fd(), libc::F_SETLEASE, lease) };
            assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
            // The kernel sends this signal when the lease is to be broken.
            // SAFETY: ignores a signal that nothing here waits for.
            unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
            let mut passed = [&own[0], &own[1], &own[2], &own[3]];
            passed[part] = &leased;
            let begun = std::time::Instant::now();
            let refusal = scenario.give(passed).unwrap_err();
            refusal.is("Os", &["reopen the channel's descriptor"]);
            assert!(begun.elapsed().as_secs() < 20, "it waited");
        }
    }
}
