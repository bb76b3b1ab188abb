//! `SOCK_SEQPACKET`: the kernel's own reliable, ordered records, through a pair of sockets.
//!
//! Both sides block in the kernel, as its users do. The send buffer is as large as the others'
//! rings (the kernel doubles it for its book-keeping).

use super::{About, Kind, Mode, NOTHING_TO_ALL};
use crate::duel::{Run, Sample, duel};
use crate::message::{Lengths, check_bytes, fill_bytes};
use std::io::Error;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub const ABOUT: About = About {
    name: "SEQPACKET",
    kind: Kind::Peer,
    package: None,
    modes: &[],
    round_trip: false,
    records: &[Mode::One],
    broadcast: NOTHING_TO_ALL,
    slip: false,
    aligned: false,
    spins: false,
    how: "`socketpair`, blocking `send` / `recv`",
};

pub fn run(lengths: &Lengths, run: &Run) -> Sample {
    let (tx, rx) = pair(run.ring_bytes);
    let buffer = || vec![0_u8; lengths.max()];
    duel(
        run,
        || {
            let mut record = buffer();
            move |range: Range<u64>| {
                for seq in range {
                    let record = &mut record[..lengths.of(seq)];
                    fill_bytes(record, seq);
                    // SAFETY: `record` is readable for its whole length.
                    let sent = unsafe {
                        libc::send(tx.as_raw_fd(), record.as_ptr().cast(), record.len(), 0)
                    };
                    assert_eq!(
                        sent,
                        record.len() as isize,
                        "send: {}",
                        Error::last_os_error()
                    );
                }
            }
        },
        || {
            let mut record = buffer();
            move |range: Range<u64>| {
                let mut bad = 0;
                for seq in range {
                    let (place, room) = (record.as_mut_ptr().cast(), record.len());
                    // SAFETY: `record` is writable for its whole length.
                    let got = unsafe { libc::recv(rx.as_raw_fd(), place, room, 0) };
                    assert!(got >= 0, "recv: {}", Error::last_os_error());
                    bad |= (got as usize ^ lengths.of(seq)) as u64;
                    bad |= check_bytes(&record[..got as usize], seq);
                }
                bad
            }
        },
    )
}

/// Returns a pair of connected sockets whose send buffers hold `bytes`.
fn pair(bytes: usize) -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two descriptors.
    let failed = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) };
    assert_eq!(failed, 0, "socketpair: {}", Error::last_os_error());
    // SAFETY: the kernel has just given us this descriptor.
    let [a, b] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let size = bytes as libc::c_int;
    for option in [libc::SO_SNDBUFFORCE, libc::SO_SNDBUF] {
        let (value, len) = (&raw const size, size_of_val(&size) as libc::socklen_t);
        // SAFETY: the option's value is an int, at `value`.
        let failed =
            unsafe { libc::setsockopt(a.as_raw_fd(), libc::SOL_SOCKET, option, value.cast(), len) };
        // The first option needs a privilege and may pass `wmem_max`; the second needs none.
        if failed == 0 {
            break;
        }
    }
    (a, b)
}
