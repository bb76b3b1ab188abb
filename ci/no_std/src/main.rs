//! Runs `slipring-core` on bare ground: no std, no alloc, no libc, memory from a static.
//!
//! It makes a channel of each kind there and passes messages through it. The exit code is 0, or the
//! number of the step that went wrong, or 101 after a panic.
#![no_std]
#![no_main]

mod queue;
mod shared;
mod topic;

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use slipring_core::end::{Endpoint, Pop, Push};
use slipring_core::guard::{Hold, Reserve};
use slipring_core::layout::{Control, Geometry, Growth, Identity, Kind, METADATA, Side, WhenFull};
use slipring_core::mem::{ByteRing, Classes, Slots};
use slipring_core::payload::Payload;
use slipring_core::proto::broadcast::{self, Mode, Overwriting, Waiting};
use slipring_core::proto::bytes::{self, record_size};
use slipring_core::proto::spsc;
use slipring_core::record::HoldRecord;
use slipring_core::rings::{Resize, Rings};
use slipring_core::seat::Peer;
use slipring_core::sync::{AtomicU32, Ordering};
use slipring_core::wait::{Notifier, Os, Reach};
use slipring_core::{CachedLimit, Corrupt, End, Error, FormatError};

const CONTROL: usize = 3 * 4096;
const DATA: usize = 8192;

/// Memory for a channel: a page of a device, say.
#[repr(C, align(4096))]
struct Ground<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: there is one thread.
unsafe impl<const N: usize> Sync for Ground<N> {}

impl<const N: usize> Ground<N> {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(&self.0).cast()
    }
}

static SLOTS: (Ground<CONTROL>, Ground<DATA>) = fresh();
static RECORDS: (Ground<CONTROL>, Ground<DATA>) = fresh();
static FEEDS: [(Ground<CONTROL>, Ground<DATA>); 2] = [fresh(), fresh()];

const fn fresh<const LEN: usize>() -> (Ground<LEN>, Ground<DATA>) {
    (
        Ground(UnsafeCell::new([0; LEN])),
        Ground(UnsafeCell::new([0; DATA])),
    )
}

/// The step that failed, for the exit code.
struct Wrong(u8);

impl From<Error> for Wrong {
    fn from(_: Error) -> Wrong {
        Wrong(90)
    }
}

impl From<Corrupt> for Wrong {
    fn from(_: Corrupt) -> Wrong {
        Wrong(91)
    }
}

impl From<FormatError> for Wrong {
    fn from(_: FormatError) -> Wrong {
        Wrong(92)
    }
}

fn check(step: u8, holds: bool) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(Wrong(step)) }
}

/// Makes a channel and takes all of its seats.
fn make<const LEN: usize>(
    memory: &'static (Ground<LEN>, Ground<DATA>),
    geometry: &Geometry,
) -> Result<Control<'static>, Wrong> {
    // SAFETY: it is a static of that length, which all code accesses only through this.
    let control = unsafe { Control::new(memory.0.base(), LEN) }?;
    // Other payloads than values of eight bytes are byte strings.
    let schema = (geometry.slot_size == 8).then_some(&u64::SCHEMA);
    let made = control.format(
        geometry,
        schema,
        Identity::default(),
        &[0; METADATA],
        DATA as u64,
    )?;
    check(
        1,
        control.read(DATA as u64)? == made && made.geometry == *geometry,
    )?;
    for seat in 0..geometry.seats() {
        control.seat(seat).take(0)?;
    }
    Ok(control)
}

/// A machine with no thread to wake and none that sleeps.
struct Bare;

impl Os for Bare {
    fn sleep(&self, _: &AtomicU32, _: u32, _: u64, _: u64) {}
    fn wake(&self, _: &AtomicU32, _: u64) {}
    fn signal(&self, _: usize) {}
    fn now(&self) -> u64 {
        0
    }
    fn barrier(&self) -> Reach {
        Reach::Nobody
    }
}

