//! What a service says went wrong.

use std::fmt;

/// A code of `aesm_error_t` (`aesm_error.h` of Intel's platform software): the first field
/// of every response. There may be more than those with a name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// What it means, or nothing for a code without a name.
            fn text(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// It succeeded.
    SUCCESS = 0, "success";
    /// Something that has no code.
    UNEXPECTED = 1, "unexpected error";
    /// No SGX device.
    NO_DEVICE = 2, "no SGX device";
    /// A field is missing, or of a length or value that it cannot have.
    PARAMETER = 3, "a parameter is missing or cannot be";
    /// The service cannot read or write a file of its own.
    FILE_ACCESS = 15, "a file of the service cannot be read or written";
    /// The service has too much to do.
    BUSY = 18, "busy";
    /// No memory.
    OUT_OF_MEMORY = 21, "out of memory";
    /// The message is no request.
    MESSAGE = 22, "the message is no request";
    /// No memory for enclaves.
    OUT_OF_EPC = 29, "out of EPC";
    /// There is no such service on this platform.
    SERVICE_UNAVAILABLE = 30, "the service is not available";
    /// The sealed attestation key cannot be used.
    ATT_KEY_BLOB = 37, "the sealed attestation key cannot be used";
    /// No quoting enclave has that attestation key identifier.
    UNSUPPORTED_ATT_KEY_ID = 38, "no quoting enclave has that attestation key identifier";
    /// There is no attestation key yet.
    ATT_KEY_NOT_INITIALIZED = 42, "there is no attestation key";
    /// The certificates behind the attestation key are not as they should be.
    ATT_KEY_CERT_DATA_INVALID = 43, "the certificates behind the attestation key cannot be used";
    /// There are no certificates for this platform.
    NO_PLATFORM_CERT_DATA = 44, "there are no certificates for this platform";
    /// The enclave was lost, with its memory.
    ENCLAVE_LOST = 46, "the quoting enclave was lost";
    /// The report is not one for the quoting enclave, made on this processor.
    INVALID_REPORT = 47, "the report is none for the quoting enclave";
    /// An architectural enclave cannot be loaded.
    ENCLAVE_LOAD = 48, "an architectural enclave cannot be loaded";
    /// The quoting enclave cannot report to the enclave that asked.
    UNABLE_TO_GENERATE_QE_REPORT = 49, "the quoting enclave cannot report to that enclave";
    /// The attestation key cannot be certified.
    KEY_CERTIFICATION = 50, "the attestation key cannot be certified";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{text} (AESM {})", self.0),
            None => write!(f, "AESM error {}", self.0),
        }
    }
}
