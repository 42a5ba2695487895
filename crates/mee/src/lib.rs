//! Memory encryption engine: the EPC as encrypted DRAM.
//!
//! As on silicon with SGX, main memory holds only ciphertext, version counters
//! and integrity codes; plaintext, keys and the root of the integrity tree are
//! *on the processor*, here memory for secrets ([`mem::secret`]). The design
//! follows *S. Gueron, A Memory Encryption Engine Suitable for General Purpose
//! Processors* (2016), at the grain of pages rather than cache lines.
//!
//! # In DRAM
//!
//! Per 4 KiB page: ciphertext in counter mode of AES-128, a 16-byte
//! authentication code, and a *word* in the tree: a 62-bit version and what the
//! page holds (nothing, or ciphertext). Each write-back raises the version, so
//! that the counter blocks (page ‖ version ‖ block) never repeat under a key, and
//! no two contents of a page, or of two pages, share a key stream. The code is
//! Wegman–Carter: POLYVAL (RFC 8452) of the ciphertext, masked with the block 0
//! of the same stream; it is therefore bound to page and version too. A page that
//! was never written, or was [discarded](Dram::discard), says so in its word and
//! reads as zeros; that too is under the tree.
//!
//! Words are gathered by 64 in nodes, whose codes are bound to their place and
//! to a counter in the node above; that counter rises when the node is written.
//! The counters of the top nodes (512 at most) are on the processor. So an older
//! state of any part of DRAM, or of all of it, does not verify.
//!
//! # On the processor
//!
//! Keys (drawn anew at each [reset](Dram::reset)), the top counters, a few tree
//! nodes, and a bounded cache of plaintext pages, the *slots*. Processors reach
//! plaintext through host addresses from [`Dram::fill`], kept in their TLBs.
//!
//! # Giving slots back
//!
//! A slot may go to another page only when no processor has its address any
//! more. Nothing ever waits inside an instruction; instead:
//!
//! 1. [`Dram::begin_evict`] marks victims as *leaving* and raises the epoch.
//! 2. At an instruction boundary, a processor that finds a new
//!    [`Dram::epoch`] `e` drops the translations for which [`Dram::is_leaving`],
//!    and then calls [`Dram::acknowledge`]`(cpu, e)`, with no fill in between.
//! 3. [`Dram::finish_evict`] writes back and frees the slots that left at an
//!    epoch all their holders have acknowledged.
//!
//! Why that is sound:
//!
//! * Marks are set before the epoch is raised and the processor reads them in
//!   the opposite order (release, acquire): who sees `e` sees all of its marks.
//! * A fill of a leaving page *rescues* it: the mark goes, the slot stays. Others
//!   may have dropped it; they fill again if they need it. Others who have not
//!   come to look yet find no mark and keep a translation that is good.
//! * A slot leaves *at an epoch*. Rescued and chosen again, it leaves at a later
//!   one, which a processor that used the rescue has not acknowledged yet.
//! * A processor that looked before a batch began acknowledges an older epoch,
//!   so its answer does not count for that batch.
//! * Its accesses through a dropped translation precede its acknowledgement
//!   (release), which precedes the write-back (acquire): nothing written is lost.
//! * A processor counts as idle (the closure of [`Dram::finish_evict`]) only if
//!   it drops every EPC translation before it executes again; it may have slept
//!   through a slot's whole departure and its use for another page.
//! * A slot no processor ever filled (pages the leaves touched through
//!   [`Dram::read`] and [`Dram::write`]) has no holders and is taken at once.
//!
//! Slots are read and written while guest processors access them; this goes
//! through single host instructions ([`mem::raw`]) and raw pointers only.
//!
//! # Loss
//!
//! What does not verify locks the whole engine (*drop-and-lock*): plaintext and
//! keys are wiped and every later access gives [`Lost`], until a reset.

mod cipher;
mod dram;
mod error;
mod evict;
mod hash;
mod memory;
mod slots;
mod state;
mod tamper;
#[cfg(test)]
mod tests;
mod tree;

pub use dram::{Config, Dram, MAX_PAGES, PAGE, Stats};
pub use error::{Loss, Lost, MeeError, TamperError};
pub use tamper::{Drill, Recording, TamperReport};
