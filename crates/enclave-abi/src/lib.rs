//! The contract between three programs that are built apart: the enclave (crate
//! `enclave`), the tool that makes a signed SGXS file of its ELF file, and the
//! host that loads and calls it (crate `enclave-host`).
//!
//! * [`build`]: how an enclave is compiled and linked, and what its ELF file holds
//! * [`layout`]: where everything lies in the enclave's address space
//! * [`call`]: registers and memory at the boundary, when entering and leaving
//! * [`encrypted`]: enclaves whose program is ciphertext until they are given its key
//!
//! All offsets are in bytes from the enclave's base address (ELRANGE).
#![no_std]
#![forbid(unsafe_code)]

pub mod build;
pub mod call;
pub mod encrypted;
pub mod layout;

pub use layout::{Area, Content, Image, Layout, LayoutError, Settings, Thread};
