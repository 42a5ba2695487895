//! How a client gives the enclave its key, in TLS: [`KEY`] and the key's bytes; the enclave says
//! [`KEPT`] when it has it.

/// What a client sends before the key.
pub const KEY: &[u8; 16] = b"key of records 1";
/// What it hears when the enclave has it.
pub const KEPT: &[u8; 4] = b"kept";
