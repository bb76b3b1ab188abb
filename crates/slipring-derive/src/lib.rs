//! `#[derive(Payload)]`: proves at compile time that a struct is only bits.
//!
//! The derive guarantees this for the struct that it accepts:
//!
//! - its layout is fixed by the C rules, and has no padding;
//! - every bit pattern is a valid value, and no field owns or borrows anything;
//! - it has a [fingerprint](https://docs.rs/slipring-core) of its name, version, size, alignment
//!   and fields, by which two programs recognise each other.
//!
//! The derive refuses structs without `repr(C)` or `repr(transparent)`, packed structs, structs
//! without fields, enums, unions, generics and lifetimes, and every field that is not a payload
//! itself. The error says what to write instead. The derive never panics and looks only at the
//! tokens of the struct: the compiler and `zerocopy` do the proving (see `expand.rs`).
//!
//! Map: `input.rs` accepts or refuses the input; `expand.rs` generates the code.

mod expand;
mod input;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a `repr(C)` struct of payloads a payload.
///
/// ```
/// use slipring::Payload;
///
/// #[derive(Payload, Clone, Copy)]
/// #[repr(C)]
/// struct Tick {
///     seq: u64,
///     bid: f64,
///     ask: f64,
/// }
///
/// assert_eq!(Tick::SCHEMA.name, "Tick");
/// assert_eq!(Tick::SCHEMA.size, 24);
/// ```
///
/// Fields may be integers and floats of fixed width, arrays, and other structs
/// that derive `Payload`. Padding is never implied; it is a field like any other:
///
/// ```
/// # use slipring::Payload;
/// #[derive(Payload, Clone, Copy)]
/// #[repr(C)]
/// struct Level {
///     price: f64,
///     size: u32,
///     _pad: [u8; 4],
/// }
///
/// #[derive(Payload, Clone, Copy)]
/// #[repr(C, align(64))] // one cache line
/// #[payload(name = "acme.Book", version = 2)]
/// struct Book {
///     levels: [Level; 4],
/// }
///
/// assert_eq!(Book::SCHEMA.to_string().split(',').next(), Some("acme.Book version 2"));
/// ```
///
/// # Attributes
///
/// - `#[payload(name = "…")]`: the name in the schema. Without it, the name is the struct's
///   identifier (without its module, so that moving it changes nothing).
/// - `#[payload(version = 2)]`: a `u32`; without it 0. Raise it when the meaning of a field changes
///   but its name and type do not: no other part of the fingerprint would change.
/// - `#[payload(crate = "slipring_core")]`: the path of the crate, if it is not at `::slipring`.
#[proc_macro_derive(Payload, attributes(payload))]
pub fn derive_payload(tokens: TokenStream) -> TokenStream {
    let input = parse_macro_input!(tokens as DeriveInput);
    match input::Struct::accept(&input) {
        Ok(accepted) => expand::expand(&accepted).into(),
        Err(refusal) => refusal.to_compile_error().into(),
    }
}
