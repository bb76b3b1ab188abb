//! Changes every control word that is in use: flips each of its bits, and sets the values at which
//! arithmetic breaks.
//!
//! The words change at rest, as in `hostile`. Each lie is told twice: to ends that already hold
//! their seats, and to ends that take their seats after it. A changed header is shown to attaching
//! processes, each of which refuses it.

use std::collections::BTreeSet;
use std::process::ExitCode;

use slipring::{Geometry, Role};
use slipring_core::layout::{GATING_SET, HEAD, LINE, NOTE, SEATS, WAIT_CELLS, WORDS_OFFSET};

use crate::Args;
use crate::hostile::{self, Answer, Lie, Place, Rest, Whom};
use crate::kinds::Kind;

/// The numbers of words in a wait cell, in a seat's line, and on a role page behind its position.
/// (The write limit follows there on a line of its own.)
const BELL: usize = 3;
const SEAT: usize = 9;
const COUNTERS: usize = 8;

/// The offset of the pins on a role page, and the number of words with pins.
const PINS: usize = 3 * LINE;
const PIN_WORDS: usize = 4;

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
            // Ends do not look at a header again.
            let to: &[Whom] = match offset < WAIT_CELLS {
                true => &[Whom::Attaching],
                false => &[Whom::There, Whom::Sitting],
            };
            for whom in to.iter().copied() {
                // Each operation of one side meets each of the other, and each word meets many of
                // them.
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

/// Returns the offsets of the control words that some kind uses. All other words are zero, and no
/// end looks at them.
fn in_use(geometry: &Geometry) -> Vec<usize> {
    let words = |from: usize, count: usize| (from..from + 8 * count).step_by(8);
    let mut used: Vec<usize> = words(0, WAIT_CELLS / 8).collect();
    for bell in [WAIT_CELLS, WAIT_CELLS + LINE] {
        used.extend(words(bell, BELL));
    }
    used.push(GATING_SET);
    for seat in 0..geometry.seats() {
        used.extend(words(SEATS + seat * LINE, SEAT));
        let page = geometry.role_offset(seat);
        used.extend([page, page + 2 * LINE]);
        used.extend(words(page + LINE, COUNTERS));
    }
    if geometry.kind.spec().has_pool {
        used.push(HEAD);
        used.extend(words(geometry.claims_offset(), geometry.capacity as usize));
        for seat in geometry.seats_of(Role::Consumer) {
            used.extend(words(geometry.role_offset(seat) + PINS, PIN_WORDS));
        }
    }
    if geometry.kind.spec().has_claims {
        let (claims, slots) = (geometry.claims_offset(), geometry.slots() as usize);
        let shared = [0, LINE, 2 * LINE].map(|word| claims + word);
        used.extend(shared);
        used.extend(words(claims + WORDS_OFFSET, slots));
        used.extend(words(claims + geometry.notes_offset(), slots * NOTE / 8));
    }
    used
}

/// Returns all values to which a word is set.
fn values(old: u64, capacity: u64) -> BTreeSet<u64> {
    let flipped = (0..64).map(|bit| old ^ 1 << bit);
    let edges = [0, 1, 1 << 31, 1 << 63, u64::MAX - 1, u64::MAX];
    let near = [1, capacity].map(|by| [old.wrapping_add(by), old.wrapping_sub(by)]);
    let all = flipped.chain(edges).chain(near.into_iter().flatten());
    all.filter(|value| *value != old).collect()
}
