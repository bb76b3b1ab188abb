//! Runs the same two processes over `SOCK_SEQPACKET`, the kernel's own way to pass messages of
//! varying size in order. Each message takes one `send` and one `recv`. Each side reuses one
//! buffer, and the send buffer of the socket is large.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};

use super::{EndArgs, Tally};
use crate::exit::Failure;

/// The size of the send buffer in bytes. From 100 KiB to 16 MiB it made no difference beyond the
/// noise.
const SEND_BUFFER: usize = 1 << 20;

/// Returns a connected pair: the writer's end, then the reader's end.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    let fail = |errno| Failure::io("make a pair of SOCK_SEQPACKET sockets", errno);
    let flags = SocketFlags::CLOEXEC;
    let (writer, reader) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(fail)?;
    // Only root may go beyond net.core.wmem_max; up to there everybody may.
    if sockopt::set_socket_send_buffer_size_force(&writer, SEND_BUFFER).is_err() {
        sockopt::set_socket_send_buffer_size(&writer, SEND_BUFFER).map_err(fail)?;
    }
    Ok((writer, reader))
}

/// Runs the writing process; its socket is its standard input.
pub(super) fn write(args: &EndArgs) -> Result<(), Failure> {
    let socket = rustix::stdio::stdin();
    let mut work = args.work();
    let mut buffer = vec![0; args.max_size as usize];
    let mut ready = [0];
    receive(socket.as_fd(), &mut ready)?;
    while let Some(size) = work.next() {
        let message = &mut buffer[..size];
        work.fill(message);
        transmit(socket.as_fd(), message)?;
    }
    Ok(())
}

/// Runs the reading process; its socket is its standard input.
pub(super) fn read(args: &EndArgs) -> Result<(), Failure> {
    let socket = rustix::stdio::stdin();
    let mut work = args.work();
    let mut tally = Tally::new(args);
    let mut buffer = vec![0; args.max_size as usize + 1];
    transmit(socket.as_fd(), b"r")?;
    while let Some(size) = work.next() {
        let found = receive(socket.as_fd(), &mut buffer)?;
        if work.number() == 1 {
            tally.start();
        }
        work.check(&buffer[..found], size)?;
        tally.progress(&work)?;
    }
    tally.done(&work)
}

fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match recv(socket.as_fd(), &mut *buffer, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Ok((count, _)) => return Ok(count),
            Err(errno) => return Err(Failure::io("receive from the socket", errno)),
        }
    }
}

fn transmit(socket: impl AsFd, message: &[u8]) -> Result<(), Failure> {
    loop {
        match send(socket.as_fd(), message, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            // The other side went away and reports the reason itself.
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(Failure::Told(1)),
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Failure::io("send to the socket", errno)),
        }
    }
}
