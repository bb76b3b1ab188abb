//! Zenoh with shared memory: two peers on a Unix socket, no scouting. The subscriber sleeps in `recv`.
//!
//! Frames are written where they lie in Zenoh's shared memory, which holds as many as slipring's topic keeps.

use super::{FRAME, Row, peer};
use std::path::PathBuf;

pub const ROWS: &[Row] = &[
    peer("sleep/64B/zenoh", built, |s| sleep(s, 64)),
    peer("sleep/6.2MB/zenoh", built, |s| sleep(s, FRAME)),
];

/// Returns an error that says how to build with Zenoh, if this program is not.
fn built() -> Result<(), String> {
    let with = cfg!(feature = "zenoh");
    with.then_some(())
        .ok_or_else(|| "built without Zenoh: `cargo run --release --features zenoh`".to_owned())
}

/// Removes the socket of the worker `pid`, and the lock file beside it.
pub fn sweep(pid: u32) {
    let socket = socket(pid);
    let _ = std::fs::remove_file(&socket);
    let _ = std::fs::remove_file(socket.with_extension("lock"));
}

fn socket(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("slipring-bench-zenoh-{pid}"))
}

#[cfg(not(feature = "zenoh"))]
fn sleep(_: f64, _: usize) -> Result<f64, String> {
    built().map(|()| 0.0)
}

#[cfg(feature = "zenoh")]
use peers::sleep;

#[cfg(feature = "zenoh")]
mod peers {
    use super::super::FRAMES;
    use super::super::sleep::{asleep, check, mark};
    use super::socket;
    use std::fmt::Debug;
    use std::path::Path;
    use std::time::{Duration, Instant};
    use zenoh::shm::{BlockOn, GarbageCollect, PosixShmProviderBackend, ShmProviderBuilder};
    use zenoh::{Config, Session, Wait};

    const TOPIC: &str = "topic";

    pub fn sleep(seconds: f64, len: usize) -> Result<f64, String> {
        let socket = socket(std::process::id());
        asleep(
            seconds,
            || {
                let session = open("listen", &socket)?;
                let messages = session.declare_subscriber(TOPIC).wait().map_err(text)?;
                Ok(move |seq| {
                    let _open = &session;
                    let message = messages.recv().expect("a publisher");
                    assert!(message.payload().as_shm().is_some(), "a copied message");
                    check(&message.payload().to_bytes(), seq)
                })
            },
            || {
                let session = open("connect", &socket)?;
                let publisher = session.declare_publisher(TOPIC).wait().map_err(text)?;
                let memory = PosixShmProviderBackend::builder(FRAMES * len.next_multiple_of(4096));
                let memory = ShmProviderBuilder::backend(memory.wait().map_err(text)?).wait();
                let patience = Instant::now();
                while !publisher.matching_status().wait().map_err(text)?.matching() {
                    if patience.elapsed() > Duration::from_secs(3) {
                        return Err("the peers do not find each other".to_owned());
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(move |seq| {
                    let _open = &session;
                    let frame = memory.alloc(len).with_policy::<BlockOn<GarbageCollect>>();
                    let mut frame = frame.wait().expect("memory");
                    mark(&mut frame, seq);
                    publisher.put(frame).wait().expect("a session");
                })
            },
        )
    }

    /// Opens a session with one end on the socket.
    fn open(end: &str, socket: &Path) -> Result<Session, String> {
        let mut config = Config::default();
        let endpoint = format!("[\"unixsock-stream/{}\"]", socket.display());
        for (key, value) in [
            ("mode", "\"peer\""),
            ("listen/endpoints", "[]"),
            ("scouting/multicast/enabled", "false"),
            ("scouting/gossip/enabled", "false"),
            (&format!("{end}/endpoints"), &endpoint),
        ] {
            config.insert_json5(key, value).map_err(text)?;
        }
        zenoh::open(config).wait().map_err(text)
    }

    fn text(error: impl Debug) -> String {
        format!("Zenoh: {error:?}")
    }
}
