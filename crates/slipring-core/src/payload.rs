//! Defines payloads: values that are only bits, and so may travel between programs.
//!
//! A message written by one program is read by another that was compiled
//! apart from it, so a payload is read back as whatever bytes are there.
//!
//! A [`Payload`] guarantees:
//!
//! - every bit pattern of its size is a valid value, so garbage in shared
//!   memory is a wrong number and never undefined behaviour;
//! - it has no padding, so every byte of it is initialised and may be copied,
//!   hashed and compared;
//! - it owns nothing and borrows nothing: a copy needs no drop, and no address
//!   in it can point into another process's memory;
//! - it is at least one byte long;
//! - its [`Schema`] names its layout, so that two programs which disagree about
//!   it are told so when they open the channel, before the first message.
//!
//! These types are refused; the last column says what to write instead:
//!
//! | not a payload | because | instead |
//! |---|---|---|
//! | `String`, `Vec<T>`, `Box<T>` | they own memory of one process | `[u8; N]` and a length, or a `bytes` channel |
//! | `&T`, `*const T`, `fn()` | an address means nothing elsewhere | an index or an offset |
//! | `bool`, `char`, enums, `NonZero` | some bit patterns are not values | `u8` or `u32`, and `TryFrom` |
//! | `usize`, `isize` | their width differs between 32- and 64-bit programs on one host | `u64`, `i64` |
//! | `Cell<T>`, atomics | a payload is handed over, never shared | the plain integer |
//! | tuples, structs without `repr(C)` | their layout is the compiler's choice | a `repr(C)` struct |
//! | a struct with padding | padding bytes are uninitialised | an explicit `_pad: [u8; N]` |
//!
//! `T: Copy` would be the simple rule, and it is not enough: references, `bool`
//! and structs with holes are all `Copy`.

use core::fmt;

/// A value that is only bits: any bit pattern is valid, no padding, owns
/// nothing, borrows nothing.
///
/// Derive it for a `#[repr(C)]` struct of payloads: `#[derive(Payload, Clone,
/// Copy)]`. Integers and floats of fixed width are payloads, and so are
/// non-empty arrays of payloads.
///
/// ```
/// # use slipring_core as slipring;
/// use slipring::payload::Payload;
///
/// assert_eq!(u64::SCHEMA.name, "u64");
/// assert_eq!(<[u32; 6]>::SCHEMA.size, 24);
/// assert_ne!(u64::SCHEMA.fingerprint, f64::SCHEMA.fingerprint);
/// ```
///
/// An empty array has no bytes that could travel:
///
/// ```compile_fail
/// # use slipring_core::payload::Payload;
/// let schema = <[u64; 0]>::SCHEMA;
/// ```
///
/// # Safety
///
/// The derive keeps this contract by itself. To implement the trait by hand is
/// to promise that
///
/// - every pattern of `size_of::<Self>()` bytes is a valid `Self`, none of those
///   bytes is padding, and there is at least one;
/// - `Self` holds no address and no interior mutability;
/// - [`Bytes`](Self::Bytes) has the size, the alignment and, for each field, the
///   offset of `Self`;
/// - [`SCHEMA`](Self::SCHEMA) has the real size and alignment, and a
///   fingerprint made by [`Fingerprint`] from the real fields.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a payload: it cannot be read back from shared memory",
    label = "not a payload",
    note = "payloads are integers and floats of fixed width, non-empty arrays of payloads, and structs with `#[derive(Payload, Clone, Copy)] #[repr(C)]`",
    note = "instead of `bool`, `char` or an enum use `u8` or `u32`; instead of `usize` use `u64`; instead of a reference or pointer use an index",
    note = "instead of `String`, `Vec` or `Box` use `[u8; N]` and a length, or send the bytes through a `bytes` channel"
)]
pub unsafe trait Payload: Copy + Send + 'static {
    /// The bytes of this type as `zerocopy` sees them: same size, alignment and
    /// field offsets as `Self`.
    ///
    /// No code makes a value of it. It is the witness: a type for which
    /// `zerocopy` has proved that there is no padding and that every bit
    /// pattern is valid.
    #[doc(hidden)]
    type Bytes: zerocopy::FromBytes
        + zerocopy::IntoBytes
        + zerocopy::Immutable
        + zerocopy::KnownLayout;

    /// Name, version, size, alignment and fingerprint of this type.
    const SCHEMA: Schema;
}

