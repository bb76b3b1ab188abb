//! A program that locks its memory: a sparse channel takes only what is in use all the same. And no core dump reads the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use slipring::{bytes, topic};

/// The largest ring, in bytes: more than this test may take.
const LARGEST: usize = 1 << 30;

/// Returns a figure of this process in KiB.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let figure = line.split_whitespace().nth(1).unwrap();
    figure.parse().unwrap()
}

#[test]
fn locked_memory_stays_sparse() {
    // Not every user may lock memory; that it is sparse holds for all.
    let locked = rustix::mm::mlockall(rustix::mm::MlockAllFlags::FUTURE).is_ok();
    let builder = bytes::Builder::new(4096).max_capacity(LARGEST);
    let channels = [builder.memfd().unwrap(), builder.heap().unwrap()];
    let topic = topic::records::Builder::new(64, 16 << 20).memfd().unwrap();
    let resident = status("VmRSS:");
    assert!(resident < 256 << 10, "{resident} KiB, locked: {locked}");
    for channel in &channels {
        let (mut tx, mut rx) = (channel.producer().unwrap(), channel.consumer().unwrap());
        tx.resize(1 << 20).unwrap();
        tx.push(&[7; 1000]).unwrap();
        assert_eq!(rx.read().unwrap().len(), 1000);
        rx.settle();
        assert_eq!(channel.stat().unwrap().growth.unwrap().rings, Some(1));
    }
    drop(topic);
    assert!(status("VmRSS:") < 256 << 10);
    // What a core dump leaves out: `dd`.
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let of_data = maps.split("VmFlags:").zip(maps.split("VmFlags:").skip(1));
    let flags: Vec<_> = of_data
        .filter(|(before, _)| {
            before.rsplit("kB").count() > 1 && before.contains("memfd:slipring-data")
        })
        .map(|(_, flags)| flags.lines().next().unwrap())
        .collect();
    assert!(!flags.is_empty());
    assert!(flags.iter().all(|flags| flags.contains(" dd")), "{flags:?}");
}
