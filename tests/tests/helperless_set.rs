//! A set on pipes where no helper thread can be started, as late_set.rs has it with one. One test, since it sets this
//! process's `SLIPRING_DIR`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use slipring::{End, Error, WaitSet, broadcast, spsc};
use slipring_tests::message::Message;
use slipring_tests::{Room, sandbox};

const PEER: &str = env!("CARGO_BIN_EXE_peer");
/// So many are waited for by their pipes.
const IDLE: usize = 130;

/// Nobody but the set itself can look for the death of a `broadcast` producer that has opened no pipe: again and
/// again, and not only once.
#[test]
fn a_set_looks_for_deaths_itself() {
    let room = Room::new(PEER);
    // SAFETY: the only test of this process, and no thread of ours is there yet.
    unsafe { std::env::set_var("SLIPRING_DIR", room.path()) };
    let builder = broadcast::Builder::<Message>::new(64).consumers(63);
    let rx = builder.consumer("ticks").unwrap();
    let mut tx = room.peer();
    tx.ok("producer ticks kind=broadcast capacity=64 consumers=63");
    let idle = (0..IDLE).map(|_| spsc::channel::<u64>(4).unwrap());
    let idle: Vec<_> = idle.collect();
    let refused = libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32;
    for call in [libc::SYS_clone, libc::SYS_clone3] {
        sandbox::filter(call, None, refused);
    }
    let mut set = WaitSet::new().unwrap();
    let key = set.watch(&rx).unwrap();
    for (_, idle) in &idle {
        set.watch(idle).unwrap();
    }
    // Long enough for the first looks, which find it alive.
    let told = set.wait_timeout(Duration::from_millis(50));
    assert!(matches!(told, Err(Error::TimedOut)), "{told:?}");
    tx.kill();
    // A set that does not look would sleep for ever.
    let events = set.wait_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].key, events[0].ended), (key, Some(End::Died)));
}
