//! The creator alone chooses who may come in: not the umask, and not the process that first made
//! the default directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use slipring_tests::{Peer, Room, is_root};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

/// A user without any special rights.
const STRANGER: u32 = 65534;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Starts a process of another user.
fn stranger(room: &Room, group: u32) -> Peer {
    let mut peer = room.peer();
    peer.ok(&format!("become {STRANGER} {group}"));
    peer
}

/// Files have the mode that the creator chose, whatever the umask is.
#[test]
fn files_get_the_chosen_mode() {
    for umask in ["000", "022", "077", "777"] {
        for (option, dir, file) in [
            ("", 0o700, 0o600),
            ("mode=600", 0o700, 0o600),
            ("mode=640", 0o750, 0o640),
            ("mode=660", 0o770, 0o660),
            ("mode=644", 0o755, 0o644),
            ("mode=666", 0o777, 0o666),
            // Nobody executes a channel, and nobody gets a bit beyond that.
            ("mode=7777", 0o777, 0o666),
        ] {
            let room = room();
            let mut peer = room.peer();
            peer.ok(&format!("umask {umask}"));
            peer.ok(&format!("create ticks {option}"));
            peer.ok(&format!("create market/ticks {option}"));
            for channel in ["ticks", "@market/ticks"] {
                let what = format!("{channel} {option} umask {umask}");
                assert_eq!(mode(&room.path().join(channel)), dir, "{what}");
                assert_eq!(mode(&room.file(channel, "control")), file, "{what}");
                assert_eq!(mode(&room.file(channel, "data")), file, "{what}");
                assert_eq!(mode(&room.file(channel, "pipe-0")), file, "{what}");
                assert_eq!(mode(&room.file(channel, "pipe-1")), file, "{what}");
            }
            assert_eq!(mode(&room.path().join("@market")), dir);
        }
    }
}

