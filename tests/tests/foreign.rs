//! Files beside channels that belong to no channel stay as they are, whoever removes or sweeps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkfifoat};
use slipring_tests::{Room, kinds};

fn room() -> Room {
    Room::new(env!("CARGO_BIN_EXE_peer"))
}

fn fifo(path: PathBuf) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
}

/// A thing in somebody's own directory: its description, the way to make it, and the part that the
/// refusal names.
type Thing = (&'static str, fn(&Path), &'static str);

/// Things that no channel has, beside anything else that is there.
const THINGS: [Thing; 10] = [
    (
        "a file",
        |dir| fs::write(dir.join("beach.jpg"), "the sea").unwrap(),
        "a file `beach.jpg`",
    ),
    (
        "a name that is no text",
        |dir| fs::write(dir.join(OsStr::from_bytes(b"\xff.jpg")), "the sea").unwrap(),
        ".jpg`",
    ),
    (
        "a hidden file",
        |dir| fs::write(dir.join(".hidden"), "the sea").unwrap(),
        "a file `.hidden`",
    ),
    (
        "a directory",
        |dir| fs::create_dir(dir.join("vacation")).unwrap(),
        "a directory `vacation`",
    ),
    (
        "a directory with a pipe's name",
        |dir| fs::create_dir(dir.join("pipe-5")).unwrap(),
        "a directory `pipe-5`",
    ),
    (
        "a file with a pipe's name",
        |dir| fs::write(dir.join("pipe-2"), "a photo of a pipe").unwrap(),
        "a file `pipe-2`",
    ),
    (
        "a pipe of no seat",
        |dir| fifo(dir.join("pipe-126")),
        "a FIFO `pipe-126`",
    ),
    (
        "a pipe with another name",
        |dir| fifo(dir.join("pipe-03")),
        "a FIFO `pipe-03`",
    ),
    (
        "a FIFO of somebody's",
        |dir| fifo(dir.join("pipe")),
        "a FIFO `pipe`",
    ),
    (
        "a link",
        |dir| symlink("elsewhere", dir.join("album")).unwrap(),
        "a symbolic link `album`",
    ),
];

/// Directories that hold only names of ours, and belong to somebody else all the same.
const IMPOSTORS: [Thing; 7] = [
    ("an empty directory", |_| {}, "nothing at all"),
    (
        "a file `control`",
        |dir| fs::write(dir.join("control"), "of the camera").unwrap(),
        "not its contents",
    ),
    (
        "an empty file `control`",
        |dir| fs::write(dir.join("control"), "").unwrap(),
        "not its contents",
    ),
    (
        "a file `data`",
        |dir| fs::write(dir.join("data"), "of the camera").unwrap(),
        "not its contents",
    ),
    (
        "a directory `control`",
        |dir| fs::create_dir(dir.join("control")).unwrap(),
        "a directory `control`",
    ),
    (
        "a link `control`",
        |dir| symlink("/dev/shm", dir.join("control")).unwrap(),
        "a symbolic link `control`",
    ),
    (
        "a link `data`",
        |dir| symlink("/dev/shm/slipring-0123456789abcde", dir.join("data")).unwrap(),
        "a symbolic link `data`",
    ),
];

#[test]
fn foreign_directories_are_not_removed() {
    for (what, make, found) in THINGS.into_iter().chain(IMPOSTORS) {
        let room = room();
        for (name, dir) in [("photos", "photos"), ("market/photos", "@market/photos")] {
            let dir = room.path().join(dir);
            fs::create_dir_all(&dir).unwrap();
            make(&dir);
            let before = room.contents();
            let words = [dir.to_str().unwrap(), "was not removed", found, "by hand"];
            let mut peer = room.peer();
            peer.refused(&format!("remove {name}"), "NotRemoved", &words);
            before.are_those_of(&room, what);
        }
    }
}

#[test]
fn channels_beside_foreign_files_stay() {
    for (options, (what, make, found)) in kinds!("")
        .into_iter()
        .flat_map(|options| THINGS.map(|thing| (options, thing)))
    {
        let room = room();
        let mut peer = room.peer();
        peer.ok(&format!("producer ticks {options}"));
        peer.ok("push 0 3");
        peer.ok("leave producer");
        let ours = room.contents();
        let dir = room.path().join("ticks");
        make(&dir);
        let before = room.contents();
        peer.refused("remove ticks", "NotRemoved", &["ticks", found]);
        // The same holds for removal by the open channel.
        peer.ok(&format!("open ticks {options}"));
        peer.refused("remove", "NotRemoved", &["ticks", found]);
        before.are_those_of(&room, what);
        // It is a channel still, and can be removed without the thing.
        peer.ok("consumer");
        assert_eq!(peer.numbers("pop 3"), [0, 1, 2], "{what}");
        peer.ok("leave consumer");
        let paths = |entry: fs::DirEntry| entry.path();
        let entries = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| paths(entry.unwrap()));
        for path in entries.filter(|path| !ours.has(path)) {
            match fs::symlink_metadata(&path).unwrap().is_dir() {
                true => fs::remove_dir(path).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
        peer.ok("remove");
        assert_eq!(room.names(), Vec::<String>::new(), "{what}");
    }
}

/// A sweep leaves files that only look like litter.
#[test]
fn foreign_litter_is_not_swept() {
    let (exact, parts) = (".new-0123456789abcdef", ["control", "data"]);
    for base in ["", "@market"] {
        let room = room();
        let base = room.path().join(base);
        fs::create_dir_all(&base).unwrap();
        // Names that slipring never gives, of directories with the content of ours.
        for name in [
            ".old-photos",
            ".new-",
            ".old-",
            ".new-0123456789ABCDEF",
            ".old-0123456789abcde",
            ".old-0123456789abcdef0",
            ".old-0123456789abcdeg",
            ".tmp-0123456789abcdef",
        ] {
            fs::create_dir(base.join(name)).unwrap();
            for part in parts {
                fs::write(base.join(name).join(part), "mine").unwrap();
            }
        }
        // Names of ours, of directories with other content, and of things that are no directory.
        for (number, (_, make, _)) in THINGS.into_iter().enumerate() {
            let dir = base.join(format!(".old-{number:016x}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("control"), "mine").unwrap();
            make(&dir);
        }
        fs::write(base.join(".old-00000000000000ff"), "a file").unwrap();
        symlink(".old-photos", base.join(".old-00000000000000fe")).unwrap();
        let before = room.contents();
        // This is litter.
        fs::create_dir(base.join(exact)).unwrap();
        for part in parts {
            fs::write(base.join(exact).join(part), "").unwrap();
        }
        let mut peer = room.peer();
        for name in ["ticks", "market/ticks"] {
            peer.ok(&format!("create {name}"));
            peer.ok(&format!("remove {name}"));
        }
        if !base.ends_with("@market") {
            // The domain went with its last channel.
            assert!(!base.join("@market").exists());
        }
        before.are_those_of(&room, "what others have");
    }
}
