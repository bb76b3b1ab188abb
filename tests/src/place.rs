//! Channels that outlive everybody who uses them, named or passed, for stories that are to hold for both.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use slipring::broadcast::{self, WhenFull};
use slipring::{bytes, spsc};

use crate::message::Message;
use crate::{Answer, Peer, Refusal, Room, from_fds};

/// Options of a channel of every kind there is, each with two seats, and with these besides.
#[macro_export]
macro_rules! kinds {
    ($besides:literal) => {
        [
            concat!("kind=spsc capacity=64 ", $besides),
            concat!("kind=bytes capacity=4096 max=112 ", $besides),
            concat!("kind=broadcast capacity=64 consumers=1 ", $besides),
            concat!(
                "kind=broadcast full=overwrite capacity=64 consumers=1 ",
                $besides
            ),
        ]
    };
}

/// Whether consumers come and go, and each begins at the oldest message that is there.
pub fn is_broadcast(options: &str) -> bool {
    options.contains("kind=broadcast")
}

/// Whether the producer waits for nobody.
pub fn overwrites(options: &str) -> bool {
    options.contains("full=overwrite")
}

/// What is said to whoever comes when the role's only seat is held.
pub fn taken(options: &str, role: &str) -> &'static str {
    match role {
        "consumer" if is_broadcast(options) => "TooManyReaders",
        _ => "RoleTaken",
    }
}

/// The names of a place's channels; for passed ones, just names.
const CHANNELS: [&str; 2] = ["ticks", "tocks"];

/// Two channels of one shape, and the room in which their users live.
pub struct Place {
    /// The room.
    pub room: Room,
    /// The options of the channels, as a peer understands them.
    pub options: &'static str,
    passed: Option<[Vec<OwnedFd>; 2]>,
}

/// The value of an option.
fn option(options: &str, key: &str) -> Option<usize> {
    let mut values = options.split(' ').filter_map(|word| word.split_once('='));
    let value = values.find(|(name, _)| *name == key)?.1;
    Some(value.parse().unwrap())
}

/// The parts of a new channel with these options.
pub fn memfd(options: &str) -> Vec<OwnedFd> {
    let own = |passed: Vec<BorrowedFd<'_>>| {
        let own = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        passed.iter().map(own).collect()
    };
    let capacity = option(options, "capacity").unwrap();
    if options.contains("kind=bytes") {
        let max = option(options, "max").unwrap();
        let builder = bytes::Builder::new(capacity).max_record(max);
        own(builder.memfd().unwrap().descriptors())
    } else if is_broadcast(options) {
        let consumers = option(options, "consumers").unwrap();
        let builder = broadcast::Builder::<Message>::new(capacity).consumers(consumers);
        let when_full = match overwrites(options) {
            true => WhenFull::Overwrite,
            false => WhenFull::Wait,
        };
        own(builder.when_full(when_full).memfd().unwrap().descriptors())
    } else {
        let builder = spsc::Builder::<Message>::new(capacity);
        own(builder.memfd().unwrap().descriptors())
    }
}

impl Place {
    /// Named channels, made by whoever sits down first. `program` is the peer's.
    pub fn named(program: &str, options: &'static str) -> Place {
        Place {
            room: Room::new(program),
            options,
            passed: None,
        }
    }

    /// Channels in memfds, which every peer of the place inherits.
    pub fn passed(program: &str, options: &'static str) -> Place {
        Place {
            passed: Some([memfd(options), memfd(options)]),
            ..Place::named(program, options)
        }
    }

    /// Each of these options, named and passed.
    pub fn all(program: &str, options: &[&'static str]) -> Vec<Place> {
        let both = |options| {
            [
                Place::named(program, options),
                Place::passed(program, options),
            ]
        };
        options.iter().copied().flat_map(both).collect()
    }

    /// What it is, for messages.
    pub fn shown(&self) -> String {
        let how = if self.passed.is_some() {
            "passed"
        } else {
            "named"
        };
        format!("{how} {}", self.options)
    }

    /// Paths of the first channel's control part, data part and pipes, for whoever means it ill. (A named
    /// channel has its files once somebody sat down.)
    pub fn files(&self) -> [PathBuf; 4] {
        match &self.passed {
            None => ["control", "data", "pipe-0", "pipe-1"]
                .map(|part| self.room.file(CHANNELS[0], part)),
            Some(passed) => std::array::from_fn(|part| {
                let number = passed[0][part].as_raw_fd();
                format!("/proc/{}/fd/{number}", std::process::id()).into()
            }),
        }
    }

    /// A new process that may sit down here.
    pub fn peer(&self) -> Peer {
        let passed = self.passed.iter().flatten().flatten();
        self.room
            .peer_with(&passed.map(AsFd::as_fd).collect::<Vec<_>>())
    }

    /// A new process that has opened the first channel, and has no role. (A named one must be there.)
    #[track_caller]
    pub fn opened(&self) -> Peer {
        let mut peer = self.peer();
        let open = match &self.passed {
            None => format!("open {}", CHANNELS[0]),
            Some(passed) => from_fds(&passed[0].iter().map(AsFd::as_fd).collect::<Vec<_>>()),
        };
        peer.ok(&format!("{open} {}", self.options));
        peer
    }

    /// Gives the peer this role of the first or the second channel. (A passed channel is opened once by
    /// each peer, so of that it has one role.)
    #[track_caller]
    pub fn sit(&self, peer: &mut Peer, role: &str, channel: usize) {
        if let Err(refusal) = self.try_sit(peer, role, channel) {
            panic!("`{role}`: {refusal:?}");
        }
    }

    /// As `sit`, where it may be refused.
    #[track_caller]
    pub fn try_sit(&self, peer: &mut Peer, role: &str, channel: usize) -> Result<Answer, Refusal> {
        let options = self.options;
        match &self.passed {
            None => peer.ask(&format!("{role} {} {options}", CHANNELS[channel])),
            Some(passed) => {
                let passed: Vec<_> = passed[channel].iter().map(AsFd::as_fd).collect();
                peer.ask(&format!("{} {options}", from_fds(&passed)))?;
                peer.ask(&format!("{role} {options}"))
            }
        }
    }

    /// A new process that has this role of the first channel.
    #[track_caller]
    pub fn seat(&self, role: &str) -> Peer {
        let mut peer = self.peer();
        self.sit(&mut peer, role, 0);
        peer
    }
}
