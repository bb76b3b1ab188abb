//! A full file system is `NoSpace` when the channel is made. No file is left behind, and no process
//! gets a SIGBUS, unless somebody punches holes. The tests use a tmpfs of one MiB of their own.
//! They also cover other obstacles to a file: a limit on its length, and a file system that cannot
//! set space aside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FallocateFlags, fallocate};
use slipring_tests::{Peer, Room, eventually, is_root};

/// Starts a process whose `SLIPRING_DIR` is a small tmpfs in its own mount namespace, and returns
/// the path by which the test sees it. Returns `None` where only root can have one.
fn small(room: &Room, options: &str) -> Option<(Peer, PathBuf)> {
    let mut peer = room.peer();
    if !is_root() {
        // This needs no root: a shape that no file system holds.
        peer.refused(
            "create ticks capacity=1099511627776",
            "NoSpace",
            &["no space"],
        );
        assert_eq!(room.names(), Vec::<String>::new());
        return None;
    }
    let dir = room.path().join("small");
    fs::create_dir(&dir).unwrap();
    peer.ok("private");
    peer.ok(&format!("mount tmpfs {} {options}", dir.display()));
    peer.ok(&format!("dir {}", dir.display()));
    let seen = peer.sees(&dir);
    Some((peer, seen))
}

/// Starts another process in the same tmpfs.
fn beside(room: &Room, first: &Peer) -> Peer {
    let mut peer = room.peer();
    peer.ok(&format!("join {}", first.pid()));
    peer.ok(&format!("dir {}", room.path().join("small").display()));
    peer
}

fn names(dir: &PathBuf) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// The kinds, with a capacity that fits, and one that does not.
const KINDS: [(&str, &str, &str); 4] = [
    ("kind=spsc", "capacity=1024", "capacity=32768"),
    ("kind=bytes max=112", "capacity=65536", "capacity=2097152"),
    (
        "kind=broadcast consumers=1",
        "capacity=1024",
        "capacity=32768",
    ),
    (
        "kind=broadcast consumers=1 full=overwrite",
        "capacity=1024",
        "capacity=32768",
    ),
];

/// A channel that does not fit is refused with `NoSpace`, and nothing of it is left behind.
#[test]
fn what_does_not_fit_leaves_nothing() {
    for (kind, fits, huge) in KINDS {
        let room = room();
        let Some((mut peer, seen)) = small(&room, "size:1m") else {
            return;
        };
        for verb in ["create", "open-or-create", "producer", "consumer"] {
            for name in ["ticks", "market/ticks"] {
                let words = ["no space for", "data", "smaller capacity", "make room"];
                peer.refused(&format!("{verb} {name} {kind} {huge}"), "NoSpace", &words);
            }
        }
        assert_eq!(names(&seen), ["@market"], "only the domain's directory");
        assert_eq!(names(&seen.join("@market")), Vec::<String>::new());
        // A channel that fits is made all the same, also when the disk was filled meanwhile and
        // emptied again.
        let filler = room.path().join("small/filler");
        let filled = peer.number(&format!("fill {}", filler.display()));
        assert!(filled > 900 << 10, "{filled}");
        for _ in 0..3 {
            peer.refused(
                &format!("producer ticks {kind} {fits}"),
                "NoSpace",
                &["no space for"],
            );
        }
        assert_eq!(names(&seen.join("@market")), Vec::<String>::new());
        fs::remove_file(seen.join("filler")).unwrap();
        peer.ok(&format!("producer ticks {kind} {fits}"));
        peer.ok("push 0 10");
        let mut rx = beside(&room, &peer);
        rx.ok(&format!("consumer ticks {kind} {fits}"));
        assert_eq!(rx.numbers("drain"), (0..10).collect::<Vec<_>>());
    }
}

