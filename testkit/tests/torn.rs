//! Shows that the kit notices a message that is not whole, whatever the kind.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use slipring::broadcast::Seek;
use slipring_testkit::kinds::{self, Unit};
use slipring_testkit::{Kind, Memory, Terms};

/// The number of the message that is torn.
const NUMBER: u64 = 7;

fn channel(kind: &Kind) -> Box<dyn Memory> {
    let capacity = match kind.unit {
        Unit::Slots => 4,
        Unit::Bytes => 512,
    };
    let terms = Terms {
        capacity: Some(capacity),
        join: Some(Seek::Oldest),
        ..Terms::default()
    };
    (kind.maker)(&terms).memfd().unwrap()
}

fn bytes_of(data: &File) -> Vec<u8> {
    let mut bytes = vec![0; data.metadata().unwrap().len() as usize];
    data.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Each byte that a push wrote is changed in turn. A consumer then finds a torn message, or an
/// error.
#[test]
fn each_changed_byte_is_noticed() {
    for kind in kinds::all() {
        let mut written = Vec::new();
        for turn in 0.. {
            let memory = channel(kind);
            let data = File::from(memory.descriptors()[1].try_clone_to_owned().unwrap());
            let before = bytes_of(&data);
            let (mut tx, mut rx) = (memory.producer().unwrap(), memory.consumer().unwrap());
            tx.push(NUMBER).unwrap();
            let after = bytes_of(&data);
            written = (0..after.len())
                .filter(|at| after[*at] != before[*at])
                .collect();
            let Some(at) = written.get(turn).copied() else {
                assert_eq!(rx.pop_any(Duration::ZERO).unwrap(), Ok(NUMBER));
                break;
            };
            data.write_all_at(&[!after[at]], at as u64).unwrap();
            let popped = rx.pop_any(Duration::ZERO);
            assert!(
                !matches!(popped, Ok(Ok(_))),
                "{}: byte {at}: {popped:?}",
                kind.name
            );
        }
        assert!(written.len() > 15, "{}: {written:?}", kind.name);
    }
}
