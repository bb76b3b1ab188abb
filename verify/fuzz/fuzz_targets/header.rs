//! Attach to a channel of which any words were changed, with a checksum that is right or wrong, or
//! to memory that is nothing but the input. What attaches is used from both ends.
#![no_main]

#[path = "../../../crates/slipring/tests/memory/mod.rs"]
mod memory;

use std::sync::atomic::Ordering;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slipring::{bytes, spsc};

use memory::Memory;
use memory::calls::{use_bytes, use_spsc};

#[derive(Arbitrary, Debug)]
struct Input {
    records: bool,
    /// Begin with a channel, not with zeros.
    formatted: bool,
    /// Put the checksum right at the end.
    sealed: bool,
    control: Vec<(u16, u64)>,
    data: Vec<(u8, u64)>,
}

fn change(memory: &Memory, input: &Input, control_len: usize, data_len: usize) {
    // Half of the words are meant for the header, which is a small part of the whole.
    for (at, value) in &input.control {
        let words = if at & 1 == 0 { 64 } else { control_len / 8 };
        let word = memory.control(usize::from(at >> 1) % words * 8);
        word.store(*value, Ordering::Relaxed);
    }
    for (at, value) in &input.data {
        memory.set_data(usize::from(*at) % (data_len / 8) * 8, *value);
    }
    if input.sealed {
        memory.reseal();
    }
}

fuzz_target!(|input: Input| {
    if input.records {
        let builder = bytes::Builder::new(64).max_record(24);
        let memory = Memory::of(&builder);
        if input.formatted {
            memory.format(&builder).expect("zeroed memory");
        }
        change(
            &memory,
            &input,
            builder.control_len(),
            builder.data_len() as usize,
        );
        if let Ok(channel) = memory.attach(&builder) {
            if let (Ok(mut tx), Ok(mut rx)) = (channel.producer(), channel.consumer()) {
                use_bytes(&mut tx, &mut rx, "bytes");
            }
        }
        memory.assert_fences_stand();
    } else {
        let builder = spsc::Builder::<u64>::new(8);
        let memory = Memory::of(&builder);
        if input.formatted {
            memory.format(&builder).expect("zeroed memory");
        }
        change(
            &memory,
            &input,
            builder.control_len(),
            builder.data_len() as usize,
        );
        if let Ok(channel) = memory.attach(&builder) {
            if let (Ok(mut tx), Ok(mut rx)) = (channel.producer(), channel.consumer()) {
                use_spsc(&mut tx, &mut rx, "spsc");
            }
        }
        memory.assert_fences_stand();
    }
});
