//! Reads the options of a channel, as tests spell them (`kind=bytes capacity=4096`). The program
//! `peer` lists them.

use std::time::Duration;

use slipring::HugePages;
use slipring::broadcast::Seek;
use slipring_testkit::{Maker, MessageType, Terms, kinds};

/// Returns the pairs of key and value among these words.
pub fn pairs(words: &str) -> impl Iterator<Item = (&str, &str)> {
    let words = words.split_whitespace();
    words.filter_map(|word| word.split_once('='))
}

/// Returns the builder that the options describe. Options of other things are passed over.
pub fn maker<'o>(options: impl IntoIterator<Item = (&'o str, &'o str)>) -> Box<dyn Maker> {
    let (mut name, mut overwrites) = ("spsc", false);
    let mut terms = Terms {
        join: Some(Seek::Oldest),
        ..Terms::default()
    };
    for (key, value) in options {
        let number = || value.parse::<usize>().unwrap();
        let milliseconds = || Some(Duration::from_millis(number() as u64));
        match (key, value) {
            ("kind", _) => (name, terms.message) = kind(value),
            ("full", "overwrite") => overwrites = true,
            ("capacity", _) => terms.capacity = Some(number()),
            ("max", _) => terms.max_record = Some(number()),
            ("producers", _) => terms.producers = Some(number()),
            ("consumers", _) => terms.consumers = Some(number()),
            ("held", _) => terms.held = Some(number()),
            ("join", "default") => terms.join = None,
            ("mode", _) => terms.mode = Some(u32::from_str_radix(value, 8).unwrap()),
            ("metadata", _) => terms.metadata = Some(value.to_owned()),
            ("patience", _) => terms.patience = milliseconds(),
            ("wait", "sleep") => terms.spin_for = Some(Duration::ZERO),
            // An hour.
            ("wait", "poll") => terms.spin_for = Some(Duration::from_secs(3600)),
            ("check", _) => terms.check_every = milliseconds(),
            ("huge", "2m") => terms.huge = Some(HugePages::TwoMiB),
            ("huge", "1g") => terms.huge = Some(HugePages::OneGiB),
            ("exact", _) => terms.exact = true,
            ("shrinks", _) => terms.shrinks = true,
            _ => {}
        }
    }
    if overwrites {
        name = "overwriting";
    }
    let kind = kinds::named(name).unwrap_or_else(|| panic!("no kind {name}"));
    (kind.maker)(&terms)
}

/// Returns the kind and the messages of `broadcast-packet`, of `broadcast`, or of `packet`, which
/// is `spsc`.
fn kind(value: &str) -> (&str, MessageType) {
    let (name, message) = match value.split_once('-') {
        _ if kinds::named(value).is_some() => (value, ""),
        Some(both) => both,
        None => ("spsc", value),
    };
    let message = match message {
        "" => MessageType::Message,
        "twin" => MessageType::Twin,
        "small" => MessageType::Small,
        "u64" => MessageType::Number,
        "packet" => MessageType::Packet,
        "frame" => MessageType::Frame,
        other => panic!("no kind {other}"),
    };
    (name, message)
}