/// A channel goes on when its file system fills up, also with newcomers.
#[test]
fn a_channel_survives_a_full_disk() {
    for (kind, fits, _) in KINDS {
        let room = room();
        let Some((mut tx, _)) = small(&room, "size:1m") else {
            return;
        };
        tx.ok(&format!("producer ticks {kind} {fits}"));
        let filler = room.path().join("small/filler");
        tx.number(&format!("fill {}", filler.display()));
        // Every page of it is backed: old and new workers use all of it, many times round.
        let mut rx = beside(&room, &tx);
        rx.ok(&format!("consumer ticks {kind} {fits}"));
        for lap in 0..30 {
            tx.ok(&format!("push {} 500", lap * 500));
            assert_eq!(
                rx.numbers("pop 500"),
                (lap * 500..lap * 500 + 500).collect::<Vec<_>>()
            );
        }
        // A failed create beside it disturbs nobody.
        let mut other = beside(&room, &tx);
        other.refused(
            &format!("create other {kind} {fits}"),
            "NoSpace",
            &["no space for"],
        );
        assert_eq!(other.ok("list"), ["ticks"]);
        tx.kill();
        rx.refused("pop 1", "Disconnected", &["died"]);
        other.ok(&format!("producer ticks {kind}"));
        other.ok("push 15000 1");
        assert_eq!(rx.number("pop 1"), 15_000);
    }
}

/// A ring for which there is no memory is not opened: nothing is taken, and the channel goes on in the one that it has.
#[test]
fn a_ring_that_finds_no_space_is_refused() {
    use std::os::unix::fs::MetadataExt;
    for (kind, first, larger) in [
        ("kind=spsc-growing capacity=1048576", 65_536, 131_072),
        (
            "kind=bytes-growing max=112 capacity=16777216",
            128,
            16_777_216,
        ),
    ] {
        let room = room();
        let Some((mut tx, seen)) = small(&room, "size:8m") else {
            return;
        };
        tx.ok(&format!("producer ticks {kind}"));
        let mut rx = beside(&room, &tx);
        rx.ok(&format!("consumer ticks {kind}"));
        let blocks = || fs::metadata(seen.join("ticks/data")).unwrap().blocks();
        let before = blocks();
        for _ in 0..3 {
            let said = tx.ok(&format!("resize-ring {larger}")).join(" ");
            assert!(said.contains("no memory for a ring of"), "{said}");
            assert_eq!(blocks(), before);
        }
        let said = tx.ok(&format!("resize-ring {}", first / 2)).join(" ");
        assert!(said.contains("a power of two from"), "{said}");
        tx.ok("push 0 300");
        assert_eq!(rx.numbers("pop 300"), (0..300).collect::<Vec<_>>());
        // A producer that grows by itself takes what there is, and is full then.
        while tx.ask("try-push 7").is_ok() {}
        tx.refused("try-push 7", "Full", &["full"]);
        assert!(blocks() <= (8 << 20) / 512);
        tx.kill();
        let mut next = beside(&room, &rx);
        next.ok(&format!("producer ticks {kind}"));
        assert!(rx.is_running() && next.is_running());
    }
}

/// Holes in a channel's files that find no space are an error when it is opened, and not a signal.
#[test]
fn unfillable_holes_are_an_error() {
    let parts = |(kind, fits, _)| ["control", "data"].map(|part| (format!("{kind} {fits}"), part));
    for (options, part) in KINDS.into_iter().flat_map(parts) {
        let room = room();
        let Some((mut tx, seen)) = small(&room, "size:1m") else {
            return;
        };
        tx.ok(&format!("create ticks {options}"));
        // Somebody punched a hole, and another file took the space.
        let file = fs::File::options()
            .write(true)
            .open(seen.join("ticks").join(part))
            .unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let len = file.metadata().unwrap().len();
        fallocate(file.as_fd(), punch, 4096, len - 4096).unwrap();
        tx.number(&format!(
            "fill {}",
            room.path().join("small/filler").display()
        ));
        let mut peer = beside(&room, &tx);
        for verb in ["open", "producer", "consumer"] {
            let words = ["no space for", part, "holes", "make room"];
            peer.refused(&format!("{verb} ticks {options}"), "NoSpace", &words);
        }
        // A passive look only reads: it takes no space for a hole in a tmpfs, or is refused.
        let _ = peer.ask("stat ticks");
        assert!(peer.is_running());
        // With room again the holes are filled, and read as if never written.
        fs::remove_file(seen.join("filler")).unwrap();
        peer.ok(&format!("producer ticks {options}"));
        peer.ok(&format!("consumer ticks {options}"));
        peer.ok("push 0 500");
        assert_eq!(peer.numbers("pop 500"), (0..500).collect::<Vec<_>>());
    }
}

