//! Sends a camera's frames and a motion sensor's samples to six processes, each of which reads what it needs. One of them is
//! killed in the middle, and another takes its place; the publishers notice nothing.
//!
//! The camera publishes 1920 × 1080 × 3 bytes thirty times a second, the sensor a sample each millisecond. Frames are
//! written and read in place, so six readers cost no copy. Each process prints how long its messages took.
//!
//! ```text
//! cargo run --release -p slipring --example camera
//! ```

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use slipring::topic::{self, records};
use slipring::{Error, Payload, WaitSet, inspect};

const FRAME: usize = 1920 * 1080 * 3;
const SECONDS: u64 = 3;

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Motion {
    sent: u64,
    acceleration: [f32; 3],
    rotation: [f32; 3],
}

type Failure = Box<dyn std::error::Error>;

/// The processes: each with its name, and whether it wants frames and motion.
const READERS: [(&str, bool, bool); 6] = [
    ("display", true, false),
    ("recorder", true, true),
    ("detector", true, false),
    ("fusion", true, true),
    ("stabilizer", false, true),
    ("watchdog", false, true),
];

fn frames() -> records::Builder {
    records::Builder::new(4, FRAME).producers(1)
}

fn motion() -> topic::Builder<Motion> {
    topic::Builder::new(64).producers(1)
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    if let (Some(name), Some(domain)) = (arguments.next(), arguments.next()) {
        return read(&name, &domain);
    }
    let domain = format!("camera-{}", std::process::id());
    let (camera, sensor) = (format!("{domain}/frames"), format!("{domain}/motion"));
    let (frames, motion) = (frames().create(&camera)?, motion().create(&sensor)?);
    let (mut tx, mut sensor_tx) = (frames.producer()?, motion.producer()?);
    let mut readers: Vec<Child> = READERS
        .iter()
        .map(|(name, ..)| start(name, &domain))
        .collect::<Result<_, _>>()?;
    for _ in READERS.iter().filter(|reader| reader.1) {
        tx.wait_for_consumer(Duration::from_secs(10))?;
    }

    let sensor = std::thread::spawn(move || -> Result<(), Error> {
        let begun = Instant::now();
        for number in 0..SECONDS * 1000 {
            sensor_tx.push(Motion {
                sent: now(),
                acceleration: [number as f32; 3],
                rotation: [0.0; 3],
            })?; // never waits
            wait_until(begun + Duration::from_millis(number + 1));
        }
        Ok(())
    });
    println!("{SECONDS} s of frames and samples, to six processes");
    let begun = Instant::now();
    for number in 0..SECONDS * 30 {
        let mut frame = tx.reserve(FRAME)?;
        frame[8..].fill(number as u8); // the picture, written where it is read
        frame[..8].copy_from_slice(&now().to_le_bytes());
        frame.commit(FRAME);
        if number == SECONDS * 15 {
            // The detector dies with whatever it has in its hands.
            readers[2].kill()?;
            readers[2].wait()?;
            readers[2] = start(READERS[2].0, &domain)?;
            println!(
                "killed {name} and started it again: it counts from here",
                name = READERS[2].0
            );
        }
        wait_until(begun + Duration::from_micros((number + 1) * 1_000_000 / 30));
    }
    sensor
        .join()
        .map_err(|_| "the sensor's thread panicked")??;
    drop(tx); // ends the streams
    for mut reader in readers {
        assert!(reader.wait()?.success());
    }
    for name in [camera, format!("{domain}/motion")] {
        inspect::remove(&name)?;
    }
    Ok(())
}

fn start(name: &str, domain: &str) -> Result<Child, Failure> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    Ok(command.args([name, domain]).stdin(Stdio::null()).spawn()?)
}

/// Reads what this process needs until its streams have ended, with one sleep for both.
fn read(name: &str, domain: &str) -> Result<(), Failure> {
    let wants = READERS.iter().find(|reader| reader.0 == name);
    let &(_, wants_frames, wants_motion) = wants.ok_or("no such reader")?;
    let mut camera = match wants_frames {
        true => Some(frames().consumer(&format!("{domain}/frames"))?),
        false => None,
    };
    let mut sensor = match wants_motion {
        true => Some(motion().consumer(&format!("{domain}/motion"))?),
        false => None,
    };
    let mut set = WaitSet::new()?;
    if let Some(camera) = &camera {
        set.watch(camera)?;
    }
    if let Some(sensor) = &sensor {
        set.watch(sensor)?;
    }
    let (mut of_frames, mut of_motion) = (Vec::new(), Vec::new());
    let mut lost = 0;
    while camera.is_some() || sensor.is_some() {
        set.wait()?;
        if let Some(rx) = &mut camera {
            let ended = drain(&mut lost, || {
                let frame = rx.try_read()?;
                let (sent, picture) = frame.split_at(8);
                let sent = u64::from_le_bytes(sent.try_into().unwrap_or_default());
                of_frames.push(now().saturating_sub(sent));
                // A frame in hand does not change, whatever is published meanwhile.
                assert!(picture[0] == picture[picture.len() - 1]);
                Ok(())
            })?;
            if ended {
                camera = None;
            }
        }
        if let Some(rx) = &mut sensor {
            let ended = drain(&mut lost, || {
                let motion = rx.try_pop()?;
                of_motion.push(now().saturating_sub(motion.sent));
                Ok(())
            })?;
            if ended {
                sensor = None;
            }
        }
    }
    for (what, times) in [("frames", of_frames), ("samples", of_motion)] {
        if !times.is_empty() {
            println!("{name:>10}: {}", histogram(what, times));
        }
    }
    if lost > 0 {
        println!("{name:>10}: lost {lost}");
    }
    Ok(())
}

/// Takes messages until there is none. Returns `true` at the end of the stream.
fn drain(lost: &mut u64, mut take: impl FnMut() -> Result<(), Error>) -> Result<bool, Error> {
    loop {
        match take() {
            Ok(()) => {}
            Err(Error::Empty) => return Ok(false),
            Err(Error::Lagged(count)) => *lost += count,
            Err(Error::Disconnected(_)) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Returns how many messages took how long, in one line.
fn histogram(what: &str, mut times: Vec<u64>) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100] as f64 / 1000.0;
    let bounds = [10, 20, 50, 100, 200, 500, 1000, 5000, u64::MAX / 1000];
    let mut line = format!(
        "{:5} {what:7} p50 {:.0} µs, p99 {:.0} µs, longest {:.0} µs |",
        times.len(),
        at(50),
        at(99),
        at(100)
    );
    let mut from = 0;
    for bound in bounds {
        let to = times.partition_point(|time| *time < bound * 1000);
        if to > from && bound < u64::MAX / 1000 {
            line += &format!(" <{bound} µs: {}", to - from);
        } else if to > from {
            line += &format!(" more: {}", to - from);
        }
        from = to;
    }
    line
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

fn wait_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}
