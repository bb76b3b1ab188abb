//! A stranger that writes into the memory of others, as it likes and when it likes.
//!
//! | line | the stranger |
//! |---|---|
//! | `scribble` FD SEED | maps this inherited file, and writes random bytes to random places all over it |
//! | meanwhile: `how` | says how many bytes it has written, and goes on |
//! | meanwhile: `stop` | says the same, and ends |

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use crate::worker::{Line, Said};
use crate::{is_told, next_line, say};

/// The number of bytes that it writes before it looks for the next line.
const BURST: u64 = 4096;

pub(crate) fn scribble(line: &Line<'_>) -> Said {
    let (memory, mut dice) = (map(line.number(1) as i32), line.number(2) | 1);
    let (base, len) = (memory.cast::<u8>(), memory.len() as u64);
    let mut written = 0;
    say("ok");
    loop {
        if is_told() {
            match next_line().as_deref() {
                Some("how") => say(&format!("ok\t{written}")),
                Some("stop") => return Ok(vec![written.to_string()]),
                // The test is gone.
                None => std::process::exit(0),
                other => panic!("not now: {other:?}"),
            }
        }
        for _ in 0..BURST {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let at = (dice >> 8) % len;
            // SAFETY: inside the mapping.
            let byte = unsafe { base.add(at as usize) };
            // SAFETY: mapped for writing, and this process has no reference to it.
            unsafe { byte.write_volatile(dice as u8) };
        }
        written += BURST;
    }
}

/// Maps all of an inherited file, for good.
fn map(fd: i32) -> NonNull<[u8]> {
    // SAFETY: the test's side keeps the descriptor open, and this process never closes it.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let len = rustix::fs::fstat(file).unwrap().st_size as usize;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let place = std::ptr::null_mut();
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let base = unsafe { rustix::mm::mmap(place, len, protection, MapFlags::SHARED, file, 0) };
    NonNull::slice_from_raw_parts(NonNull::new(base.unwrap().cast()).unwrap(), len)
}
