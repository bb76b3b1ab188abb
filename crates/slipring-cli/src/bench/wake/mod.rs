//! `slipring bench wake`: measures the cost of being able to sleep, of a sleep and of a wake-up.
//! Every figure stands beside the lower bound for it, measured in turn within the same run.

mod descriptor;
mod publish;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::thread::futex;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use slipring::{Error, SetupError, Wait, spsc};

use super::runs::{beside, check, histogram};
use super::{many, median};
use crate::exit::Failure;
use crate::text;

/// The number of messages in one stream.
const STREAM: u64 = 4_000_000;
/// The number of round trips between sleeping threads, in one run.
const TRIPS: u64 = 10_000;
/// The round trips of a run, including those that come first, to warm up.
const TOTAL: u64 = TRIPS + TRIPS / 20;
/// An idle consumer is watched for this long.
const IDLE: Duration = Duration::from_secs(2);

const AT_ONCE: Wait = Wait::Sleep {
    spin_for: Duration::ZERO,
};

pub(super) fn run(runs: usize, as_json: bool) -> Result<(), Failure> {
    let figures = Figures::measure(runs)?;
    if as_json {
        text::answer_json(&figures.as_json())
    } else {
        text::answer(figures.as_text())
    }
}

struct Figures {
    publish: publish::Publish,
    /// Messages a second.
    spinning: f64,
    able: f64,
    /// The middle round trip, in nanoseconds.
    awake: u64,
    asleep: u64,
    futex: u64,
    descriptor: u64,
    pipe: u64,
    /// A share of a core.
    idle: f64,
    /// The cost of waking a set of one channel, and a set of many.
    sets: [many::Cost; 2],
    /// The share of a core that a set of many idle channels takes.
    idle_set: f64,
}

impl Figures {
    /// Runs everything `runs` times, in turn, so that a change in the machine's speed affects all
    /// figures.
    fn measure(runs: usize) -> Result<Figures, Failure> {
        let (mut spinning, mut able) = (Vec::new(), Vec::new());
        let mut trips = [
            histogram()?,
            histogram()?,
            histogram()?,
            histogram()?,
            histogram()?,
        ];
        for _ in 0..runs {
            spinning.push(stream(Wait::Spin)?);
            able.push(stream(Wait::default())?);
            let more = [
                round_trips(Wait::default())?,
                round_trips(AT_ONCE)?,
                futex_round_trips()?,
                descriptor::round_trips()?,
                descriptor::bare_round_trips()?,
            ];
            for (all, more) in trips.iter_mut().zip(more) {
                *all += more;
            }
        }
        let [awake, asleep, futex, descriptor, pipe] =
            trips.map(|trips| trips.value_at_quantile(0.5));
        Ok(Figures {
            publish: publish::measure(runs * 20)?,
            spinning: median(spinning),
            able: median(able),
            awake,
            asleep,
            futex,
            descriptor,
            pipe,
            idle: idle()?,
            sets: many::wakes()?,
            idle_set: many::idle()?,
        })
    }

    fn as_json(&self) -> Value {
        let [one, of_many] = &self.sets;
        json!({
            "publish_ns": {
                "slipring": self.publish.slipring,
                "no_wake_up": self.publish.plain,
                "difference": self.publish.more,
            },
            "stream_8_bytes_per_s": { "spin": self.spinning, "default": self.able },
            "round_trip_ns": {
                "default": self.awake,
                "asleep": self.asleep,
                "futex": self.futex,
                "descriptor": self.descriptor,
                "pipe": self.pipe,
            },
            "idle_sleeper_percent_of_a_core": self.idle * 100.0,
            "wait_set": {
                "channels": many::MANY,
                "wake_ns": { "one_of_one": one.latency, "one_of_many": of_many.latency },
                "processor_ns": { "one_of_one": one.processor, "one_of_many": of_many.processor },
                "idle_percent_of_a_core": self.idle_set * 100.0,
            },
        })
    }