/// A file system that has no inodes left is reported as `NoSpace` too.
#[test]
fn missing_inodes_are_no_space_too() {
    // The root of the tmpfs takes one inode; a channel needs five.
    let shapes = |inodes| KINDS.map(|(kind, fits, _)| (inodes, format!("{kind} {fits}")));
    for (inodes, options) in (2..6).flat_map(shapes) {
        let room = room();
        let Some((mut peer, seen)) = small(&room, &format!("nr_inodes:{inodes}")) else {
            return;
        };
        for verb in ["create", "producer"] {
            peer.refused(
                &format!("{verb} ticks {options}"),
                "NoSpace",
                &["no space", "channel"],
            );
        }
        assert_eq!(names(&seen), Vec::<String>::new());
    }
    let room = room();
    let Some((mut peer, _)) = small(&room, "nr_inodes:6") else {
        return;
    };
    peer.ok("create ticks");
    peer.refused("create other", "NoSpace", &["no space"]);
    // Memory that a process has mapped stays until it lets go.
    peer.ok("remove ticks");
    peer.ok("close");
    peer.ok("create other");
}

/// An opener that is refused for want of space has taken none of it.
#[test]
fn refused_openings_take_no_space() {
    for (kind, fits, _) in KINDS {
        let room = room();
        let Some((mut tx, seen)) = small(&room, "size:1m") else {
            return;
        };
        tx.ok(&format!("create ticks {kind} {fits}"));
        tx.ok("close");
        let control = seen.join("ticks/control");
        let control = fs::File::options().write(true).open(control).unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(control.as_fd(), punch, 4096, 8192).unwrap();
        let filler = room.path().join("small/filler");
        let filled = tx.number(&format!("fill {}", filler.display()));
        // Two pages are missing, and one is free.
        let filler = fs::File::options().write(true).open(seen.join("filler"));
        filler.unwrap().set_len(filled - 4096).unwrap();
        let mut peer = beside(&room, &tx);
        for verb in ["open", "producer", "consumer", "stat"] {
            peer.refused(&format!("{verb} ticks"), "NoSpace", &["control", "holes"]);
            let stat = rustix::fs::statfs(&seen).unwrap();
            assert_eq!(stat.f_bavail, 1, "{verb} {kind}");
        }
    }
}

/// Who touches a punched page that a full disk cannot give back ends by SIGBUS. No check at the
/// door can help here: a page is taken away under a mapping, and given to another file.
#[test]
fn touching_an_unbacked_page_is_sigbus() {
    for (kind, fits, _) in KINDS {
        let room = room();
        let Some((mut tx, seen)) = small(&room, "size:1m") else {
            return;
        };
        tx.ok(&format!("producer ticks {kind} {fits}"));
        let mut next = beside(&room, &tx);
        let data = fs::File::options()
            .write(true)
            .open(seen.join("ticks/data"));
        let data = data.unwrap();
        let (punch, len) = (
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            data.metadata().unwrap().len(),
        );
        fallocate(data.as_fd(), punch, 0, len).unwrap();
        drop(data);
        let filler = room.path().join("small/filler");
        assert!(next.number(&format!("fill {}", filler.display())) >= len);
        // A newcomer gets the error.
        next.refused(&format!("consumer ticks {kind}"), "NoSpace", &["holes"]);
        tx.tell("push 0 1");
        assert_eq!(tx.ended_by(), Some(libc::SIGBUS));
    }
}

/// Returns a check that a directory is unchanged: its last change has a time that no clock shows.
fn untouched(dir: &Path) -> impl Fn() -> bool {
    let (file, long_ago) = (fs::File::open(dir).unwrap(), SystemTime::UNIX_EPOCH);
    file.set_modified(long_ago).unwrap();
    move || file.metadata().unwrap().modified().unwrap() == long_ago
}

