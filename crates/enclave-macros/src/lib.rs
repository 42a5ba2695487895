//! Attributes of enclave programs. They are exported, with their documentation, by the
//! crates whose names they use: `enclave_interface::interface`, `enclave::enclave_test`.
#![forbid(unsafe_code)]

mod bytes;
mod interface;
mod test;

use proc_macro::TokenStream;

/// See `enclave_interface::interface`.
#[proc_macro_attribute]
pub fn interface(arguments: TokenStream, item: TokenStream) -> TokenStream {
    finish(interface::expand(arguments.into(), item.into()))
}

/// See `enclave::enclave_test`.
#[proc_macro_attribute]
pub fn enclave_test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    finish(test::expand(arguments.into(), item.into()))
}

fn finish(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded.unwrap_or_else(|error| error.to_compile_error()).into()
}
