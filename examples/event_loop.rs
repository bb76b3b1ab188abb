//! Runs an event loop (mio, which is epoll) over three channels and a timer. One thread sends
//! prices through an `spsc`, another sends log lines through a `bytes` channel, and a child process
//! sends answers. The loop ends when all three have.
//!
//! The rule is the same for every channel: take the available messages, then `arm`. Once `arm` has
//! returned `Armed`, leave the channel to the poll.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slipring::{End, Error, Readiness, bytes, handover, spsc};

const PRICES: u64 = 200_000;
const LINES: u64 = 1_000;
const ANSWERS: u64 = 50_000;
/// The interval of the timer.
const EVERY: Duration = Duration::from_millis(5);

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    if std::env::args().nth(1).as_deref() == Some("child") {
        return child();
    }
    let (price_tx, mut prices) = spsc::channel::<u64>(1024)?;
    let (line_tx, mut lines) = bytes::channel(4096)?;
    let (mut child, mut answers) = start_child()?;
    let threads = [
        std::thread::spawn(move || send_prices(price_tx)),
        std::thread::spawn(move || send_lines(line_tx)),
    ];

    let (mut seen_prices, mut seen_lines, mut seen_answers) = (0, 0, 0);
    let descriptors = [
        prices.as_fd()?.as_raw_fd(),
        lines.as_fd()?.as_raw_fd(),
        answers.as_fd()?.as_raw_fd(),
    ];
    let ticks = serve(
        descriptors,
        [
            &mut || numbers(&mut prices, &mut seen_prices),
            &mut || records(&mut lines, &mut seen_lines),
            &mut || numbers(&mut answers, &mut seen_answers),
        ],
    )?;

    assert_eq!(
        [seen_prices, seen_lines, seen_answers],
        [PRICES, LINES, ANSWERS]
    );
    assert!(ticks > 0, "the timer rang while nothing came");
    assert!(child.wait()?.success());
    assert!(threads.into_iter().all(|t| matches!(t.join(), Ok(Ok(())))));
    println!("{PRICES} prices, {LINES} lines, {ANSWERS} answers, {ticks} ticks");
    Ok(())
}

/// Takes some of the messages, so that a busy channel leaves the others their turn, and arms.
type Take<'a> = &'a mut dyn FnMut() -> Result<Readiness, Error>;

/// Runs the event loop until every channel has ended. Returns how often the timer rang.
fn serve(descriptors: [RawFd; 3], channels: [Take<'_>; 3]) -> Result<u64, Failed> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(8));
    for (number, fd) in descriptors.iter().enumerate() {
        let source = &mut SourceFd(fd);
        poll.registry()
            .register(source, Token(number), Interest::READABLE)?;
    }
    // No channel is armed yet.
    let (mut ready, mut ended) = ([true; 3], [false; 3]);
    let (mut next_tick, mut ticks) = (Instant::now() + EVERY, 0);
    while ended != [true; 3] {
        for number in 0..3 {
            if ready[number] && !ended[number] {
                match channels[number]() {
                    Ok(found) => ready[number] = found == Readiness::Ready,
                    Err(Error::Disconnected(End::Finished)) => {
                        ended[number] = true;
                        poll.registry()
                            .deregister(&mut SourceFd(&descriptors[number]))?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        // A channel that was ready when it was armed makes no descriptor readable: the loop must
        // not wait then.
        let busy = (0..3).any(|number| ready[number] && !ended[number]);
        let rest = match busy {
            true => Duration::ZERO,
            false => next_tick.saturating_duration_since(Instant::now()),
        };
        match poll.poll(&mut events, Some(rest)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            let Token(number) = event.token();
            ready[number] = true;
            // mio reports each change once (edge-triggered). A process that dies may hang up a
            // moment before the kernel frees its seat, and `arm` may not see its end yet. So the
            // loop registers the descriptor again for as long as it is hung up.
            if event.is_read_closed() {
                let source = &mut SourceFd(&descriptors[number]);
                poll.registry()
                    .reregister(source, Token(number), Interest::READABLE)?;
            }
        }
        if Instant::now() >= next_tick {
            next_tick += EVERY;
            ticks += 1;
        }
    }
    Ok(ticks)
}

fn numbers(rx: &mut spsc::Consumer<u64>, seen: &mut u64) -> Result<Readiness, Error> {
    match rx.try_read_batch(256) {
        Ok(batch) => {
            for number in &batch {
                assert_eq!(number, seen);
                *seen += 1;
            }
        }
        Err(Error::Empty) => {}
        Err(error) => return Err(error),
    }
    rx.arm()
}

fn records(rx: &mut bytes::Consumer, seen: &mut u64) -> Result<Readiness, Error> {
    for _ in 0..64 {
        match rx.try_read() {
            Ok(line) => assert_eq!(&line[..], format!("line {seen}").as_bytes()),
            Err(Error::Empty) => break,
            Err(error) => return Err(error),
        }
        *seen += 1;
    }
    rx.arm()
}

fn send_prices(mut tx: spsc::Producer<u64>) -> Result<(), Error> {
    for price in 0..PRICES {
        tx.push(price)?;
    }
    Ok(())
}

fn send_lines(mut tx: bytes::Producer) -> Result<(), Error> {
    for number in 0..LINES {
        tx.push(format!("line {number}").as_bytes())?;
        // The channel is quiet now and then, so that the timer gets its turn.
        if number % 100 == 0 {
            std::thread::sleep(EVERY);
        }
    }
    Ok(())
}

fn start_child() -> Result<(Child, spsc::Consumer<u64>), Failed> {
    let channel = spsc::Builder::new(1024).memfd()?;
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(std::env::current_exe()?)
        .arg("child")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    handover::send(&ours, &channel)?;
    Ok((child, channel.consumer()?))
}

fn child() -> Result<(), Failed> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut tx = handover::receive(&socket, &spsc::Builder::<u64>::new(1024))?.producer()?;
    for answer in 0..ANSWERS {
        tx.push(answer)?;
    }
    Ok(())
}
