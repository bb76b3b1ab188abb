//! Attaches to a channel in which arbitrary words were changed, with a checksum that is right or
//! wrong, or to memory that holds only the input. A channel that attaches is used from both ends.
//!
//! The input, for the fuzz target `header` and for the files of its corpus:
//!
//! | byte | what |
//! |---|---|
//! | 0 | the kind asked for (modulo 8): `spsc`, `bytes`, `broadcast` that waits, `broadcast` that overwrites, `mpmc`, `topic`, a topic of records, `broadcast::records` |
//! | 1 | bits: 1, begin with a channel, not with zeros; 2, put the checksum right at the end; 4, leave out the last page of the control part |
//! | 2.. | changes of 11 bytes: 0 a word of the header, 1 of the control part, 2 of the data (modulo 3); which word, u16; what to flip in it, u64 |

use std::sync::atomic::Ordering;

use slipring::broadcast::{self, Seek};
use slipring::topic;
use slipring::{Builder, Channel, Consumer, Kind, Producer, SetupError, bytes, mpmc, spsc};
use slipring_core::layout::PAGE;

use super::Memory;
use super::calls::{
    Calls, use_broadcast, use_broadcast_records, use_bytes, use_slots, use_topic, use_topic_records,
};

/// Attaches, and uses the channel if that succeeded.
pub(crate) fn attach(input: &[u8]) -> Result<(), SetupError> {
    let (kind, input) = input.split_first().unwrap_or((&0, &[]));
    match kind % 8 {
        0 => changed(&spsc::Builder::<u64>::new(8), input, |channel| {
            if let (Ok(mut tx), Ok(mut rx)) = (channel.producer(), channel.consumer()) {
                use_slots(&mut tx, &mut rx, "spsc");
            }
        }),
        1 => changed(&bytes::Builder::new(64).max_record(24), input, |channel| {
            if let (Ok(mut tx), Ok(mut rx)) = (channel.producer(), channel.consumer()) {
                use_bytes(&mut tx, &mut rx, "bytes");
            }
        }),
        kind @ (2 | 3) => {
            let builder = broadcast::Builder::<u64>::new(8)
                .consumers(2)
                .join(Seek::Oldest);
            match kind {
                2 => changed(&builder, input, use_channel),
                _ => changed(&builder.overwriting(), input, use_channel),
            }
        }
        4 => {
            let builder = mpmc::Builder::<u64>::new(4).producers(2).consumers(2);
            changed(&builder, input, |channel| {
                let (mut txs, mut rxs) = two_of_each(&channel);
                for (tx, rx) in txs.iter_mut().zip(&mut rxs) {
                    use_slots(tx, rx, "mpmc");
                }
            })
        }
        5 => {
            let builder = topic::Builder::<u64>::new(4).producers(2).consumers(2);
            changed(&builder.held(2).join(Seek::Oldest), input, |channel| {
                let (mut txs, mut rxs) = two_of_each(&channel);
                use_topic(&mut txs, &mut rxs, "topic");
            })
        }
        6 => {
            let builder = topic::records::Builder::new(4, 64)
                .producers(2)
                .consumers(2);
            changed(&builder.held(2).join(Seek::Oldest), input, |channel| {
                let (mut txs, mut rxs) = two_of_each(&channel);
                use_topic_records(&mut txs, &mut rxs, "a topic of records");
            })
        }
        _ => {
            let builder = broadcast::records::Builder::new(64).max_record(24);
            changed(&builder.consumers(2).join(Seek::Oldest), input, |channel| {
                let (mut txs, mut rxs) = two_of_each(&channel);
                for tx in &mut txs {
                    use_broadcast_records(tx, &mut rxs, "records that all read");
                }
            })
        }
    }
}

/// Takes two seats of each side, if they are to be had.
fn two_of_each<K: Kind>(channel: &Channel<K>) -> (Vec<Producer<K>>, Vec<Consumer<K>>) {
    let producers = (0..2).flat_map(|_| channel.producer());
    let consumers = (0..2).flat_map(|_| channel.consumer());
    (producers.collect(), consumers.collect())
}

fn use_channel<M: Calls>(channel: broadcast::Channel<u64, M>) {
    let readers = [channel.consumer(), channel.consumer()];
    let mut readers: Vec<_> = readers.into_iter().flatten().collect();
    if let Ok(mut tx) = channel.producer() {
        use_broadcast(&mut tx, &mut readers, "broadcast");
    }
}

fn changed<K: Kind>(
    builder: &Builder<K>,
    input: &[u8],
    use_it: impl FnOnce(Channel<K>),
) -> Result<(), SetupError> {
    let memory = Memory::of(builder);
    let (bits, changes) = input.split_first().unwrap_or((&0, &[]));
    if bits & 1 != 0 {
        memory.format(builder).expect("zeroed memory");
    }
    let (control, data) = (memory.control_len / 8, memory.data_len / 8);
    for change in changes.chunks_exact(11) {
        let at = usize::from(u16::from_le_bytes([change[1], change[2]]));
        let mut flips = [0; 8];
        flips.copy_from_slice(&change[3..]);
        let flips = u64::from_le_bytes(flips);
        match change[0] % 3 {
            2 => memory.change_data(at % data * 8, |word| word ^ flips),
            part => {
                let words = if part == 0 { 64 } else { control };
                memory
                    .control(at % words * 8)
                    .fetch_xor(flips, Ordering::Relaxed);
            }
        }
    }
    if bits & 2 != 0 {
        memory.reseal();
    }
    let left_out = if bits & 4 != 0 { PAGE } else { 0 };
    let attached = memory.attach_but(builder, left_out).map(use_it);
    memory.assert_fences_stand();
    attached
}