/// The description of a type that two programs compare before they exchange payloads.
///
/// Programs that agree on the fingerprint agree on all the rest; the other
/// figures are there so that an error can say what was found and what was
/// expected.
///
/// ```
/// # use slipring_core as slipring;
/// use slipring::payload::Payload;
///
/// let shown = u16::SCHEMA.to_string();
/// assert!(shown.starts_with("u16 version 0, 2 bytes aligned to 2, fingerprint "));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The name given by `#[payload(name = "…")]`, or the struct's identifier;
    /// `"u64"` and the like for primitives, `"array"` for arrays.
    pub name: &'static str,
    /// The version given by `#[payload(version = …)]`, or 0.
    pub version: u32,
    /// `size_of` the type, at least 1.
    pub size: usize,
    /// `align_of` the type.
    pub align: usize,
    /// The digest of all of the above and of every field: see [`Fingerprint`].
    pub fingerprint: u128,
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Schema {
            name,
            version,
            size,
            align,
            fingerprint,
        } = self;
        let s = if *size == 1 { "" } else { "s" };
        write!(
            f,
            "{name} version {version}, {size} byte{s} aligned to {align}, fingerprint {fingerprint:032x}"
        )
    }
}

/// The digest of a type's definition: FNV-1a with 128 bits over a description
/// of its bytes, computed at compile time.
///
/// It is the same for the same definition in every program, compiler and
/// language, which neither `TypeId` nor `type_name` promises. It finds
/// mistakes; it does not resist an adversary.
///
/// The description is this sequence of bytes, each integer little-endian:
///
/// ```text
/// u64  length of the name in bytes
///      the name, UTF-8, no terminator
/// u64  version
/// u64  size
/// u64  alignment
///                                       and for each field, in order of declaration:
/// u64  length of the field's name in bytes
///      the field's name, UTF-8          (tuple fields are "0", "1", …; `r#type` is "type")
/// u64  offset of the field
/// u128 fingerprint of the field's type
///                                       and last:
/// u64  number of fields
/// ```
///
/// A primitive has its Rust name (`"u8"` … `"i128"`, `"f32"`, `"f64"`), version
/// 0 and no fields. An array is named `"array"`, has version 0 and one field
/// `"element"` at offset 0; its length is its size divided by its element's.
///
/// The digest starts at `0x6c62272e07bb014262b821756295c58d`. For each byte:
/// exclusive-or it into the lowest eight bits, then multiply by `2^88 + 0x13b`
/// modulo `2^128`.
///
/// ```
/// # use slipring_core as slipring;
/// use slipring::payload::{Fingerprint, Payload};
///
/// // What #[derive(Payload)] computes for
/// //     #[repr(C)] #[payload(version = 2)] struct Tick { seq: u64, bid: f64 }
/// const TICK: u128 = Fingerprint::of("Tick", 2, 16, 8)
///     .field("seq", 0, u64::SCHEMA.fingerprint)
///     .field("bid", 8, f64::SCHEMA.fingerprint)
///     .finish();
/// # assert_ne!(TICK, 0);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a fingerprint is nothing until it is finished"]
pub struct Fingerprint {
    state: u128,
    fields: u64,
}

impl Fingerprint {
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = (1 << 88) + 0x13b;

    /// Begins the description of a type that has no fields yet.
    pub const fn of(name: &str, version: u32, size: usize, align: usize) -> Self {
        Self {
            state: Self::OFFSET_BASIS,
            fields: 0,
        }
        .text(name)
        .word(version as u64)
        .word(size as u64)
        .word(align as u64)
    }

    /// Adds the next field in order of declaration.
    pub const fn field(self, name: &str, offset: usize, fingerprint: u128) -> Self {
        let mut next = self
            .text(name)
            .word(offset as u64)
            .bytes(&fingerprint.to_le_bytes());
        next.fields += 1;
        next
    }

    /// Ends the description and returns its digest.
    pub const fn finish(self) -> u128 {
        // The count comes last so that a builder need not know it beforehand. A
        // field takes at least 32 bytes and the count 8: no two lists of fields
        // share a description.
        self.word(self.fields).state
    }

    const fn text(self, text: &str) -> Self {
        self.word(text.len() as u64).bytes(text.as_bytes())
    }

    const fn word(self, word: u64) -> Self {
        self.bytes(&word.to_le_bytes())
    }

