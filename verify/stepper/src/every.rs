//! Every word of control that is in use: each of its bits flipped, and the values at which arithmetic breaks.
//!
//! Told at rest, as in `hostile`, and each lie twice: to those who sit there already, and to those who sit down after
//! it. A changed header is told to those who attach, who refuse it, each.

use std::collections::BTreeSet;
use std::process::ExitCode;

use slipring::Geometry;
use slipring_core::layout::{BELLS, LINE, MEMBERS, SEATS};

use crate::Args;
use crate::hostile::{self, Answer, Lie, Place, Rest, Whom};
use crate::kinds::Kind;

/// The words of a bell, of a seat's line, and of what stands on a role page behind its position (where the gate
/// follows on a line of its own).
const BELL: usize = 3;
const SEAT: usize = 9;
const COUNTERS: usize = 8;

pub(crate) fn main(args: &Args) -> ExitCode {
    println!("| kind | memory | words | lies at rest | found corrupt |");
    println!("|---|---|---|---|---|");
    hostile::each(args, tell_all)
}

fn tell_all(kind: &Kind, place: Place) -> Result<String, String> {
    let mut rest = Rest::set(kind, place)?;
    let geometry = rest.geometry();
    let words = in_use(&geometry);
    let (mut told, mut errors) = (0_usize, 0_u64);
    for offset in words.iter().copied() {
        for value in values(rest.pristine.word(offset), geometry.capacity) {
            let part = 0;
            let lie = Lie {
                part,
                offset,
                value,
            };
            // Nobody looks at a header again.
            let to: &[Whom] = match offset < BELLS {
                true => &[Whom::Attaching],
                false => &[Whom::There, Whom::Sitting],
            };
            for whom in to.iter().copied() {
                // Each operation of one side meets each of the other, and each word many of them.
                let also = [told / 2, told / 2 + offset / 8];
                let answer = rest.tell(&lie, whom, also);
                let answer = answer.map_err(|error| format!("lie {told} {error}"))?;
                if whom == Whom::Attaching && answer != Answer::Refused {
                    return Err(format!("{lie}: this header was believed"));
                }
                told += 1;
                errors += u64::from(answer != Answer::Well);
            }
        }
    }
    Ok(format!("{} | {told} | {errors}", words.len()))
}

/// Where the words of control lie that some kind uses: all others are zero, and nobody looks at them.
fn in_use(geometry: &Geometry) -> Vec<usize> {
    let words = |from: usize, count: usize| (from..from + 8 * count).step_by(8);
    let mut used: Vec<usize> = words(0, BELLS / 8).collect();
    for bell in [BELLS, BELLS + LINE] {
        used.extend(words(bell, BELL));
    }
    used.push(MEMBERS);
    for seat in 0..geometry.seats() {
        used.extend(words(SEATS + seat * LINE, SEAT));
        let page = geometry.role_offset(seat);
        used.extend([page, page + 2 * LINE]);
        used.extend(words(page + LINE, COUNTERS));
    }
    used
}

/// All that a word is made.
fn values(old: u64, capacity: u64) -> BTreeSet<u64> {
    let flipped = (0..64).map(|bit| old ^ 1 << bit);
    let edges = [0, 1, 1 << 31, 1 << 63, u64::MAX - 1, u64::MAX];
    let near = [1, capacity].map(|by| [old.wrapping_add(by), old.wrapping_sub(by)]);
    let all = flipped.chain(edges).chain(near.into_iter().flatten());
    all.filter(|value| *value != old).collect()
}
