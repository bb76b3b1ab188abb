//! Counts the descriptors that a handle holds, of each kind and role: the figures that
//! `docs/guarantees.md` gives.
//!
//! One test, since it counts the descriptors of this whole process, and then lowers its limit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use slipring::{Builder, Channel, Kind, Readiness, SetupError, broadcast, bytes, spsc};
use slipring_tests::Room;

/// The helper thread's descriptors: one epoll and one timer a process.
const HELPER: usize = 2;

fn open() -> usize {
    // The count leaves out the descriptor by which we look.
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// The way in which a channel is made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Made {
    Named,
    Memfd,
    Heap,
}

/// Counts the descriptors of one end while it rests and while it is armed, first without a peer and
/// then with one. The `Channel` is dropped first.
fn held<K: Kind, H>(
    builder: &Builder<K>,
    made: Made,
    take: impl Fn(&Channel<K>) -> H,
    arm: impl Fn(&mut H),
) -> [usize; 2] {
    let before = open();
    let channel = match made {
        Made::Named => builder.create("held"),
        Made::Memfd => builder.memfd(),
        Made::Heap => builder.heap(),
    }
    .unwrap();
    let mut handle = take(&channel);
    if made == Made::Named {
        drop(channel);
        let rests = open() - before;
        arm(&mut handle);
        let armed = open() - before;
        drop(handle);
        slipring::inspect::remove("held").unwrap();
        return [rests, armed];
    }
    drop(channel);
    let rests = open() - before;
    arm(&mut handle);
    [rests, open() - before]
}

fn arms<T: slipring::Payload>(rx: &mut spsc::Consumer<T>) {
    assert_eq!(rx.arm().unwrap(), Readiness::Armed);
}

/// Makes consumers of new named channels, each armed and alone, until there is no descriptor left.
fn armed_under_the_limit() -> usize {
    let mut handles = Vec::new();
    let builder = spsc::Builder::<u64>::new(4);
    loop {
        let taken = builder.consumer(&format!("many-{}", handles.len()));
        match taken.and_then(|mut rx| Ok(rx.arm().map(|_| rx)?)) {
            Ok(rx) => handles.push(rx),
            Err(error) => {
                let text = error.to_string();
                assert!(
                    matches!(
                        error,
                        SetupError::TooManyFiles {
                            limit: Some(1024),
                            ..
                        }
                    ),
                    "{error:?}"
                );
                assert!(
                    text.contains("1024") && text.contains("ulimit -n"),
                    "{text}"
                );
                return handles.len();
            }
        }
    }
}

/// Checks the table of `docs/guarantees.md`, and its figure for `ulimit -n 1024`.
#[test]
fn each_handle_holds_few_descriptors() {
    let room = Room::new("");
    // SAFETY: the only test of this process, and no thread of ours is there yet.
    unsafe { std::env::set_var("SLIPRING_DIR", room.path()) };
    // The helper is there from here on.
    let before = open();
    let (_tx, mut rx) = spsc::channel::<u64>(4).unwrap();
    let (_tx2, mut rx2) = spsc::Builder::<u64>::new(4)
        .memfd()
        .map(|channel| (channel.producer().unwrap(), channel.consumer().unwrap()))
        .unwrap();
    let _ = (rx.arm().unwrap(), rx2.arm().unwrap());
    drop((_tx, rx, _tx2, rx2));
    assert_eq!(open() - before, HELPER);

    let spsc = spsc::Builder::<u64>::new(4);
    let records = bytes::Builder::new(4096);
    let few = broadcast::Builder::<u64>::new(4).consumers(1);
    let many = broadcast::Builder::<u64>::new(4).consumers(63);
    let over = many.clone().overwriting();
    let mut table = Vec::new();
    for made in [Made::Named, Made::Memfd, Made::Heap] {
        let mut row = |what, held: [usize; 2]| {
            table.push((made, what, held));
        };
        row(
            "spsc producer",
            held(
                &spsc,
                made,
                |c| c.producer().unwrap(),
                |tx| {
                    let _ = tx.push_slice(&[0; 4]);
                    while tx.try_push(0).is_ok() {}
                    assert_eq!(tx.arm(1).unwrap(), Readiness::Armed);
                },
            ),
        );
        row(
            "spsc consumer",
            held(&spsc, made, |c| c.consumer().unwrap(), arms),
        );
        row(
            "bytes consumer",
            held(
                &records,
                made,
                |c| c.consumer().unwrap(),
                |rx| {
                    assert_eq!(rx.arm().unwrap(), Readiness::Armed);
                },
            ),
        );
        row(
            "broadcast consumer, 1",
            held(
                &few,
                made,
                |c| c.consumer().unwrap(),
                |rx| {
                    assert_eq!(rx.arm().unwrap(), Readiness::Armed);
                },
            ),
        );
        row(
            "broadcast consumer, 63",
            held(
                &over,
                made,
                |c| c.consumer().unwrap(),
                |rx| {
                    assert_eq!(rx.arm().unwrap(), Readiness::Armed);
                },
            ),
        );
        row(
            "broadcast producer, 63",
            held(
                &many,
                made,
                |c| c.producer().unwrap(),
                |tx| {
                    tx.as_fd().unwrap();
                },
            ),
        );
    }
    for (made, what, found) in table {
        let expected = match (made, what) {
            (Made::Heap, _) => [0, 3],
            (Made::Named, "broadcast producer, 63") => [2, 5],
            (Made::Memfd, "broadcast producer, 63") => [65, 68],
            _ => [3, 5],
        };
        assert_eq!(found, expected, "{made:?}, {what}");
    }
    let limit = libc::rlimit {
        rlim_cur: 1024,
        rlim_max: 1024,
    };
    // SAFETY: a limit of this process.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0);
    let armed = armed_under_the_limit();
    // Each holds five, and there are few besides.
    assert!((195..=204).contains(&armed), "{armed}");
}
