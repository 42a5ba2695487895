//! Enclaves without an operating system: made, signed, launched, entered and
//! resumed by guest code, with the real keys and the real cryptography. What
//! Linux does not do with enclaves is judged here.

mod debugger;
mod launch;
mod machine;
mod notify;
mod processors;
