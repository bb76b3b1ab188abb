//! Models the header: it is there as a whole, or not at all.

use std::ptr::NonNull;
use std::sync::Arc;

use slipring_core::FormatError;
use slipring_core::layout::{Control, Geometry, Identity, Kind, LINE, METADATA, PAGE, WhenFull};
use slipring_core::sync::AtomicU64;

/// A line of loom's words. They are as large as real ones, so the casts of `layout.rs` find them.
///
/// Loom's doorbell takes 64 bits as well. So the reserved words behind it are others here; they are
/// zero, too.
#[repr(C, align(128))]
#[derive(Default)]
struct Line([AtomicU64; 16]);

const _: () = assert!(size_of::<Line>() == LINE);

/// Makes the control part of a channel with two seats. Not as an array: loom's stacks are small.
fn zeroes() -> Arc<[Line]> {
    (0..3 * PAGE / LINE).map(|_| Line::default()).collect()
}

fn control(lines: &[Line]) -> Control<'_> {
    // SAFETY: they live as long as they are borrowed, and all are atomics.
    unsafe { Control::new(NonNull::from(lines).cast(), size_of_val(lines)) }.unwrap()
}

const GEOMETRY: Geometry = Geometry {
    kind: Kind::Spsc,
    capacity: 1,
    slot_size: 8,
    slot_align: 8,
    when_full: WhenFull::Wait,
    producers: 1,
    consumers: 1,
    skew: 0,
    pins: 0,
    pool: 0,
    growth: None,
};

/// Whoever finds the magic in a header finds the whole header.
#[test]
fn a_header_with_magic_is_whole() {
    // There are some four hundred words: one switch in the midst of them is enough.
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(1);
    builder.check(|| {
        let lines = zeroes();
        let maker = lines.clone();
        let thread = loom::thread::spawn(move || {
            let identity = Identity {
                boot: 1,
                unique: 2,
                created: 3,
            };
            let metadata = [b'm'; METADATA];
            let made = control(&maker).format(&GEOMETRY, None, identity, &metadata, 8);
            made.unwrap();
        });
        match control(&lines).read(8) {
            Ok(header) => assert_eq!(header.metadata, [b'm'; METADATA]),
            Err(error) => assert_eq!(error, FormatError::NotAChannel { found: 0 }),
        }
        thread.join().unwrap();
    });
}
