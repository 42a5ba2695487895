//! What can go wrong.

use std::io;

use mem::secret::SecretError;

/// Why there is no encrypted memory.
#[derive(Debug, thiserror::Error)]
pub enum MeeError {
    /// No pages, or more than [`crate::MAX_PAGES`].
    #[error("an EPC of {0} pages cannot be had; ask for 1 to {max}", max = crate::MAX_PAGES)]
    Pages(u32),
    /// The plaintext cache is too small to make progress, or too large.
    #[error(
        "a cache of {cache} plaintext pages does not do for {processors} processors; ask for {min} to {max}"
    )]
    Cache {
        /// Pages asked for.
        cache: u32,
        /// Processors asked for.
        processors: usize,
        /// Least that does.
        min: u32,
        /// Most that does.
        max: u32,
    },
    /// No address space for the ciphertext.
    #[error(
        "cannot map {bytes} bytes of address space for encrypted memory: {source}; lower the EPC or raise the limit (ulimit -v)"
    )]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's reason.
        source: io::Error,
    },
    /// No memory for what is on the processor.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The host gave no random bytes for keys.
    #[error("the host gave no random bytes for memory encryption keys: {0}; see getrandom(2)")]
    Random(getrandom::Error),
}

/// The EPC's content is lost until the next reset; [`crate::Dram::loss`] says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the EPC's content is lost; reset the machine")]
pub struct Lost;

/// Why the EPC's content was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// A page's ciphertext, code or version is not what was written last.
    #[error("page {page} of the EPC did not verify: its memory was modified, moved or replayed")]
    Page {
        /// Page number.
        page: u32,
    },
    /// A tree node is not what was written last.
    #[error(
        "node {index} on level {level} of the integrity tree did not verify: its memory was modified, moved or replayed"
    )]
    Node {
        /// Level; 0 holds the pages' words.
        level: usize,
        /// Place on that level.
        index: u32,
    },
    /// A power transition ([`crate::Dram::lose`]).
    #[error("power transition")]
    Power,
}

/// Why a tamper drill was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TamperError {
    /// There is no such page.
    #[error("the EPC has no page {page}; it has {pages}")]
    NoPage {
        /// Page asked for.
        page: u32,
        /// Pages there are.
        pages: u32,
    },
    /// Processors hold the page's plaintext; it has been made to leave. Try again
    /// when this epoch has been acknowledged and finished.
    #[error("page is in use by processors and leaves at epoch {epoch}; let them run and try again")]
    InUse {
        /// The epoch at which it leaves.
        epoch: u64,
    },
    /// The page's memory was recorded before a reset, or of another size.
    #[error("the recording is of another run of this memory; record again")]
    Stale,
    /// Lost already.
    #[error(transparent)]
    Lost(#[from] Lost),
}
