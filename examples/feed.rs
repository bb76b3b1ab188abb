//! Sends market data to three processes, one of them slow. The feed does not wait for its readers:
//! it overtakes the slow one, which learns how many ticks it lost and goes on with recent ones.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use slipring::broadcast::{self, Overwriting, Seek};
use slipring::{End, Error, Payload, handover};

const TICKS: u64 = 200_000;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Tick {
    number: u64,
    bid: f64,
    ask: f64,
}

type Failure = Box<dyn std::error::Error>;

fn feed() -> broadcast::Builder<Tick, Overwriting> {
    broadcast::Builder::new(1 << 15)
        .overwriting()
        .join(Seek::To(0)) // a reader that comes late has lost what it missed
}

fn main() -> Result<(), Failure> {
    if let Some(name) = std::env::args().nth(1) {
        return read(&name);
    }
    let channel = feed().memfd()?;
    let readers = ["one", "another", "slow"].map(|name| start(name, &channel));
    let mut tx = channel.producer()?;
    for number in 0..TICKS {
        let mid = 100.0 + (number % 50) as f64 / 10.0;
        let (bid, ask) = (mid - 0.5, mid + 0.5);
        tx.push(Tick { number, bid, ask })?; // never waits
        if number % 500 == 499 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    drop(tx); // ends the stream
    for reader in readers {
        assert!(reader?.wait()?.success());
    }
    Ok(())
}

/// Starts a reader, hands it the channel, and waits until it has taken its seat.
fn start(
    name: &str,
    channel: &broadcast::Channel<Tick, Overwriting>,
) -> Result<std::process::Child, Failure> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let child = Command::new(std::env::current_exe()?)
        .arg(name)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    handover::send(&ours, channel)?;
    ours.read_exact(&mut [0])?;
    Ok(child)
}

fn read(name: &str) -> Result<(), Failure> {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut rx = handover::receive(&socket, &feed())?.consumer()?;
    socket.write_all(b".")?;

    let (mut received, mut lagged) = (0, 0);
    loop {
        match rx.pop() {
            Ok(tick) => {
                assert_eq!(tick.number, received + lagged); // the one that follows
                assert!(tick.bid < tick.ask);
                received += 1;
                if name == "slow" && received % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            Err(Error::Lagged(lost)) => lagged += lost,
            Err(Error::Disconnected(End::Finished)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    println!(
        "{name}: {received} ticks received + {lagged} lost = {} sent",
        received + lagged
    );
    assert_eq!(received + lagged, TICKS);
    Ok(())
}
