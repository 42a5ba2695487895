//! The inside of an SGX enclave, on stock stable Rust.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! extern crate alloc;
//! use alloc::{format, string::String};
//! use hello_interface::Hello;
//!
//! struct Polite;
//! static POLITE: Polite = Polite;
//!
//! impl Hello for Polite {
//!     fn greet(&self, name: &str) -> String {
//!         format!("Hello, {name}, from inside")
//!     }
//! }
//!
//! enclave::serve!(Hello, POLITE);
//! ```
//!
//! `kluis enclave build` makes a signed enclave of such a package, the crate
//! `enclave-host` loads and calls it. The whole way is in docs/enclaves.md.
//!
//! * [`host`]: calls to the outside
//! * [`sealing`], [`report`], [`key`]: what the processor knows of this enclave
//! * [`random`]: the processor's random numbers
//! * [`sync`]: locks for the threads that the host brings
//! * [`exception`]: what to do about faults
//! * [`mod@test`]: functions that run as tests inside an enclave
//!
//! A panic ends the enclave for good, on all its threads. In a production enclave
//! nothing of it leaves: neither message nor place.
#![no_std]

extern crate alloc;
// the attribute's code names this crate
extern crate self as enclave;

mod abort;
mod boundary;
mod call;
mod entry;
pub mod exception;
#[doc(hidden)]
pub mod heap;
pub mod host;
pub mod key;
mod mailbox;
mod memory;
pub mod random;
pub mod report;
pub mod sealing;
pub mod sync;
pub mod test;
mod thread;

#[doc(hidden)]
pub use abort::panicked;
#[doc(hidden)]
pub use alloc::format;
pub use enclave_interface as interface;
/// Marks a function of the enclave's package as a test that runs inside, where
/// `kluis enclave test` builds it so. `#[enclave_test(should_panic)]` expects a panic.
pub use enclave_macros::enclave_test;
pub use sgx_abi;
pub use thread::thread_number;

/// Makes a program an enclave: an interface, and the `static` that implements it. It
/// stands once, in the package's `main.rs`.
#[macro_export]
macro_rules! serve {
    ($interface:path, $server:path) => {
        #[global_allocator]
        static HEAP: $crate::heap::Heap = $crate::heap::Heap::new();

        #[panic_handler]
        fn panicked(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::panicked(info)
        }

        #[unsafe(no_mangle)]
        extern "Rust" fn enclave_dispatch(
            function: u32,
            arguments: &[u8],
        ) -> ::core::result::Result<$crate::interface::wire::Vec<u8>, $crate::interface::DispatchError> {
            <_ as $interface>::dispatch(&$server, function, arguments)
        }

        #[cfg(not(enclave_test))]
        #[unsafe(no_mangle)]
        extern "Rust" fn enclave_test_list() -> &'static [$crate::test::Test] {
            &[]
        }

        #[cfg(enclave_test)]
        #[unsafe(no_mangle)]
        extern "Rust" fn enclave_test_list() -> &'static [$crate::test::Test] {
            unsafe extern "C" {
                static __start_enclave_tests: $crate::test::Test;
                static __stop_enclave_tests: $crate::test::Test;
            }
            let (start, end) = (&raw const __start_enclave_tests, &raw const __stop_enclave_tests);
            // SAFETY: the linker's names for both ends of the section that the attribute
            // fills, and nothing else does.
            unsafe { ::core::slice::from_raw_parts(start, end.offset_from(start) as usize) }
        }
    };
}