fn notifier(control: &Control<'static>, geometry: &Geometry, role: usize) -> Notifier<'static> {
    let waiter = Side::One(control.seat_words(geometry, 1 - role));
    let mine = &control.role(geometry, role).counters;
    Notifier::new(control.wait_cell(role == 0), waiter, mine, true, &Bare)
}

/// Passes values through a ring, which grows and shrinks meanwhile if it can.
fn slots(growth: Option<Growth>) -> Result<(), Wrong> {
    let geometry = Geometry {
        kind: Kind::Spsc,
        capacity: 16,
        slot_size: 8,
        slot_align: 8,
        when_full: WhenFull::Wait,
        producers: 1,
        consumers: 1,
        skew: 0,
        pins: 0,
        pool: 0,
        growth,
    };
    let control = make(&SLOTS, &geometry)?;
    let rings = control.rings(&geometry).map(|words| {
        // SAFETY: `make` found the data part long enough; it is a static.
        let classes = unsafe { Classes::new(SLOTS.1.base(), geometry) };
        // All of the memory stays.
        Rings::new(words, classes, None)
    });
    let (producer, consumer) = (control.role(&geometry, 0), control.role(&geometry, 1));
    let ring = |role: usize| spsc::Ring {
        tail: &producer.position,
        head: &consumer.position,
        // SAFETY: the data part has more than 16 words, and is a static.
        slots: unsafe { Slots::<u64>::new(SLOTS.1.base().cast(), 16) },
        writable: true,
        notifier: notifier(&control, &geometry, role),
        rings: rings.as_ref(),
    };
    let (mut ours, mut theirs) = (CachedLimit::new(), CachedLimit::new());
    // SAFETY: this is the only producer.
    let mut tx = unsafe {
        spsc::Producer::new(
            ring(0),
            Peer::consumer(control.seat(1), || true)?,
            &mut ours,
        )
    }?;
    let peer = Peer::producer(control.seat(0), control.seat(1));
    // SAFETY: this is the only consumer.
    let mut rx = unsafe { spsc::Consumer::new(ring(1), peer, &mut theirs) }?;
    let (mut next, mut resizes) = (0, 0);
    for value in 0..1000 {
        if value % 100 == 50 && rings.is_some() {
            let before = tx.capacity();
            let _ = rx.settle(u32::MAX);
            // Refused while the consumer is in the ring of that capacity.
            let resized = tx.resize(48 - before as u64).is_ok();
            check(
                9,
                tx.capacity() == if resized { 48 - before } else { before },
            )?;
            resizes += u32::from(resized);
        }
        check(2, tx.try_push(value) == Ok(()))?;
        if rx.len()? == 13 {
            for found in rx.try_read_batch(13)?.iter() {
                check(3, *found == next)?;
                next += 1;
            }
        }
    }
    check(10, rings.is_none() || resizes > 5)?;
    check(4, rx.len()? as u64 == 1000 - next)?;
    check(8, matches!(rx.try_read(), Ok(message) if *message == next))?;
    next += 1;
    control.seat(0).leave(1, End::Finished);
    while let Ok(found) = rx.try_pop() {
        check(5, found == next)?;
        next += 1;
    }
    check(6, next == 1000)?;
    check(7, rx.try_pop() == Err(Error::Disconnected(End::Finished)))
}

fn records() -> Result<(), Wrong> {
    let geometry = Geometry {
        kind: Kind::Bytes,
        capacity: 4096,
        slot_size: 4096,
        slot_align: 8,
        when_full: WhenFull::Wait,
        producers: 1,
        consumers: 1,
        skew: 0,
        pins: 0,
        pool: 0,
        growth: None,
    };
    let control = make(&RECORDS, &geometry)?;
    let (producer, consumer) = (control.role(&geometry, 0), control.role(&geometry, 1));
    let ring = |role: usize, messages| bytes::Ring {
        tail: &producer.position,
        head: &consumer.position,
        // SAFETY: the data part has ring and slack, and is a static.
        records: unsafe { ByteRing::new(RECORDS.1.base(), 4096, 4096) },
        messages,
        writable: true,
        notifier: notifier(&control, &geometry, role),
        rings: None,
    };
    let (mut ours, mut theirs) = (CachedLimit::new(), CachedLimit::new());
    let peer = Peer::consumer(control.seat(1), || true)?;
    // SAFETY: this is the only producer.
    let mut tx =
        unsafe { bytes::Producer::new(ring(0, &producer.counters.messages), peer, &mut ours) }?;
    let peer = Peer::producer(control.seat(0), control.seat(1));
    // SAFETY: this is the only consumer.
    let mut rx =
        unsafe { bytes::Consumer::new(ring(1, &consumer.counters.messages), peer, &mut theirs) }?;
    for len in (0..4000).step_by(13) {
        let mut record = tx.try_reserve(4088)?;
        record[..len].fill(len as u8);
        record.commit(len);
        check(12, tx.len()? as u64 == record_size(len as u64))?;
        let found = rx.try_read()?;
        check(
            13,
            found.len() == len && found.iter().all(|byte| *byte == len as u8),
        )?;
    }
    check(14, matches!(rx.try_read(), Err(Error::Empty)))
}

fn feed<M: Mode>(memory: &'static (Ground<CONTROL>, Ground<DATA>)) -> Result<(), Wrong> {
    let geometry = Geometry {
        kind: Kind::Broadcast,
        when_full: M::WHEN_FULL,
        capacity: 16,
        slot_size: 8,
        slot_align: 8,
        producers: 1,
        consumers: 1,
        skew: 0,
        pins: 0,
        pool: 0,
        growth: None,
    };
    let control = make(memory, &geometry)?;
    let (producer, consumer) = (control.role(&geometry, 0), control.role(&geometry, 1));
    let seats = [control.seat_words(&geometry, 1)];
    let ring = |role: usize| broadcast::Ring::<u64, M> {
        tail: &producer.position,
        write_limit: &producer.write_limit.0,
        gating_set: control.gating_set(),
        consumers: Side::Many(&seats),
        // SAFETY: the data part has more than 16 words, all zero, and is a static.
        slots: unsafe { M::slots(memory.1.base(), 16) },
        lagged: &control.role(&geometry, role).counters.lagged,
        writable: true,
        notifier: notifier(&control, &geometry, role),
    };
    let seat = broadcast::Seat {
        position: &consumer.position,
        write_limit: &producer.write_limit.0,
        gating_set: control.gating_set(),
        bit: 1,
        capacity: 16,
    };
    let (mut ours, mut theirs) = (CachedLimit::new(), CachedLimit::new());
    // SAFETY: this is the only producer.
    let mut tx = unsafe { broadcast::Producer::new(ring(0), &mut ours) }?;
    let peer = Peer::producer(control.seat(0), control.seat(1));
    let oldest = broadcast::Seek::Oldest;
    // SAFETY: this is the only consumer.
    let mut rx = unsafe { broadcast::Consumer::new(ring(1), seat, peer, &mut theirs, oldest) }?;
    for value in 0..100 {
        check(21, tx.try_push(value) == Ok(()))?;
        check(22, rx.try_pop() == Ok(value))?;
    }
    let fit = (100..200)
        .filter(|value| tx.try_push(*value).is_ok())
        .count();
    match M::WHEN_FULL {
        WhenFull::Wait => check(23, fit == 16 && rx.try_pop() == Ok(100)),
        // All but a ring is gone, and an eighth of that ring.
        WhenFull::Overwrite => check(
            24,
            fit == 100
                && rx.try_pop() == Err(Error::Lagged(86))
                && consumer.counters.lagged.load(Ordering::Relaxed) == 86
                && rx.try_pop() == Ok(186),
        ),
    }
}

extern "C" fn run() -> ! {
    let feeds = || feed::<Waiting>(&FEEDS[0]).and_then(|()| feed::<Overwriting>(&FEEDS[1]));
    let growth = Growth {
        max_capacity: 32,
        grain: 4096,
    };
    let growing = || slots(Some(growth));
    let rings = || {
        slots(None)
            .and_then(|()| growing())
            .and_then(|()| records())
    };
    let topics = || topic::values().and_then(|()| topic::strings());
    let all = rings()
        .and_then(|()| feeds())
        .and_then(|()| shared::records())
        .and_then(|()| queue::jobs())
        .and_then(|()| topics());
    match all {
        Ok(()) => exit(0),
        Err(Wrong(step)) => exit(step),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}

fn exit(code: u8) -> ! {
    // SAFETY: the system call `exit_group` (231), which does not return.
    unsafe {
        core::arch::asm!("syscall", in("rax") 231, in("rdi") u64::from(code), options(noreturn));
    }
}

core::arch::global_asm!(
    ".globl _start",
    "_start: and rsp, -16",
    "call {run}",
    "ud2",
    run = sym run,
);

/// Defines the functions that the compiler calls by itself, and that every C library or firmware
/// has, in their plainest form.
mod memory {
    use core::arch::asm;

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        // SAFETY: the caller's promise, which is memcpy's.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _);
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        if to.addr() < from.addr() {
            // SAFETY: forwards, so that each byte is read before it is overwritten.
            return unsafe { memcpy(to, from, len) };
        }
        for at in (0..len).rev() {
            // SAFETY: the caller's promise; backwards, for the same reason.
            unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
        // SAFETY: the caller's promise, which is memset's.
        unsafe {
            asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8);
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        for at in 0..len {
            // SAFETY: the caller's promise, which is memcmp's.
            let (a, b) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        // SAFETY: the caller's promise, which is the same.
        unsafe { memcmp(a, b, len) }
    }
}
