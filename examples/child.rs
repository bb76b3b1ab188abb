//! A channel without a name, handed to a child process through its standard input and output: any two
//! descriptors would do. (Real programs pass others; this needs no unsafe code.)

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use slipring::{End, Error, spsc};

const MESSAGES: u64 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("child") {
        return Ok(child()?);
    }
    let channel = spsc::Builder::<u64>::new(1024).memfd()?;
    let (control, data) = channel
        .descriptors()
        .ok_or("a memfd channel has descriptors")?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("child")
        .stdin(Stdio::from(control.try_clone_to_owned()?))
        .stdout(Stdio::from(data.try_clone_to_owned()?))
        .spawn()?;

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

fn child() -> Result<(), Error> {
    let io = |what: &str| format!("duplicate the {what} descriptor");
    let own = |fd: std::os::fd::BorrowedFd<'_>, what| {
        fd.try_clone_to_owned().map_err(|source| Error::Os {
            what: io(what).into(),
            source: source.into(),
        })
    };
    let control = own(std::io::stdin().as_fd(), "control")?;
    let data = own(std::io::stdout().as_fd(), "data")?;
    let mut tx = spsc::Builder::<u64>::new(1024)
        .from_fds(control, data)?
        .producer()?;
    for number in 0..MESSAGES {
        tx.push(number)?;
    }
    Ok(())
}
