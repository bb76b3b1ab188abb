//! Channels that outlive everybody who uses them, named or passed, for stories that are to hold for both.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use slipring::{bytes, spsc};

use crate::message::Message;
use crate::{Peer, Room, from_fds};

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

fn memfd(options: &str) -> Vec<OwnedFd> {
    let own = |passed: Vec<BorrowedFd<'_>>| {
        let own = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        passed.iter().map(own).collect()
    };
    let capacity = option(options, "capacity").unwrap();
    if options.contains("kind=bytes") {
        let max = option(options, "max").unwrap();
        let builder = bytes::Builder::new(capacity).max_record(max);
        own(builder.memfd().unwrap().descriptors())
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

    /// A new process that may sit down here.
    pub fn peer(&self) -> Peer {
        let passed = self.passed.iter().flatten().flatten();
        self.room
            .peer_with(&passed.map(AsFd::as_fd).collect::<Vec<_>>())
    }

    /// Gives the peer this role of the first or the second channel. (A passed channel is opened once by
    /// each peer, so of that it has one role.)
    #[track_caller]
    pub fn sit(&self, peer: &mut Peer, role: &str, channel: usize) {
        let options = self.options;
        match &self.passed {
            None => {
                peer.ok(&format!("{role} {} {options}", CHANNELS[channel]));
            }
            Some(passed) => {
                let passed: Vec<_> = passed[channel].iter().map(AsFd::as_fd).collect();
                peer.ok(&format!("{} {options}", from_fds(&passed)));
                peer.ok(&format!("{role} {options}"));
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
