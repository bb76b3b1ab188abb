//! Decides the kind of a channel's records: the mark in its metadata names it, and the flags must
//! agree with the mark.
//!
//! The process that makes the channel leaves the mark, and nobody changes it. `send` and `recv`
//! follow the mark. They refuse a flag that the mark contradicts, before they take a role.
//!
//! | mark | a record is | `recv` writes |
//! |---|---|---|
//! | none | what its sender made of it | the bytes |
//! | `slipring send --raw` | what one `read(2)` brought, or a line | the bytes |
//! | `slipring send --lines` | a line with its newline, or a piece of a line that is too long | the bytes |
//! | `slipring send --framed` | the payload of a frame | frames: each length, then the bytes |
//!
//! Other metadata belongs to other programs. It counts as no mark, and stays as it is.

use slipring::{Builder, Channel, Kind, SetupError};

use crate::exit::Failure;
use crate::output::Format;

/// The kind of the records, from a flag or a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Pieces of a stream of bytes, cut anywhere.
    Raw,
    /// Lines, each with its newline.
    Lines,
    /// Payloads, each with its length kept.
    Framed,
}

/// The beginning of every mark; the flag follows.
const MARK: &str = "slipring send ";

impl Mode {
    /// Returns the mode for the flags, of which at most one is given.
    pub(crate) fn asked(raw: bool, lines: bool, framed: bool) -> Option<Mode> {
        let flags = [
            (raw, Mode::Raw),
            (lines, Mode::Lines),
            (framed, Mode::Framed),
        ];
        flags
            .iter()
            .find(|(given, _)| *given)
            .map(|(_, mode)| *mode)
    }

    /// Returns the mode that a channel's metadata names, or `None` if it is no mark.
    pub(crate) fn marked(metadata: &[u8]) -> Option<Mode> {
        let end = metadata.iter().rposition(|byte| *byte != 0);
        let text = &metadata[..end.map_or(0, |last| last + 1)];
        let all = [Mode::Raw, Mode::Lines, Mode::Framed];
        all.into_iter().find(|mode| mode.mark().as_bytes() == text)
    }

    /// Returns the mark: metadata that names this mode.
    pub(crate) fn mark(self) -> String {
        format!("{MARK}{}", self.flag())
    }

    fn flag(self) -> &'static str {
        match self {
            Mode::Raw => "--raw",
            Mode::Lines => "--lines",
            Mode::Framed => "--framed",
        }
    }
}

/// Opens the channel, or makes it with the mark of `mode`; passes its mark to `check`; then takes a
/// role.
pub(crate) fn take<K: Kind, Handle, Checked>(
    builder: &Builder<K>,
    mode: Option<Mode>,
    name: &str,
    check: impl Fn(Option<Mode>) -> Result<Checked, Failure>,
    role: fn(&Channel<K>) -> Result<Handle, SetupError>,
) -> Result<(Handle, Checked), Failure> {
    let mark = mode.map(Mode::mark).unwrap_or_default();
    let builder = builder.clone().metadata(mark.as_bytes());
    loop {
        let channel = builder.open_or_create(name)?;
        let checked = check(Mode::marked(channel.metadata()))?;
        match role(&channel) {
            // Somebody removed the channel before we had the role; the next channel may have
            // another mark.
            Err(SetupError::NotFound { .. }) => {}
            taken => return Ok((taken?, checked)),
        }
    }
}

/// Returns the way in which `send` cuts its input for a channel with this mark.
///
/// `recv` writes the same bytes for raw records and for lines. So `send` may send lines to a
/// channel whose records carry no promise. It may not send frames there: a `recv` that does not
/// expect them would drop the lengths.
pub(crate) fn to_send(
    name: &str,
    asked: Option<Mode>,
    found: Option<Mode>,
) -> Result<Mode, Failure> {
    let advice = match (asked, found) {
        (None | Some(Mode::Raw), None | Some(Mode::Raw)) => return Ok(Mode::Raw),
        (Some(Mode::Lines), None | Some(Mode::Raw)) => return Ok(Mode::Lines),
        (None | Some(Mode::Lines), Some(Mode::Lines)) => return Ok(Mode::Lines),
        (Some(Mode::Framed), Some(Mode::Framed)) => return Ok(Mode::Framed),
        (_, Some(Mode::Framed)) => "use --framed, or remove the channel",
        (Some(Mode::Raw), Some(Mode::Lines)) => "use --lines, or remove the channel",
        (Some(Mode::Framed), _) => {
            "remove the channel, then start `recv --framed` or `send --framed` first"
        }
    };
    Err(refusal("send", name, asked, found, advice))
}

/// Returns the format in which `recv` writes the records of a channel with this mark.
///
/// `--raw` only asks for the bytes, which every channel has. `--framed` also suits a channel
/// without a mark: the programs that share it made its records, and frames keep these apart.
pub(crate) fn to_write(
    name: &str,
    asked: Option<Mode>,
    found: Option<Mode>,
) -> Result<Format, Failure> {
    let advice = match (asked, found) {
        (Some(Mode::Raw), _) => return Ok(Format::Bytes),
        (None, None | Some(Mode::Raw | Mode::Lines)) => return Ok(Format::Bytes),
        (Some(Mode::Lines), Some(Mode::Lines)) => return Ok(Format::Bytes),
        (None | Some(Mode::Framed), Some(Mode::Framed)) => return Ok(Format::Framed),
        (Some(Mode::Framed), None) => return Ok(Format::Framed),
        (Some(Mode::Lines), Some(Mode::Framed)) => "use --framed, or --raw for the bytes alone",
        (Some(Mode::Lines), None | Some(Mode::Raw)) => {
            "leave out --lines to write its bytes as they are; \
             or remove the channel, then start `send --lines` or `recv --lines` first"
        }
        (Some(Mode::Framed), Some(Mode::Raw | Mode::Lines)) => {
            "leave out --framed to write its bytes as they are; \
             or remove the channel, then start `send --framed` or `recv --framed` first"
        }
    };
    Err(refusal("recv", name, asked, found, advice))
}

fn refusal(
    verb: &str,
    name: &str,
    asked: Option<Mode>,
    found: Option<Mode>,
    advice: &str,
) -> Failure {
    let found = match found {
        Some(mode) => format!("is marked {}", mode.flag()),
        None => "has no mark that says what its records are".to_string(),
    };
    let asked = match asked {
        Some(mode) => format!("`{verb} {}`", mode.flag()),
        None => format!("`{verb}` without a flag"),
    };
    Failure::Words(format!(
        "channel `{name}` {found}, so {asked} is refused; {advice}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_back() {
        for mode in [Mode::Raw, Mode::Lines, Mode::Framed] {
            let mut metadata = [0; 256];
            let mark = mode.mark();
            metadata[..mark.len()].copy_from_slice(mark.as_bytes());
            assert_eq!(Mode::marked(&metadata), Some(mode));
            // Metadata with anything more belongs to another program.
            metadata[mark.len() + 1] = b'x';
            assert_eq!(Mode::marked(&metadata), None);
        }
        assert_eq!(Mode::marked(&[0; 256]), None);
        assert_eq!(Mode::marked(b"slipring send "), None);
        assert_eq!(Mode::marked(b"lines"), None);
    }
}
