//! Writes answers to standard output, and formats and parses figures.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use crate::exit::Failure;

/// Prints an answer; if standard output is closed, fails with `BrokenPipe` and does not panic.
pub(crate) fn answer(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", text.as_ref().trim_end());
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Told(141)),
        written => written.map_err(|error| Failure::io("write the answer", error)),
    }
}

/// Prints an answer for programs, as JSON.
pub(crate) fn answer_json(value: &Value) -> Result<(), Failure> {
    answer(format!("{value:#}"))
}

/// Returns bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    push_hex(bytes, &mut out);
    out
}

/// Appends bytes in hexadecimal.
pub(crate) fn push_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
        out.extend([digit(byte >> 4), digit(byte & 15)]);
    }
}

/// Returns text with its control characters escaped.
pub(crate) fn in_one_line(text: &str) -> String {
    let mut line = String::new();
    for char in text.chars() {
        match char.is_control() {
            true => line.extend(char.escape_default()),
            false => line.push(char),
        }
    }
    line
}

/// Returns rows as columns: the first row is the head, and the columns named in `right` are flush
/// right.
pub(crate) fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            if column > 0 {
                line.push_str("  ");
            }
            if right.contains(&column) {
                line.push_str(&format!("{cell:>width$}"));
            } else {
                line.push_str(&format!("{cell:<width$}"));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The longest line of a table for people.
const WIDTH: usize = 80;

/// Returns facts as lines of `what  fact`. A long fact goes on below its beginning. It is cut at
/// spaces, after a `/`, and within a word only if that is too long for a line.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let lengths = facts.iter().map(|(what, _)| what.chars().count());
    let space = WIDTH - 2 - lengths.max().unwrap_or(0);
    let mut rows = Vec::new();
    for (what, fact) in facts {
        let mut what = *what;
        for line in wrapped(fact, space) {
            rows.push(vec![what.to_string(), line]);
            what = "";
        }
    }
    table(&rows, &[])
}

/// Returns lines of at most `space` characters. Only the spaces at which the text was cut are
/// missing.
fn wrapped(text: &str, space: usize) -> Vec<String> {
    let mut rest: Vec<char> = text.chars().collect();
    let mut lines = Vec::new();
    while rest.len() > space {
        // A space may be the first character that no longer fits; a slash has to fit.
        let at_space = rest[..=space].iter().rposition(|c| *c == ' ');
        let at_slash = rest[..space].iter().rposition(|c| *c == '/');
        let end = at_space.max(at_slash.map(|at| at + 1));
        let next = rest.split_off(end.filter(|end| *end > 0).unwrap_or(space));
        lines.push(rest.iter().collect());
        rest = next.into_iter().skip_while(|c| *c == ' ').collect();
    }
    lines.push(rest.iter().collect());
    lines
}

/// Parses a number of bytes on the command line: `4096`, `64K`, `1M`, `2G` (powers of 1024).
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1_usize << 30,
        _ => return Err("use a number of bytes, such as 4096, 64K, 1M or 2G".into()),
    };
    let number: usize = digits
        .parse()
        .map_err(|_| "use a number of bytes, such as 4096, 64K, 1M or 2G".to_string())?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "that is more than this machine can address".into())
}

/// Parses a number of bytes as [`parse_bytes`] does, but refuses zero.
pub(crate) fn parse_some_bytes(text: &str) -> Result<usize, String> {
    parse_bytes(text).and_then(|bytes| match bytes {
        0 => Err("it must be at least 1".into()),
        bytes => Ok(bytes),
    })
}

/// Parses an age on the command line: `90s`, `30m`, `12h`, `7d`.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || {
        "use a number of seconds, minutes, hours or days, such as 90s, 30m, 12h or 7d".to_string()
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// Parses a duration on the command line: seconds, or with a unit: `90`, `0.5`, `200ms`, `30s`, `5m`,
/// `2h`, `1d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => Some(0.001),
        "" | "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        "d" => Some(86_400.0),
        _ => None,
    };
    let number = digits.parse::<f64>().ok();
    let seconds = unit.zip(number).map(|(unit, number)| unit * number);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "use a number of seconds, or a unit: 0.5, 30s, 200ms, 5m or 2h".into())
}

/// Returns bytes as people read them: `64 KiB`, exact where it is a round number.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    for (size, unit) in UNITS {
        if bytes >= size {
            let whole = bytes / size;
            return if bytes.is_multiple_of(size) {
                format!("{whole} {unit}")
            } else {
                format!("{:.1} {unit}", bytes as f64 / size as f64)
            };
        }
    }
    format!("{bytes} B")
}

