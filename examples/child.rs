//! Hands a channel without a name to a child process, over a Unix socket that is the child's
//! standard input. (Any connected Unix socket would do.)

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use slipring::{End, Error, handover, spsc};

const MESSAGES: u64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("child") {
        return child();
    }
    let channel = spsc::Builder::<u64>::new(1024).memfd()?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("child")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    handover::send(&ours, &channel)?;

    let mut rx = channel.consumer()?;
    for expected in 0..MESSAGES {
        assert_eq!(rx.pop()?, expected);
    }
    match rx.pop() {
        Err(Error::Disconnected(End::Finished)) => {
            println!("{MESSAGES} messages, then the child finished")
        }
        other => return Err(format!("expected the end, found {other:?}").into()),
    }
    assert!(child.wait()?.success());
    Ok(())
}

fn child() -> Result<(), Box<dyn std::error::Error>> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let channel = handover::receive(&socket, &spsc::Builder::<u64>::new(1024))?;
    let mut tx = channel.producer()?;
    for number in 0..MESSAGES {
        tx.push(number)?;
    }
    Ok(())
}
