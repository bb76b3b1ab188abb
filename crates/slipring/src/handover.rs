//! Handing a channel to another process, over a Unix socket.
//!
//! A channel in memfds has no name: who is to use it is given its memory and its pipes, as descriptors
//! (`SCM_RIGHTS`), and opens descriptions of its own. The memfds are sealed against resizing, and the
//! receiver refuses whatever is not: nobody can take the memory away from under it.
//!
//! The socket may be of any type, connected, and of any age; one message of 16 bytes travels on it. Keep
//! it if you like: it hangs up when the other process ends. (The channel itself tells the same, later
//! than the socket, but also of a handle that was dropped; see `Disconnected`.)
//!
//! ```
//! use slipring::{handover, spsc};
//!
//! let builder = spsc::Builder::<u64>::new(1024);
//! let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
//!
//! let channel = builder.memfd()?;                         // in one process
//! handover::send(&ours, &channel)?;
//! let mut tx = channel.producer()?;
//!
//! let channel = handover::receive(&theirs, &builder)?;    // in another
//! let mut rx = channel.consumer()?;
//!
//! tx.push(7)?;
//! assert_eq!(rx.pop()?, 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::channel::{Builder, Channel, Kind};
use crate::error::Error;

/// What the bytes beside the descriptors say: that this is a channel, and of which format.
const GREETING: &[u8; 16] = b"slipring channel";

/// The most descriptors that travel with one message (Linux's `SCM_MAX_FD`).
const MOST: usize = 253;

/// Sends `channel`, which must be one made by [`Builder::memfd`] or [`receive`]d: `NotPassable` else.
///
/// Blocks as the socket does; one message is in nobody's way but on a full socket. On an error nothing
/// was sent. May be done any number of times, to several processes; who takes which role, the channel
/// sees to.
pub fn send<K: Kind>(socket: impl AsFd, channel: &Channel<K>) -> Result<(), Error> {
    let descriptors = channel.descriptors();
    if descriptors.is_empty() {
        return Err(Error::NotPassable);
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&descriptors));
    let text = [IoSlice::new(GREETING)];
    loop {
        match sendmsg(&socket, &text, &mut rights, SendFlags::NOSIGNAL) {
            // What a stream took only in part still carried the descriptors; the rest follows.
            Ok(sent) => return send_rest(socket.as_fd(), &GREETING[sent.min(GREETING.len())..]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os("send the channel over the socket", errno)),
        }
    }
}

fn send_rest(socket: BorrowedFd<'_>, mut rest: &[u8]) -> Result<(), Error> {
    while !rest.is_empty() {
        match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent.min(rest.len())..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os("send the channel over the socket", errno)),
        }
    }
    Ok(())
}

/// Receives a channel, which must be what `builder` speaks of, as if it were opened by name (`Kind`,
/// `Schema`, with `exact()` also `Geometry`).
///
/// Blocks as the socket does. `NotHandedOver` if something else comes, or the other process hangs up
/// first; what came in the way of descriptors is closed. Needs /proc, to open descriptions of its own.
pub fn receive<K: Kind>(socket: impl AsFd, builder: &Builder<K>) -> Result<Channel<K>, Error> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut greeting = [0; GREETING.len()];
    let (mut got, mut descriptors) = (0, Vec::new());
    while got < greeting.len() {
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut text = [IoSliceMut::new(&mut greeting[got..])];
        let received = match recvmsg(&socket, &mut text, &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => continue,
            received => {
                received.map_err(|errno| Error::os("receive a channel over the socket", errno))?
            }
        };
        for message in rights.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend::<Vec<OwnedFd>>(rights.collect());
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(refused(
                "more descriptors than this process may open (RLIMIT_NOFILE; raise it, `ulimit -n`)",
            ));
        }
        if received.bytes == 0 {
            return Err(refused("the end of the connection"));
        }
        got += received.bytes;
        if greeting[..got] != GREETING[..got] || received.flags.contains(ReturnFlags::TRUNC) {
            return Err(refused("another message"));
        }
        // A stream may come in pieces, each with as many: no channel has more than one can carry.
        if descriptors.len() > MOST {
            return Err(refused("more descriptors than any channel has"));
        }
    }
    if descriptors.is_empty() {
        return Err(refused("a greeting without descriptors"));
    }
    builder.from_fds(descriptors)
}

fn refused(found: &'static str) -> Error {
    Error::NotHandedOver { found }
}