/// Returns an exact number of bytes: `64 KiB` only if it is exactly that.
pub(crate) fn exact(number: u64) -> String {
    if number.is_multiple_of(1 << 10) {
        bytes(number)
    } else {
        format!("{number} B")
    }
}

/// Returns a count with its thousands apart: `1 000 000`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// The shortest run with a rate. A shorter one measures the clock and the first wake-up more than
/// the messages.
const SHORTEST: Duration = Duration::from_millis(1);
/// The text in place of a rate that could not be measured.
pub(crate) const TOO_SHORT: &str = "too short";

/// Returns the amount per second, or `None` if the run was too short to time (below a millisecond).
pub(crate) fn rate(amount: f64, elapsed: Duration) -> Option<f64> {
    (elapsed >= SHORTEST).then(|| amount / elapsed.as_secs_f64())
}

/// Returns a rate as `show` writes it, or `too short`.
pub(crate) fn rate_or_too_short(rate: Option<f64>, show: impl FnOnce(f64) -> String) -> String {
    rate.map_or_else(|| TOO_SHORT.to_string(), show)
}

/// Returns nanoseconds as people read them.
pub(crate) fn nanoseconds(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..10_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// Returns how long ago something was, as people read it.
pub(crate) fn ago(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let age = match seconds {
        0 => nanoseconds(ns),
        1..120 => format!("{:.1} s", ns as f64 / 1e9),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    };
    format!("{age} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An age is told in the unit in which people count it.
    #[test]
    fn ages_have_fitting_units() {
        let second = 1_000_000_000;
        for (ns, shown) in [
            (12_700_000, "12.7 ms ago"),
            (1_418_700_000, "1.4 s ago"),
            (3_599 * second, "59 min ago"),
            (7_200 * second, "2 h ago"),
            (7 * 86_400 * second, "7 days ago"),
        ] {
            assert_eq!(ago(ns), shown);
        }
    }

    /// Sizes are read with and without units, and anything else is refused.
    #[test]
    fn sizes_may_have_units() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64K"), Ok(64 << 10));
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        for bad in [
            "",
            "K",
            "-1",
            "4x",
            "1.5M",
            "99999999999999999999",
            "99999999999G",
        ] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    /// Durations are seconds unless they say otherwise.
    #[test]
    fn durations_may_have_units() {
        for (text, milliseconds) in [
            ("0.5", 500),
            ("200ms", 200),
            ("30s", 30_000),
            ("2m", 120_000),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
        }
        for bad in ["", "s", "-1", "5x", "1e99", "inf", "NaN", "5 s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(bytes(65536), "64 KiB");
        assert_eq!(bytes(1500), "1.5 KiB");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(count(12), "12");
    }

    #[test]
    fn short_runs_have_no_rate() {
        let shown = |micros| {
            let rate = rate(5000.0, Duration::from_micros(micros));
            rate_or_too_short(rate, |rate| count(rate as u64))
        };
        assert_eq!([0, 1, 999].map(shown), [TOO_SHORT; 3]);
        assert_eq!([1000, 2_000_000].map(shown), ["5 000 000", "2 500"]);
    }

    #[test]
    fn long_facts_are_wrapped() {
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(wrapped("ab cd", 5), ["ab cd"]);
        assert_eq!(wrapped("ab cd ef", 5), ["ab cd", "ef"]);
        assert_eq!(wrapped("ab/cdef", 4), ["ab/", "cdef"]);
        assert_eq!(wrapped("abc/defg", 4), ["abc/", "defg"]);
        assert_eq!(wrapped("abcdefghi j", 4), ["abcd", "efgh", "i j"]);
        assert_eq!(wrapped("       x", 4), ["    ", "x"]);
        let long = ("name", "x".repeat(74) + "/" + &"y".repeat(74));
        let lines = format!(
            "name  {}/\n      {1}\nb     c\n",
            "x".repeat(73),
            "y".repeat(74)
        );
        let facts = facts(&[("name", long.1[1..].to_string()), ("b", "c".to_string())]);
        assert_eq!(facts, lines);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = vec![
            vec!["NAME".to_string(), "LEN".to_string()],
            vec!["a".to_string(), "1000".to_string()],
        ];
        assert_eq!(table(&rows, &[1]), "NAME   LEN\na     1000\n");
    }
}
