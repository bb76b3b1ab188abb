//! Parts of the messages of `SetupError` that depend on what was found.

use slipring_core::layout::MOST_SEATS;

pub(super) fn taken(role: &str, seats: u64, pid: u64) -> String {
    match seats {
        1 => format!(
            "the {role} of this channel is taken{}; there is one at a time, so stop it, or wait until it leaves \
             (`--wait` of `slipring send` and `recv`)",
            holder(pid)
        ),
        _ => format!(
            "all {seats} {role} seats of this channel are held; wait until one leaves, or make it with more \
             (`{role}s`, at most {MOST_SEATS})"
        ),
    }
}

pub(super) fn holder(pid: u64) -> String {
    if pid == 0 {
        String::new()
    } else {
        format!(" (by process {pid}, it says)")
    }
}

pub(super) fn serves(kind: &str) -> &'static str {
    match kind {
        "bytes" => "`slipring send` and `slipring recv` serve it",
        "broadcast" => "`slipring tail` shows its messages",
        "topic" => "`slipring pub` and `slipring sub` serve it if its messages are byte strings",
        "broadcast-records" => "`slipring send` and `slipring recv` serve it",
        "mpmc" => "it is a work queue: `slipring work` takes its items if they are byte strings",
        _ => "a program that knows its payload serves it; `slipring stat` shows its figures",
    }
}

pub(super) fn first_word(found: Option<u64>) -> String {
    match found {
        Some(word) => format!("begins with {word:#018x} where a channel has \"SLIPRING\""),
        None => "is not the regular file that a channel has there".into(),
    }
}

pub(super) fn too_many(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!(
            "this process has all {limit} file descriptors open that it may have (RLIMIT_NOFILE); raise the limit \
             (`ulimit -n`, `LimitNOFILE=` of systemd, setrlimit), or drop handles"
        ),
        None => {
            "the machine has as many files open as it may have; raise fs.file-max (sysctl), or \
                 end programs that hold many"
                .into()
        }
    }
}

pub(super) fn nearest(found: u64, min: u64, max: u64) -> String {
    match found.checked_next_power_of_two() {
        Some(next) if next != found && next >= min && next <= max => {
            format!("; {next} is the next")
        }
        _ => String::new(),
    }
}
