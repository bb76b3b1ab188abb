//! A `bytes` channel as a stream of bytes: `std::io`'s traits.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, ErrorKind, Read, Write};
use std::thread;

use slipring::{Error, bytes};

/// Bytes come out of the reader as they went into the writer.
#[test]
fn bytes_come_out_unchanged() {
    let (mut tx, mut rx) = bytes::channel(256).unwrap();
    let sent: Vec<u8> = (0..100_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        for part in copy.chunks(333) {
            tx.writer().write_all(part).unwrap();
            tx.push(b"").unwrap(); // an empty record is no end
        }
    });
    let mut seen = Vec::new();
    let mut some = [0; 17];
    let mut reader = rx.reader();
    loop {
        match reader.read(&mut some).unwrap() {
            0 => break,
            count => seen.extend_from_slice(&some[..count]),
        }
    }
    writer.join().unwrap();
    assert_eq!(seen, sent);
}

#[test]
fn a_formatted_line_is_one_record() {
    let (mut tx, mut rx) = bytes::channel(4096).unwrap();
    let (one, two) = (1, "two");
    writeln!(tx.writer(), "{one} and {two}").unwrap();
    assert_eq!(&*rx.try_read().unwrap(), b"1 and two\n");
    assert_eq!(rx.try_read().unwrap_err(), Error::Empty);
}

#[test]
fn lines_end_with_the_producer() {
    let (mut tx, mut rx) = bytes::channel(4096).unwrap();
    tx.push(b"a\nb").unwrap();
    tx.push(b"c\nd").unwrap();
    drop(tx);
    let lines: Vec<_> = rx.reader().lines().map(Result::unwrap).collect();
    assert_eq!(lines, ["a", "bc", "d"]);
}

/// A successor does not hide the end of what came before it. The successor joins before the reader,
/// which sleeps, has looked: what the first one sent still ends there.
#[test]
fn a_successor_hides_no_end() {
    for _ in 0..50 {
        let (mut tx, mut rx) = bytes::channel(4096).unwrap();
        let reader = thread::spawn(move || {
            let mut first = Vec::new();
            rx.reader().read_to_end(&mut first).unwrap();
            let mut then = Vec::new();
            while then.is_empty() {
                // Until the successor has joined, the stream is at its end.
                rx.reader().read_to_end(&mut then).unwrap();
            }
            (first, then)
        });
        let channel = tx.channel();
        tx.push(b"first").unwrap();
        // Once it is read, the reader waits for more, or for the end.
        while !tx.is_empty().unwrap() {
            thread::yield_now();
        }
        drop(tx);
        let mut tx = channel.producer().unwrap();
        // Pushed earlier, its bytes would go on where the first one's end, without a seam.
        while tx.follows_unread_end() {
            thread::yield_now();
        }
        tx.push(b"second").unwrap();
        drop(tx);
        let read = reader.join().unwrap();
        assert_eq!(read, (b"first".to_vec(), b"second".to_vec()));
    }
}

#[test]
fn an_abort_is_no_end() {
    let (mut tx, mut rx) = bytes::channel(4096).unwrap();
    tx.push(b"half").unwrap();
    tx.abort();
    let mut seen = Vec::new();
    let failed = rx.reader().read_to_end(&mut seen).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::ConnectionAborted);
    assert_eq!(seen, b"half");
}

/// A reader that stops in the middle of a record leaves the whole record in the ring.
#[test]
fn a_partial_read_leaves_the_record() {
    let (mut tx, mut rx) = bytes::channel(4096).unwrap();
    tx.push(b"whole").unwrap();
    let mut some = [0; 3];
    rx.reader().read_exact(&mut some).unwrap();
    assert_eq!(&*rx.try_read().unwrap(), b"whole");
}
