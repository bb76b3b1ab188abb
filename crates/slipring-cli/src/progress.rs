//! Shows progress on standard error, if that is a terminal and the answer does not go there; is
//! silent elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressState, ProgressStyle};

use crate::text;

/// A bar, or `None` for no bar.
pub(crate) struct Progress(Option<ProgressBar>);

/// Returns `true` if standard error is a terminal, so that somebody would see a bar.
pub(crate) fn wanted() -> bool {
    std::io::stderr().is_terminal()
}

/// Returns `true` if standard output is the terminal that a bar would be on: each would overwrite
/// the other.
fn shared() -> bool {
    let terminal = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino, stat.st_rdev);
    let [stdout, stderr] = [rustix::stdio::stdout(), rustix::stdio::stderr()]
        .map(|descriptor| rustix::fs::fstat(descriptor).ok().map(terminal));
    std::io::stdout().is_terminal() && stdout == stderr
}

impl Progress {
    /// Shows bytes as [`bytes`](Progress::bytes) does, for a verb that writes to standard output
    /// meanwhile: there is no bar if both are the same terminal.
    pub(crate) fn beside_output(verb: &'static str) -> Progress {
        match shared() {
            true => Progress(None),
            false => Progress::bytes(verb, None),
        }
    }

    /// Shows bytes: a bar if their number is known, a count if not.
    pub(crate) fn bytes(verb: &'static str, total: Option<u64>) -> Progress {
        let template = match total {
            Some(_) => "{msg} {bytes}/{total_bytes} [{wide_bar}] {byte_rate} {eta}",
            None => "{msg} {bytes} {byte_rate} {elapsed}",
        };
        Progress::new(verb, total, template)
    }

    /// Shows messages of a known number.
    pub(crate) fn messages(what: &'static str, total: u64) -> Progress {
        let template = "{msg} {human_pos}/{human_len} [{wide_bar}] {rate}";
        Progress::new(what, Some(total), template)
    }

    /// Shows messages of an unknown number.
    pub(crate) fn counted(what: &'static str) -> Progress {
        Progress::new(what, None, "{msg} {human_pos} messages {rate} {elapsed}")
    }

    /// Shows the figures that [`describe`](Self::describe) sets.
    pub(crate) fn figures() -> Progress {
        Progress::new("", None, "{msg} {rate} {elapsed}")
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

    /// Adds `amount` to the work that is done.
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

    /// Sets the work that is done altogether.
    pub(crate) fn set(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    /// Sets the text before the rate. Calls `describe` only if somebody sees it.
    pub(crate) fn describe(&self, describe: impl FnOnce() -> String) {
        if let Some(bar) = &self.0 {
            bar.set_message(describe());
        }
    }

    /// Prints a line on standard error without breaking the bar.
    pub(crate) fn say(&self, what: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| crate::exit::complain(what)),
            None => crate::exit::complain(what),
        }
    }
}

/// Writes the bar's rate per second, once it can be told.
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
