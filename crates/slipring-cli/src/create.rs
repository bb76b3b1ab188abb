//! `slipring create`: makes a channel with the shape, the permissions, the pages and the metadata
//! that its users shall find. It refuses to touch a channel that exists.

use serde_json::json;
use slipring::{HugePages, Pages, bytes};

use crate::exit::Failure;
use crate::mode::Mode;
use crate::text;

/// Make a named `bytes` channel
///
/// Programs that know the message type make channels of fixed-size messages (`spsc`, `broadcast`)
/// themselves.
///
/// Without --raw, --lines or --framed the channel has no mark: it takes raw bytes and lines, but no
/// frames, and recv refuses --lines there.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channel: `topic` or `domain/topic`
    name: String,
    /// Bytes of the ring, a power of two
    #[arg(long, visible_alias = "capacity", default_value = "512K", value_parser = text::parse_bytes, allow_negative_numbers = true)]
    ring: usize,
    /// Let the ring grow up to this many bytes, a power of two, while it is in use; it takes memory only as it grows
    #[arg(long, visible_alias = "max-capacity", value_parser = text::parse_bytes, allow_negative_numbers = true)]
    max_ring: Option<usize>,
    /// The largest record in bytes [default: half the ring, less 8]
    #[arg(long, value_parser = text::parse_bytes, allow_negative_numbers = true)]
    max_record: Option<usize>,
    /// Permissions of the channel's files, as for chmod
    #[arg(long, default_value = "600", value_parser = mode)]
    mode: u32,
    /// Use huge pages of this size for the data, 2M or 1G; if there are none, use ordinary pages
    /// and say so
    #[arg(long, value_parser = huge)]
    huge: Option<HugePages>,
    /// Store up to 256 bytes for the channel's users
    #[arg(long, default_value = "", conflicts_with = "mark")]
    metadata: String,
    /// Mark the channel for raw bytes, as `send --raw` does
    #[arg(long, group = "mark")]
    raw: bool,
    /// Mark the channel for lines, as `send --lines` does
    #[arg(long, group = "mark")]
    lines: bool,
    /// Mark the channel for frames, as `send --framed` does
    #[arg(long, group = "mark")]
    framed: bool,
    /// Print the new channel as JSON
    #[arg(long)]
    json: bool,
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| mode & !0o666 == 0 && mode & 0o600 == 0o600)
        .ok_or_else(|| {
            "use an octal mode of read and write bits, both for the owner, such as 600 or 660"
                .into()
        })
}

/// Parses a size of huge pages from the command line.
pub(crate) fn huge(text: &str) -> Result<HugePages, String> {
    match text::parse_bytes(text) {
        Ok(0x20_0000) => Ok(HugePages::TwoMiB),
        Ok(0x4000_0000) => Ok(HugePages::OneGiB),
        _ => Err("use 2M or 1G".into()),
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mark = Mode::asked(args.raw, args.lines, args.framed).map(Mode::mark);
    let metadata = mark.as_deref().unwrap_or(&args.metadata);
    let mut builder = bytes::Builder::new(args.ring)
        .mode(args.mode)
        .huge_pages(args.huge.unwrap_or_default())
        .metadata(metadata.as_bytes());
    if let Some(max_record) = args.max_record {
        builder = builder.max_record(max_record);
    }
    if let Some(max_ring) = args.max_ring {
        builder = builder.max_capacity(max_ring);
    }
    let channel = builder.create(&args.name)?;
    let (geometry, pages) = (channel.geometry(), channel.pages());
    let max_record = geometry.slot_size - bytes::PREFIX;
    if args.json {
        return text::answer_json(&json!({
            "name": args.name,
            "kind": geometry.kind.name(),
            "ring": geometry.capacity,
            "max_ring": geometry.largest_capacity(),
            "max_record": max_record,
            "mode": format!("{:04o}", args.mode),
            "pages": {
                "asked": pages.asked.bytes(),
                "got": pages.got.bytes(),
                "reason": pages.reason,
            },
        }));
    }
    let ring = match geometry.growth {
        None => text::bytes(geometry.capacity),
        Some(growth) => format!(
            "{} to {}",
            text::bytes(geometry.capacity),
            text::bytes(growth.max_capacity)
        ),
    };
    text::answer(format!(
        "{}: {}, ring {}, records up to {}, mode {:04o}, {}",
        args.name,
        geometry.kind.name(),
        ring,
        text::exact(max_record),
        args.mode,
        pages_in_words(pages),
    ))
}

fn pages_in_words(pages: &Pages) -> String {
    match &pages.reason {
        None => pages.got.to_string(),
        Some(reason) => format!("{} instead of {} ({reason})", pages.got, pages.asked),
    }
}
