//! Channels that outlive all their users, named or passed, for stories that hold for both.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::options::{maker, pairs};
use crate::{Answer, Peer, Refusal, Room, from_fds};

/// Lists the options of a channel of every kind, each with two seats, and with these options
/// besides.
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

/// Returns `true` if consumers come and go, and each begins at the oldest message in the channel.
pub fn is_broadcast(options: &str) -> bool {
    options.contains("kind=broadcast")
}

/// Returns `true` if the producer never waits.
pub fn overwrites(options: &str) -> bool {
    options.contains("full=overwrite")
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

/// Returns the parts of a new channel with these options.
pub fn memfd(options: &str) -> Vec<OwnedFd> {
    let memory = maker(pairs(options)).memfd().unwrap();
    let passed = memory.descriptors();
    let own = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    passed.iter().map(own).collect()
}

impl Place {
    /// Returns a place of named channels, which the first user makes. `program` is the peer's.
    pub fn named(program: &str, options: &'static str) -> Place {
        Place {
            room: Room::new(program),
            options,
            passed: None,
        }
    }

    /// Returns a place of channels in memfds, which every peer of the place inherits.
    pub fn passed(program: &str, options: &'static str) -> Place {
        Place {
            passed: Some([memfd(options), memfd(options)]),
            ..Place::named(program, options)
        }
    }

    /// Returns a place for each of these options, named and passed.
    pub fn all(program: &str, options: &[&'static str]) -> Vec<Place> {
        let both = |options| {
            [
                Place::named(program, options),
                Place::passed(program, options),
            ]
        };
        options.iter().copied().flat_map(both).collect()
    }

    /// Returns a description for messages.
    pub fn shown(&self) -> String {
        let how = if self.passed.is_some() {
            "passed"
        } else {
            "named"
        };
        format!("{how} {}", self.options)
    }

    /// Returns the paths of the first channel's control part, data part and pipes, for a hostile
    /// process. (A named channel has its files once somebody took a seat.)
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

    /// Starts a process that may take a seat here.
    pub fn peer(&self) -> Peer {
        let passed = self.passed.iter().flatten().flatten();
        self.room
            .peer_with(&passed.map(AsFd::as_fd).collect::<Vec<_>>())
    }

    /// Starts a process that has opened the first channel, and has no role. (A named channel must
    /// exist.)
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

    /// Gives the peer this role of the first or the second channel. (Each peer opens a passed
    /// channel once, so it has one role of that.)
    #[track_caller]
    pub fn sit(&self, peer: &mut Peer, role: &str, channel: usize) {
        if let Err(refusal) = self.try_sit(peer, role, channel) {
            panic!("`{role}`: {refusal:?}");
        }
    }

    /// Does the same as `sit`, where it may be refused.
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

    /// Starts a process that has this role of the first channel.
    #[track_caller]
    pub fn seat(&self, role: &str) -> Peer {
        let mut peer = self.peer();
        self.sit(&mut peer, role, 0);
        peer
    }
}
