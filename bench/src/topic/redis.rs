//! Redis Streams on loopback: the publisher `XADD`s, the subscriber sleeps in `XREAD BLOCK`.
//!
//! The stream keeps as many messages as slipring's topic. The publisher waits for the answer to each message, as is usual,
//! but the figure ends when the subscriber has the message.

use super::sleep::{asleep, check, mark};
use super::{FRAME, FRAMES, Row, peer};
use crate::redis::{Client, Server, installed};
use std::io::Result as IoResult;

pub const ROWS: &[Row] = &[
    peer("sleep/64B/redis", installed, |s| sleep(s, 64)),
    peer("sleep/6.2MB/redis", installed, |s| sleep(s, FRAME)),
];

/// The lines of the answer to `XREAD` before the message's number, and those behind it before the message.
const FOUND: [&[u8]; 5] = [b"*1", b"*2", b"$1", b"t", b"*1"];
const ENTRY: [&[u8]; 3] = [b"*2", b"$1", b"m"];

fn sleep(seconds: f64, len: usize) -> Result<f64, String> {
    let server = Server::start()?;
    // `XADD t MAXLEN n * m MESSAGE`
    let add = format!(
        "*7\r\n$4\r\nXADD\r\n$1\r\nt\r\n$6\r\nMAXLEN\r\n$1\r\n{FRAMES}\r\n$1\r\n*\r\n$1\r\nm\r\n"
    );
    // `XREAD BLOCK 0 STREAMS t LAST`
    let read = b"*6\r\n$5\r\nXREAD\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n$7\r\nSTREAMS\r\n$1\r\nt\r\n";
    asleep(
        seconds,
        || {
            let (mut client, mut last) = (server.connect()?, b"0".to_vec());
            Ok(move |seq| next(&mut client, read, &mut last, seq).expect("a server that answers"))
        },
        || {
            let (mut client, mut frame) = (server.connect()?, vec![0; len]);
            Ok(move |seq| {
                mark(&mut frame, seq);
                let sent = client.send(add.as_bytes(), &frame);
                sent.and_then(|()| client.read_value().map(drop))
                    .expect("a server that answers");
            })
        },
    )
}

/// Waits for the message after `last`, and returns the result of its check.
fn next(client: &mut Client, read: &[u8], last: &mut Vec<u8>, seq: u64) -> IoResult<u64> {
    client.send(read, last)?;
    client.expect(&FOUND)?;
    client.expect(&[b"*2"])?;
    last.clear();
    last.extend_from_slice(client.read_value()?);
    client.expect(&ENTRY)?;
    client.read_value().map(|frame| check(frame, seq))
}
