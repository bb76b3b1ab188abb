//! Huge pages where there are some. Where there are none, ordinary pages and the reason why.
//! This is one test, because the pool of pages is one for the whole machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring::huge_pages::{pools, reserve};
use slipring::{HugePages, bytes, spsc};
use slipring_tests::message::Message;
use slipring_tests::{Peer, Room, from_fds, is_root};

/// Restores the pool when the test is over, however it ends.
struct Restore(u64);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = reserve(HugePages::TwoMiB, self.0);
    }
}

/// Returns the pool of 2 MiB pages: all, free.
fn pool() -> (u64, u64) {
    let pools = pools();
    let pool = pools.iter().find(|pool| pool.size == HugePages::TwoMiB);
    pool.map_or((0, 0), |pool| (pool.total, pool.free))
}

/// Checks that every message of many laps arrives.
fn traffic(tx: &mut Peer, rx: &mut Peer) {
    let first = tx.number("next");
    for lap in 0..20 {
        let first = first + lap * 60;
        tx.ok(&format!("push {first} 60"));
        assert_eq!(
            rx.numbers("pop 60"),
            (first..first + 60).collect::<Vec<_>>()
        );
    }
}

/// Asks for huge pages that do not exist, of each size and in each place.
fn falls_back(room: &Room, sizes: &[(&str, &str)]) {
    let mut peer = room.peer();
    for way in ["create ticks", "memfd", "heap"] {
        for (option, size) in sizes {
            peer.ok(&format!("{way} huge={option}"));
            let pages = peer.ok("pages");
            assert_eq!(
                pages[..2],
                [(*size).to_owned(), "ordinary pages".to_owned()]
            );
            let missing = match way {
                "create ticks" => "no hugetlbfs with",
                _ => "no space for",
            };
            assert!(pages[2].contains(missing), "the reason: {pages:?}");
            // It is a channel like any other.
            peer.ok("producer");
            peer.ok("consumer");
            peer.ok("push 0 50");
            assert_eq!(peer.numbers("pop 50"), (0..50).collect::<Vec<_>>());
            peer.ok("leave producer");
            peer.ok("leave consumer");
            peer.ok("remove");
            // The first ring of one that grows is backed, or refused, as the whole of another.
            peer.ok(&format!("{way} kind=spsc-growing huge={option}"));
            assert_eq!(peer.ok("pages")[1], "ordinary pages");
            peer.ok("remove");
        }
        peer.ok(way);
        assert_eq!(peer.ok("pages"), ["ordinary pages", "ordinary pages", ""]);
        peer.ok("remove");
    }
}

