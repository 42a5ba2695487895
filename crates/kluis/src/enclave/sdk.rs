//! The SDK that travels in this program: the sources that enclaves and their host
//! programs are built with.

/// Paths, in the SDK's folder, and contents.
pub(crate) const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
