//! The parts that every stage with fellows shares: the victim's process, and the order in which the others go on.

use std::os::fd::AsRawFd;

use slipring_testkit::Memory;

use crate::trace::Victim;

/// The end that goes on first once the victim is dead.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Consumer,
    Producer,
    Successor,
    /// A new end: the fellows died as well.
    New,
}

/// All orders.
pub(crate) const ORDERS: [Order; 4] = [
    Order::Consumer,
    Order::Producer,
    Order::Successor,
    Order::New,
];

/// Starts the process that does `operation`, one of `all`, or takes the victim's seat as its successor. The process is
/// stopped where it begins. `stage` is the word by which the program knows the stage.
pub(crate) fn start<O>(
    stage: &str,
    kind: &str,
    all: &[O],
    operation: &O,
    name: &str,
    memory: &dyn Memory,
) -> Result<Victim, String> {
    let index = all
        .iter()
        .position(|candidate| std::ptr::eq(candidate, operation))
        .ok_or("no such operation")?;
    let passed = memory.descriptors();
    let numbers: Vec<String> = passed.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let index = index.to_string();
    let words = [stage, kind, &index, name, &numbers.join(",")].map(String::from);
    Victim::start(&words, &passed)
}
