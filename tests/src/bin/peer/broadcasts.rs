//! The verbs of `broadcast` alone, whose consumers come and go, and may be overtaken.
//!
//! | verb | does |
//! |---|---|
//! | `follow` | takes or loses messages of any producer until one has finished; says the number after the last, how many it took, and how many were reported lost |
//! | `die-in-batch` FIRST COUNT AT | is killed in a batch, after writing AT messages |
//! | `table` | says a line of words for each seat of the channel that it has |
//! | `holds-back` | says the seat and the process that hold the producer back, if any do |

use slipring::{End, Error};
use slipring_testkit::Consumer;
use slipring_tests::room::PATIENCE;

use crate::handing;
use crate::worker::{Line, Said, Worker};

pub(crate) fn obey(worker: &mut Worker, line: &Line<'_>) -> Said {
    match line.word(0) {
        "follow" => follow(worker.rx()),
        "die-in-batch" => {
            let (first, count, at) = (line.number(1), line.number(2), line.number(3));
            let mut written = 0;
            let mut between = || {
                if written == at {
                    let us = rustix::process::getpid();
                    rustix::process::kill_process(us, rustix::process::Signal::KILL).unwrap();
                }
                written += 1;
            };
            let done = worker.tx().iterate(first..first + count, &mut between);
            panic!("it lives: {done:?}");
        }
        "table" => {
            let seats = worker.memory().stat()?.seats;
            let words = seats.iter().map(|seat| {
                let (state, member) = (seat.state.name(), u64::from(seat.waited_for));
                format!(
                    "{state} {member} {} {} {} {} {}",
                    seat.pid, seat.position, seat.waits, seat.lagged, seat.recovered
                )
            });
            Ok(words.collect())
        }
        "holds-back" => {
            let stat = worker.memory().stat()?;
            let words = stat.holds_back().map(|seat| [seat.index as u64, seat.pid]);
            let words = words.iter().flatten();
            Ok(words.map(ToString::to_string).collect())
        }
        _ => handing::obey(worker, line),
    }
}

/// Follows until a producer finishes: others may die, and have successors.
///
/// It counts by the numbers that the messages carry, since the positions of records are bytes.
fn follow(rx: &mut dyn Consumer) -> Said {
    let mut next = rx.next();
    let (mut taken, mut lost) = (0_u64, 0_u64);
    loop {
        match rx.pop_timeout(PATIENCE) {
            Ok(number) => {
                assert_eq!(number, next, "missing, reused, or out of order");
                (next, taken) = (next + 1, taken + 1);
            }
            Err(Error::Lagged(more)) => (next, lost) = (next + more, lost + more),
            Err(Error::Disconnected(End::Finished)) => break,
            Err(Error::Disconnected(_)) => rx.wait_for_peer(PATIENCE)?,
            Err(error) => return Err(error.into()),
        }
        assert_eq!(rx.next(), next);
    }
    Ok([next, taken, lost]
        .map(|figure| figure.to_string())
        .to_vec())
}