/// slipring asks the file system before it makes anything in it.
#[test]
fn refused_creations_are_never_begun() {
    for (kind, _, huge) in KINDS {
        let room = room();
        let Some((mut peer, seen)) = small(&room, "size:1m") else {
            return;
        };
        let untouched = untouched(&seen);
        for verb in ["create", "open-or-create", "producer", "consumer"] {
            let words = ["no space for", "data", "1048576 bytes are free"];
            peer.refused(&format!("{verb} ticks {kind} {huge}"), "NoSpace", &words);
        }
        assert!(untouched(), "{kind}: something was made");
        peer.ok(&format!("create ticks {kind}"));
        assert!(!untouched());
    }
}

/// A process that needs pages while others are refused finds all that there are.
#[test]
fn growing_neighbours_are_not_disturbed() {
    let room = room();
    let Some((mut neighbour, seen)) = small(&room, "size:1m") else {
        return;
    };
    let path = |name: &str| room.path().join("small").join(name).display().to_string();
    neighbour.tell(&format!("grow {} 1000000 {}", path("it"), path("stop")));
    eventually("it grows", || seen.join("it").exists());
    let mut peer = room.peer();
    peer.ok(&format!("join {}", neighbour.pid()));
    peer.ok(&format!("dir {}", path("")));
    for (kind, _, huge) in KINDS.iter().cycle().take(400) {
        let refusal = peer.refused(&format!("create ticks {kind} {huge}"), "NoSpace", &[]);
        assert!(refusal.text.contains("are free"), "{refusal:?}");
    }
    fs::write(seen.join("stop"), "").unwrap();
    assert_eq!(neighbour.answer().unwrap(), ["0"], "it was refused");
}

/// Some file systems report a lack of space only halfway; then all is given back.
#[test]
fn a_halfway_refusal_returns_all_space() {
    for (kind, fits, huge) in KINDS {
        let room = room();
        let Some((mut peer, seen)) = small(&room, "size:1m") else {
            return;
        };
        let mut blind = beside(&room, &peer);
        blind.ok("no-fstatfs");
        for _ in 0..3 {
            let words = ["no space for", "data", "make room"];
            blind.refused(&format!("create ticks {kind} {huge}"), "NoSpace", &words);
            assert_eq!(names(&seen), Vec::<String>::new());
        }
        let stat = rustix::fs::statfs(&seen).unwrap();
        assert_eq!(stat.f_bavail, stat.f_blocks, "all of it is free");
        peer.ok(&format!("producer ticks {kind} {fits}"));
    }
}

/// Passes messages for several laps, while the file system is full.
fn goes_round(tx: &mut Peer, rx: &mut Peer) {
    for lap in 0..10 {
        tx.ok(&format!("push {} 400", lap * 400));
        assert_eq!(
            rx.numbers("pop 400"),
            (lap * 400..lap * 400 + 400).collect::<Vec<_>>()
        );
    }
}

#[test]
fn zeros_stand_in_for_fallocate() {
    for (kind, fits, _) in KINDS {
        let options = format!("{kind} {fits}");
        let room = room();
        let (mut tx, mut rx) = (room.peer(), room.peer());
        tx.ok("no-fallocate");
        tx.ok(&format!("memfd {options}"));
        tx.ok(&format!("producer ticks {options}"));
        tx.ok("push 0 3");
        // A live channel is never written over: not by openers, and not by creators.
        let before = room.contents();
        rx.ok("no-fallocate");
        rx.refused(&format!("create ticks {options}"), "AlreadyExists", &[]);
        rx.ok(&format!("open-or-create ticks {options}"));
        before.are_those_of(&room, "a live channel");
        rx.ok(&format!("consumer ticks {options}"));
        assert_eq!(rx.numbers("pop 3"), [0, 1, 2]);
    }
    for (kind, fits, huge) in KINDS {
        let room = room();
        let Some((mut tx, _)) = small(&room, "size:1m") else {
            return;
        };
        tx.ok("no-fallocate");
        tx.refused(&format!("create big {kind} {huge}"), "NoSpace", &["data"]);
        tx.ok(&format!("producer ticks {kind} {fits}"));
        tx.number(&format!(
            "fill {}",
            room.path().join("small/filler").display()
        ));
        let mut rx = beside(&room, &tx);
        rx.ok(&format!("consumer ticks {kind} {fits}"));
        goes_round(&mut tx, &mut rx);
    }
}