/// A channel gets the huge pages that it asks for, or says why not.
#[test]
fn missing_huge_pages_are_explained() {
    let room = Room::new(env!("CARGO_BIN_EXE_peer"));
    let gigantic = pools()
        .iter()
        .any(|pool| pool.size == HugePages::OneGiB && pool.free > 0);
    if pool().1 == 0 {
        falls_back(&room, &[("2m", "2 MiB pages")]);
    }
    if !gigantic {
        falls_back(&room, &[("1g", "1 GiB pages")]);
    }
    if !is_root() {
        let error = reserve(HugePages::TwoMiB, 1).unwrap_err().to_string();
        assert!(
            error.contains("no permission") && error.contains("takes root"),
            "{error}"
        );
        return;
    }
    let before = pool().0;
    let restore = Restore(before);
    let got = reserve(HugePages::TwoMiB, before + 8).unwrap();
    assert_eq!(
        got,
        before + 8,
        "this machine's memory is too fragmented for eight huge pages"
    );
    assert_eq!(pool().0, got);

    // In memory of one process: the pool has fewer pages, and gets them back.
    let (_, free) = pool();
    let channel = spsc::Builder::<Message>::new(65536)
        .huge_pages(HugePages::TwoMiB)
        .heap()
        .unwrap();
    let pages = channel.pages();
    assert_eq!(
        (pages.got, pages.asked, &pages.reason),
        (HugePages::TwoMiB, HugePages::TwoMiB, &None)
    );
    assert_eq!(pool().1, free - 2, "4 MiB");
    drop(channel);
    assert_eq!(pool().1, free);

    // A ring that grows takes pages as it needs them, and its consumer gives them back; in memory of one process and in memfds.
    for passed in [false, true] {
        let builder = bytes::Builder::new(1 << 20).max_capacity(8 << 20);
        let builder = builder.huge_pages(HugePages::TwoMiB);
        let channel = match passed {
            false => builder.heap().unwrap(),
            true => builder.memfd().unwrap(),
        };
        assert_eq!(
            channel.pages().got,
            HugePages::TwoMiB,
            "{:?}",
            channel.pages()
        );
        assert_eq!(pool().1, free - 1, "the first ring");
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        tx.resize(4 << 20).unwrap();
        tx.push(&[7; 500_000]).unwrap();
        // 4 MiB, and half a MiB behind it for the largest record.
        assert_eq!(pool().1, free - 1 - 3);
        assert!(rx.read().unwrap().iter().all(|byte| *byte == 7));
        rx.settle();
        assert_eq!(pool().1, free - 3);
        tx.resize(1 << 20).unwrap();
        rx.settle();
        assert_eq!(pool().1, free - 1);
        drop((tx, rx, channel));
        assert_eq!(pool().1, free);
    }

    // In a passed channel: the child processes see which pages they got.
    let channel = spsc::Builder::<Message>::new(64)
        .huge_pages(HugePages::TwoMiB)
        .memfd()
        .unwrap();
    assert_eq!(channel.pages().got, HugePages::TwoMiB);
    let passed = channel.descriptors();
    // The control part stays small.
    assert_eq!(rustix::fs::fstat(passed[0]).unwrap().st_size, 3 * 4096);
    let mut successors = ["producer", "consumer"].map(|role| {
        let mut peer = room.peer_with(&passed);
        peer.ok(&from_fds(&passed));
        assert_eq!(peer.ok("pages")[1], "2 MiB pages");
        peer.ok(role);
        peer
    });
    let [tx, rx] = &mut successors;
    traffic(tx, rx);
    assert_eq!(pool().1, free - 1);
    drop((successors, channel));

    // In a named channel, with a hugetlbfs mounted where only this test's processes see it.
    let mount = room.path().join("huge");
    std::fs::create_dir(&mount).unwrap();
    let mut tx = room.peer();
    tx.ok("private");
    tx.ok(&format!("mount hugetlbfs {} pagesize:2M", mount.display()));
    tx.ok("create market/ticks huge=2m");
    assert_eq!(tx.ok("pages"), ["2 MiB pages", "2 MiB pages", ""]);
    tx.ok("producer");
    let mut rx = room.peer();
    rx.ok(&format!("join {}", tx.pid()));
    rx.ok("open market/ticks");
    assert_eq!(rx.ok("pages")[1], "2 MiB pages");
    rx.ok("consumer");
    traffic(&mut tx, &mut rx);
    // A killed side is replaced here as anywhere.
    tx.kill();
    let mut tx = room.peer();
    tx.ok(&format!("join {}", rx.pid()));
    tx.ok("producer market/ticks huge=2m");
    rx.ok("wait-for producer 60000");
    traffic(&mut tx, &mut rx);
    // Its file on the hugetlbfs goes with it, and so does that of a creator that found no space.
    let files = |peer: &Peer| std::fs::read_dir(peer.sees(&mount)).unwrap().count();
    assert_eq!(files(&rx), 1);
    rx.ok("create large capacity=1048576 huge=2m");
    let pages = rx.ok("pages");
    assert_eq!(pages[1], "ordinary pages");
    assert!(pages[2].contains("no space for"), "{pages:?}");
    assert_eq!(files(&rx), 1);
    tx.kill();
    rx.ok("leave consumer");
    rx.ok("close");
    rx.ok("remove market/ticks");
    assert_eq!(files(&rx), 0);
    assert_eq!(pool().1, free, "every page is back");
    drop(rx);

    // A mount with a limit: a channel may have all of it, and no more.
    let small = room.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mut peer = room.peer();
    peer.ok("private");
    peer.ok(&format!(
        "mount hugetlbfs {} pagesize:2M,size:4M",
        small.display()
    ));
    peer.ok("create fits capacity=65536 huge=2m");
    assert_eq!(peer.ok("pages"), ["2 MiB pages", "2 MiB pages", ""]);
    assert_eq!(pool().1, free - 2, "4 MiB");
    peer.ok("create more huge=2m");
    let pages = peer.ok("pages");
    assert_eq!(pages[1], "ordinary pages");
    assert!(pages[2].contains("0 bytes are free there"), "{pages:?}");
    peer.ok("remove fits");
    peer.ok("remove more");
    drop(peer);
    drop(restore);
    assert_eq!(pool().0, before);
}
