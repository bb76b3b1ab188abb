//! `spsc`: four slots of 64 bytes, whose words hold in turn the message's number and its position
//! in the channel.

use std::time::Duration;

use slipring::spsc::{self, Spsc};
use slipring::{Payload, Wait};

use super::slots::{CAPACITY, Numbered, Slotted};
use super::{Kind, Operation, Side, operation};

#[derive(Payload, Clone, Copy)]
#[repr(C)]
struct Message([u64; 8]);

impl Numbered for Message {
    fn new(number: u64, position: u64) -> Message {
        let says = [number, position];
        Message(std::array::from_fn(|word| {
            says[word % 2] << 8 | word as u64
        }))
    }

    fn number_at(&self, position: u64) -> Result<u64, String> {
        let number = self.0[0] >> 8;
        match self.0 == Message::new(number, position).0 {
            true => Ok(number),
            false => Err(format!(
                "a torn message, or none of {position}: {:x?}",
                self.0
            )),
        }
    }
}

impl Slotted for Spsc<Message> {}

const OWN: [Operation; 8] = [
    operation("push-slice", Side::Producer, 1, 3),
    operation("reserve-commit", Side::Producer, 1, 2),
    operation("reserve-discard", Side::Producer, 1, 0),
    operation("reserve-full", Side::Producer, 4, 0),
    operation("pop-slice", Side::Consumer, 3, 3),
    operation("read-one", Side::Consumer, 3, 1),
    operation("read-release", Side::Consumer, 3, 2),
    operation("read-keep", Side::Consumer, 3, 0),
];

pub(super) fn kind() -> Kind {
    Kind::new("spsc", CAPACITY, builder(), &OWN)
}

fn builder() -> spsc::Builder<Message> {
    // The wait sleeps at once: polling repeats the same few instructions over and over.
    spsc::Builder::new(CAPACITY as usize).wait(Wait::Sleep {
        spin_for: Duration::ZERO,
    })
}
