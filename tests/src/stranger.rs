//! A stranger at a Unix socket, who sends what is no channel, or not quite, to a process that receives one.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketType, sendmsg,
};

use crate::{Peer, Room};

/// What the bytes beside the descriptors say.
pub const GREETING: &[u8; 16] = b"slipring channel";

/// What a stranger sends in place of a channel: pieces, each with its descriptors.
pub type Pieces<'d> = Vec<(&'d [u8], Vec<BorrowedFd<'d>>)>;

/// A peer that waits for connections, and where.
pub fn listener(room: &Room, socket: &str) -> (Peer, PathBuf) {
    let mut peer = room.peer();
    let path = room.path().join(format!("socket-{}", peer.pid()));
    peer.ok(&format!("listen {socket} {}", path.display()));
    (peer, path)
}

/// Connects as a stranger to the peer, which receives; sends; hangs up.
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
        // Who has heard enough hangs up.
        let _ = sendmsg(&stranger, &text, &mut rights, SendFlags::NOSIGNAL);
    }
}
