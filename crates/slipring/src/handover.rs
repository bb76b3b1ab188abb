//! Hands a channel to another process, over a Unix socket.
//!
//! A channel in memfds has no name. A process that is to use it receives its memory and its pipes
//! as descriptors (`SCM_RIGHTS`), and opens descriptions of its own. The memfds are sealed against
//! resizing, and the receiver refuses any others. So no process can take the memory away from under
//! it.
//!
//! The socket must be connected, and may be of any type and age. One message of 16 bytes travels on
//! it. A program may keep the socket: it hangs up when the other process ends. The channel itself
//! reports that as [`Disconnected`](crate::Error::Disconnected), later than the socket. It also reports a
//! handle that was dropped.
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

use crate::builder::Builder;
use crate::channel::Channel;
use crate::kind::Kind;
use crate::setup_error::SetupError;

/// The bytes beside the descriptors: they identify a channel and its format.
const GREETING: &[u8; 16] = b"slipring channel";

/// The most descriptors that travel with one message (Linux's `SCM_MAX_FD`).
const MOST: usize = 253;

/// Sends `channel`. Returns [`NotPassable`](SetupError::NotPassable) unless [`Builder::memfd`] made
/// it or this process [`receive`]d it.
///
/// Blocks as the socket does, so only while the socket is full. On an error nothing was sent. A
/// program may send a channel any number of times, to several processes. The channel's seats decide
/// which process gets which role.
pub fn send<K: Kind>(socket: impl AsFd, channel: &Channel<K>) -> Result<(), SetupError> {
    let descriptors = channel.descriptors();
    if descriptors.is_empty() {
        return Err(SetupError::NotPassable);
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&descriptors));
    let text = [IoSlice::new(GREETING)];
    loop {
        match sendmsg(&socket, &text, &mut rights, SendFlags::NOSIGNAL) {
            // Even if a stream took only part of the bytes, it carried the descriptors. Send the
            // rest.
            Ok(sent) => return send_rest(socket.as_fd(), &GREETING[sent.min(GREETING.len())..]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SetupError::os("send the channel over the socket", errno)),
        }
    }
}

fn send_rest(socket: BorrowedFd<'_>, mut rest: &[u8]) -> Result<(), SetupError> {
    while !rest.is_empty() {
        match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent.min(rest.len())..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SetupError::os("send the channel over the socket", errno)),
        }
    }
    Ok(())
}

/// Receives a channel, which must match `builder` as if it were opened by name. Otherwise returns
/// [`Kind`](SetupError::Kind), [`Schema`](SetupError::Schema), or with `exact()` also
/// [`Geometry`](SetupError::Geometry).
///
/// Blocks as the socket does. Returns [`NotHandedOver`](SetupError::NotHandedOver) if something
/// else comes, or if the other process hangs up first; it then closes the descriptors that came.
/// Needs /proc, to open descriptions of its own.
pub fn receive<K: Kind>(socket: impl AsFd, builder: &Builder<K>) -> Result<Channel<K>, SetupError> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut greeting = [0; GREETING.len()];
    let (mut got, mut descriptors) = (0, Vec::new());
    while got < greeting.len() {
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut text = [IoSliceMut::new(&mut greeting[got..])];
        let received = match recvmsg(&socket, &mut text, &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => continue,
            received => received
                .map_err(|errno| SetupError::os("receive a channel over the socket", errno))?,
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
        // A stream may come in pieces, each with up to this many descriptors; no channel has more
        // than one piece can carry.
        if descriptors.len() > MOST {
            return Err(refused("more descriptors than any channel has"));
        }
    }
    if descriptors.is_empty() {
        return Err(refused("a greeting without descriptors"));
    }
    builder.from_fds(descriptors)
}

fn refused(found: &'static str) -> SetupError {
    SetupError::NotHandedOver { found }
}