/// Uses a file system that really has no `fallocate`, and no limit.
#[test]
fn a_ramfs_serves() {
    if !is_root() {
        return zeros_stand_in_for_fallocate();
    }
    for (kind, fits, _) in KINDS {
        let room = room();
        let dir = room.path().join("small");
        fs::create_dir(&dir).unwrap();
        let mut tx = room.peer();
        tx.ok("private");
        tx.ok(&format!("mount ramfs {}", dir.display()));
        tx.ok(&format!("dir {}", dir.display()));
        tx.ok(&format!("producer ticks {kind} {fits}"));
        let mut rx = beside(&room, &tx);
        rx.ok(&format!("consumer ticks {kind} {fits}"));
        goes_round(&mut tx, &mut rx);
        tx.kill();
        rx.refused("pop 1", "Disconnected", &["died"]);
        rx.ok("leave consumer");
        rx.ok("remove ticks");
    }
}

/// A file system that may keep no space for zeros is named, and no file is left on it.
#[test]
fn an_unfit_file_system_is_named() {
    if !is_root() {
        return zeros_stand_in_for_fallocate();
    }
    let room = room();
    let mut peer = room.peer();
    let layer = |name: &str| {
        let path = room.path().join(name);
        fs::create_dir(&path).unwrap();
        path.display().to_string()
    };
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(layer);
    peer.ok("private");
    let layers = format!("lowerdir:{lower},upperdir:{upper},workdir:{work}");
    peer.ok(&format!("mount overlay {merged} {layers}"));
    peer.ok(&format!("dir {merged}"));
    // With fallocate it serves like any other.
    peer.ok("create ticks");
    peer.ok("remove ticks");
    peer.ok("no-fallocate");
    for (kind, fits, _) in KINDS {
        let words = [
            "control",
            &merged,
            "(overlay)",
            "fallocate",
            "SLIPRING_DIR",
            "tmpfs",
        ];
        peer.refused(&format!("create ticks {kind} {fits}"), "FileSystem", &words);
    }
    assert_eq!(names(&peer.sees(Path::new(&merged))), Vec::<String>::new());
}

/// The kernel ends a process that makes a file longer than allowed; a process that asks first is
/// only refused.
#[test]
fn file_limits_refuse_and_never_kill() {
    for (kind, fits, huge) in KINDS {
        let room = room();
        let mut peer = room.peer();
        peer.ok("limit 100000");
        for way in ["create ticks", "producer market/ticks", "memfd"] {
            let words = ["no space for", "100000 bytes", "RLIMIT_FSIZE", "ulimit -f"];
            peer.refused(&format!("{way} {kind} {huge}"), "NoSpace", &words);
        }
        // Huge pages are files too; the reason why there are none says so.
        peer.ok(&format!("memfd {kind} huge=2m"));
        let pages = peer.ok("pages");
        assert!(pages[2].contains("RLIMIT_FSIZE"), "{pages:?}");
        if is_root() {
            let mount = room.path().join("huge");
            fs::create_dir(&mount).unwrap();
            peer.ok("private");
            peer.ok(&format!("mount hugetlbfs {} pagesize:2M", mount.display()));
            peer.ok(&format!("create large {kind} huge=2m"));
            let pages = peer.ok("pages");
            assert!(pages[2].contains("RLIMIT_FSIZE"), "{pages:?}");
            assert_eq!(names(&peer.sees(&mount)), Vec::<String>::new());
        }
        // Private memory is no file, and a channel that is short enough is made.
        peer.ok(&format!("heap {kind} {huge}"));
        peer.ok(&format!("create ticks {kind} {fits}"));
        // Without any file no remains are left behind either.
        peer.ok("limit 0");
        peer.refused("create other", "NoSpace", &["0 bytes", "RLIMIT_FSIZE"]);
        let left = room.names();
        assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
    }
}
