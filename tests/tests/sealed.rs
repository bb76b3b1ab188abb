//! Only the process that made a sealed channel writes its messages: the kernel enforces that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use slipring::broadcast;
use slipring::{Builder, Kind, Producer, SetupError, bytes, spsc};
use slipring_tests::message::{Message, Numbered, record};
use slipring_tests::{Room, from_fds};

const LEN: usize = 4096;

/// Tries all the ways to write a file through its descriptor, and returns the kernel's answer to
/// each.
fn attempts(data: BorrowedFd<'_>) -> Vec<(&'static str, Errno)> {
    let path = format!("/proc/self/fd/{}", data.as_raw_fd());
    let anew: OwnedFd = rustix::fs::open(path, OFlags::RDWR, Mode::empty()).unwrap();
    let map = |protection| {
        // SAFETY: a fresh mapping at an address of the kernel's choice, never accessed.
        unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                LEN,
                protection,
                MapFlags::SHARED,
                &anew,
                0,
            )
        }
    };
    let readable = map(ProtFlags::READ).unwrap();
    // SAFETY: the mapping just made, which nobody accesses.
    let remapped =
        unsafe { rustix::mm::mprotect(readable, LEN, MprotectFlags::READ | MprotectFlags::WRITE) };
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let said = vec![
        ("map", map(ProtFlags::READ | ProtFlags::WRITE).err()),
        ("mprotect", remapped.err()),
        ("write", rustix::io::pwrite(&anew, &[0xff; 64], 0).err()),
        (
            "punch",
            rustix::fs::fallocate(&anew, punch, 0, LEN as u64).err(),
        ),
        ("truncate", rustix::fs::ftruncate(&anew, 0).err()),
    ];
    // SAFETY: as above, unmapped once.
    unsafe { rustix::mm::munmap(readable, LEN) }.unwrap();
    said.into_iter()
        .map(|(what, said)| (what, said.unwrap_or_else(|| panic!("{what} was allowed"))))
        .collect()
}

/// Tells the story of one kind: its builder, the options for the peer, and the way in which its
/// maker appends a message.
fn story<K: Kind>(builder: Builder<K>, options: &str, push: impl Fn(&mut Producer<K>, u64)) {
    let room = Room::new(env!("CARGO_BIN_EXE_peer"));
    let channel = builder.sealed().memfd().unwrap();
    let mut tx = channel.producer().unwrap();
    push(&mut tx, 0);
    let passed = channel.descriptors();
    for (what, errno) in attempts(passed[1]) {
        assert!(
            matches!(errno, Errno::PERM | Errno::ACCESS),
            "{what}: {errno}"
        );
    }
    // In another process the reader's role is available, and the writer's is not.
    let reader = |first: u64| {
        let mut rx = room.peer_with(&passed);
        rx.ok(&format!("{} {options}", from_fds(&passed)));
        rx.refused(
            "producer",
            "Sealed",
            &["sealed", "process that made it", "without sealed()"],
        );
        rx.ok("consumer");
        // It drains the messages that nobody took, or all that are there.
        assert_eq!(rx.numbers("drain").last(), Some(&first));
        rx
    };
    let mut rx = reader(0);
    // It goes many times round, so that the reader comes to its line transfer, if it has one.
    for lap in 0..300 {
        let numbers = (1 + lap * 40..1 + lap * 40 + 40).collect::<Vec<_>>();
        numbers.iter().for_each(|number| push(&mut tx, *number));
        assert_eq!(rx.numbers("pop 40"), numbers, "{options}");
    }
    // A killed reader has a successor.
    rx.kill();
    push(&mut tx, 12_001);
    let mut rx = reader(12_001);
    drop(tx);
    rx.refused("pop 1", "Disconnected", &["finished"]);
    // The maker may come again.
    for number in 12_002..12_005 {
        let mut tx = channel.producer().unwrap();
        push(&mut tx, number);
        drop(tx);
        assert_eq!(rx.number("pop 1"), number);
        rx.refused("pop 1", "Disconnected", &["finished"]);
    }
}

fn feed() -> broadcast::Builder<Message> {
    broadcast::Builder::new(64).consumers(1)
}

/// A process that was handed a sealed channel can read its messages, and cannot write any.
#[test]
fn receivers_cannot_write_sealed_channels() {
    let message = Message::numbered;
    story(spsc::Builder::new(64), "kind=spsc", |tx, number| {
        tx.push(message(number)).unwrap();
    });
    story(bytes::Builder::new(4096), "kind=bytes", |tx, number| {
        tx.push(&record(number)).unwrap();
    });
    story(feed(), "kind=broadcast", |tx, number| {
        tx.push(message(number)).unwrap();
    });
    let overwriting = "kind=broadcast full=overwrite";
    story(feed().overwriting(), overwriting, |tx, number| {
        tx.push(message(number)).unwrap();
    });
}

#[test]
fn only_memfds_are_sealed() {
    fn refused<K: Kind>(builder: Builder<K>) {
        let builder = builder.sealed();
        for made in [
            builder.heap().err(),
            builder.create("sealed").err(),
            builder.open_or_create("sealed").err(),
            builder.channel_pair().err(),
        ] {
            assert!(matches!(made, Some(SetupError::NotSealable)), "{made:?}");
        }
    }
    refused(spsc::Builder::<u64>::new(8));
    refused(bytes::Builder::new(4096));
    refused(feed());
    refused(feed().overwriting());
}
