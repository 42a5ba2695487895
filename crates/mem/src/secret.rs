//! Host memory for what an SGX platform keeps *on the processor*: root keys,
//! the register state of enclaves, the plaintext of EPC pages.
//!
//! * [`Region`]: pages that nobody but this process can read where the host
//!   offers that ([`Backend`] says what it offers), wiped when dropped
//! * [`SecretBox`], [`SecretSlice`]: values in a region of their own
//! * [`SecretStack`], [`spawn_on_secret_stack`]: a thread's copies stay there too
//! * [`scrub_registers`], [`scrub_stack`]: what a computation leaves behind
//! * [`available_lock_bytes`]: how much of such memory the user may have
//!
//! `docs/secret-memory.md` says what each back end guarantees and what none does.

mod lock;
mod region;
mod scrub;
mod stack;
mod value;

pub use lock::available_lock_bytes;
pub use region::{Backend, PAGE, Region, SecretError, weakest};
pub use scrub::{scrub_registers, scrub_stack};
pub use stack::{DEFAULT_STACK_BYTES, SecretStack, spawn_on_secret_stack};
pub use value::{Plain, SecretBox, SecretSlice};
