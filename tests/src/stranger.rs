//! A hostile process at a Unix socket: to a process that receives a channel it sends none, or not
//! quite one.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketType, sendmsg,
};

use crate::{Peer, Room};

/// The bytes beside the descriptors.
pub const GREETING: &[u8; 16] = b"slipring channel";

/// The pieces that a hostile process sends in place of a channel, each with its descriptors.
pub type Pieces<'d> = Vec<(&'d [u8], Vec<BorrowedFd<'d>>)>;

/// Starts a peer that waits for connections, and returns it with its path.
pub fn listener(room: &Room, socket: &str) -> (Peer, PathBuf) {
    let mut peer = room.peer();
    let path = room.path().join(format!("socket-{}", peer.pid()));
    peer.ok(&format!("listen {socket} {}", path.display()));
    (peer, path)
}

/// Connects to the peer, which receives, as a hostile process; sends; hangs up.
pub fn sends(to: &mut (Peer, PathBuf), socket: &str, pieces: &Pieces<'_>) {
    let kind = match socket {
        "stream" => SocketType::STREAM,
        _ => SocketType::SEQPACKET,
    };
    let stranger = rustix::net::socket(AddressFamily::UNIX, kind, None).unwrap();
    rustix::net::connect(&stranger, &SocketAddrUnix::new(&to.1).unwrap()).unwrap();
    for (text, descriptors) in pieces {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(rights.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let text = [IoSlice::new(text)];
        // A receiver that has heard enough hangs up.
        let _ = sendmsg(&stranger, &text, &mut rights, SendFlags::NOSIGNAL);
    }
}
