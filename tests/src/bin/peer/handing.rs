//! Channels handed over Unix sockets.
//!
//! | verb | does |
//! |---|---|
//! | `listen` SOCKET PATH | waits for connections; SOCKET is `stream` or `seqpacket` |
//! | `take-over` | accepts, and receives a channel; says its identity |
//! | `hand-over` SOCKET PATH | connects, and sends the channel that it has |
//! | `hung-up` | waits until the other end of the connection is gone |
//! | `files` | says how many descriptors it has open |
//! | `room-for-files` N | allows N more descriptors, from now on |
//! | `resize` | tries to shorten and lengthen the received channel; says the system's answers |

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::polling;
use crate::worker::{Line, Said, Worker, maker};

fn socket(kind: &str) -> OwnedFd {
    let kind = match kind {
        "stream" => SocketType::STREAM,
        "seqpacket" => SocketType::SEQPACKET,
        kind => panic!("no socket {kind}"),
    };
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

pub(crate) fn obey(worker: &mut Worker, line: &Line<'_>) -> Said {
    match line.word(0) {
        "listen" => {
            let socket = socket(line.word(1));
            rustix::net::bind(&socket, &SocketAddrUnix::new(line.word(2)).unwrap()).unwrap();
            rustix::net::listen(&socket, 8).unwrap();
            worker.socket = Some(socket.into());
            Ok(vec![])
        }
        "take-over" => {
            let listener = worker.socket.as_ref().unwrap();
            let socket = rustix::net::accept_with(listener, SocketFlags::CLOEXEC).unwrap();
            let channel = maker(line).receive(socket.as_fd());
            let said = worker.keep(channel)?;
            worker.connection = Some(socket);
            Ok(said)
        }
        "hand-over" => {
            let socket = socket(line.word(1));
            let address = SocketAddrUnix::new(line.word(2)).unwrap();
            rustix::net::connect(&socket, &address).unwrap();
            worker.memory().hand_over(socket.as_fd())?;
            worker.connection = Some(socket);
            Ok(vec![])
        }
        "hung-up" => {
            let socket = worker.connection.as_ref().unwrap();
            assert_eq!(rustix::io::read(socket, &mut [0; 16]), Ok(0));
            Ok(vec![])
        }
        "files" => {
            // The count leaves out the descriptor by which we look.
            let count = std::fs::read_dir("/proc/self/fd").unwrap().count() - 1;
            Ok(vec![count.to_string()])
        }
        "room-for-files" => {
            // SAFETY: asks whether that number is a descriptor.
            let open = |fd: u64| unsafe { libc::fcntl(fd as i32, libc::F_GETFD) } != -1;
            let mut free = (0..).filter(|fd| !open(*fd));
            // This is the first number that shall not be used.
            let limit = free.nth(line.number(1) as usize).unwrap();
            let limit = libc::rlimit {
                rlim_cur: limit,
                rlim_max: limit,
            };
            // SAFETY: a limit of this process.
            let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
            assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
            Ok(vec![])
        }
        "resize" => {
            let said = |part: usize, by: i64| {
                let descriptors = worker.memory().descriptors();
                let len = rustix::fs::fstat(descriptors[part]).unwrap().st_size;
                match rustix::fs::ftruncate(descriptors[part], (len + by) as u64) {
                    Ok(()) => "resized".to_owned(),
                    Err(errno) => format!("{errno:?}"),
                }
            };
            Ok(vec![
                said(0, -4096),
                said(0, 4096),
                said(1, -4096),
                said(1, 4096),
            ])
        }
        _ => polling::obey(worker, line),
    }
}
