//! Passes market ticks between two processes, by name. Start `send` and `recv` in two terminals, in
//! any order. Stop and restart either: nothing committed is lost.

use std::time::Duration;

use slipring::{End, Error, Payload, SetupError, spsc};

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Tick {
    seq: u64,
    bid: f64,
    ask: f64,
}

fn main() -> Result<(), SetupError> {
    let builder = spsc::Builder::<Tick>::new(1024);
    match std::env::args().nth(1).as_deref() {
        Some("send") => send(builder.producer("example/ticks")?),
        Some("recv") => recv(builder.consumer("example/ticks")?),
        _ => {
            eprintln!("usage: ticks send|recv");
            std::process::exit(2);
        }
    }
}

fn send(mut tx: spsc::Producer<Tick>) -> Result<(), SetupError> {
    // A restarted sender goes on where the last one stopped, even if that one was killed.
    let first = tx.position();
    for seq in first..first + 100_000 {
        let mid = 100.0 + (seq % 50) as f64 / 10.0;
        tx.push(Tick {
            seq,
            bid: mid - 0.5,
            ask: mid + 0.5,
        })?;
    }
    println!("sent {first}..{}", first + 100_000);
    Ok(())
}

fn recv(mut rx: spsc::Consumer<Tick>) -> Result<(), SetupError> {
    let mut last = None;
    loop {
        let error = match rx.read_batch(256) {
            Ok(ticks) => {
                for tick in &ticks {
                    assert!(tick.bid < tick.ask);
                    let follows = last.is_none_or(|last| tick.seq == last + 1);
                    assert!(follows, "a gap before {}", tick.seq);
                    last = Some(tick.seq);
                }
                continue;
            }
            Err(error) => error,
        };
        match error {
            Error::Disconnected(End::Finished) => break,
            Error::Disconnected(end) => {
                println!("the sender {end}; waiting for the next");
                rx.wait_for_producer(Duration::MAX)?;
            }
            error => return Err(error.into()),
        }
    }
    println!("received up to {last:?}");
    Ok(())
}
