//! Accepts or refuses the input of `#[derive(Payload)]`.
//!
//! This module judges only the tokens. Only the compiler knows whether a field's type is a payload,
//! and whether there is padding: `expand.rs` asks it.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, Ident, LitInt, LitStr, Member, Meta, Path, Result,
    Token, parse_quote,
};

/// A struct that passed every check that can be made on tokens.
pub(crate) struct Struct<'a> {
    pub(crate) ident: &'a Ident,
    /// The `#[repr(…)]` attributes as they were written.
    pub(crate) reprs: Vec<&'a Attribute>,
    pub(crate) fields: Vec<Field>,
    pub(crate) options: Options,
}

pub(crate) struct Field {
    /// The name by which the field is reached: `seq`, or `0`.
    pub(crate) member: Member,
    /// The same name as a string, without `r#`, as the fingerprint uses it.
    pub(crate) name: String,
    /// The field's type, without `Self`.
    pub(crate) ty: TokenStream,
}

/// `#[payload(name = "…", version = …, crate = "…")]`, defaults filled in.
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) krate: Path,
}

impl<'a> Struct<'a> {
    /// Takes the input apart, or returns an error that says what is wrong and what to do.
    pub(crate) fn accept(input: &'a DeriveInput) -> Result<Self> {
        let fields = struct_fields(input)?;
        refuse_generics(input)?;
        let reprs = accept_reprs(input)?;
        let options = Options::parse(input)?;
        let ident = &input.ident;
        let fields = fields.members().zip(fields);
        let fields = fields.map(|(member, field)| Field::accept(ident, member, field));
        let fields = fields.collect::<Result<_>>()?;
        Ok(Self {
            ident,
            reprs,
            fields,
            options,
        })
    }
}

impl Field {
    fn accept(owner: &Ident, member: Member, field: &syn::Field) -> Result<Self> {
        if let Some(attribute) = field.attrs.iter().find(|a| a.path().is_ident("payload")) {
            return Err(Error::new(
                attribute.path().span(),
                "`#[payload(…)]` belongs on the struct, not on a field",
            ));
        }
        let name = match &member {
            Member::Named(ident) => ident.unraw().to_string(),
            Member::Unnamed(index) => index.index.to_string(),
        };
        let ty = without_self(field.ty.to_token_stream(), owner);
        Ok(Self { member, name, ty })
    }
}

/// Returns the same type in a form that keeps its meaning outside of its struct: `[u8; Self::LEN]`
/// becomes `[u8; Frame::LEN]`.
fn without_self(tokens: TokenStream, owner: &Ident) -> TokenStream {
    let named = tokens.into_iter().map(|token| match token {
        TokenTree::Ident(ident) if ident == "Self" => {
            let mut owner = owner.clone();
            owner.set_span(ident.span());
            TokenTree::Ident(owner)
        }
        TokenTree::Group(group) => {
            let mut named = Group::new(group.delimiter(), without_self(group.stream(), owner));
            named.set_span(group.span());
            TokenTree::Group(named)
        }
        other => other,
    });
    named.collect()
}

fn struct_fields(input: &DeriveInput) -> Result<&Fields> {
    match &input.data {
        Data::Struct(data) if data.fields.is_empty() => Err(Error::new(
            input.ident.span(),
            "a payload is at least one byte long: give this struct a field\n\
             (C has no empty struct, and C++ makes it one byte)",
        )),
        Data::Struct(data) => Ok(&data.fields),
        Data::Enum(data) => Err(Error::new(
            data.enum_token.span,
            "an enum is not a payload: most bit patterns are not one of its variants\n\
             send its code as `u8` or `u32`, and convert with `TryFrom` after reading",
        )),
        Data::Union(data) => Err(Error::new(
            data.union_token.span,
            "a union is not a payload: its bytes beyond the written variant are uninitialised\n\
             send a `#[repr(C)]` struct with `[u8; N]` for the part that varies",
        )),
    }
}

fn refuse_generics(input: &DeriveInput) -> Result<()> {
    if input.generics.params.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        input.generics.params.span(),
        "a payload has one layout, so it has no lifetimes and no generic parameters\n\
         write one struct for each concrete type that you send; a payload borrows nothing",
    ))
}

/// Accepts `repr(C)` or `repr(transparent)`, perhaps with `align(N)`, but never `packed`.
fn accept_reprs(input: &DeriveInput) -> Result<Vec<&Attribute>> {
    let reprs: Vec<_> = input
        .attrs
        .iter()
        .filter(|a| a.path().is_ident("repr"))
        .collect();
    let mut fixed = false;
    for repr in &reprs {
        for hint in repr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)? {
            if hint.path().is_ident("packed") {
                return Err(Error::new(
                    hint.span(),
                    "a packed struct is not a payload: its fields are misaligned for reading in place\n\
                     use plain `#[repr(C)]`, put the larger fields first, and make padding a field",
                ));
            }
            fixed |= hint.path().is_ident("C") || hint.path().is_ident("transparent");
        }
    }
    if !fixed {
        return Err(Error::new(
            input.ident.span(),
            "a payload needs a layout that other programs can rely on: add `#[repr(C)]`",
        ));
    }
    Ok(reprs)
}

impl Options {
    fn parse(input: &DeriveInput) -> Result<Self> {
        let (mut name, mut version, mut krate) = (None, None, None);
        for attribute in input.attrs.iter().filter(|a| a.path().is_ident("payload")) {
            attribute.parse_nested_meta(|option| {
                if option.path.is_ident("name") {
                    once(&option, &mut name, parse_name)
                } else if option.path.is_ident("version") {
                    once(&option, &mut version, parse_version)
                } else if option.path.is_ident("crate") {
                    once(&option, &mut krate, parse_crate)
                } else {
                    Err(option.error(
                        "unknown option: expected `name = \"…\"`, `version = 1` or `crate = \"…\"`",
                    ))
                }
            })?;
        }
        Ok(Self {
            name: name.unwrap_or_else(|| input.ident.unraw().to_string()),
            version: version.unwrap_or(0),
            krate: krate.unwrap_or_else(|| parse_quote!(::slipring)),
        })
    }
}

fn once<T>(
    option: &ParseNestedMeta<'_>,
    place: &mut Option<T>,
    parse: fn(&ParseNestedMeta<'_>) -> Result<T>,
) -> Result<()> {
    match place.replace(parse(option)?) {
        None => Ok(()),
        Some(_) => Err(option.error("this option is given twice")),
    }
}

fn parse_name(option: &ParseNestedMeta<'_>) -> Result<String> {
    let text: LitStr = option.value()?.parse()?;
    match text.value() {
        empty if empty.is_empty() => Err(Error::new(text.span(), "a schema's name is not empty")),
        name => Ok(name),
    }
}

fn parse_version(option: &ParseNestedMeta<'_>) -> Result<u32> {
    option.value()?.parse::<LitInt>()?.base10_parse()
}

/// Parses a path in a form that `zerocopy`'s derive understands too: from the crate's root, or an
/// extern crate.
fn parse_crate(option: &ParseNestedMeta<'_>) -> Result<Path> {
    let text: LitStr = option.value()?.parse()?;
    let mut path = text.parse_with(Path::parse_mod_style)?;
    let relative = path.segments.first().is_some_and(|first| {
        ["crate", "self", "super"]
            .iter()
            .any(|keyword| first.ident == keyword)
    });
    if !relative && path.leading_colon.is_none() {
        path.leading_colon = Some(Token![::](Span::call_site()));
    }
    Ok(path)
}
