//! What compiled code calls without being asked.
#![cfg(not(test))]

enclave_base::memory_functions!();
