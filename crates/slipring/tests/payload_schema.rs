//! Two programs recognise each other's payloads by a fingerprint. These tests check the changes
//! that alter it, those that do not, and that the algorithm cannot drift.
//!
//! No code here imports `zerocopy`, and unsafe code is forbidden: a user who derives `Payload` has
//! the same conditions.

#![forbid(unsafe_code)]

use slipring::Payload;

/// The struct with which all the others below are compared.
#[derive(Payload, Clone, Copy)]
#[repr(C)]
#[allow(dead_code)]
struct Tick {
    seq: u64,
    bid: f64,
}

/// Makes a module with a `Tick` of its own and returns its schema.
macro_rules! schema_of {
    ($($definition:tt)*) => {{
        mod other {
            #[derive(slipring::Payload, Clone, Copy)]
            #[repr(C)]
            #[allow(dead_code)]
            $($definition)*
        }
        <other::Tick as Payload>::SCHEMA
    }};
}

/// The same definition elsewhere has the same schema.
#[test]
fn same_definition_means_same_schema() {
    let other = schema_of!(
        pub(super) struct Tick {
            seq: u64,
            bid: f64,
        }
    );
    assert_eq!(Tick::SCHEMA, other);
    assert_eq!(
        (other.name, other.version, other.size, other.align),
        ("Tick", 0, 16, 8)
    );
}

/// Each change of a definition changes the fingerprint of its schema.
#[test]
fn any_change_changes_the_fingerprint() {
    let changes = [
        ("nothing", Tick::SCHEMA),
        (
            "its name",
            schema_of!(
                #[payload(name = "Tock")]
                pub(super) struct Tick {
                    seq: u64,
                    bid: f64,
                }
            ),
        ),
        (
            "its version",
            schema_of!(
                #[payload(version = 1)]
                pub(super) struct Tick {
                    seq: u64,
                    bid: f64,
                }
            ),
        ),
        (
            "a field's name",
            schema_of!(
                pub(super) struct Tick {
                    seq: u64,
                    ask: f64,
                }
            ),
        ),
        (
            "the fields' order",
            schema_of!(
                pub(super) struct Tick {
                    bid: f64,
                    seq: u64,
                }
            ),
        ),
        (
            "two fields' names exchanged",
            schema_of!(
                pub(super) struct Tick {
                    bid: u64,
                    seq: f64,
                }
            ),
        ),
        (
            "a field's type",
            schema_of!(
                pub(super) struct Tick {
                    seq: u64,
                    bid: u64,
                }
            ),
        ),
        (
            "a field's type, to an array as large",
            schema_of!(
                pub(super) struct Tick {
                    seq: u64,
                    bid: [f64; 1],
                }
            ),
        ),
        (
            "the number of fields",
            schema_of!(
                pub(super) struct Tick {
                    seq: u64,
                    bid: f64,
                    ask: f64,
                }
            ),
        ),
        (
            "its alignment",
            schema_of!(
                #[repr(align(16))]
                pub(super) struct Tick {
                    seq: u64,
                    bid: f64,
                }
            ),
        ),
        (
            "to a tuple",
            schema_of!(
                pub(super) struct Tick(u64, f64);
            ),
        ),
    ];
    for (i, (change, schema)) in changes.iter().enumerate() {
        for (earlier, other) in &changes[..i] {
            assert_ne!(
                schema.fingerprint, other.fingerprint,
                "after a change of {change}, and of {earlier}"
            );
        }
    }
}

#[test]
fn a_change_deep_inside_shows_outside() {
    mod v1 {
        #[derive(slipring::Payload, Clone, Copy)]
        #[repr(C)]
        pub(super) struct Level {
            price: f64,
        }
    }
    mod v2 {
        #[derive(slipring::Payload, Clone, Copy)]
        #[repr(C)]
        #[payload(version = 2)]
        pub(super) struct Level {
            price: f64,
        }
    }
    macro_rules! book {
        ($level:ty) => {{
            #[derive(Payload, Clone, Copy)]
            #[repr(C)]
            struct Side([$level; 3]);
            #[derive(Payload, Clone, Copy)]
            #[repr(C)]
            struct Book {
                sides: [Side; 2],
            }
            Book::SCHEMA
        }};
    }
    assert_eq!(book!(v1::Level), book!(v1::Level));
    assert_ne!(book!(v1::Level), book!(v2::Level));
}

/// Arrays have different schemas if their elements or their lengths differ.
#[test]
fn arrays_differ_by_element_and_length() {
    let fingerprints = [
        u64::SCHEMA.fingerprint,
        <[u64; 1]>::SCHEMA.fingerprint,
        <[u64; 2]>::SCHEMA.fingerprint,
        <[i64; 2]>::SCHEMA.fingerprint,
        <[u128; 1]>::SCHEMA.fingerprint,
        <[[u64; 1]; 2]>::SCHEMA.fingerprint,
        <[[u64; 2]; 1]>::SCHEMA.fingerprint,
    ];
    for (i, one) in fingerprints.iter().enumerate() {
        assert!(!fingerprints[..i].contains(one), "number {i}");
    }
}

