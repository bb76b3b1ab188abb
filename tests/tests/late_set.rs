//! A set on pipes waits for a `broadcast` producer that opens none before it first notifies. This
//! is one test, since it sets this process's `SLIPRING_DIR`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use slipring::{End, WaitSet, broadcast, spsc};
use slipring_tests::Room;
use slipring_tests::message::Message;

const PEER: &str = env!("CARGO_BIN_EXE_peer");
/// The number of idle channels that are waited for by their pipes.
const IDLE: usize = 130;

/// A wait set is notified also before the producer has opened the pipe. The set learns of the
/// producer's death, before and after; and of one that took the bit and died before it wrote.
#[test]
fn a_set_sees_deaths_before_opening() {
    let room = Room::new(PEER);
    // SAFETY: the only test of this process, and no thread of ours is there yet.
    unsafe { std::env::set_var("SLIPRING_DIR", room.path()) };
    let options = "kind=broadcast capacity=64 consumers=63 full=overwrite";
    let builder = broadcast::Builder::<Message>::new(64)
        .consumers(63)
        .overwriting();
    let mut rx = builder.consumer("ticks").unwrap();
    let idle = (0..IDLE).map(|_| spsc::channel::<u64>(4).unwrap());
    let idle: Vec<_> = idle.collect();
    let mut set = WaitSet::new().unwrap();
    let key = set.watch(&rx).unwrap();
    for (_, idle) in &idle {
        set.watch(idle).unwrap();
    }
    let mut next = 0;
    for killed in ["idle", "after a message", "in its ring"] {
        let mut tx = room.peer();
        tx.ok(&format!("producer ticks {options}"));
        if killed == "after a message" {
            tx.ok(&format!("push {next} 1"));
            let events = set.wait().unwrap();
            assert!(events.iter().any(|event| event.key == key && event.ready));
            rx.pop().unwrap();
            next += 1;
        }
        // The set is armed anew, and there is no news.
        assert!(
            set.wait_timeout(std::time::Duration::from_millis(1))
                .is_err(),
            "{killed}"
        );
        let mut received = 0;
        if killed == "in its ring" {
            tx.ok("trap-rings");
            tx.tell(&format!("try-push {next}"));
        } else {
            tx.kill();
        }
        loop {
            let events = set.wait().unwrap();
            let of_it = events.iter().find(|event| event.key == key).unwrap();
            while rx.try_pop().is_ok() {
                received += 1;
            }
            if of_it.ended.is_some() {
                assert_eq!(of_it.ended, Some(End::Died), "{killed}");
                break;
            }
        }
        assert_eq!(received, u64::from(killed == "in its ring"));
        next += received;
        assert!(rx.try_pop().is_err());
    }
}
