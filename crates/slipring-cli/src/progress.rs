//! Progress on standard error, where that is a terminal that the answer does not go to; silence elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressState, ProgressStyle};

use crate::text;

/// A bar, or nothing.
pub(crate) struct Progress(Option<ProgressBar>);

/// Whether anybody would see a bar.
pub(crate) fn wanted() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether standard output is the terminal that a bar would be on: each would overwrite the other.
fn shared() -> bool {
    let terminal = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino, stat.st_rdev);
    let [stdout, stderr] = [rustix::stdio::stdout(), rustix::stdio::stderr()]
        .map(|descriptor| rustix::fs::fstat(descriptor).ok().map(terminal));
    std::io::stdout().is_terminal() && stdout == stderr
}

impl Progress {
    /// As [`bytes`](Progress::bytes), for a verb that writes to standard output meanwhile: no bar if that is
    /// the same terminal.
    pub(crate) fn beside_output(verb: &'static str) -> Progress {
        match shared() {
            true => Progress(None),
            false => Progress::bytes(verb, None),
        }
    }

    /// Bytes: a bar if their number is known, a count if not.
    pub(crate) fn bytes(verb: &'static str, total: Option<u64>) -> Progress {
        let template = match total {
            Some(_) => "{msg} {bytes}/{total_bytes} [{wide_bar}] {byte_rate} {eta}",
            None => "{msg} {bytes} {byte_rate} {elapsed}",
        };
        Progress::new(verb, total, template)
    }

    /// Messages of a known number.
    pub(crate) fn messages(what: &'static str, total: u64) -> Progress {
        let template = "{msg} {human_pos}/{human_len} [{wide_bar}] {rate}";
        Progress::new(what, Some(total), template)
    }

    /// Messages that nobody knows the number of.
    pub(crate) fn counted(what: &'static str) -> Progress {
        Progress::new(what, None, "{msg} {human_pos} messages {rate} {elapsed}")
    }

    fn new(what: &'static str, total: Option<u64>, template: &str) -> Progress {
        if !wanted() {
            return Progress(None);
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
                write_rate(state, out, |rate| HumanCount(rate).to_string());
            })
            .with_key("byte_rate", |state: &ProgressState, out: &mut dyn Write| {
                write_rate(state, out, |rate| HumanBytes(rate).to_string());
            })
            .progress_chars("=> ");
        bar.set_style(style);
        bar.set_message(what);
        Progress(Some(bar))
    }

    /// So much more is done.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(amount);
        }
    }

    /// Starts the bar's clock anew.
    pub(crate) fn restart(&self) {
        if let Some(bar) = &self.0 {
            bar.reset_elapsed();
        }
    }

    /// So much is done altogether.
    pub(crate) fn set(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    /// Says something on standard error without breaking the bar.
    pub(crate) fn say(&self, what: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| crate::exit::complain(what)),
            None => crate::exit::complain(what),
        }
    }
}

/// Writes what the bar says is done per second, once that can be told.
fn write_rate(state: &ProgressState, out: &mut dyn Write, show: impl FnOnce(u64) -> String) {
    let measured = text::rate(state.pos() as f64, state.elapsed());
    let rate = measured.map(|_| state.per_sec());
    let shown = text::rate_or_too_short(rate, |rate| show(rate as u64) + "/s");
    // A bar that cannot be drawn stops nothing.
    let _ = out.write_str(&shown);
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.abandon();
        }
    }
}
