//! `&[u8]` and `Vec<u8>` cross the boundary as one piece, not byte by byte as serde
//! has it for slices.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{GenericArgument, PathArguments, Type};

/// How a type crosses the boundary.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As serde has it.
    Plain,
    /// `&[u8]`.
    Borrowed,
    /// `Vec<u8>`.
    Owned,
}

impl Form {
    pub(crate) fn of(ty: &Type) -> Self {
        match ty {
            Type::Reference(reference) if reference.mutability.is_none() => match &*reference.elem {
                Type::Slice(slice) if is_u8(&slice.elem) => Self::Borrowed,
                _ => Self::Plain,
            },
            ty if arguments(ty, "Vec").is_some_and(|a| a.len() == 1 && is_u8(a[0])) => Self::Owned,
            _ => Self::Plain,
        }
    }

    /// What is serialised for a value.
    pub(crate) fn wrap(self, value: TokenStream) -> TokenStream {
        match self {
            Self::Plain => quote!(&#value),
            Self::Borrowed => quote!(::enclave_interface::wire::Bytes::new(#value)),
            Self::Owned => quote!(::enclave_interface::wire::Bytes::new(&#value)),
        }
    }

    /// The type that is deserialised.
    pub(crate) fn wire(self, ty: &Type) -> TokenStream {
        match self {
            Self::Plain => quote!(#ty),
            Self::Borrowed => quote!(&::enclave_interface::wire::Bytes),
            Self::Owned => quote!(::enclave_interface::wire::ByteBuf),
        }
    }

    /// The value that was deserialised.
    pub(crate) fn unwrap(self, value: TokenStream) -> TokenStream {
        match self {
            Self::Plain => value,
            Self::Borrowed => quote!(&**#value),
            Self::Owned => quote!(#value.into_vec()),
        }
    }
}

/// The types in `Name<…>`, if `ty` is that.
pub(crate) fn arguments<'a>(ty: &'a Type, name: &str) -> Option<Vec<&'a Type>> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(list) = &last.arguments else { return None };
    let types = list.args.iter().map(|a| if let GenericArgument::Type(t) = a { Some(t) } else { None });
    if last.ident == name { types.collect() } else { None }
}

fn is_u8(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident("u8"))
}
