//! The requests of a test to the operating system, for this process alone.
//!
//! | verb | does |
//! |---|---|
//! | `dir` (PATH) | sets or unsets `SLIPRING_DIR` |
//! | `become` UID GID; `umask` OCTAL | becomes another user; sets another mask |
//! | `private`, `join` PID | enters a mount namespace of its own; enters that of another process |
//! | `mount` KIND PATH OPTIONS | mounts in the private mount namespace |
//! | `fill` PATH | writes a file until there is no space left |
//! | `grow` PATH BYTES STOP | takes BYTES for a file and gives them back, until the file STOP is there; says how often there were too few |
//! | `no-fallocate`, `no-fstatfs` | makes this call fail on every file system, from now on |
//! | `limit` BYTES | sets the largest size of its files |
//! | `lock` PATH BYTE (`shared`), `unlock` | takes an open-file-description lock, as a recoverer does, or one for reading |
//! | `memory` | says the most memory that it ever had, in KiB |
//! | `bind` PATH, `recv-fds`; `send-fds` PATH | passes a channel over a Unix socket |

use std::ffi::CString;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::worker::{Line, Said, Worker, maker};

#[track_caller]
fn must(result: libc::c_int) {
    assert!(result == 0, "{}", std::io::Error::last_os_error());
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

pub(crate) fn obey(worker: &mut Worker, line: &Line<'_>) -> Said {
    match line.word(0) {
        "dir" => match line.words.get(1) {
            // SAFETY: this process has one thread.
            Some(path) => unsafe { std::env::set_var("SLIPRING_DIR", path) },
            // SAFETY: this process has one thread.
            None => unsafe { std::env::remove_var("SLIPRING_DIR") },
        },
        "become" => become_user(line.number(1) as u32, line.number(2) as u32),
        "umask" => {
            let mask = u32::from_str_radix(line.word(1), 8).unwrap();
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        }
        "private" => private(),
        "join" => {
            let file = File::open(format!("/proc/{}/ns/mnt", line.word(1))).unwrap();
            // SAFETY: a namespace file that lives during the call.
            must(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNS) });
        }
        "mount" => {
            let options = line
                .words
                .get(3)
                .map_or(String::new(), |words| words.replace(':', "="));
            mount(line.word(1), line.word(2), &options, 0);
        }
        "read-only" => mount(
            "tmpfs",
            line.word(1),
            "",
            libc::MS_REMOUNT | libc::MS_RDONLY,
        ),
        "fill" => return Ok(vec![fill(line.word(1)).to_string()]),
        "grow" => {
            let refused = grow(line.word(1), line.number(2), line.word(3));
            return Ok(vec![refused.to_string()]);
        }
        "no-fallocate" => refuse(libc::SYS_fallocate, libc::EOPNOTSUPP),
        "no-fstatfs" => refuse(libc::SYS_fstatfs, libc::ENOSYS),
        "limit" => {
            let most = Some(line.number(1));
            let limit = rustix::process::Rlimit {
                current: most,
                maximum: most,
            };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        }
        "lock" => {
            let shared = line.words.get(3) == Some(&"shared");
            let mut options = File::options();
            let file = options.read(true).write(!shared).open(line.word(1));
            let file = file.unwrap();
            lock(&file, line.number(2), shared);
            worker.locked.push(file.into());
        }
        "unlock" => worker.locked.clear(),
        "memory" => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let peak = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))
                .unwrap();
            return Ok(vec![peak.trim().trim_end_matches(" kB").to_owned()]);
        }
        "bind" => worker.socket = Some(UnixListener::bind(line.word(1)).unwrap()),
        "send-fds" => send(worker, line.word(1)),
        "recv-fds" => return receive(worker, line),
        verb => panic!("no verb {verb}"),
    }
    Ok(vec![])
}

fn become_user(uid: u32, gid: u32) {
    // SAFETY: an empty list of groups.
    must(unsafe { libc::setgroups(0, std::ptr::null()) });
    // SAFETY: changes who this process is, nothing else.
    must(unsafe { libc::setresgid(gid, gid, gid) });
    // SAFETY: as above.
    must(unsafe { libc::setresuid(uid, uid, uid) });
    // As for any process of that user: its /proc/self is its own.
    // SAFETY: a flag of this process.
    must(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) });
}

fn private() {
    // SAFETY: this process has one thread, and its file system view becomes its own.
    must(unsafe { libc::unshare(libc::CLONE_NEWNS) });
    let (root, none) = (c("/"), c("none"));
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    let nothing = std::ptr::null();
    // SAFETY: strings that live during the call.
    must(unsafe { libc::mount(none.as_ptr(), root.as_ptr(), nothing, flags, nothing.cast()) });
}

fn mount(kind: &str, path: &str, options: &str, flags: libc::c_ulong) {
    let (kind, path, options) = (c(kind), c(path), c(options));
    // SAFETY: strings that live during the call.
    let result = unsafe {
        libc::mount(
            kind.as_ptr(),
            path.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    must(result);
}

/// Returns the number of bytes for which there was room.
fn fill(path: &str) -> usize {
    let mut file = File::create(path).unwrap();
    let mut written = 0;
    while let Ok(count @ 1..) = file.write(&[0xa5; 4096]) {
        written += count;
    }
    written
}

/// Makes this system call fail with this error, from now on.
fn refuse(call: libc::c_long, errno: i32) {
    slipring_tests::sandbox::filter(call, None, libc::SECCOMP_RET_ERRNO | errno as u32);
}

/// Grows and shrinks a file, as a neighbour would; returns how often it found no room.
fn grow(path: &str, bytes: u64, stop: &str) -> u64 {
    let file = File::create(path).unwrap();
    let (mut refused, mut last) = (0, false);
    while !last {
        // It grows once more after the stop request: at least one time.
        last = std::path::Path::new(stop).exists();
        let flags = rustix::fs::FallocateFlags::empty();
        refused += u64::from(rustix::fs::fallocate(&file, flags, 0, bytes).is_err());
        file.set_len(0).unwrap();
    }
    refused
}

fn lock(file: &File, byte: u64, shared: bool) {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    lock.l_type = kind as libc::c_short;
    lock.l_start = byte as libc::off_t;
    lock.l_len = 1;
    // SAFETY: an open descriptor, and a structure that outlives the call.
    must(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) });
}

fn send(worker: &Worker, path: &str) {
    let socket = UnixStream::connect(path).unwrap();
    let descriptors = worker.channel.as_ref().unwrap().descriptors();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(
        &socket,
        &[IoSlice::new(b"!")],
        &mut ancillary,
        SendFlags::empty(),
    );
    assert_eq!(sent, Ok(1));
}

fn receive(worker: &mut Worker, line: &Line<'_>) -> Said {
    let (socket, _) = worker.socket.as_ref().unwrap().accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut slices = [IoSliceMut::new(&mut byte)];
    recvmsg(
        socket.as_fd(),
        &mut slices,
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let channel = maker(line).passed(descriptors.collect())?;
    let unique = channel.stat()?.header.identity.unique;
    worker.channel = Some(channel);
    Ok(vec![format!("{unique:032x}")])
}
