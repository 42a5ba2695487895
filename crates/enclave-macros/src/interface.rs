//! `#[interface]`: from one trait both sides of a boundary.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Ident, ItemTrait, Pat, Result, ReturnType, TraitItem, TraitItemFn, Type};

use crate::bytes::{Form, arguments};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new(arguments.span(), "takes no arguments"));
    }
    let mut item: ItemTrait = syn::parse2(item)?;
    if !item.generics.params.is_empty() {
        return Err(Error::new(item.generics.span(), "an interface has no generic parameters"));
    }
    let functions = item.items.iter().map(Function::new).collect::<Result<Vec<_>>>()?;
    let calls: Vec<_> = functions.iter().zip(0u32..).map(|(f, number)| f.call(number)).collect();
    let arms: Vec<_> = functions.iter().zip(0u32..).map(|(f, number)| f.arm(number)).collect();
    let (visibility, name) = (item.vis.clone(), item.ident.clone());
    let client = format_ident!("{name}Client");
    let about = format!("Calls the functions of [`{name}`] on the other side of the boundary.");
    item.items.push(syn::parse_quote! {
        /// Calls the function of this number with encoded arguments; its encoded result.
        #[doc(hidden)]
        fn dispatch(
            &self,
            function: u32,
            arguments: &[u8],
        ) -> ::core::result::Result<::enclave_interface::wire::Vec<u8>, ::enclave_interface::DispatchError> {
            match function {
                #(#arms)*
                _ => ::core::result::Result::Err(::enclave_interface::DispatchError::NoFunction),
            }
        }
    });
    Ok(quote! {
        #item

        #[doc = #about]
        #[derive(Clone, Copy, Debug)]
        #visibility struct #client<C>(
            /// What carries the calls.
            pub C,
        );

        impl<C: ::enclave_interface::Caller> #client<C> {
            #(#calls)*
        }
    })
}

/// One function of the trait.
struct Function<'a> {
    documentation: Vec<&'a Attribute>,
    name: &'a Ident,
    parameters: Vec<(&'a Ident, &'a Type)>,
    result: Option<&'a Type>,
}

impl<'a> Function<'a> {
    fn new(item: &'a TraitItem) -> Result<Self> {
        let TraitItem::Fn(TraitItemFn { attrs, sig, default: None, .. }) = item else {
            return Err(Error::new(item.span(), "an interface has functions without bodies only"));
        };
        if !sig.generics.params.is_empty() || sig.asyncness.is_some() || sig.unsafety.is_some() {
            return Err(Error::new(sig.span(), "a function here is neither generic, async nor unsafe"));
        }
        let mut inputs = sig.inputs.iter();
        match inputs.next() {
            Some(FnArg::Receiver(this)) if this.reference.is_some() && this.mutability.is_none() => {}
            _ => {
                return Err(Error::new(
                    sig.span(),
                    "the first parameter is `&self`: many threads call at a time",
                ));
            }
        }
        let parameters = inputs.map(|input| match input {
            FnArg::Typed(typed) => match &*typed.pat {
                Pat::Ident(name) => Ok((&name.ident, &*typed.ty)),
                other => Err(Error::new(other.span(), "a parameter is a plain name")),
            },
            FnArg::Receiver(this) => Err(Error::new(this.span(), "`self` comes first")),
        });
        Ok(Self {
            documentation: attrs.iter().filter(|a| a.path().is_ident("doc")).collect(),
            name: &sig.ident,
            parameters: parameters.collect::<Result<_>>()?,
            result: match &sig.output {
                ReturnType::Default => None,
                ReturnType::Type(_, ty) => Some(ty),
            },
        })
    }

    /// The client's function.
    fn call(&self, number: u32) -> TokenStream {
        let Self { documentation, name, .. } = self;
        let (names, types): (Vec<_>, Vec<_>) = self.parameters.iter().copied().unzip();
        let sent = self.parameters.iter().map(|(name, ty)| Form::of(ty).wrap(quote!(#name)));
        let (result, wire, value) = self.result();
        quote! {
            #(#documentation)*
            pub fn #name(
                &self,
                #(#names: #types),*
            ) -> ::core::result::Result<#result, ::enclave_interface::CallError<C::Error>> {
                let reply: #wire = ::enclave_interface::wire::call(&self.0, #number, &(#(#sent,)*))?;
                ::core::result::Result::Ok(#value)
            }
        }
    }

    /// The server's arm for its number.
    fn arm(&self, number: u32) -> TokenStream {
        let name = self.name;
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        let wire = self.parameters.iter().map(|(_, ty)| Form::of(ty).wire(ty));
        let values = self.parameters.iter().map(|(name, ty)| Form::of(ty).unwrap(quote!(#name)));
        let sent = match self.result {
            Some(ty) => match arguments(ty, "Result").as_deref() {
                Some([ok, _]) if Form::of(ok) == Form::Owned => {
                    let ok = Form::Owned.wrap(quote!(ok));
                    quote!(&result.as_ref().map(|ok| #ok))
                }
                _ => Form::of(ty).wrap(quote!(result)),
            },
            None => quote!(&result),
        };
        quote! {
            #number => {
                let (#(#names,)*) = ::enclave_interface::wire::arguments::<(#(#wire,)*)>(arguments)?;
                let result = self.#name(#(#values),*);
                ::enclave_interface::wire::result(#sent)
            }
        }
    }

    /// Type of the result, the type that is deserialised, and how the one is made of the
    /// other, `reply`.
    fn result(&self) -> (TokenStream, TokenStream, TokenStream) {
        let Some(ty) = self.result else { return (quote!(()), quote!(()), quote!(reply)) };
        if let Some([ok, error]) = arguments(ty, "Result").as_deref()
            && Form::of(ok) == Form::Owned
        {
            let wire = Form::Owned.wire(ok);
            let value = Form::Owned.unwrap(quote!(ok));
            return (
                quote!(#ty),
                quote!(::core::result::Result<#wire, #error>),
                quote!(reply.map(|ok| #value)),
            );
        }
        let form = Form::of(ty);
        (quote!(#ty), form.wire(ty), form.unwrap(quote!(reply)))
    }
}
