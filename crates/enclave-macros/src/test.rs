//! `#[enclave_test]`: a function that the tool calls inside an enclave.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, ItemFn, Result};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let panics = match arguments.to_string().as_str() {
        "" => false,
        "should_panic" => true,
        _ => return Err(Error::new(arguments.span(), "takes nothing or `should_panic`")),
    };
    let function: ItemFn = syn::parse2(item)?;
    if !function.sig.inputs.is_empty() {
        return Err(Error::new(function.sig.inputs.span(), "a test has no parameters"));
    }
    let name = &function.sig.ident;
    Ok(quote! {
        #[cfg(enclave_test)]
        const _: () = {
            #[used]
            #[unsafe(link_section = "enclave_tests")]
            static TEST: ::enclave::test::Test = ::enclave::test::Test {
                name: ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)),
                panics: #panics,
                run: || { #name(); },
            };
        };

        #[cfg(enclave_test)]
        #function
    })
}
