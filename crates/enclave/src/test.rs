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

#[cfg(not(enclave_test))]
pub(crate) fn dispatch(_number: u32, _arguments: &[u8]) -> Result<Vec<u8>, Outcome> {
    Err(Outcome::NoFunction)
}

#[cfg(enclave_test)]
pub(crate) fn dispatch(number: u32, arguments: &[u8]) -> Result<Vec<u8>, Outcome> {
    use enclave_abi::call::function;

    match number {
        function::TESTS => {
            let mut names = Vec::new();
            for test in tests() {
                names.extend_from_slice(if test.panics { b"!" } else { b"" });
                names.extend_from_slice(test.name.as_bytes());
                names.push(b'\n');
            }
            Ok(names)
        }
        function::TEST => {
            let test = tests().iter().find(|test| test.name.as_bytes() == arguments);
            (test.ok_or(Outcome::NoFunction)?.run)();
            Ok(Vec::new())
        }
        _ => Err(Outcome::NoFunction),
    }
}

/// The section that the attribute fills.
#[cfg(enclave_test)]
fn tests() -> &'static [Test] {
    unsafe extern "C" {
        static __start_enclave_tests: u8;
        static __stop_enclave_tests: u8;
    }
    let (start, end) = (&raw const __start_enclave_tests, &raw const __stop_enclave_tests);
    let (start, end) = (start.cast::<Test>(), end.cast::<Test>());
    // SAFETY: the linker's names for both ends of the section, which holds nothing else.
    unsafe { core::slice::from_raw_parts(start, end.offset_from(start) as usize) }
}
