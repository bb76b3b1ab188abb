//! An honest worker among hostile ones: it passes messages by timed calls, whatever it meets, and
//! reports that.
//!
//! | line | the worker |
//! |---|---|
//! | `endure` ROLE MS | pushes one message after the other, or pops, for at most MS milliseconds each |
//! | meanwhile: `how` | says how many messages it passed, and goes on |
//! | meanwhile: `stop` | goes on until a call finds no more (a producer stops at once), and says the following |
//!
//! It says how many messages it passed, and how many of them were not the next, or torn. It also
//! says how many were reported lost, and which other errors it met. A call that ends long after its
//! time is the end of the test.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use slipring::Error;

use crate::worker::{Line, Said, Worker, variant};
use crate::{is_told, next_line, say};

/// This allows for a machine that does other work as well.
const LATE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Toll {
    passed: u64,
    gaps: u64,
    torn: u64,
    lost: u64,
    errors: BTreeSet<String>,
}

impl Toll {
    fn said(&self) -> Vec<String> {
        let figures = [self.passed, self.gaps, self.torn, self.lost];
        let figures = figures.iter().map(ToString::to_string);
        figures.chain(self.errors.clone()).collect()
    }
}

pub(crate) fn endure(worker: &mut Worker, line: &Line<'_>) -> Said {
    let (role, timeout) = (line.word(1), Duration::from_millis(line.number(2)));
    let (mut toll, mut stopping) = (Toll::default(), false);
    let mut next = match role {
        "producer" => worker.tx().next(),
        _ => 0,
    };
    say("ok");
    loop {
        if is_told() {
            match next_line().as_deref() {
                Some("how") => say(&format!("ok\t{}", toll.passed)),
                Some("stop") => stopping = true,
                other => panic!("not now: {other:?}"),
            }
        }
        if stopping && role == "producer" {
            return Ok(toll.said());
        }
        let begun = Instant::now();
        let passed = match role {
            "producer" => worker.tx().push_timeout(next, timeout).map(|()| Ok(next)),
            _ => worker.rx().pop_any(timeout),
        };
        let took = begun.elapsed();
        assert!(took < timeout + LATE, "{took:?} in place of {timeout:?}");
        match passed {
            Ok(Ok(number)) => {
                // A consumer may come later than the first message.
                toll.gaps += u64::from(toll.passed > 0 && number != next);
                toll.passed += 1;
                next = number.wrapping_add(1);
            }
            Ok(Err(_)) => toll.torn += 1,
            Err(Error::Lagged(more)) => {
                // Any number may come: the words may be anything.
                toll.lost = toll.lost.wrapping_add(more);
                next = next.wrapping_add(more);
            }
            Err(_) if stopping => return Ok(toll.said()),
            Err(error) => {
                let shown = variant(&error.into());
                let kind = shown.split(|c: char| !c.is_alphanumeric()).next();
                toll.errors.extend(kind.map(str::to_owned));
            }
        }
    }
}