    fn as_text(&self) -> String {
        let ratio = |ours: u64, least: u64| ours as f64 / least.max(1) as f64;
        let [one, of_many] = &self.sets;
        format!(
            "a publish while nobody sleeps              {:.2} ns, {:+.2} ns beside the {:.2} ns of a ring without wake-ups\n\
             8 bytes one at a time, peer able to sleep  {:.1} M/s, {:.2} of the {:.1} M/s of pure spinning\n\
             round trip, awake                          {}\n\
             round trip, asleep each time               {}, {:.2} of the {} of a bare futex\n\
             round trip, each time through epoll        {}, {:.2} of the {} of bare pipes\n\
             an idle sleeper                            {:.2} % of a core\n\
             one of 1000 channels of a set wakes it in  {}, {:.2} of the {} of one of one\n\
             and takes it processor time of             {}, {:.2} of the {}\n\
             a set of 1000 idle channels                {:.2} % of a core\n",
            self.publish.slipring,
            self.publish.more,
            self.publish.plain,
            self.able / 1e6,
            self.able / self.spinning,
            self.spinning / 1e6,
            text::nanoseconds(self.awake),
            text::nanoseconds(self.asleep),
            ratio(self.asleep, self.futex),
            text::nanoseconds(self.futex),
            text::nanoseconds(self.descriptor),
            ratio(self.descriptor, self.pipe),
            text::nanoseconds(self.pipe),
            self.idle * 100.0,
            text::nanoseconds(of_many.latency),
            ratio(of_many.latency, one.latency),
            text::nanoseconds(one.latency),
            text::nanoseconds(of_many.processor),
            ratio(of_many.processor, one.processor),
            text::nanoseconds(one.processor),
            self.idle_set * 100.0,
        )
    }
}

type Ends = (spsc::Producer<[u64; 1]>, spsc::Consumer<[u64; 1]>);

fn ends(capacity: usize, wait: Wait) -> Result<Ends, SetupError> {
    spsc::Builder::new(capacity).wait(wait).channel_pair()
}

/// Returns a stream's rate in messages a second.
fn stream(wait: Wait) -> Result<f64, Failure> {
    let (mut tx, mut rx) = ends(4096, wait)?;
    let elapsed = beside(
        move || (0..STREAM).try_for_each(|number| Ok(tx.push([number])?)),
        move || {
            let begun = Instant::now();
            (0..STREAM).try_for_each(|number| check(&rx.pop()?, number))?;
            Ok(begun.elapsed())
        },
    )?;
    Ok(STREAM as f64 / elapsed.as_secs_f64().max(1e-9))
}

fn round_trips(wait: Wait) -> Result<Histogram<u64>, Failure> {
    let ((mut ping, mut far_rx), (mut far_tx, mut pong)) = (ends(1, wait)?, ends(1, wait)?);
    beside(
        move || (0..TOTAL).try_for_each(|_| Ok(far_tx.push(far_rx.pop()?)?)),
        move || {
            timed(|number| {
                ping.push([number])?;
                check(&pong.pop()?, number)
            })
        },
    )
}

/// Times each round trip after the warm-up.
fn timed(mut trip: impl FnMut(u64) -> Result<(), Failure>) -> Result<Histogram<u64>, Failure> {
    let mut trips = histogram()?;
    for number in 0..TOTAL {
        let begun = Instant::now();
        trip(number)?;
        if number >= TOTAL - TRIPS {
            trips.saturating_record(begun.elapsed().as_nanos() as u64);
        }
    }
    Ok(trips)
}

/// Measures the lower bound for two threads that sleep: they pass one word to and fro.
fn futex_round_trips() -> Result<Histogram<u64>, Failure> {
    let turn = AtomicU32::new(0);
    let flags = futex::Flags::empty();
    let hand_over = |to: u32| {
        turn.store(to, Ordering::Release);
        let _ = futex::wake(&turn, flags, 1);
    };
    let wait_for = |mine: u32| {
        while turn.load(Ordering::Acquire) != mine {
            let _ = futex::wait(&turn, flags, 1 - mine, None);
        }
    };
    beside(
        || {
            for _ in 0..TOTAL {
                wait_for(1);
                hand_over(0);
            }
            Ok(())
        },
        || {
            timed(|_| {
                hand_over(1);
                wait_for(0);
                Ok(())
            })
        },
    )
}

/// Returns the share of a core that a consumer needs while nobody sends anything.
fn idle() -> Result<f64, Failure> {
    let (_tx, mut rx) = ends(1, Wait::default())?;
    let used = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let before = used();
    match rx.pop_timeout(IDLE) {
        Err(Error::TimedOut) => Ok((used() - before).as_secs_f64() / IDLE.as_secs_f64()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Failure::Words("a message that nobody sent".into())),
    }
}