#[test]
fn by_default_another_user_is_refused() {
    let room = room();
    let mut tx = room.peer();
    tx.ok("producer ticks");
    tx.ok("producer market/ticks");
    tx.ok("push 0 3");
    let before = room.contents();
    let refused = ["no permission", "ticks", "ask its owner", "mode()"];
    let mut peer = if is_root() {
        stranger(&room, STRANGER)
    } else {
        // Another user is to us what we are to a directory of the user nobody.
        for name in ["ticks", "@market"] {
            fs::set_permissions(room.path().join(name), fs::Permissions::from_mode(0o000)).unwrap();
        }
        room.peer()
    };
    for verb in ["open", "open-or-create", "consumer", "stat", "remove"] {
        peer.refused(&format!("{verb} ticks"), "Permission", &refused);
        peer.refused(
            &format!("{verb} market/ticks"),
            "Permission",
            &["no permission", "market"],
        );
    }
    if is_root() {
        peer.refused("create ticks", "AlreadyExists", &["ticks"]);
        // In a directory where it may not write it makes nothing.
        peer.refused("create other", "Directory", &["SLIPRING_DIR"]);
        before.are_those_of(&room, "the channel of another");
    } else {
        for name in ["ticks", "@market"] {
            fs::set_permissions(room.path().join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
    let mut rx = room.peer();
    rx.ok("consumer market/ticks");
    assert_eq!(rx.numbers("drain"), [0, 1, 2]);
}

/// A wider mode lets in those whom it names, and no others.
#[test]
fn a_wider_mode_admits_its_group() {
    if !is_root() {
        // Without root the test cannot become another user; the modes themselves are tested above.
        return files_get_the_chosen_mode();
    }
    let group = rustix::process::getegid().as_raw();
    let room = room();
    let mut tx = room.peer();
    tx.ok("umask 077");
    tx.ok("producer ticks mode=660");
    tx.ok("push 0 3");
    let mut outsider = stranger(&room, STRANGER);
    outsider.refused("consumer ticks", "Permission", &["no permission"]);
    let mut member = stranger(&room, group);
    member.ok("consumer ticks");
    assert_eq!(member.numbers("pop 3"), [0, 1, 2]);
    // The seats are the same seats: each user sees the other's, and its end.
    stranger(&room, group).refused("producer ticks", "RoleTaken", &[&tx.pid().to_string()]);
    room.peer()
        .refused("consumer ticks", "RoleTaken", &[&member.pid().to_string()]);
    // The pipes are shared as well: each end notifies the other.
    member.tell("poll-pop 3 1");
    tx.ok("push 3 1");
    member.answer().unwrap();
    tx.ok("push-full");
    tx.tell("poll-push 68 1");
    assert_eq!(member.numbers("pop 64"), (4..68).collect::<Vec<_>>());
    tx.answer().unwrap();
    tx.kill();
    assert_eq!(member.number("pop 1"), 68);
    assert_eq!(member.ok("poll-end"), ["Disconnected(Died)"]);
    member.ok("producer ticks");
    member.ok("push 69 1");
    assert_eq!(member.number("pop 1"), 69);
}

/// A user who may only read the files may look at a channel, but not take a role in it.
#[test]
fn a_reader_may_take_no_role() {
    if !is_root() {
        return by_default_another_user_is_refused();
    }
    let group = rustix::process::getegid().as_raw();
    let room = room();
    let mut tx = room.peer();
    tx.ok("producer ticks mode=640");
    tx.ok("push 0 3");
    let before = room.contents();
    let mut reader = stranger(&room, group);
    for role in ["producer", "consumer"] {
        reader.refused(
            &format!("{role} ticks"),
            "Permission",
            &["no permission", "control"],
        );
    }
    reader.refused("open ticks", "Permission", &["no permission"]);
    assert_eq!(reader.ok("stat ticks")[1], "3");
    assert_eq!(reader.ok("seat ticks producer")[0], "held");
    assert_eq!(reader.ok("list"), ["ticks"]);
    before.are_those_of(&room, "a channel that was looked at");
    tx.kill();
    assert_eq!(reader.ok("seat ticks producer")[0], "died");
}

/// The default directory is the user's own, or it is refused.
#[test]
fn the_default_directory_must_be_private() {
    if !is_root() {
        // Without root there is no private /dev/shm; the test can only see where it would be.
        let default = format!("/dev/shm/slipring-{}", rustix::process::geteuid().as_raw());
        assert_eq!(
            slipring::directory().0.to_str() == Some(&default),
            slipring::directory().1
        );
        return;
    }
    let room = room();
    let mut peer = room.peer();
    peer.ok("private");
    peer.ok("mount tmpfs /dev/shm");
    peer.ok(&format!("become {STRANGER} {STRANGER}"));
    peer.ok("dir");
    peer.ok("umask 000");
    let default = format!("/dev/shm/slipring-{STRANGER}");
    let seen = peer.sees(Path::new(&default));
    // Nobody made it: there is no directory, and a look makes none.
    assert_eq!(peer.ok("list"), Vec::<String>::new());
    peer.refused("open ticks", "NotFound", &["ticks", &default]);
    assert!(!seen.exists());
    // Another user made it.
    fs::create_dir(&seen).unwrap();
    let lines = [
        "create ticks",
        "producer ticks",
        "open ticks",
        "stat ticks",
        "remove ticks",
        "list",
    ];
    let mut refused = |why: &str| {
        for line in lines {
            let words = [
                default.as_str(),
                "not safe",
                why,
                "mode 0700",
                "SLIPRING_DIR",
            ];
            peer.refused(line, "UnsafeDirectory", &words);
        }
    };
    refused("belongs to user 0");
    // The directory is its own, and others may write there.
    chown(&seen, Some(STRANGER), Some(STRANGER)).unwrap();
    for open in [0o777, 0o770, 0o702] {
        fs::set_permissions(&seen, fs::Permissions::from_mode(open)).unwrap();
        refused(&format!("mode {open:04o}"));
    }
    // It is a link, even to a good one.
    fs::set_permissions(&seen, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(&seen, seen.with_file_name("elsewhere")).unwrap();
    symlink("elsewhere", &seen).unwrap();
    refused("no directory");
    fs::remove_file(&seen).unwrap();
    fs::write(&seen, "a file").unwrap();
    refused("no directory");
    // With nothing in the way it is made, for its owner alone.
    fs::remove_file(&seen).unwrap();
    peer.ok("producer ticks");
    peer.ok("push 0 2");
    peer.ok("consumer ticks");
    assert_eq!(peer.numbers("pop 2"), [0, 1]);
    let meta = fs::metadata(&seen).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (STRANGER, 0o700));
}

/// Starts a user without a default directory yet, and returns the path by which the test sees it.
fn newcomer(room: &Room) -> (Peer, PathBuf) {
    let mut peer = room.peer();
    peer.ok("private");
    peer.ok("mount tmpfs /dev/shm");
    peer.ok(&format!("become {STRANGER} {STRANGER}"));
    peer.ok("dir");
    let seen = peer.sees(Path::new(&format!("/dev/shm/slipring-{STRANGER}")));
    (peer, seen)
}

/// Makes, uses, finds and removes a channel of the newcomer's, and one in a domain.
fn lives(peer: &mut Peer) {
    for name in ["ticks", "market/ticks"] {
        peer.ok(&format!("producer {name}"));
        peer.ok("push 0 2");
        peer.ok(&format!("consumer {name}"));
        assert_eq!(peer.numbers("pop 2"), [0, 1]);
        peer.ok("leave producer");
        peer.ok("leave consumer");
    }
    assert_eq!(peer.ok("list"), ["ticks", "market/ticks"]);
    peer.ok("remove ticks");
    peer.ok("remove market/ticks");
}

const UMASKS: [&str; 6] = ["000", "022", "077", "177", "277", "777"];

#[test]
fn any_umask_leaves_directories_usable() {
    for umask in UMASKS {
        let room = room();
        let (mut peer, default) = if is_root() {
            newcomer(&room)
        } else {
            (room.peer(), room.path().into())
        };
        peer.ok(&format!("umask {umask}"));
        lives(&mut peer);
        lives(&mut peer);
        if is_root() {
            assert_eq!(mode(&default), 0o700, "umask {umask}");
        }
        peer.ok("create market/ticks");
        assert_eq!(mode(&default.join("@market")), 0o700, "umask {umask}");
    }
}

/// Earlier releases left the directory so, and so does a process that is killed at that moment.
#[test]
fn unusable_default_directories_are_mended() {
    if !is_root() {
        return any_umask_leaves_directories_usable();
    }
    for found in [0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600] {
        let room = room();
        let (mut peer, seen) = newcomer(&room);
        let leave = |found| {
            fs::set_permissions(&seen, fs::Permissions::from_mode(found)).unwrap();
        };
        fs::create_dir(&seen).unwrap();
        chown(&seen, Some(STRANGER), Some(STRANGER)).unwrap();
        leave(found);
        lives(&mut peer);
        assert_eq!(mode(&seen), 0o700, "{found:04o}");
        // The same holds for a process that only looks.
        leave(found);
        assert_eq!(peer.ok("list"), Vec::<String>::new(), "{found:04o}");
        leave(found);
        peer.refused("stat ticks", "NotFound", &["ticks"]);
        // No umask makes such a mode: somebody meant it, and gets an error.
        leave(found | 0o050);
        let default = format!("/dev/shm/slipring-{STRANGER}");
        let shown = format!("{:04o}", found | 0o050);
        let words = [default.as_str(), &shown, "chmod 700"];
        peer.refused("create ticks", "UnsafeDirectory", &words);
        assert_eq!(mode(&seen), found | 0o050);
    }
}

/// The files in a team's directory belong to the team, whoever makes them.
#[test]
fn groups_are_inherited() {
    if !is_root() {
        // A user cannot give a directory to a group without being in it.
        return files_get_the_chosen_mode();
    }
    const TEAM: u32 = 54321;
    // Root, a member, and an outsider that may write there.
    for (user, group) in [(0, 0), (STRANGER, TEAM), (STRANGER, STRANGER)] {
        for (umask, chosen, open) in UMASKS
            .into_iter()
            .flat_map(|umask| [(umask, 0o660, 0o770), (umask, 0o640, 0o750)])
        {
            let outsider = (user, group) == (STRANGER, STRANGER);
            if outsider && umask.parse::<u32>().unwrap() >= 100 {
                // Such a directory must be opened to its owner first; the kernel then drops the
                // group bit.
                continue;
            }
            let room = room();
            let team = room.path().join("team");
            fs::create_dir(&team).unwrap();
            chown(&team, None, Some(TEAM)).unwrap();
            fs::set_permissions(&team, fs::Permissions::from_mode(0o2777)).unwrap();
            let mut peer = room.peer();
            peer.ok(&format!("dir {}", team.display()));
            peer.ok(&format!("become {user} {group}"));
            peer.ok(&format!("umask {umask}"));
            peer.ok(&format!("create ticks mode={chosen:o}"));
            // A domain's directory does the same, whatever the umask.
            let domains = if outsider { "" } else { "@market" };
            if !outsider {
                peer.ok(&format!("create market/ticks mode={chosen:o}"));
                assert_eq!(mode(&team.join(domains)), 0o2000 | open, "{umask}");
            }
            for dir in [team.join("ticks"), team.join(domains).join("ticks")] {
                let what = format!("{} of {user}:{group}, umask {umask}", dir.display());
                let meta = fs::metadata(&dir).unwrap();
                assert_eq!(meta.gid(), TEAM, "{what}");
                let inherits = if outsider { 0 } else { 0o2000 };
                assert_eq!(meta.mode() & 0o7777, inherits | open, "{what}");
                for part in ["control", "data", "pipe-0", "pipe-1"] {
                    let meta = fs::metadata(dir.join(part)).unwrap();
                    assert_eq!(meta.gid(), TEAM, "{part} in {what}");
                    assert_eq!(meta.mode() & 0o7777, chosen, "{part} in {what}");
                }
            }
            let mut member = stranger(&room, TEAM);
            member.ok(&format!("dir {}", team.display()));
            if chosen == 0o660 {
                member.ok("consumer ticks");
            } else {
                member.ok("stat ticks");
            }
        }
    }
}

/// Another user's creator is at work: it has made its directory, and no file in it yet. That
/// directory stays. A creator of the same user died at that point, under a umask that took its rights
/// away. Its directory is swept.
#[test]
fn others_new_directories_are_not_swept() {
    if !is_root() {
        return any_umask_leaves_directories_usable();
    }
    let room = room();
    fs::set_permissions(room.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let begun = |name: &str, user, mode| {
        let dir = room.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        chown(&dir, Some(user), Some(user)).unwrap();
        dir
    };
    let others = begun(".new-0123456789abcdef", 0, 0o700);
    let own = begun(".new-fedcba9876543210", STRANGER, 0o000);
    stranger(&room, STRANGER).ok("create ticks");
    assert!(others.exists());
    assert!(!own.exists());
}

/// Without /dev/shm, with a file in its place, or with a read-only one, the error says to set SLIPRING_DIR.
#[test]
fn unusable_shm_names_slipring_dir() {
    if !is_root() {
        // Only root can take /dev/shm away; refusals.rs has the paths that are no directories.
        return;
    }
    let default = format!("/dev/shm/slipring-{}", rustix::process::geteuid().as_raw());
    let refused = |peer: &mut Peer, said: &str| {
        for line in ["create ticks", "producer ticks", "consumer market/ticks"] {
            peer.refused(line, "Directory", &[&default, said, "set SLIPRING_DIR"]);
        }
    };
    let room = room();
    let mut peer = room.peer();
    peer.ok("private");
    peer.ok("mount tmpfs /dev");
    peer.ok("dir");
    refused(&mut peer, "No such file or directory");
    fs::write(peer.sees(Path::new("/dev/shm")), "a file").unwrap();
    refused(&mut peer, "Not a directory");
    let mut peer = room.peer();
    peer.ok("private");
    peer.ok("mount tmpfs /dev/shm");
    peer.ok("dir");
    peer.ok("read-only /dev/shm");
    refused(&mut peer, "Read-only file system");
    // The default directory has a channel in it, which may be looked at and no more.
    peer.ok("mount tmpfs /dev/shm");
    // Another process makes it, because its mappings end with it.
    let mut maker = room.peer();
    maker.ok(&format!("join {}", peer.pid()));
    maker.ok("dir");
    maker.ok("create ticks");
    maker.kill();
    peer.ok("read-only /dev/shm");
    for line in [
        "create other",
        "open ticks",
        "producer ticks",
        "remove ticks",
    ] {
        let words = [&default, "Read-only file system", "set SLIPRING_DIR"];
        peer.refused(line, "Directory", &words);
    }
    peer.ok("stat ticks");
    assert_eq!(peer.ok("list"), ["ticks"]);
}
