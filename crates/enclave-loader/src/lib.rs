//! The loader of an encrypted enclave: the part that is in clear. It is a program of its own
//! in the enclave's address space, which `kluis enclave build --encrypted` builds:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! enclave_loader::program!();
//! ```
//!
//! Layout, cipher and messages are those of [`enclave_abi::encrypted`].
//!
//! * [`mod@entry`]: the way in and out
//! * [`unlock`]: what is answered, and in which order
//! * `sealed`: the key, sealed for the next time
//!
//! There is no heap, and nobody handles exceptions: one ends the thread that raised it, and
//! leaves the enclave locked.
#![no_std]

#[doc(hidden)]
pub mod entry;
mod sealed;
#[doc(hidden)]
pub mod unlock;

#[doc(hidden)]
pub use enclave_abi::{Layout, encrypted::Payload};
#[doc(hidden)]
pub use enclave_base::memory_functions;

/// Memory aligned as [`Payload`] must be.
#[doc(hidden)]
#[repr(C, align(1024))]
pub struct Aligned(pub Payload);

/// Makes a program the loader. It stands once, in its `main.rs`.
#[macro_export]
macro_rules! program {
    () => {
        $crate::memory_functions!();
        $crate::entry_point!();

        /// A panic is a mistake here: the thread ends, with the enclave locked.
        #[panic_handler]
        fn panicked(_: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::unlock::stop()
        }

        /// See `enclave_abi::build`: the tool fills it in.
        #[used]
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".enclave.layout")]
        static ENCLAVE_LAYOUT: $crate::Layout = $crate::Layout::BLANK;

        /// See `enclave_abi::encrypted`: the tool fills it in.
        #[used]
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".enclave.payload")]
        static ENCLAVE_PAYLOAD: $crate::Aligned = $crate::Aligned($crate::Payload::BLANK);
    };
}
