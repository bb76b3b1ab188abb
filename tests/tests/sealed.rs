//! A sealed channel's messages are written by the process that made it, and by nobody else: the kernel sees
//! to that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use slipring::{End, Error, bytes, spsc};
use slipring_tests::message::{Message, Numbered};
use slipring_tests::{Room, from_fds};

const LEN: usize = 4096;

/// All the ways to write a file that one has a descriptor of, and what the kernel says to each.
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

#[test]
fn who_was_handed_a_sealed_channel_reads_and_cannot_write() {
    let room = Room::new(env!("CARGO_BIN_EXE_peer"));
    let builder = spsc::Builder::<Message>::new(64).sealed();
    let channel = builder.memfd().unwrap();
    let mut tx = channel.producer().unwrap();
    tx.push(Message::numbered(0)).unwrap();
    let passed = channel.descriptors();
    for (what, errno) in attempts(passed[1]) {
        assert!(
            matches!(errno, Errno::PERM | Errno::ACCESS),
            "{what}: {errno}"
        );
    }
    // Another process: the role of the reader is there to be had, that of the writer is not.
    let mut rx = room.peer_with(&passed);
    rx.ok(&from_fds(&passed));
    rx.refused(
        "producer",
        "Sealed",
        &["sealed", "process that made it", "without sealed()"],
    );
    rx.ok("consumer");
    assert_eq!(rx.number("pop 1"), 0);
    for number in 1..500 {
        tx.push(Message::numbered(number)).unwrap();
        assert_eq!(rx.number("pop 1"), number);
    }
    // A killed reader has a successor.
    rx.kill();
    let mut rx = room.peer_with(&passed);
    rx.ok(&from_fds(&passed));
    rx.ok("consumer");
    tx.push(Message::numbered(500)).unwrap();
    assert_eq!(rx.number("pop 1"), 500);
    drop(tx);
    rx.refused("pop 1", "Disconnected", &["finished"]);
}

#[test]
fn the_maker_of_a_sealed_channel_may_leave_and_come_again() {
    let channel = bytes::Builder::new(4096).sealed().memfd().unwrap();
    let mut rx = channel.consumer().unwrap();
    for _ in 0..3 {
        let mut tx = channel.producer().unwrap();
        tx.push(b"once more").unwrap();
        drop(tx);
        assert_eq!(&rx.read().unwrap()[..], b"once more");
        assert!(matches!(
            rx.try_read().err(),
            Some(Error::Disconnected(End::Finished))
        ));
    }
}

#[test]
fn only_memfds_are_sealed() {
    let builder = spsc::Builder::<u64>::new(8).sealed();
    for made in [
        builder.heap().err(),
        builder.create("sealed").err(),
        builder.open_or_create("sealed").err(),
        builder.channel_pair().err(),
    ] {
        assert!(matches!(made, Some(Error::NotSealable)), "{made:?}");
    }
}
