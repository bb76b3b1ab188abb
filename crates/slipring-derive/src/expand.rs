//! Generates the code for `#[derive(Payload)]`.
//!
//! A derive sees tokens, not types, so it can prove nothing by itself. It writes down a second
//! struct, the *mirror*, and lets the compiler and `zerocopy` do the proving:
//!
//! ```text
//! #[repr(C)]              #[repr(C)] #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
//! struct Tick {           struct __TickBytes {
//!     seq: u64,               __f0: <u64 as Payload>::Bytes,
//!                             __f0_gap: [u8; 0],
//!     level: Level,           __f1: <Level as Payload>::Bytes,
//!                             __f1_gap: [u8; 0],
//! }                       }
//! ```
//!
//! 1. Every field is a payload: the code asks for its fingerprint.
//! 2. Every gap has length 0: a bound requires it, field by field.
//! 3. Every bit pattern of the mirror is valid and none of its bytes is padding: `zerocopy` accepts
//!    it.
//! 4. The struct and the mirror have one size, one alignment, and the same offset for each field:
//!    constant assertions.
//! 5. The compiler sees the fields that the derive saw, each of the same type: a pattern without
//!    `..` names them all. (An attribute macro below the derive could have changed them.)
//!
//! A proof for the mirror therefore holds for the struct, and the `unsafe impl` follows. The simple way
//! would be to put zerocopy's derives on the struct itself. But a derive cannot add attributes. So
//! the user would write four more and depend on `zerocopy`.
//!
//! Three things serve only the error messages. In the mirror, a stand-in of the same number of
//! bytes replaces a field that is not a payload. The bytes that the compiler inserted fill a gap.
//! So `zerocopy` never complains about the mirror, which the user did not write. One mistake
//! gives one error (1 or 2), in our words, at the field. And `__Required` asks for (1) where the
//! compiler looks first, before it misses `Copy` or `Send` in a struct that owns or borrows
//! something.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use crate::input::Struct;

/// Returns the generated code. It uses full paths throughout, because the user's own names are in
/// scope and may mean anything.
pub(crate) fn expand(input: &Struct<'_>) -> TokenStream {
    let (ident, reprs, fields) = (input.ident, &input.reprs, &input.fields);
    let (name, version) = (&input.options.name, input.options.version);
    let krate = &input.options.krate;
    let payload = quote!(#krate::payload);
    let derive = quote!(#payload::derive);
    let zerocopy = quote!(#krate::zerocopy);
    let zerocopy_path = zerocopy.to_string().replace(' ', "");
    let mirror = format_ident!("__{}Bytes", ident.unraw());
    let size = quote!(::core::mem::size_of::<#ident>());
    let align = quote!(::core::mem::align_of::<#ident>());

    // Each list repeats one piece of code field by field.
    let members: Vec<_> = fields.iter().map(|f| &f.member).collect();
    let names: Vec<_> = fields.iter().map(|f| &f.name).collect();
    let types: Vec<_> = fields.iter().map(|f| &f.ty).collect();
    let aliases: Vec<_> = (0..fields.len()).map(|i| format_ident!("__f{i}")).collect();
    let fillers: Vec<_> = (0..fields.len())
        .map(|i| format_ident!("__f{i}_gap"))
        .collect();
    let offset_of = |member| quote!(::core::mem::offset_of!(#ident, #member));
    let offsets: Vec<_> = members.iter().map(offset_of).collect();
    let nexts = offsets.iter().skip(1).chain([&size]);
    let gaps = offsets.iter().zip(&types).zip(nexts);
    let gaps = gaps.map(|((offset, ty), next)| quote!(#derive::gap::<#ty>(#offset, #next)));
    let gaps: Vec<_> = gaps.collect();

    // This points at the field's type, from its first token to its last: the compiler reports a
    // field that is not a payload there (1).
    let required = types.iter().map(|ty| {
        let last = TokenStream::clone(ty).into_iter().last().span();
        let bytes = quote_spanned!(last=> Bytes);
        quote_spanned!(ty.span()=> <#ty as #payload::Payload>::#bytes)
    });

    // This points at the field: the compiler reports the gap that follows it there (2).
    let no_padding = members.iter().zip(&gaps).map(|(member, gap)| {
        quote_spanned! {member.span()=>
            const _: () = <() as #derive::NoPaddingAfter<{ #gap }>>::PROVED;
        }
    });

    // `zerocopy` judges this struct (3). It is `pub` because an associated type may not be less
    // visible than the item that it belongs to; users cannot name it.
    let mirror_struct = quote! {
        use #derive::Otherwise as _;

        #[derive(
            #zerocopy::FromBytes, #zerocopy::IntoBytes, #zerocopy::Immutable, #zerocopy::KnownLayout,
        )]
        #[zerocopy(crate = #zerocopy_path)]
        #(#reprs)*
        #[doc(hidden)]
        pub struct #mirror {
            #(
                #aliases: <#types as #derive::Mirrored<
                    { #derive::Probe::<#types>::IS_PAYLOAD },
                    { ::core::mem::size_of::<#types>() },
                >>::Bytes,
                #fillers: [u8; #gaps],
            )*
        }
    };

    // (4) With a stand-in in the mirror there is nothing to compare: see (1).
    let same_layout = quote! {
        if #(#derive::Probe::<#types>::IS_PAYLOAD)&&* {
            ::core::assert!(#size == ::core::mem::size_of::<#mirror>());
            ::core::assert!(#align == ::core::mem::align_of::<#mirror>());
            #(::core::assert!(#offsets == ::core::mem::offset_of!(#mirror, #aliases));)*
        }
    };

    // (5) The pattern is by value: no coercion could hide a difference.
    let same_fields = quote! {
        fn __same_fields(value: #ident) {
            let #ident { #(#members: #aliases),* } = value;
            #(let _: #types = #aliases;)*
        }
    };

    quote! {
        #[allow(deprecated)] // a deprecated field still has its place
        const _: () = {
            struct __Required(#(#required),*);
            #(#no_padding)*
            #mirror_struct
            #same_layout
            #same_fields

            // SAFETY: the five points at the head of slipring-derive's expand.rs.
            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            unsafe impl #payload::Payload for #ident {
                type Bytes = #mirror;
                const SCHEMA: #payload::Schema = #payload::Schema {
                    name: #name,
                    version: #version,
                    size: #size,
                    align: #align,
                    fingerprint: #payload::Fingerprint::of(#name, #version, #size, #align)
                        #(.field(#names, #offsets, <#types as #payload::Payload>::SCHEMA.fingerprint))*
                        .finish(),
                };
            }
        };
    }
}