/// The figures come from this program (Python 3), not from slipring:
///
/// ```python
/// def fingerprint(name, version, size, align, fields=()):
///     u64 = lambda n: n.to_bytes(8, "little")
///     text = lambda s: u64(len(s.encode())) + s.encode()
///     description = text(name) + u64(version) + u64(size) + u64(align)
///     for field, offset, of in fields:
///         description += text(field) + u64(offset) + of.to_bytes(16, "little")
///     digest = 0x6c62272e07bb014262b821756295c58d
///     for byte in description + u64(len(fields)):
///         digest = (digest ^ byte) * (2**88 + 0x13b) % 2**128
///     return digest
///
/// u8, u32, u64, f64 = (fingerprint(n, 0, s, s) for n, s in (("u8", 1), ("u32", 4), ("u64", 8), ("f64", 8)))
/// pad = fingerprint("array", 0, 4, 1, [("element", 0, u8)])
/// level = fingerprint("Level", 0, 16, 8, [("price", 0, f64), ("size", 8, u32), ("_pad", 12, pad)])
/// levels = fingerprint("array", 0, 64, 8, [("element", 0, level)])
/// book = fingerprint("acme.Größe", 7, 72, 8, [("type", 0, u64), ("levels", 8, levels)])
/// pair = fingerprint("Pair", 0, 16, 16, [("0", 0, u64), ("1", 8, f64)])
/// for digest in (u64, level, book, pair):
///     print(f"{digest:#034x}")
/// ```
#[test]
fn fingerprints_are_what_another_language_computes() {
    #[derive(Payload, Clone, Copy)]
    #[repr(C)]
    struct Level {
        price: f64,
        size: u32,
        _pad: [u8; 4],
    }
    #[derive(Payload, Clone, Copy)]
    #[repr(C)]
    #[payload(name = "acme.Größe", version = 7)]
    struct Book {
        r#type: u64,
        levels: [Level; 4],
    }
    #[derive(Payload, Clone, Copy)]
    #[repr(C)]
    #[repr(align(16))]
    struct Pair(u64, f64);

    assert_eq!(
        u64::SCHEMA.fingerprint,
        0x561b_8fbf_0583_ba4f_ed9e_9849_140b_da5b
    );
    assert_eq!(
        Level::SCHEMA.fingerprint,
        0x07b2_0116_8b5e_d562_adec_f994_e919_4ee4
    );
    assert_eq!(
        Book::SCHEMA.fingerprint,
        0xb9a9_56ae_6769_4117_dff7_225a_c565_5b0c
    );
    assert_eq!(
        Pair::SCHEMA.fingerprint,
        0xb076_e6e7_9a72_92f5_bf7d_3267_f517_9fed
    );
}

/// A schema is shown in one line, with its name, version, size, alignment, and fingerprint.
#[test]
fn a_schema_prints_on_one_line() {
    let shown = Tick::SCHEMA.to_string();
    assert_eq!(
        shown,
        format!(
            "Tick version 0, 16 bytes aligned to 8, fingerprint {:032x}",
            Tick::SCHEMA.fingerprint
        )
    );
}

/// Structs that look unusual and are payloads all the same: the test is that they compile.
mod accepted {
    #![deny(warnings)]

    use slipring::Payload;

    /// A struct whose derive uses `slipring_core`, without `slipring` in between.
    #[derive(Payload, Clone, Copy)]
    #[repr(C)]
    #[payload(crate = "slipring_core")]
    pub(crate) struct FromCore {
        word: u64,
    }

    #[derive(Payload, Clone, Copy)]
    #[repr(transparent)]
    struct Id(u32);

    /// A struct that is more visible than its fields' types.
    #[derive(Payload, Clone, Copy)]
    #[repr(C, align(64))]
    pub(crate) struct Line {
        ids: [Id; 6],
        last: Id,
        frame: Frame,
    }

    #[derive(Payload, Clone, Copy)]
    #[repr(C)]
    struct Frame {
        bytes: [u8; Self::LEN],
    }

    impl Frame {
        const LEN: usize = 36;
    }

    /// A struct whose user-chosen names do not clash with the generated ones.
    #[derive(Payload, Clone, Copy)]
    #[repr(C)]
    pub(crate) struct Schema {
        core: Fingerprint,
        #[deprecated]
        value: u32,
    }

    #[derive(Payload, Clone, Copy)]
    #[repr(C)]
    struct Fingerprint {
        slipring: i32,
    }

    #[test]
    #[allow(deprecated)]
    fn unusual_structs_are_payloads() {
        let id = Id(1);
        let line = Line {
            ids: [id; 6],
            last: id,
            frame: Frame {
                bytes: [0; Frame::LEN],
            },
        };
        let schema = Schema {
            core: Fingerprint { slipring: 2 },
            value: 3,
        };
        let sum = line.ids[0].0 + line.last.0 + u32::from(line.frame.bytes[0]);
        assert_eq!(sum + schema.value, 5);
        assert_eq!(schema.core.slipring, 2);
        assert_eq!(FromCore { word: 4 }.word, 4);
        assert_eq!((Line::SCHEMA.size, Line::SCHEMA.align), (64, 64));
    }
}
