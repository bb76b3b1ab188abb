//! Progress on standard error, where that is a terminal that the answer does not go to; silence elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

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
            Some(_) => "{msg} {bytes}/{total_bytes} [{wide_bar}] {bytes_per_sec} {eta}",
            None => "{msg} {bytes} {bytes_per_sec} {elapsed}",
        };
        Progress::new(verb, total, template)
    }

    /// Messages; a width asks indicatif for so many decimals of a rate.
    pub(crate) fn messages(what: &'static str, total: u64) -> Progress {
        let template = "{msg} {human_pos}/{human_len} [{wide_bar}] {per_sec:0}";
        Progress::new(what, Some(total), template)
    }

    /// Messages that nobody knows the number of.
    pub(crate) fn counted(what: &'static str) -> Progress {
        Progress::new(
            what,
            None,
            "{msg} {human_pos} messages {per_sec:0} {elapsed}",
        )
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

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.abandon();
        }
    }
}
