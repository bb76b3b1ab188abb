//! cloudtoid-interprocess: a queue of byte records in a file, for many writers and readers.
//!
//! The consumer polls, so the producer's wake-up signal is raised once and never again.

use super::{About, Kind, Mode, NOTHING_TO_ALL};
use crate::duel::{Run, Sample, duel};
use crate::message::{Lengths, check_bytes, fill_bytes};
use crate::spin;
use cloudtoid_interprocess::{Options, Publisher, Subscriber};
use std::ops::Range;

pub const ABOUT: About = About {
    name: "cloudtoid",
    kind: Kind::Peer,
    package: Some("cloudtoid-interprocess"),
    modes: &[],
    round_trip: false,
    records: &[Mode::One],
    broadcast: NOTHING_TO_ALL,
    slip: false,
    aligned: false,
    spins: true,
    how: "`try_send` / `try_recv_into`, its file on shared memory",
};

pub fn run(lengths: &Lengths, run: &Run) -> Sample {
    let options = Options::new("bench", run.ring_bytes).with_path(&run.dir);
    let tx = Publisher::open(&options).expect("a publisher");
    let rx = Subscriber::open(&options).expect("a subscriber");
    let buffer = || vec![0_u8; lengths.max()];
    duel(
        run,
        || {
            let mut record = buffer();
            move |range: Range<u64>| {
                for seq in range {
                    let record = &mut record[..lengths.of(seq)];
                    fill_bytes(record, seq);
                    spin!(match tx.try_send(record) {
                        Ok(()) => Some(()),
                        Err(e) if e.is_full() => None,
                        Err(e) => panic!("{e}"),
                    });
                }
            }
        },
        || {
            let mut record = buffer();
            move |range: Range<u64>| {
                let mut bad = 0;
                for seq in range {
                    let len = spin!(rx.try_recv_into(&mut record).expect("a sound queue"));
                    bad |= (len ^ lengths.of(seq)) as u64;
                    bad |= check_bytes(&record[..len], seq);
                }
                bad
            }
        },
    )
}