    const fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut i = 0; // `for` is not yet const
        while i < bytes.len() {
            self.state = (self.state ^ bytes[i] as u128).wrapping_mul(Self::PRIME);
            i += 1;
        }
        self
    }
}

/// Implements [`Payload`] for primitives that `zerocopy` accepts as they are.
macro_rules! primitive {
    ($($primitive:ident)*) => {$(
        // SAFETY: the `Bytes` of a primitive is the primitive itself, so that the
        // bounds on `Bytes` are zerocopy's proof that all its bit patterns are
        // valid and that it has no padding. It is a number and holds no address.
        #[diagnostic::do_not_recommend]
        unsafe impl Payload for $primitive {
            type Bytes = Self;
            const SCHEMA: Schema = Schema {
                name: stringify!($primitive),
                version: 0,
                size: size_of::<Self>(),
                align: align_of::<Self>(),
                fingerprint: Fingerprint::of(
                    stringify!($primitive),
                    0,
                    size_of::<Self>(),
                    align_of::<Self>(),
                )
                .finish(),
            };
        }
    )*};
}

primitive!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);

// SAFETY: an array is its elements one after another, without padding between
// or after them, so what holds for `T` and `T::Bytes` holds for N of them. An
// empty array is refused by the assertion as soon as its schema is asked for.
unsafe impl<T: Payload, const N: usize> Payload for [T; N] {
    type Bytes = [T::Bytes; N];
    const SCHEMA: Schema = {
        assert!(
            N > 0,
            "a payload is at least one byte long: an empty array is not a payload"
        );
        Schema {
            name: "array",
            version: 0,
            size: size_of::<Self>(),
            align: align_of::<Self>(),
            fingerprint: Fingerprint::of("array", 0, size_of::<Self>(), align_of::<Self>())
                .field("element", 0, T::SCHEMA.fingerprint)
                .finish(),
        }
    };
}

/// Holds what `#[derive(Payload)]` uses to prove its contract, and to put its errors
/// where the mistake is. Not for other use.
#[doc(hidden)]
pub mod derive {
    use super::Payload;

    /// Returns the number of bytes between the end of a field and what begins at `next`.
    pub const fn gap<T>(offset: usize, next: usize) -> usize {
        next - offset - size_of::<T>()
    }

    /// Holds only for 0 bytes: the bound whose failure is the error message.
    #[diagnostic::on_unimplemented(
        message = "a payload has no padding, but {BYTES} bytes of it follow this field",
        label = "add a field `_pad: [u8; {BYTES}]` after this one, or put larger fields first"
    )]
    pub trait NoPaddingAfter<const BYTES: usize> {
        /// Asked for where the bound must hold.
        const PROVED: () = ();
    }

    #[diagnostic::do_not_recommend]
    impl NoPaddingAfter<0> for () {}

    /// Answers at compile time if `T` is a payload, for one concrete `T`:
    /// `Probe::<T>::IS_PAYLOAD` is the inherent constant where that exists, and
    /// else the one of [`Otherwise`].
    pub struct Probe<T>(core::marker::PhantomData<T>);

    impl<T: Payload> Probe<T> {
        /// `T` is a payload.
        pub const IS_PAYLOAD: bool = true;
    }

    /// The second choice.
    pub trait Otherwise {
        /// `Self` is the probe of something else.
        const IS_PAYLOAD: bool = false;
    }

    impl<T> Otherwise for Probe<T> {}

    /// The mirror of a field: its `Bytes` if it is a payload; else as many bytes
    /// in its place, so that only the missing `Payload` is reported.
    pub trait Mirrored<const IS_PAYLOAD: bool, const SIZE: usize> {
        /// The type that stands in the mirror.
        type Bytes;
    }

    impl<T: Payload, const SIZE: usize> Mirrored<true, SIZE> for T {
        type Bytes = T::Bytes;
    }

    impl<T, const SIZE: usize> Mirrored<false, SIZE> for T {
        type Bytes = [u8; SIZE];
    }
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;

    /// The digest is FNV-1a with 128 bits. The FNV authors' own test vectors.
    #[test]
    fn digest_is_128_bit_fnv_1a() {
        let digest = |bytes| {
            let begun = Fingerprint {
                state: Fingerprint::OFFSET_BASIS,
                fields: 0,
            };
            begun.bytes(bytes).state
        };
        assert_eq!(digest(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(digest(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(digest(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
