//! Tests that run inside an enclave: functions with `#[enclave_test]`.

use alloc::vec::Vec;

use enclave_abi::call::Outcome;

/// A test; what the attribute makes.
#[doc(hidden)]
#[derive(Debug)]
pub struct Test {
    pub name: &'static str,
    pub panics: bool,
    pub run: fn(),
}

unsafe extern "Rust" {
    /// The tests of the enclave's program, where it was built for them; [`crate::serve`]
    /// makes it. Only that program is built anew for its tests.
    safe fn enclave_test_list() -> &'static [Test];
}

pub(crate) fn dispatch(number: u32, arguments: &[u8]) -> Result<Vec<u8>, Outcome> {
    use enclave_abi::call::function;

    match number {
        function::TESTS => {
            let mut names = Vec::new();
            for test in enclave_test_list() {
                names.extend_from_slice(if test.panics { b"!" } else { b"" });
                names.extend_from_slice(test.name.as_bytes());
                names.push(b'\n');
            }
            Ok(names)
        }
        function::TEST => {
            let test = enclave_test_list().iter().find(|test| test.name.as_bytes() == arguments);
            (test.ok_or(Outcome::NoFunction)?.run)();
            Ok(Vec::new())
        }
        _ => Err(Outcome::NoFunction),
    }
}
